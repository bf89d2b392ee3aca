"""The fair baselines of Snapshot Distillation on CIFAR-100: labels only, same budget.

One cosine (the default), the same cycles without a teacher, or step decay:

    python run.py --config=configs/supervised_cifar100.py --config.data.dir=DIR --workdir=/data/cosine
    python run.py --config=configs/supervised_cifar100.py --config.data.dir=DIR --workdir=/data/cycles --config.schedule.cycles=2
    python run.py --config=configs/supervised_cifar100.py --config.data.dir=DIR --workdir=/data/step --config.schedule.name=step

Published ResNet-32 baselines reach 69 to 70 % (in SD's paper, 68.39 %); we have not run this.
"""

from configs import common


def get_config():
    return common.get_config()
