"""The fields of every experiment, with their defaults. Each config file starts from these and changes some.

A workdir older than a field is assumed to have the field's default, so a new field's default must reproduce the previous behaviour.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # determines the initialisation, the order of the samples and the augmentation
    config.seeds = 1  # number of runs, with the seeds seed, seed + 1, ...
    config.epochs = 164  # passes over the training set
    config.batch_size = 128  # samples per step, in total over all devices
    config.dtype = "float32"  # computation dtype: float32 or bfloat16; parameters, statistics, logits and losses stay float32. On TPUs and
    # recent GPUs, JAX rounds the factors of float32 products, unless JAX_DEFAULT_MATMUL_PRECISION is float32
    config.log_every = 100  # steps
    config.eval_every = 1  # epochs; the last epoch and the end of each cycle are always evaluated
    config.checkpoint_every = 10  # epochs; the last epoch and the end of each cycle are always saved

    # Networks are named by the workdir of a finished run, or as hf:DIR or torchvision:FILE: see distill_jax/pretrained.py. In a workdir's
    # path, {seed} stands for the run's seed.
    config.teachers = ()  # networks that teach this one (methods distillation, densely_guided, attention_transfer)
    config.initial = ""  # network to start from; its head may differ: see distill_jax/initial.py; "" for new weights

    config.data = ConfigDict()
    config.data.name = "cifar100"  # digits, cifar10, cifar100, tfds:NAME, or folder, npz, text, voc or masks:PATH
    config.data.task = "classification"  # what the labels are: classification; segmentation, a class for each pixel; or detection, boxes
    config.data.dir = ""  # folder of the data set's files, and of relative paths in data.name; "" for the current one, or TFDS's own
    config.data.image_size = 0  # side in pixels of the square crops of streamed images (folder, tfds, voc, masks); 0: images in memory
    config.data.downsample = 1  # average blocks of this many pixels squared when images are read into memory; 1: keep the images
    config.data.damaged = "refuse"  # unreadable streamed images: refuse (stop there), or skip (read all images first, leave these out)
    config.data.train_examples = 0  # size of a class-balanced subset of the training set; 0 for all of it
    config.data.validation_examples = 0  # for tuning: hold out this many training examples and evaluate on them, not the test set; 0: none
    config.data.crop_padding = 4  # pixels of padding of the random crop; 0 for no crop
    config.data.flip = True  # flip left to right at random
    config.data.scales = (0.5, 2.0)  # segmentation, detection: range of the random scale; at 1 the longer side fills the training crop
    config.data.void = 255  # masks:PATH: the value of pixels without a label (ignore index)

    config.data.voc = ConfigDict()  # voc:PATH: how the devkit is read
    config.data.voc.train = ()  # image sets, such as "VOC2012/train"; without a year, of all years; () for "train"
    config.data.voc.test = ()  # image sets to evaluate on; () for "test" or, where there is none, "val"
    config.data.voc.masks = "SegmentationClass"  # segmentation: the masks' folder, beside JPEGImages; see distill_jax/data/voc.py

    config.data.text = ConfigDict()  # how a text set is read
    config.data.text.format = "tsv"  # trec, tsv or glue; see distill_jax/data/text.py
    config.data.text.test = ""  # file of the test sentences; "" for a tenth of each training class, or, with glue, the dev set
    config.data.text.max_length = 64  # tokens; longer sentences are truncated
    config.data.text.vocabulary_size = 20000  # token ids of a new vocabulary: three special ones, and the most frequent training words

    config.model = ConfigDict()  # the network's own options go beside its name; distill_jax.models.options(name) lists them
    config.model.name = "resnet32"  # see distill_jax/models; or module:Class, your own network

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # sgd, or adamw
    config.optimizer.learning_rate = 0.1  # the peak, before the factor of a warm-up
    config.optimizer.reference_batch_size = 0  # linear scaling: the batch size that learning_rate is for; 0 for no scaling
    config.optimizer.momentum = 0.9  # sgd: fraction of the previous update to keep
    config.optimizer.nesterov = True  # sgd: Nesterov's form of momentum
    config.optimizer.weight_decay = 1e-4  # sgd: on every parameter, added to the gradient; adamw: on matrices and kernels, decoupled
    config.optimizer.clip_norm = 0.0  # the gradient is scaled down to this global norm if its norm is larger; 0 for no clipping
    config.optimizer.trunk_rate = 1.0  # all but the head (models.in_trunk): factor on learning_rate; 0 freezes weights, not statistics

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"  # cosine or poly, restarted each cycle; or step
    config.schedule.cycles = 1  # number of cycles of nearly equal length, in whole epochs
    config.schedule.cycle_epochs = ()  # lengths of the cycles in epochs, instead of `cycles`
    config.schedule.amplitudes = ()  # largest rate of each cycle as a fraction of learning_rate; () for all 1
    config.schedule.warmup_epochs = 0.0  # epochs, possibly fractional, over which the rate rises linearly; step i of n has i/n of it
    config.schedule.power = 0.9  # poly: the rate falls as (1 - fraction of the cycle)^power
    config.schedule.boundaries = (0.5, 0.75)  # step: fractions of the run after which the rate falls
    config.schedule.factor = 0.1  # step: what the rate is multiplied by

    config.method = ConfigDict()  # the method's own options go beside its name; distill_jax.methods.options(name) lists them
    config.method.name = "supervised"  # see distill_jax/methods; or module:function, your own method

    config.stages = ConfigDict()
    config.stages.name = ""  # "" for one run; otherwise a family of runs, each in a sub-folder: see distill_jax/stages
    return config
