"""Semantic segmentation of streets, CamVid (11 classes), on two CPU cores: DeepLabV3 on a ResNet-18 of half the width.

    python run.py --config=configs/camvid_segmentation.py --config.data.name=masks:DIR/camvid --workdir=runs/camvid

With --config.initial=runs/imagenette it starts from the trunk of a run of configs/imagenette.py, with any method.

The data are those of the SegNet tutorial: 367 images of 240x180 or 480x360 pixels for training, 233 for test; unlabelled pixels are 11.
The network learns from labels alone; for Snapshot Distillation, add --config.schedule.cycles=2 --config.method.name=snapshot.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 40
    config.batch_size = 8
    config.eval_every = 10
    config.data.name = "masks:camvid"
    config.data.task = "segmentation"
    config.data.void = 11  # the value of pixels without a label
    config.data.image_size = 160  # side of the training crops; at evaluation, the longer side of an image is scaled to it
    config.data.crop_padding = 0
    config.data.scales = (0.5, 2.0)
    config.model = {"name": "deeplab_resnet18", "width": 32, "channels": 64, "output_stride": 16}
    config.optimizer.learning_rate = 0.05
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    return config
