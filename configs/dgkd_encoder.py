r"""Densely guided distillation of a pre-trained 6-layer encoder, fine-tuned on TREC's questions, down to 2 layers.

    python run.py --config=configs/dgkd_encoder.py --config.data.dir=DIR --config.initial=hf:ENCODER --workdir=/data/dgkd_encoder

DIR and ENCODER, such as MiniLM, are as in finetune_trec.py; for another set see the fields that finetune_rte.py changes. Each smaller
encoder starts from the fine-tuned teacher's layers, evenly chosen: 4 from 0, 2, 3, 5; 3 from 0, 2, 5; 2 from 0, 5 (our choice, as in
DistilBERT, arXiv 1910.01108). All variants of a network start from the same weights, so that only their guides differ.
"""

from configs import finetune_trec
from configs.dgkd_cifar100_plain import densely_guided


def get_config():
    config = finetune_trec.get_config()
    config.stages = densely_guided()
    config.stages.path = ("bert6", "bert4", "bert3", "bert2")
    config.stages.inherit = True
    config.stages.form = "paper"
    config.stages.weight_teacher = 0.5  # lambda; below 1, to include the labels: the teacher has seen them only in fine-tuning
    config.stages.temperature = 2.0  # T
    config.stages.guide_logits = "table"  # sentences are not augmented, so the guides run once
    return config
