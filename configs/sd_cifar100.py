"""Snapshot Distillation on CIFAR-100 (Yang et al., CVPR 2019, arXiv 1812.00123).

    python run.py --config=configs/sd_cifar100.py --config.data.dir=DIR --workdir=/data/sd

DIR holds cifar-100-python.tar.gz or its unpacked folder. The paper's other networks: --config.model.name=resnet20 (resnet56, resnet110);
and DenseNet-BC, --config.model.name=densenet100_12 (densenet190_40) --config.batch_size=64 --config.epochs=300. For the baselines see
supervised_cifar100.py. The only numbers of the paper that we know: ResNet-32 has 68.39 % without a teacher, 71.29 % with Snapshot
Distillation. results/sd_cifar100_cpu is a small version.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.schedule.cycles = 2  # K; the paper uses 2 to 4
    config.method.name = "snapshot"
    config.method.temperature = 2.0  # T, softens the teacher; the paper uses 2 or 3
    config.method.symmetric = False  # True: soften the student as well, and multiply the KL by T^2
    return config
