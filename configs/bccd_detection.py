"""Detection of blood cells, BCCD (3 classes), on two CPU cores: FCOS on a ResNet-18 of half the width.

    python run.py --config=configs/bccd_detection.py --config.data.name=voc:DIR/bccd/BCCD --workdir=runs/bccd
    python run.py --config=configs/bccd_detection.py --config.data.name=voc:DIR/raccoon --workdir=runs/raccoon

205 images for training, 72 for test; any folder in the layout of the PASCAL VOC devkit will do, such as raccoon. To start from a trunk
trained by configs/imagenette.py, add --config.initial=runs/imagenette. Towers of two convolutions and 64 channels are our choice; the
paper's have four and 256. So are the warm-up and the clipping: with one epoch of warm-up and no clipping, the classification loss of some
runs on raccoon rose in the second epoch (in one of twelve, to 500), and AP50 ended anywhere from 14 to 85 %.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 30
    config.batch_size = 8
    config.eval_every = 10
    config.data.name = "voc:bccd/BCCD"
    config.data.task = "detection"
    config.data.image_size = 160  # side of the canvas; at scale 1, an image's longer side fills it
    config.data.crop_padding = 0
    config.data.scales = (0.5, 1.5)
    config.model = {"name": "fcos_resnet18", "width": 32, "channels": 64, "convolutions": 2}
    config.optimizer.learning_rate = 0.02
    config.optimizer.nesterov = False
    config.optimizer.clip_norm = 10.0
    config.schedule.warmup_epochs = 4.0
    return config
