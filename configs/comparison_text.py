r"""The methods of comparison_cifar100.py on sentences: TREC, or another set, with TextCNN.

    python -m distill_jax.compare configs/comparison_text.py --workdir=runs/trec --config.data.dir=DIR
    python -m distill_jax.compare configs/comparison_text.py --workdir=runs/cr --config.data.dir=DIR --config.data.name=text:custrev.all \
        --config.data.text.test=""

Every arm tries the same four learning rates. In the generations, the top-score difference is between two classes, since some sets have only
two. --config.model.name=transformer trains a Transformer instead.
"""

from configs import text_trec
from configs.comparison_cifar100 import one_network

RATES = [{"optimizer": {"learning_rate": rate}} for rate in (3e-4, 1e-3, 3e-3, 1e-2)]


def get_config():
    config = text_trec.get_config()
    config.seeds = 5
    config.eval_every = 10
    config.data.validation_examples = 500
    return config


def get_arms():
    arms = one_network()
    for name in ("generations_strict", "generations_tolerant"):
        arms[name]["stages"]["k"] = 2
    return {name: (changes, RATES) for name, changes in arms.items()}
