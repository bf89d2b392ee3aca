"""Tolerant teachers on ImageNet (Yang, Xie, Qiao, Yuille, AAAI 2019, arXiv 1805.05551).

    python run.py --config=configs/tolerant_imagenet.py --config.data.dir=DIR --workdir=/data/tolerant --config.dtype=bfloat16

Never run by us. Images are of 64x64 pixels, so that the training set, 16 GB, fits into the memory of each device; the paper's are larger,
and its network and its settings are not known to us. The recipe is that of He et al. (arXiv 1512.03385).
"""

from configs import tolerant_cifar100


def get_config():
    config = tolerant_cifar100.get_config()
    config.epochs = 90
    config.batch_size = 256
    config.data.name = "tfds:imagenet_resized/64x64"
    config.data.crop_padding = 8
    config.model.name = "resnet18"
    config.schedule.name = "step"
    config.schedule.boundaries = (1 / 3, 2 / 3)  # a tenth at each
    config.stages.generations = 2
    return config
