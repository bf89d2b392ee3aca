"""Snapshot Distillation on ImageNet (Yang et al., CVPR 2019, arXiv 1812.00123). Never run at this size.

    python run.py --config=configs/sd_imagenet.py --config.data.name=folder:/data/imagenet --workdir=/data/sd

Data, recipe and larger batches: see configs/supervised_imagenet.py. The paper's networks are ResNet-101 and ResNet-152.
"""

from configs import sd_cifar100, supervised_imagenet


def get_config():
    config = supervised_imagenet.imagenet()
    config.model.name = "resnet101"
    config.schedule.cycles = 2  # K
    config.schedule.warmup_epochs = 0.0  # open: as far as we know, the paper's schedule has none
    config.method = sd_cifar100.get_config().method
    return config
