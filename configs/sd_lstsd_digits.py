"""Snapshot Distillation plus Long Short-Term Sample Distillation (our combination): each teacher adds its term to one cross-entropy.

python run.py --config=configs/sd_lstsd_digits.py
"""

from ml_collections import ConfigDict

from configs import sd_digits
from configs.lstsd_cifar100 import lstsd_fields


def get_config():
    config = sd_digits.get_config()
    members = {"snapshot": config.method, "long_short_term": lstsd_fields()}
    config.method = ConfigDict({"name": "+".join(members)})
    for name, fields in members.items():
        del fields["name"]
        config.method[name] = fields
    return config
