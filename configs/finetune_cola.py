r"""Fine-tunes a pre-trained encoder on GLUE's CoLA (Warstadt et al., 2018): whether a sentence is grammatical, 8,551 sentences.

    python run.py --config=configs/finetune_cola.py --config.data.dir=DIR --config.initial=hf:ENCODER --workdir=/data/finetune_cola

DIR holds CoLA/train.tsv and CoLA/dev.tsv; the dev set is the test set. For ENCODER and the recipe see finetune_trec.py.
GLUE's metric, the Matthews correlation, is test_matthews; comparisons choose the best try by accuracy.
"""

from configs import finetune_trec


def get_config():
    config = finetune_trec.get_config()
    config.epochs = 5
    config.data.name = "text:CoLA"
    config.data.text.format = "glue"
    config.data.text.test = ""
    config.data.text.max_length = 48
    config.schedule.warmup_epochs = 0.5
    return config
