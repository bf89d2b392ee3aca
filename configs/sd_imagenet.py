"""Snapshot Distillation on ImageNet (Yang et al., CVPR 2019, arXiv 1812.00123). Never run by us at this size.

    python run.py --config=configs/sd_imagenet.py --config.data.name=folder:/data/imagenet --workdir=/data/sd

Data, recipe and larger batches: see configs/supervised_imagenet.py. The paper's networks are ResNet-101 and ResNet-152.
"""

from ml_collections import ConfigDict

from configs import supervised_imagenet


def get_config():
    config = supervised_imagenet.imagenet()
    config.model.name = "resnet101"
    config.schedule.cycles = 2  # K
    config.schedule.warmup_epochs = 0.0  # open: the paper's schedule has none that we know of
    config.method = ConfigDict()
    config.method.name = "snapshot"
    config.method.temperature = 2.0  # T, softens the teacher; the paper uses 2 or 3
    config.method.symmetric = False  # True: soften the student as well, and multiply the KL by T^2
    return config
