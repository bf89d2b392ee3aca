"""Semantic segmentation of PASCAL VOC on two CPU cores: half-width ResNet-18, crops of 128 pixels, one year of a devkit.

    python run.py --config=configs/voc_segmentation.py --config.data.name=voc:DIR/VOCdevkit --workdir=runs/voc

It shows that everything works; with so few images, the mIoU says little. With --config.initial=runs/imagenette, from
configs/imagenette.py, it starts from a trained trunk.
"""

from configs import voc_segmentation_full


def get_config():
    config = voc_segmentation_full.get_config()
    config.epochs = 20
    config.batch_size = 8
    config.data.image_size = 128
    config.data.voc.train = ("train",)
    config.data.voc.test = ("val",)
    config.data.voc.masks = "SegmentationClass"
    config.model = {"name": "deeplab_resnet18", "width": 32, "channels": 64, "output_stride": 16}
    return config
