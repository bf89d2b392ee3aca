"""Self-distillation methods side by side on CIFAR-100, at a size for a CPU: 2,500 balanced images at 16x16, ResNet-20, 80 epochs.

    python -m distill_jax.compare configs/comparison_cifar100.py --workdir=runs/comparison --config.data.dir=DIR

Here the network over-fits, so a method against over-fitting can show its worth: one cosine ends at 71 % training accuracy and 22 % test
accuracy. The same steps on 5,000 images, --config.data.train_examples=5000 --config.epochs=40, over-fit less: 51 % and 28 %
at a weight decay of 2e-3. The tries do not train on their validation images; the final runs, which use the test images, do. Every arm
tries the same three weight decays; its method's own options are the paper's where we know them, and our choice otherwise. The generations
take three times as many steps as the others, tf_kd_self twice as many.
"""

from configs import common
from configs.lstsd_cifar100 import lstsd_fields
from configs.tolerant_cifar100 import generations

DECAYS = [{"optimizer": {"weight_decay": decay}} for decay in (1e-3, 2e-3, 4e-3)]


def get_config():
    config = common.get_config()
    config.seeds = 5
    config.epochs = 80
    config.eval_every = 20
    config.batch_size = 64
    config.data.train_examples = 2_500
    config.data.validation_examples = 5_000
    config.data.downsample = 2
    config.data.crop_padding = 2  # half of the usual 4, like the images
    config.model.name = "resnet20"
    return config


def get_arms():
    low = {"cycles": 2, "amplitudes": (1.0, 0.3)}  # a gentler restart: what does its height cost, and does SD gain from it?
    restarts = {"cycles_low": {"schedule": low}, "sd_low": {"schedule": low, "method": {"name": "snapshot", "temperature": 2.0}}}
    return {name: (changes, DECAYS) for name, changes in (one_network() | restarts).items()}


def one_network():
    table = {name: value for name, value in lstsd_fields().items() if name != "name"}
    students = {name: value for name, value in generations().items() if name != "weight_ce"} | {"generations": 2}
    cycles = {"cycles": 2}
    return {
        "cosine": {},
        "cycles": {"schedule": cycles},
        "sd_t2": {"schedule": cycles, "method": {"name": "snapshot", "temperature": 2.0}},
        "label_smoothing": {"method": {"name": "supervised", "label_smoothing": 0.1}},
        "lstsd": {"method": {"name": "long_short_term"} | table},
        "sd_t3": {"schedule": cycles, "method": {"name": "snapshot", "temperature": 3.0}},
        "sd_symmetric": {"schedule": cycles, "method": {"name": "snapshot", "temperature": 4.0, "symmetric": True}},
        "sd_lstsd": {"schedule": cycles, "method": {"name": "snapshot+long_short_term", "long_short_term": table}},
        "step": {"schedule": {"name": "step"}},
        "ps_kd": {"method": {"name": "ps_kd"}},
        "dlb": {"method": {"name": "dlb"}},
        "cs_kd": {"method": {"name": "cs_kd"}},
        "tf_kd": {"method": {"name": "tf_kd"}},
        "ema_teacher": {"method": {"name": "ema_teacher"}},
        "tf_kd_self": {"method": {"name": "distillation", "weight_ce": 0.5, "temperature": 4.0}, "teachers": ("arm:cosine",)},
        "generations_strict": {"stages": students | {"eta": 1.0}},
        "generations_tolerant": {"stages": students},
    }
