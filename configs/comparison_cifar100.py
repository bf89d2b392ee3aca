"""Methods side by side on CIFAR-100, in a size that a CPU can carry: 10,000 balanced training images at 16x16, ResNet-20, 60 epochs.

    python run.py --config=configs/comparison_cifar100.py --config.data.dir=DIR --workdir=/data/one

At this size the network over-fits (about 77 % on the training set against 35 % on the test set, last epoch), so that a method which fights
over-fitting can show it.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 60
    config.eval_every = 20
    config.checkpoint_every = 10
    config.data.train_examples = 10_000
    config.data.downsample = 2
    config.data.crop_padding = 2  # half of the usual 4, like the images
    config.model.name = "resnet20"
    return config
