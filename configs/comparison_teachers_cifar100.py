"""Distillation losses side by side, on the data of comparison_cifar100.py: ResNet-20 teaches ResNet-8.

    python -m distill_jax.compare configs/comparison_teachers_cifar100.py --workdir=runs/teachers --config.data.dir=DIR

The student alone is the baseline. Each student has the teacher of its own seed, or the assistant (ResNet-14) that this one taught.
Temperatures and weights: KD as in kd_cifar100.py; DKD and logit standardization as in their papers; the others are our choice.
"""

from configs import comparison_cifar100

TEACHER, ASSISTANT = "arm:teacher", "arm:assistant"


def get_config():
    config = comparison_cifar100.get_config()
    config.model.name = "resnet8"
    return config


def get_arms():
    kd = {"name": "distillation", "weight_ce": 0.1, "temperature": 4.0}
    dkd = {"loss": "dkd", "weight_ce": 1.0, "weight_teacher": 1.0, "warmup_epochs": 5}
    dgkd = {"name": "densely_guided", "weight_teacher": 0.9, "temperature": 4.0}
    arms = {
        "supervised": {},
        "teacher": {"model": {"name": "resnet20"}},
        "assistant": {"model": {"name": "resnet14"}, "method": kd, "teachers": (TEACHER,)},
        "kd": {"method": kd, "teachers": (TEACHER,)},
        "dkd": {"method": kd | dkd, "teachers": (TEACHER,)},
        "dist": {"method": kd | {"loss": "dist", "weight_ce": 1.0, "weight_teacher": 1.0}, "teachers": (TEACHER,)},
        "kd_standardized": {"method": kd | {"standardize": True, "temperature": 2.0, "weight_teacher": 9.0}, "teachers": (TEACHER,)},
        "attention": {"method": {"name": "attention_transfer"}, "teachers": (TEACHER,)},
        "takd": {"method": kd, "teachers": (ASSISTANT,)},
        "dgkd": {"method": dgkd, "teachers": (TEACHER, ASSISTANT)},
        "dgkd_stochastic": {"method": dgkd | {"survival": 0.75}, "teachers": (TEACHER, ASSISTANT)},
    }
    return {name: (changes, comparison_cifar100.DECAYS) for name, changes in arms.items()}
