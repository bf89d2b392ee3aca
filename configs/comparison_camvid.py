"""Snapshot Distillation of a segmentation network on CamVid, against its baselines under one budget.

python -m distill_jax.compare configs/comparison_camvid.py --workdir=runs/camvid_sd --config.data.name=masks:DIR/camvid
"""

from configs import camvid_segmentation, comparison_imagenette


def get_config():
    config = camvid_segmentation.get_config()
    config.seeds = 3
    return config


def get_arms():
    return comparison_imagenette.get_arms()
