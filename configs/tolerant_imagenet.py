"""Tolerant teachers on ImageNet (Yang, Xie, Qiao, Yuille, AAAI 2019, arXiv 1805.05551). Never run at this size.

    python run.py --config=configs/tolerant_imagenet.py --config.data.name=folder:/data/imagenet --workdir=/data/tolerant

Data, recipe and larger batches: see configs/supervised_imagenet.py. We do not know the paper's network and settings.
"""

from configs import supervised_imagenet, tolerant_cifar100


def get_config():
    config = supervised_imagenet.imagenet()
    config.model.name = "resnet18"
    config.stages = tolerant_cifar100.generations()
    config.stages.generations = 2
    return config
