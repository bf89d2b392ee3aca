r"""Self-distillation methods side by side in fine-tuning a pre-trained encoder on little data: 500 training examples, 12 epochs.

    python -m distill_jax.compare configs/comparison_finetune.py:trec --workdir=runs/finetune_trec --config.data.dir=DIR \
        --config.initial=hf:ENCODER

TASK after the colon is trec, rte, mrpc or cola; DIR and ENCODER are as in finetune_<TASK>.py. Every arm tries the same four learning rates
on 500 further examples, and has the same number of steps. `cycles` is `snapshot` without its teacher; the three arms of Long Short-Term
Sample Distillation have one of its signals or both, in three mini-generations.

With MiniLM, the runs of a task take 21 GB of disk. The folders `checkpoints` of finished tries may be deleted.
"""

import importlib

RATES = [{"optimizer": {"learning_rate": rate}} for rate in (3e-5, 1e-4, 3e-4, 1e-3)]


def get_config(task="trec"):
    config = importlib.import_module(f"configs.finetune_{task}").get_config()
    config.seeds = 5
    config.epochs = 12
    config.data.train_examples = 500
    config.data.validation_examples = 500
    config.schedule.warmup_epochs = 1.0
    config.checkpoint_every = 100  # only at the end: an encoder's checkpoint is three times its size
    return config


def get_arms(task="trec"):
    del task

    def table(long, short):
        return {"method": {"name": "long_short_term", "weight_long": long, "weight_short": short, "generation_epochs": 4}}

    cycles = {"cycles": 2}
    arms = {
        "linear": {},
        "label_smoothing": {"method": {"name": "supervised", "label_smoothing": 0.1}},
        "cycles": {"schedule": cycles},
        "snapshot": {"schedule": cycles, "method": {"name": "snapshot", "temperature": 2.0}},
        "short": table(0.0, 0.5),
        "long": table(0.5, 0.0),
        "long_short": table(0.5, 0.5),
    }
    return {name: (changes, RATES) for name, changes in arms.items()}
