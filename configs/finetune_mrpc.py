r"""Fine-tunes a pre-trained encoder on GLUE's MRPC (Dolan & Brockett, 2005): whether two sentences mean the same, 3,668 pairs.

    python run.py --config=configs/finetune_mrpc.py --config.data.dir=DIR --config.initial=hf:ENCODER --workdir=/data/finetune_mrpc

DIR holds MRPC/train.tsv and MRPC/dev.tsv; the dev set is the test set. For ENCODER and the recipe see finetune_trec.py.
"""

from configs import finetune_trec


def get_config():
    config = finetune_trec.get_config()
    config.epochs = 5
    config.data.name = "text:MRPC"
    config.data.text.format = "glue"
    config.data.text.test = ""
    config.data.text.max_length = 96
    config.schedule.warmup_epochs = 0.5
    return config
