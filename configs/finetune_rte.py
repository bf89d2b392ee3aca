r"""Fine-tunes a pre-trained encoder on GLUE's RTE: whether one sentence follows from another, 2,490 pairs.

    python run.py --config=configs/finetune_rte.py --config.data.dir=DIR --config.initial=hf:ENCODER --workdir=/data/finetune_rte

DIR holds RTE/train.tsv and RTE/dev.tsv; the dev set is the test set. An eighth of the pairs are longer than data.text.max_length=128
tokens of MiniLM, and are truncated. For ENCODER and the recipe see finetune_trec.py. A step of MiniLM in float32 takes 6.7 s of CPU
time, and the process 2.9 GiB; an epoch has 77 steps. In the one run we finished, of three epochs at a learning rate of 1e-4 in bfloat16,
MiniLM classified 57.8 % of the test pairs; the larger class has 52.7 %.
"""

from configs import finetune_trec


def get_config():
    config = finetune_trec.get_config()
    config.epochs = 10
    config.data.name = "text:RTE"
    config.data.text.format = "glue"
    config.data.text.test = ""
    config.data.text.max_length = 128
    config.schedule.warmup_epochs = 1.0
    return config
