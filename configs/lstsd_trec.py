"""Long Short-Term Sample Distillation on TREC's questions (Li & Roth, 2002): 5,452 to train on, 500 to test, 6 classes.

    python run.py --config=configs/lstsd_trec.py --config.data.dir=DIR --workdir=/data/trec

DIR holds TREC.train.all and TREC.test.all, a class number and a question a line (TREC's own train_5500.label and TREC_10.label do as well:
--config.data.name=text:train_5500.label --config.data.text.test=TREC_10.label). Labels alone, and Snapshot Distillation, on the same
budget: --config=configs/text_trec.py, and with it --config.method.name=snapshot --config.schedule.cycles=2.
"""

from configs import text_trec
from configs.lstsd_cifar100 import lstsd_fields


def get_config():
    config = text_trec.get_config()
    config.method = lstsd_fields()
    return config
