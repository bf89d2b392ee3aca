"""Pre-training on Imagenette in two learning-rate cycles without a teacher: the baseline of configs/sd_imagenette.py.

python run.py --config=configs/imagenette_cycles.py --config.data.name=folder:DIR/imagenette --workdir=runs/imagenette_cycles
"""

from configs import imagenette


def get_config():
    config = imagenette.get_config()
    config.schedule.cycles = 2
    return config
