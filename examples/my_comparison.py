"""A comparison of your own method with related ones under one budget. Run in this file's folder:

    python -m distill_jax.compare my_comparison.py --config.data.dir=DIR --workdir=../runs/mine
    python -m distill_jax.compare my_comparison.py --config.data.dir=DIR --workdir=../runs/mine --arms=cosine,ps_kd,class_means

Data, network and the other methods are those of configs/comparison_cifar100.py. Every arm tries the same settings; see
distill_jax/compare.py.
"""

from configs import comparison_cifar100

get_config = comparison_cifar100.get_config


def get_arms():
    mine = {"method": {"name": "my_methods:class_means", "weight": 0.3}}
    return comparison_cifar100.get_arms() | {"class_means": (mine, comparison_cifar100.DECAYS)}
