"""Densely guided distillation on ImageNet, down to ResNet-18 (Son et al., ICCV 2021, arXiv 2009.08825).

    python run.py --config=configs/dgkd_imagenet.py --config.data.dir=DIR --workdir=/data/dgkd --config.dtype=bfloat16

The paper's ResNet-18, with ResNet-34 as the teacher: TAKD 71.37, DGKD 71.73 %, on 224x224 images. Never run by us: what follows is
the recipe of He et al. (arXiv 1512.03385), and its training set must fit into the memory of each device, 16 GB at 64x64 pixels.
"""

from configs import dgkd_cifar100_plain


def get_config():
    config = dgkd_cifar100_plain.get_config()
    config.epochs = 90
    config.batch_size = 256
    config.data.name = "tfds:imagenet_resized/64x64"  # open: the paper's are 224x224
    config.data.crop_padding = 8
    config.data.flip = True
    config.model.name = "resnet18"
    config.optimizer.learning_rate = 0.1
    config.schedule.boundaries = (1 / 3, 2 / 3)  # a tenth at each
    config.stages.path = ("resnet50", "resnet34", "resnet18")  # open: the paper's assistants between ResNet-34 and ResNet-18
    config.stages.guide_logits = "forward"
    return config
