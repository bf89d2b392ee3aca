"""Long Short-Term Sample Distillation on scikit-learn's 8x8 digits.

python run.py --config=configs/lstsd_digits.py
"""

from configs import sd_digits
from configs.lstsd_cifar100 import lstsd_fields


def get_config():
    config = sd_digits.get_config()
    config.schedule.cycles = 1
    config.method = lstsd_fields()
    return config
