"""The fields that every experiment has, with their defaults. An experiment's file starts from these and says what differs."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # decides the initialisation, the order of the samples and the augmentation
    config.seeds = 1  # number of runs, with the seeds seed, seed + 1, ...
    config.epochs = 164  # passes over the training set
    config.batch_size = 128  # images a step, over all devices together
    config.dtype = "float32"  # of the compute: float32 or bfloat16; parameters, statistics, logits and losses stay float32
    config.log_every = 100  # steps
    config.eval_every = 1  # epochs; the last epoch is always evaluated
    config.checkpoint_every = 10  # epochs; the last epoch and the end of a cycle always get one

    config.data = ConfigDict()
    config.data.name = "cifar100"  # digits, cifar10, cifar100, tfds:NAME, folder:PATH or npz:PATH
    config.data.dir = ""  # folder of the data set's files; "" for TFDS's own
    config.data.train_examples = 0  # images, a class-balanced subset of the training set; 0 for all of it
    config.data.crop_padding = 4  # pixels of padding of the random crop; 0 for no crop
    config.data.flip = True  # mirror left to right at random

    config.model = ConfigDict()
    config.model.name = "resnet32"  # see distill_jax/models
    config.model.shortcut = ""  # of a ResNet: pad or projection; "" for pad

    config.optimizer = ConfigDict()  # SGD with momentum; weight decay is added to the gradient and acts on every parameter
    config.optimizer.learning_rate = 0.1  # the largest
    config.optimizer.momentum = 0.9  # fraction of the last update that is kept
    config.optimizer.nesterov = True  # Nesterov's form of momentum
    config.optimizer.weight_decay = 1e-4  # coefficient of the L2 penalty's gradient

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"  # cosine, restarted at each cycle, or step
    config.schedule.cycles = 1  # number of cycles of equal length, in whole epochs
    config.schedule.cycle_epochs = ()  # lengths of the cycles in epochs, instead of `cycles`
    config.schedule.amplitudes = ()  # largest rate of each cycle as a fraction of learning_rate; () for all 1
    config.schedule.boundaries = (0.5, 0.75)  # step: fractions of the run after which the rate falls
    config.schedule.factor = 0.1  # step: what the rate is multiplied by

    config.method = ConfigDict()
    config.method.name = "supervised"  # see distill_jax/methods; a method's own fields stand beside its name
    return config
