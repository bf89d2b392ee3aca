"""Long Short-Term Sample Distillation on ImageNet (Jiang et al., AAAI 2020, arXiv 2003.00739). Never run at this size.

    python run.py --config=configs/lstsd_imagenet.py --config.data.name=folder:/data/imagenet --workdir=/data/lstsd

Data, recipe and larger batches: see configs/supervised_imagenet.py. The two tables take 5.1 GB in total over all devices, and are part of
every checkpoint.
"""

from configs import lstsd_cifar100, supervised_imagenet


def get_config():
    config = supervised_imagenet.imagenet()
    config.method = lstsd_cifar100.lstsd_fields()
    config.method.table_dtype = "bfloat16"
    config.checkpoint_every = 5  # epochs; hashing that much takes a while
    return config
