"""ImageNet, labels only. Never run at this size.

    python run.py --config=configs/supervised_imagenet.py --config.data.name=folder:/data/imagenet --workdir=/data/supervised
    python run.py --config=configs/supervised_imagenet.py --config.data.dir=/data/tfds --workdir=/data/supervised

The folder holds train/<class>/*.JPEG and val/<class>/*.JPEG; prepare the TFDS data set with `tfds build imagenet2012
--file_format=array_record`. The recipe follows Goyal et al. (arXiv 1706.02677), plus label smoothing; unlike theirs, weight decay includes
BatchNorm's scales and biases. The other *_imagenet.py configs have its epochs, batch and learning rate, but a cosine and no label
smoothing; for a fair baseline, add --config.schedule.name=cosine --config.method.label_smoothing=0, and for SD's also
--config.model.name=resnet101 --config.schedule.warmup_epochs=0, without and with --config.schedule.cycles=2. For a larger batch on more
devices, set only --config.batch_size=1024: the learning rate scales with it. On accelerators: --config.dtype=bfloat16.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = imagenet()
    config.schedule.name = "step"
    config.schedule.boundaries = (30 / 90, 60 / 90, 80 / 90)  # divided by 10 at each
    config.method = ConfigDict()
    config.method.name = "supervised"
    config.method.label_smoothing = 0.1  # fraction of the labels' weight spread over all classes; 0 for none
    return config


def imagenet():
    config = common.get_config()
    config.epochs = 90
    config.batch_size = 256
    config.checkpoint_every = 1
    config.data.name = "tfds:imagenet2012"
    config.data.image_size = 224
    config.data.crop_padding = 0
    config.model.name = "resnet50"
    config.optimizer.learning_rate = 0.1
    config.optimizer.reference_batch_size = 256
    config.schedule.warmup_epochs = 5.0
    return config
