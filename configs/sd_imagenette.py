"""Pre-training on Imagenette by Snapshot Distillation, at the budget of configs/imagenette.py.

python run.py --config=configs/sd_imagenette.py --config.data.name=folder:DIR/imagenette --workdir=runs/sd_imagenette
"""

from configs import imagenette_cycles, sd_cifar100


def get_config():
    config = imagenette_cycles.get_config()
    config.method = sd_cifar100.get_config().method
    return config
