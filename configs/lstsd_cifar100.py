"""Long Short-Term Sample Distillation on CIFAR-100 (Jiang et al., AAAI 2020, arXiv 2003.00739).

python run.py --config=configs/lstsd_cifar100.py --config.data.dir=DIR --workdir=/data/lstsd

We do not know the paper's temperature, weights and mini-generation length; the values here are not tuned.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.get_config()
    config.method = lstsd_fields()
    return config


def lstsd_fields():
    method = ConfigDict()
    method.name = "long_short_term"
    method.temperature = 2.0  # T
    method.weight_long = 0.5  # weight of the sample's logits from the last epoch of the previous mini-generation; 0 for none
    method.weight_short = 0.5  # weight of the sample's logits from its last visit; 0 for none
    method.generation_epochs = 5  # length of a mini-generation
    method.symmetric = True  # False: soften the teacher alone, without the factor T^2
    method.view = "training"  # or clean: store logits from an extra forward pass without augmentation and dropout
    method.table_dtype = "float32"  # or bfloat16: half the memory
    return method
