"""Your own images: one folder per class, JPEG or PNG, of any size.

    python run.py --config=configs/own_images.py --config.data.name=folder:photos --workdir=runs/photos

The folder holds photos/<class>/*; a fifth of each class is held out for test, the same fifth in every run. Alternatively, it holds
photos/train/<class>/* and photos/test/<class>/*. Images are read from disk as needed; training uses random crops of 64x64 pixels, mirrored
at random (--config.data.flip=False where left and right matter). The network is small enough for a CPU: 480 photographs take about 5 s
per epoch on two cores. On a GPU: --config.model.name=resnet18 --config.data.image_size=160 --config.batch_size=128.

The method is Snapshot Distillation in two cycles. For labels alone on the same budget: --config.method.name=supervised. Afterwards:

    python run.py --workdir=runs/photos --mode=eval
    python -c "import distill_jax; print(distill_jax.load('runs/photos').classes)"
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 40
    config.batch_size = 32
    config.checkpoint_every = 5
    config.data.name = "folder:PATH"  # set this to your folder
    config.data.image_size = 64
    config.data.crop_padding = 0  # streamed images are random crops already
    config.model.name = "resnet8"
    config.optimizer.learning_rate = 0.1
    config.optimizer.reference_batch_size = 64
    config.schedule.cycles = 2
    config.method.name = "snapshot"
    return config
