r"""Labels alone on TREC's questions: the baseline of configs/lstsd_trec.py, and the base of the text configs.

    python run.py --config=configs/text_trec.py --config.data.dir=DIR --workdir=/data/trec_supervised
    python run.py --config=configs/text_trec.py --config.data.dir=DIR --workdir=/data/trec_sd \
        --config.method.name=snapshot --config.schedule.cycles=2

For other data sets in this format: --config.data.name=text:rt-polarity.all --config.data.text.test="" holds out a tenth for test.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 20
    config.batch_size = 64
    config.checkpoint_every = 5
    config.data.name = "text:TREC.train.all"
    config.data.text.format = "trec"
    config.data.text.test = "TREC.test.all"
    config.data.text.vocabulary_size = 5000  # fewer than the training split has, so that "unknown" is learned too
    config.model.name = "text_cnn"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-2
    config.schedule.warmup_epochs = 1.0
    return config
