"""Tolerant teachers on CIFAR-100 (Yang, Xie, Qiao, Yuille, AAAI 2019, arXiv 1805.05551): a patriarch and its generations.

    python run.py --config=configs/tolerant_cifar100.py --config.data.dir=DIR --workdir=/data/tolerant
    python run.py --config=configs/tolerant_cifar100.py --workdir=/data/tolerant --mode=ensemble

Each generation is a whole run. The paper's networks are ResNets and DenseNets, such as --config.model.name=densenet100_12
--config.batch_size=64 --config.epochs=300. Its K, eta, lambda and number of generations are not known to us: those here are our choice.
Other first generations: --config.stages.regularizer=label_smoothing or confidence_penalty; configs/born_again_cifar100.py has a strict one.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.get_config()
    config.stages = generations()
    return config


def generations():
    stages = ConfigDict()
    stages.name = "generations"
    stages.generations = 5  # students after generation 0
    stages.regularizer = "top_score_difference"  # of generation 0; or label_smoothing, confidence_penalty
    stages.eta = 0.6  # weight of the cross-entropy in generation 0, the rest is the regularizer's; 1 for a strict patriarch
    stages.k = 5  # K: classes of the top-score difference, the first included
    stages.weight_ce = (0.6,)  # lambda of the students, the rest is the teacher's: one for all, or one each
    stages.temperature = 1.0  # of teacher and student; the paper has none
    stages.inherit = False  # True: a student starts from its teacher's weights instead of fresh ones
    return stages
