r"""Fine-tunes a pre-trained encoder on TREC's questions: labels alone, one schedule; the base of the configs finetune_*.

    python run.py --config=configs/finetune_trec.py --config.data.dir=DIR --config.initial=hf:ENCODER --workdir=/data/finetune_trec

DIR is as in lstsd_trec.py. ENCODER is a local folder in Hugging Face's layout (config.json, model.safetensors, tokenizer.json): BERT or
MiniLM; for others --config.model.name=roberta or distilbert. Nothing is downloaded. You can add any method, such as Snapshot Distillation:
--config.method.name=snapshot --config.schedule.cycles=2. --config.model.name=bert3 starts from three of the encoder's layers.

AdamW without decay of biases and norms, warm-up over a tenth of the run, linear decay, gradients clipped to norm 1: the recipe of BERT
(Devlin et al., 2019, arXiv 1810.04805); the learning rate and epochs are in the range given there and in later work for small data.

Tried once, with all-MiniLM-L6-v2 (22.7 million parameters): two epochs of 1,600 questions reach 92.4 % with
--config.data.train_examples=1600 --config.epochs=2 --config.optimizer.learning_rate=1e-4 --config.data.text.max_length=28
--config.schedule.warmup_epochs=0.2.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 5
    config.batch_size = 32
    config.log_every = 20
    config.checkpoint_every = 5
    config.initial = "hf:ENCODER"  # set this to your folder
    config.data.name = "text:TREC.train.all"
    config.data.text.format = "trec"
    config.data.text.test = "TREC.test.all"
    config.data.text.max_length = 64
    config.model.name = "bert"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-5
    config.optimizer.weight_decay = 1e-2
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "poly"
    config.schedule.power = 1.0  # linear decay
    config.schedule.warmup_epochs = 0.5
    return config
