"""A tiny encoder in the layout of Hugging Face, and the config of its fine-tuning."""

import json
import shutil

import numpy as np
from helpers import random_network, text_config
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from distill_jax import models as networks
from distill_jax import tensor_names

WORDS = "the old new red cat dog owl hen car bus tram ship oak fir elm yew is here a ##s b".split()
SIZES = {"layers": 3, "width": 8, "heads": 2, "mlp_width": 12, "positions": 20}
TOKENS = np.array([[2, 5, 7, 9, 3, 8, 3, 0], [2, 11, 3, 0, 0, 0, 0, 0], [2, 5, 6, 3, 9, 9, 9, 3]], np.int32)


def tokenizer(special=("[PAD]", "[UNK]", "[CLS]", "[SEP]"), segment=1):
    """A WordPiece tokenizer with BERT's template."""
    pad, unknown, cls, separator = special
    words = Tokenizer(models.WordPiece({word: number for number, word in enumerate([*special, *WORDS])}, unk_token=unknown))
    words.add_special_tokens(list(special))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {separator}",
        pair=f"{cls} $A {separator} $B:{segment} {separator}:{segment}",
        special_tokens=[(cls, words.token_to_id(cls)), (separator, words.token_to_id(separator))],
    )
    return words


def write_bert(folder):
    """A BERT of 3 layers as Hugging Face lays it out, without a head; returns the folder."""
    words = tokenizer()
    words.enable_padding(length=16)  # as in published files
    words.enable_truncation(16)
    words.save(str(folder / "tokenizer.json"))
    module = networks.create("bert", 3, vocabulary_size=words.get_vocab_size(), separator=3, **SIZES)
    tensors = tensor_names.to_theirs("bert", random_network(module, TOKENS))
    encoder = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    save_file(encoder | {"embeddings.position_ids": np.arange(20)[None]}, folder / "model.safetensors")
    config = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 12}
    config |= {"max_position_embeddings": 20, "layer_norm_eps": 1e-12, "vocab_size": words.get_vocab_size(), "type_vocab_size": 2}
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu", "pad_token_id": 0}))
    return folder


def with_head(folder, target, classes):
    shutil.copytree(folder, target)
    tensors, random = load_file(folder / "model.safetensors"), np.random.default_rng(1)
    del tensors["embeddings.position_ids"]
    head = {"weight": random.standard_normal((len(classes), 8), np.float32), "bias": random.standard_normal(len(classes), np.float32)}
    named = {f"bert.{name}": tensor for name, tensor in tensors.items()} | {f"classifier.{name}": each for name, each in head.items()}
    save_file(named, target / "model.safetensors")
    change_config(target, id2label=dict(enumerate(classes)))
    return target


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def fine_tuning(sentences, folder, **fields):
    """An epoch on the fixture `sentences`."""
    own = {"model": ConfigDict({"name": "bert"}), "initial": f"hf:{folder}", "epochs": 1, "data__text__max_length": 12}
    recipe = {
        "optimizer__clip_norm": 1.0,
        "optimizer__trunk_rate": 0.5,
        "schedule__name": "poly",
        "schedule__power": 1.0,
    }  # one, so that it is compiled once
    return text_config(sentences, **own | recipe | fields)
