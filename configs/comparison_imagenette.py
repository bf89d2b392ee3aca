"""Pre-training on Imagenette at 64 pixels, under one budget: one cosine, the same cycles without a teacher, Snapshot Distillation.

    python -m distill_jax.compare configs/comparison_imagenette.py --workdir=runs/imagenette --config.data.name=folder:DIR/imagenette

20 epochs, three seeds of each. configs/comparison_transfer_camvid.py fine-tunes from them.
"""

from configs import imagenette, sd_cifar100


def get_config():
    config = imagenette.get_config()
    config.epochs = 20
    config.seeds = 3
    return config


def get_arms():
    return {name: (changes, [{}]) for name, changes in methods().items()}


def methods():
    cycles = {"cycles": 2}
    return {
        "cosine": {},
        "cycles": {"schedule": cycles},
        "sd": {"schedule": cycles, "method": sd_cifar100.get_config().method.to_dict()},
    }
