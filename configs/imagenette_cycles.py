"""Pre-training on Imagenette in two cycles of the learning rate, without a teacher: what remains of configs/sd_imagenette.py without SD.

python run.py --config=configs/imagenette_cycles.py --config.data.name=folder:DIR/imagenette --workdir=runs/imagenette_cycles
"""

from configs import imagenette


def get_config():
    config = imagenette.get_config()
    config.schedule.cycles = 2
    return config
