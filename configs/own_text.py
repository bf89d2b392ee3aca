r"""Your own sentences: a file with lines of `label<TAB>sentence`.

    python run.py --config=configs/own_text.py --config.data.name=text:reviews.tsv --workdir=runs/reviews

A tenth of each class is held out for test, the same tenth in every run; --config.data.text.test=FILE names a test file instead. Labels are
words or numbers. If the first line is a header, it must name the columns label and sentence, or label, sentence and sentence2 for pairs.

Trains on labels alone. For Long Short-Term Sample Distillation: --config.method.name=long_short_term --config.method.generation_epochs=2.
Afterwards:

    python -c "import distill_jax; print(distill_jax.load('runs/reviews').predict(['a fine film']))"
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 10
    config.batch_size = 32
    config.checkpoint_every = 2
    config.data.name = "text:PATH"  # set this to your file
    config.data.text.format = "tsv"
    config.model.name = "text_cnn"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-2
    config.schedule.warmup_epochs = 1.0
    return config
