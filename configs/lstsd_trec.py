"""Long Short-Term Sample Distillation on TREC's questions (Li & Roth, 2002): 5,452 for training, 500 for test, 6 classes.

    python run.py --config=configs/lstsd_trec.py --config.data.dir=DIR --workdir=/data/trec

DIR holds TREC.train.all and TREC.test.all, one class number and question per line: the files of github.com/harvardnlp/sent-conv-torch,
which also has custrev.all (CR) and others. TREC's own train_5500.label and TREC_10.label work too:
--config.data.name=text:train_5500.label --config.data.text.test=TREC_10.label. For labels alone on the same budget, use
--config=configs/text_trec.py; for Snapshot Distillation, add --config.method.name=snapshot --config.schedule.cycles=2 to that.
"""

from configs import text_trec
from configs.lstsd_cifar100 import lstsd_fields


def get_config():
    config = text_trec.get_config()
    config.method = lstsd_fields()
    return config
