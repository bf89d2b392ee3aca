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

    config.teachers = ()  # workdirs of finished runs, whose networks teach this one (methods distillation, densely_guided)
    config.initial = ""  # workdir of a finished run of the same network, whose weights this one starts from; "" for fresh ones

    config.data = ConfigDict()
    config.data.name = "cifar100"  # digits, cifar10, cifar100, tfds:NAME, folder:PATH, npz:PATH or text:PATH
    config.data.dir = ""  # folder of the data set's files; "" for TFDS's own
    config.data.image_size = 0  # 0: held in memory; else folder:PATH and tfds:NAME are streamed, cropped to so many pixels a side
    config.data.damaged = "refuse"  # of streamed images: refuse those that cannot be read, or skip: read all first, leave them out
    config.data.train_examples = 0  # a class-balanced subset of the training set; 0 for all of it
    config.data.validation_examples = 0  # examples cut from the training set and evaluated instead of the test set: for tuning
    config.data.crop_padding = 4  # pixels of padding of the random crop; 0 for no crop
    config.data.flip = True  # mirror left to right at random

    config.data.text = ConfigDict()  # how a text set is read
    config.data.text.format = "tsv"  # trec, tsv or glue; see distill_jax/data/text.py
    config.data.text.test = ""  # file of the test sentences; "" for a tenth of each class of the others, for glue the dev set
    config.data.text.max_length = 64  # tokens; longer sentences are cut
    config.data.text.vocabulary_size = 20000  # token ids: three special ones, and the most frequent words of the training split

    config.model = ConfigDict()
    config.model.name = "resnet32"  # see distill_jax/models
    config.model.shortcut = ""  # of a ResNet for CIFAR: pad or projection; "" for pad
    config.model.version = ""  # of a ResNet for ImageNet: v1 or v1.5; "" for v1.5
    config.model.width = 0  # of a text network's embeddings; 0, as in the next three, for its default
    config.model.feature_maps = 0  # of text_cnn, of each window size
    config.model.layers = 0  # of transformer
    config.model.heads = 0  # of transformer
    config.model.pooling = ""  # of transformer: mean or cls; "" for mean

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # sgd, or adamw
    config.optimizer.learning_rate = 0.1  # the largest
    config.optimizer.reference_batch_size = 0  # linear scaling: learning_rate is that of so many images a step; 0 for none
    config.optimizer.momentum = 0.9  # sgd: fraction of the last update that is kept
    config.optimizer.nesterov = True  # sgd: Nesterov's form of momentum
    config.optimizer.weight_decay = 1e-4  # sgd: of every parameter, added to the gradient; adamw: of matrices and kernels, decoupled

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"  # cosine, restarted at each cycle, or step
    config.schedule.cycles = 1  # number of cycles of equal length, in whole epochs
    config.schedule.cycle_epochs = ()  # lengths of the cycles in epochs, instead of `cycles`
    config.schedule.amplitudes = ()  # largest rate of each cycle as a fraction of learning_rate; () for all 1
    config.schedule.warmup_epochs = 0.0  # epochs, may be a fraction, in which the rate rises linearly from 0
    config.schedule.boundaries = (0.5, 0.75)  # step: fractions of the run after which the rate falls
    config.schedule.factor = 0.1  # step: what the rate is multiplied by

    config.method = ConfigDict()
    config.method.name = "supervised"  # see distill_jax/methods; a method's own fields stand beside its name

    config.stages = ConfigDict()
    config.stages.name = ""  # "" for one run; else a family of runs, each in a sub-folder: see distill_jax/stages
    return config
