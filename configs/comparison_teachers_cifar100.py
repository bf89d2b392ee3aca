"""Distillation losses side by side on CIFAR-100 at 16x16, 10,000 balanced images, 40 epochs: ResNet-20 teaches ResNet-8.

    python -m distill_jax.compare configs/comparison_teachers_cifar100.py --workdir=runs/teachers --config.data.dir=DIR

The student alone is the baseline. Each student has the teacher of its own seed, or the assistant (ResNet-14) that this one taught.
Temperatures and weights: KD as in kd_cifar100.py; DKD and logit standardization as in their papers; the others are our choice.

On the 2,500 images of comparison_cifar100.py, a teacher has nothing to give: ResNet-8 alone ends above ResNet-20, 22.4 to 21.9 %.
"""

from configs import comparison_cifar100

TEACHER, ASSISTANT = "arm:teacher", "arm:assistant"
DECAYS = [{"optimizer": {"weight_decay": decay}} for decay in (5e-4, 1e-3)]


def get_config():
    config = comparison_cifar100.get_config()
    config.epochs = 40
    config.eval_every = 10
    config.data.train_examples = 10_000
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
    return {name: (changes, DECAYS) for name, changes in arms.items()}
