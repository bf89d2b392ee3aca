"""Pre-training on Imagenette (10 classes, 9,469 images for training) at 64 pixels: a ResNet-18 of half the width, one cosine, labels alone.

    python run.py --config=configs/imagenette.py --config.data.name=folder:DIR/imagenette --workdir=runs/imagenette

configs/imagenette_cycles.py and configs/sd_imagenette.py have the same budget. A network for segmentation or detection can start from
any of them: configs/camvid_segmentation.py shows how.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 40
    config.batch_size = 64
    config.eval_every = 5
    config.data.name = "folder:imagenette"
    config.data.image_size = 64
    config.data.crop_padding = 0  # streamed images are random crops already
    config.model = {"name": "resnet18", "width": 32}
    config.optimizer.learning_rate = 0.05
    config.optimizer.weight_decay = 5e-4
    return config
