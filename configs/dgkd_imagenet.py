"""Densely guided distillation on ImageNet, down to ResNet-18 (Son et al., ICCV 2021, arXiv 2009.08825). Never run at this size.

    python run.py --config=configs/dgkd_imagenet.py --config.data.name=folder:/data/imagenet --workdir=/data/dgkd

The paper's ResNet-18, with ResNet-34 as the teacher: TAKD 71.37, DGKD 71.73 %. Here ResNet-50 is the teacher and ResNet-34 the assistant.
The official code's loss (form "code") divides by the number of classes: with 1,000 of them, little of it would be left at this learning
rate. Eight runs. Data, recipe and larger batches: see configs/supervised_imagenet.py.
"""

from configs import dgkd_cifar100_plain, supervised_imagenet


def get_config():
    config = supervised_imagenet.imagenet()
    config.model.name = "resnet18"  # the stages set it
    config.stages = dgkd_cifar100_plain.densely_guided()
    config.stages.path = ("resnet50", "resnet34", "resnet18")  # our choice: the paper's teacher is ResNet-34, its assistants are open
    config.stages.form = "paper"
    config.stages.weight_teacher = 0.5  # lambda, our choice
    return config
