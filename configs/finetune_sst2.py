r"""Fine-tunes a pre-trained encoder on GLUE's SST-2 (Socher et al., 2013): whether a phrase is positive, 67,349 phrases.

    python run.py --config=configs/finetune_sst2.py --config.data.dir=DIR --config.initial=hf:ENCODER --workdir=/data/finetune_sst2

DIR holds SST-2/train.tsv and SST-2/dev.tsv; the dev set is the test set. For ENCODER and the recipe see finetune_trec.py.
"""

from configs import finetune_trec


def get_config():
    config = finetune_trec.get_config()
    config.epochs = 3
    config.data.name = "text:SST-2"
    config.data.text.format = "glue"
    config.data.text.test = ""
    config.data.text.max_length = 64
    config.schedule.warmup_epochs = 0.3
    return config
