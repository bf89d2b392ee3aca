"""Densely guided distillation on CIFAR-100, from WRN-40-2 to WRN-16-2 (Son et al., ICCV 2021, arXiv 2009.08825).

    python run.py --config=configs/dgkd_cifar100_wrn.py --config.data.dir=DIR --workdir=/data/dgkd

The paper's students: TAKD 75.04, DGKD 76.24 %. Fourteen runs. From VGG-13 to VGG-8: --config.stages.path="('vgg13','vgg11','vgg8')".
"""

from ml_collections import ConfigDict

from configs import dgkd_cifar10_resnet


def get_config():
    config = dgkd_cifar10_resnet.get_config()
    config.data.name = "cifar100"
    config.model = ConfigDict({"name": "wrn16_2"})  # has no shortcut option; the stages set the name
    config.stages.path = ("wrn40_2", "wrn34_2", "wrn28_2", "wrn22_2", "wrn16_2")  # open: the paper's assistants; these are all there are
    return config
