"""The names and layouts of our networks' weights in other libraries, for reading and writing their files.

Hugging Face's for the encoders of models/bert.py; for ImageNet ResNets torchvision's, which are also timm's.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from distill_jax.models import resnet_imagenet

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
BERT = {
    "word_embeddings": "bert.embeddings.word_embeddings",
    "position_embeddings": "bert.embeddings.position_embeddings",
    "segment_embeddings": "bert.embeddings.token_type_embeddings",
    "embeddings_norm": "bert.embeddings.LayerNorm",
    "query": "bert.encoder.layer.{}.attention.self.query",
    "key": "bert.encoder.layer.{}.attention.self.key",
    "value": "bert.encoder.layer.{}.attention.self.value",
    "attention_out": "bert.encoder.layer.{}.attention.output.dense",
    "attention_norm": "bert.encoder.layer.{}.attention.output.LayerNorm",
    "mlp_in": "bert.encoder.layer.{}.intermediate.dense",
    "mlp_out": "bert.encoder.layer.{}.output.dense",
    "mlp_norm": "bert.encoder.layer.{}.output.LayerNorm",
    "pooler": "bert.pooler.dense",
    "head": "classifier",
}
ENCODERS = {
    "bert": BERT,
    "roberta": {ours: re.sub(r"^bert\.", "roberta.", theirs) for ours, theirs in BERT.items()}
    | {"pooler": "classifier.dense", "head": "classifier.out_proj"},
    "distilbert": {
        "word_embeddings": "distilbert.embeddings.word_embeddings",
        "position_embeddings": "distilbert.embeddings.position_embeddings",
        "embeddings_norm": "distilbert.embeddings.LayerNorm",
        "query": "distilbert.transformer.layer.{}.attention.q_lin",
        "key": "distilbert.transformer.layer.{}.attention.k_lin",
        "value": "distilbert.transformer.layer.{}.attention.v_lin",
        "attention_out": "distilbert.transformer.layer.{}.attention.out_lin",
        "attention_norm": "distilbert.transformer.layer.{}.sa_layer_norm",
        "mlp_in": "distilbert.transformer.layer.{}.ffn.lin1",
        "mlp_out": "distilbert.transformer.layer.{}.ffn.lin2",
        "mlp_norm": "distilbert.transformer.layer.{}.output_layer_norm",
        "pooler": "pre_classifier",
        "head": "classifier",
    },
}
RESNET = {"stem_conv": "conv1", "stem_norm": "bn1", "shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1", "head": "fc"}


class Tensor(NamedTuple):
    """Where one of their tensors is in our tree."""

    path: tuple[str, ...]  # in {"params": ..., "batch_stats": ...}, such as ("params", "layer0", "query", "kernel")
    axes: tuple[int, ...]  # theirs.transpose(axes) is ours


def format_of(model: str) -> str:
    """ "bert", "roberta", "distilbert" or "resnet"; "" for a network whose weights have no other names than ours."""
    kind = re.fullmatch(rf"({'|'.join(ENCODERS)})\d*", model)
    if kind:
        return kind[1]
    return "resnet" if model in {f"resnet{depth}" for depth in resnet_imagenet.BLOCKS} else ""


def table(model: str, network: Any) -> dict[str, Tensor]:
    """Their name of every leaf of a network.

    Args:
      model: the network's name, such as "bert" or "resnet50".
      network: {"params": ..., "batch_stats": ...}; the leaves may be abstract.

    Raises:
      ValueError: there are no such names; the message begins with "name".
    """
    kind = format_of(model)
    if not kind:
        known = ", ".join((*ENCODERS, "ImageNet ResNets"))
        raise ValueError(f"name is {model!r}, a network that other libraries do not have; they have: {known}")
    theirs = {}
    for path, leaf in traverse_util.flatten_dict(network).items():
        module = _of_resnet(path[1:-1]) if kind == "resnet" else _of_encoder(path[1:-1], ENCODERS[kind])
        axes = tuple(range(leaf.ndim))
        if path[-1] == "kernel":
            axes = (2, 3, 1, 0) if leaf.ndim == 4 else (1, 0)
        theirs[f"{module}.{LEAVES[path[-1]]}"] = Tensor(path, axes)
    return theirs


def to_theirs(model: str, network: Any) -> dict[str, np.ndarray]:
    """A network's weights under their names and in their layout, float32."""
    leaves = traverse_util.flatten_dict(jax.device_get(network))
    tensors = table(model, network).items()
    return {name: np.ascontiguousarray(leaves[tensor.path].transpose(np.argsort(tensor.axes))) for name, tensor in tensors}


def to_ours(tensors: Mapping[str, np.ndarray], names: Mapping[str, Tensor]) -> dict[str, Any]:
    """The network whose weights have the given names."""
    leaves = {tensor.path: np.asarray(tensors[name], np.float32).transpose(tensor.axes) for name, tensor in names.items()}
    return {"params": {}, "batch_stats": {}} | traverse_util.unflatten_dict(leaves)


def _of_encoder(module: tuple[str, ...], names: Mapping[str, str]) -> str:
    layer = re.fullmatch(r"layer(\d+)", module[0])
    return names[module[-1]].format(layer and layer[1])


def _of_resnet(module: tuple[str, ...]) -> str:
    layer = RESNET.get(module[-1], module[-1].replace("norm", "bn"))
    block = re.fullmatch(r"stage(\d+)_block(\d+)", module[0])
    return f"layer{block[1]}.{int(block[2]) - 1}.{layer}" if block else layer
