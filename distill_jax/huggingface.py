"""How Hugging Face's library `transformers` describes the encoders of models/bert.py: config.json, tokenizer_config.json."""

import pathlib
from collections.abc import Mapping
from typing import Any

from distill_jax.data import tokenization
from distill_jax.errors import UserError
from distill_jax.models import bert
from distill_jax.specs import Spec
from distill_jax.tensor_names import format_of

SIZES = {  # option of models/bert.py -> field of config.json
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "positions": "max_position_embeddings",
    "epsilon": "layer_norm_eps",
}
SIZES_OF_DISTILBERT = SIZES | {"layers": "n_layers", "width": "dim", "heads": "n_heads", "mlp_width": "hidden_dim"}
ONLY = {  # fields of config.json whose other values we do not support
    "hidden_act": "gelu",
    "activation": "gelu",
    "position_embedding_type": "absolute",
    "problem_type": "single_label_classification",
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
DROPOUTS_OF_DISTILBERT = ("dropout", "attention_dropout", "seq_classif_dropout")
CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}


def model_of(config: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """The name and sizes of an encoder, as options of models/bert.py.

    Args:
      config: the content of its config.json.
      path: of that file, for the message.

    Raises:
      UserError: it has another architecture.
    """
    kind = config.get("model_type")
    if kind not in bert.KINDS:
        raise UserError(f"{path}: model_type is {kind!r}; known: {', '.join(bert.KINDS)}")
    segments = bert.KINDS[kind].segments
    for field, value in (ONLY | ({"type_vocab_size": segments} if segments else {})).items():
        check(config, path, field, value)
    names = SIZES_OF_DISTILBERT if kind == "distilbert" else SIZES
    sizes = {option: config.get(field, 1e-12 if option == "epsilon" else None) for option, field in names.items()}
    for option, value in sizes.items():
        if not isinstance(value, int | float) or value <= 0:
            raise UserError(f"{path}: {names[option]} is {value!r}; it must be a positive number")
    return {"name": kind} | sizes


def check(config: Mapping[str, Any], path: pathlib.Path, field: str, value: Any) -> None:
    """Raises UserError if a field of a config.json has another value; it may be missing."""
    if config.get(field, value) not in (value, None):
        raise UserError(f"{path}: {field} is {config[field]!r}; only {value!r} is supported")


def classes_of(config: Mapping[str, Any], path: pathlib.Path, num_classes: int) -> tuple[str, ...]:
    """The names of a network's classes; () if they are only their numbers: LABEL_0, LABEL_1, ... UserError if its id2label is no map."""
    try:
        labels = tuple(str(label) for _, label in sorted((config.get("id2label") or {}).items(), key=lambda item: int(item[0])))
    except (AttributeError, ValueError) as error:
        raise UserError(f"{path}: id2label must map class numbers to names, as in {{'0': 'negative', '1': 'positive'}}") from error
    is_named = len(labels) == num_classes and any(label not in (str(n), f"LABEL_{n}") for n, label in enumerate(labels))
    return labels if is_named else ()


def config_of(spec: Spec) -> dict[str, Any]:
    """The config.json of an encoder with a classification head."""
    kind, module = format_of(spec.model["name"]), spec.module()
    is_distilbert = kind == "distilbert"
    sizes, dropouts = (SIZES_OF_DISTILBERT, DROPOUTS_OF_DISTILBERT) if is_distilbert else (SIZES, DROPOUTS)
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
