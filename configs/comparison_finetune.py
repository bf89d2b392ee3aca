r"""Methods with one network side by side in fine-tuning a pre-trained encoder on little data.

    python -m distill_jax.compare configs/comparison_finetune.py:rte --workdir=runs/finetune_rte --config.data.dir=DIR \
        --config.initial=hf:ENCODER

TASK after the colon is trec, rte, mrpc or cola; DIR and ENCODER are as in finetune_<TASK>.py. Every arm tries the same three learning rates
on 500 held-out training examples, and has the same number of steps. `cycles` is `snapshot` without its teacher; the three arms of Long
Short-Term Sample Distillation have one of its signals or both.
"""

import importlib

RATES = [{"optimizer": {"learning_rate": rate}} for rate in (2e-5, 5e-5, 1e-4)]


def get_config(task="rte"):
    config = importlib.import_module(f"configs.finetune_{task}").get_config()
    config.seeds = 5
    config.data.validation_examples = 500
    config.checkpoint_every = 100  # at the end alone: a checkpoint of an encoder takes three times its size
    return config


def get_arms(task="rte"):
    def table(long, short):  # mini-generations of a third of the run
        epochs = max(get_config(task).epochs // 3, 1)
        return {"method": {"name": "long_short_term", "weight_long": long, "weight_short": short, "generation_epochs": epochs}}

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
