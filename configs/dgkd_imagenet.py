"""Densely guided distillation on ImageNet, down to ResNet-18 (Son et al., ICCV 2021, arXiv 2009.08825). Never run at this size.

    python run.py --config=configs/dgkd_imagenet.py --config.data.name=folder:/data/imagenet --workdir=/data/dgkd

The paper's ResNet-18, with ResNet-34 as the teacher: TAKD 71.37, DGKD 71.73 %. Data, recipe and larger batches: see
configs/supervised_imagenet.py.
"""

from configs import dgkd_cifar100_plain, supervised_imagenet


def get_config():
    config = supervised_imagenet.imagenet()
    config.model.name = "resnet18"  # the stages set it
    config.stages = dgkd_cifar100_plain.densely_guided()
    config.stages.path = ("resnet50", "resnet34", "resnet18")  # open: the paper's assistants between ResNet-34 and ResNet-18
    return config
