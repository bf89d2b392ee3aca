"""Long Short-Term Sample Distillation on GLUE's version of SST-2 (Socher et al., 2013): 67,349 phrases, and 872 dev sentences for test.

python run.py --config=configs/lstsd_sst2.py --config.data.dir=DIR --workdir=/data/sst2

DIR holds SST-2/train.tsv and SST-2/dev.tsv. To use TensorFlow Datasets instead: --config.data.name=tfds:glue/sst2.
For a Transformer: --config.model.name=transformer.
"""

from configs import lstsd_trec


def get_config():
    config = lstsd_trec.get_config()
    config.epochs = 10
    config.data.name = "text:SST-2"
    config.data.text.format = "glue"
    config.data.text.test = ""
    config.data.text.vocabulary_size = 10000
    config.method.generation_epochs = 2
    return config
