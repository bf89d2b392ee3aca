"""Tolerant teachers on CIFAR-100 (Yang, Xie, Qiao, Yuille, AAAI 2019, arXiv 1805.05551): a patriarch and generations of students.

    python run.py --config=configs/tolerant_cifar100.py --config.data.dir=DIR --workdir=/data/tolerant
    python run.py --workdir=/data/tolerant --mode=ensemble

Each generation is a full run. The paper's networks are ResNets and DenseNets, such as --config.model.name=densenet100_12
--config.batch_size=64 --config.epochs=300. We do not know its K, eta, lambda and number of generations; the values here are our choice.
Other first generations: --config.stages.eta=0.9 with --config.stages.regularizer=label_smoothing (by 0.1) or confidence_penalty;
configs/born_again_cifar100.py has a strict one.
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
    stages.eta = 0.6  # weight of the cross-entropy in generation 0; the regularizer gets the rest; 1 for a strict patriarch
    stages.k = 5  # K: number of classes in the top-score difference, including the first
    stages.weight_ce = (0.6,)  # the students' lambda; the teacher gets the rest: one for all, or one per student
    stages.temperature = 1.0  # of teacher and student; the paper has no temperature
    stages.inherit = False  # True: a student starts from its teacher's weights instead of fresh ones
    return stages
