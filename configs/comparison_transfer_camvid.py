"""Segmentation of CamVid from random weights, and from the trunks that configs/comparison_imagenette.py trained; seed n from seed n.

    python -m distill_jax.compare configs/comparison_transfer_camvid.py:PRETRAINED --workdir=runs/camvid --config.data.name=masks:DIR/camvid

PRETRAINED is the workdir of that comparison. For a quarter of the training set: --config.data.train_examples=92.
"""

from configs import camvid_segmentation, comparison_imagenette


def get_config(pretrained=""):
    config = camvid_segmentation.get_config()
    config.seeds = 3
    return config


def get_arms(pretrained=""):
    if not pretrained:
        raise ValueError(
            "name the workdir of the pre-training after a colon, such as configs/comparison_transfer_camvid.py:runs/imagenette"
        )
    arms = {"random": {}} | {name: {"initial": f"{pretrained}/{name}/final/seed_{{seed}}"} for name in comparison_imagenette.methods()}
    return {name: (changes, [{}]) for name, changes in arms.items()}
