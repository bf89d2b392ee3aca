"""The files of Hugging Face's library `transformers` that describe the encoders of models/bert.py: config.json, tokenizer_config.json."""

from typing import Any

from distill_jax.data import tokenization
from distill_jax.models import bert
from distill_jax.pretrained import CONFIG, OF_DISTILBERT
from distill_jax.specs import Spec
from distill_jax.tensor_names import format_of

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
DROPOUTS_OF_DISTILBERT = ("dropout", "attention_dropout", "seq_classif_dropout")
CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}


def config_of(spec: Spec) -> dict[str, Any]:
    """The config.json of an encoder with a classification head."""
    kind, module = format_of(spec.model["name"]), spec.module()
    is_distilbert = kind == "distilbert"
    sizes, dropouts = (OF_DISTILBERT, DROPOUTS_OF_DISTILBERT) if is_distilbert else (CONFIG, DROPOUTS)
    labels = spec.classes or tuple(f"LABEL_{number}" for number in range(spec.num_classes))
    return {
        "model_type": kind,
        "architectures": [f"{CLASSES[kind]}ForSequenceClassification"],
        "problem_type": "single_label_classification",
        "vocab_size": spec.vocabulary_size,
        "activation" if is_distilbert else "hidden_act": "gelu",
        **({} if is_distilbert else {"type_vocab_size": bert.KINDS[kind].segments}),
        **{name: getattr(module, option) for option, name in sizes.items()},
        "layer_norm_eps": module.epsilon or 1e-12,
        "pad_token_id": module.padding,
        **dict.fromkeys(dropouts, module.dropout),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "dtype": "float32",
    }


def tokenizer_config_of(spec: Spec) -> dict[str, Any]:
    """The tokenizer_config.json of an encoder.

    Without it, transformers.AutoTokenizer takes the class of config.json's model_type with its defaults: BERT's makes a cased tokenizer
    lower-case. The class named here takes tokenizer.json as it is.
    """
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.input_shape[0],
        "pad_token": tokenization.parse(spec.tokenizer).padding["pad_token"],
        "model_input_names": names if format_of(spec.model["name"]) == "bert" else [names[0], names[2]],
    }
