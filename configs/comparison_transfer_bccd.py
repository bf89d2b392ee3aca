"""Detection on BCCD from random weights, and from the trunks that configs/comparison_imagenette.py trained; seed n from seed n.

    python -m distill_jax.compare configs/comparison_transfer_bccd.py:PRETRAINED --workdir=runs/bccd --config.data.name=voc:DIR/bccd/BCCD

PRETRAINED is the workdir of that comparison. For a quarter of the training set: --config.data.train_examples=51. For raccoons:
--config.data.name=voc:DIR/raccoon.
"""

from configs import bccd_detection, comparison_transfer_camvid


def get_config(pretrained=""):
    config = bccd_detection.get_config()
    config.seeds = 3
    return config


get_arms = comparison_transfer_camvid.get_arms
