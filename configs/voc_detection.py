"""Object detection on PASCAL VOC on two CPU cores: half-width ResNet-18, 160 pixels, one year of a devkit.

    python run.py --config=configs/voc_detection.py --config.data.name=voc:DIR/VOCdevkit --workdir=runs/voc_boxes

It shows that everything works; with so few images, the AP says little. configs/bccd_detection.py learns well from few images.
With --config.initial=runs/imagenette, from configs/imagenette.py, it starts from a trained trunk.
"""

from configs import voc_detection_full


def get_config():
    config = voc_detection_full.get_config()
    config.epochs = 20
    config.batch_size = 8
    config.data.image_size = 160
    config.data.voc.train = ("train",)
    config.data.voc.test = ("val",)
    config.model = {"name": "fcos_resnet18", "width": 32, "channels": 64, "convolutions": 2}
    config.optimizer.clip_norm = 10.0  # this and the warm-up as in bccd_detection.py
    config.schedule.warmup_epochs = 4.0
    return config
