"""Knowledge distillation on CIFAR-100 (Hinton, Vinyals, Dean, 2015, arXiv 1503.02531): a finished run teaches any other network.

python run.py --config=configs/supervised_cifar100.py --config.data.dir=DIR --workdir=/data/teacher --config.model.name=resnet110
python run.py --config=configs/kd_cifar100.py --config.data.dir=DIR --workdir=/data/kd --config.teachers="('/data/teacher',)"

DKD: --config.method.loss=dkd --config.method.weight_ce=1 --config.method.weight_teacher=1 --config.method.warmup_epochs=20. Logit
standardization: --config.method.standardize=True --config.method.weight_teacher=9 --config.method.temperature=2.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.get_config()
    config.model.name = "resnet20"
    config.method = ConfigDict()
    config.method.name = "distillation"
    config.method.weight_ce = 0.1  # weight of the cross-entropy with the labels; the teacher gets the rest
    config.method.temperature = 4.0  # T, softens both; the teacher's term is multiplied by T^2
    config.method.guide_logits = "forward"  # or table: the teacher runs once, before training; requires augmentation off
    return config
