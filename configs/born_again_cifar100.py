"""Born-again networks on CIFAR-100 (Furlanello et al., ICML 2018, arXiv 1805.04770): generations after a strict first network.

python run.py --config=configs/born_again_cifar100.py --config.data.dir=DIR --workdir=/data/born_again
"""

from configs import tolerant_cifar100


def get_config():
    config = tolerant_cifar100.get_config()
    config.stages.eta = 1.0
    return config
