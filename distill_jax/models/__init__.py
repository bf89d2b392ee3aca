"""Networks by name. To add one, add a file here and a line in `MODELS`, or in `SIZED` if its name ends in two numbers.

Your own network needs neither: its name is its import path, such as "my_nets:TinyViT" for the class TinyViT in my_nets.py, in the current
directory or anywhere on sys.path. It must be a flax.linen.Module with a field `num_classes`, and its `__call__(inputs, train=False)` must
return float32 logits [B, C] from a last dense layer called "head", whose inputs are the features. A class with a field `vocabulary_size`
is a network for text and gets tokens [B, L]; any other gets images [B, H, W, channels]. A field `dtype` is needed only for bfloat16. Every
other field needs a default and is an option: a number, a string, a bool, or a tuple.

For segmentation it returns logits [B, H, W, C] instead. A network whose submodule "trunk" has all parameters of another network except
"head" can start from that network's weights (the field `initial`).
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from distill_jax import fields, imports
from distill_jax.models import bert, own, plain_cnn, resnet_imagenet, vgg
from distill_jax.models import options as of_class
from distill_jax.models.deeplab import DeepLabV3
from distill_jax.models.densenet import DenseNet
from distill_jax.models.fcos import FCOS
from distill_jax.models.resnet_cifar import DEPTHS, ResNet
from distill_jax.models.small_cnn import SmallCNN
from distill_jax.models.text_cnn import TextCNN
from distill_jax.models.transformer import Transformer
from distill_jax.models.wide_resnet import WideResNet

MODELS = {  # name -> class, with the fields that the name fixes
    "small_cnn": functools.partial(SmallCNN),
    **{f"resnet{depth}": functools.partial(ResNet, depth=depth) for depth in DEPTHS},
    **{f"resnet{depth}": functools.partial(resnet_imagenet.ImageNetResNet, depth=depth) for depth in resnet_imagenet.BLOCKS},
    **{f"deeplab_resnet{depth}": functools.partial(DeepLabV3, depth=depth) for depth in resnet_imagenet.BLOCKS},
    **{f"fcos_resnet{depth}": functools.partial(FCOS, depth=depth) for depth in resnet_imagenet.BLOCKS},
    **{f"vgg{depth}": functools.partial(vgg.VGG, depth=depth) for depth in vgg.CONVOLUTIONS},
    **{layout: functools.partial(plain_cnn.PlainCNN, layout=layout) for layout in plain_cnn.LAYERS},
    **{kind: functools.partial(bert.Encoder, kind=kind) for kind in bert.KINDS},
    "text_cnn": functools.partial(TextCNN),
    "transformer": functools.partial(Transformer),
}
SIZED = {  # family -> class, and the fields for the two numbers in <family><depth>_<width>; the depth is 6n + 4
    "densenet": (DenseNet, ("depth", "growth")),
    "wrn": (WideResNet, ("depth", "widen_factor")),
}
HEADS = ("pooler", "head")  # layers that belong to the task: a pre-trained network often lacks them
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def names() -> list[str]:
    """The names that `create` accepts."""
    return sorted(MODELS) + [
        "bert<n>, roberta<n>, distilbert<n> with n layers, such as bert4",
        "densenet<L>_<k> with L = 6n + 4, such as densenet100_12, densenet100_24, densenet190_40",
        "wrn<d>_<k> with d = 6n + 4, such as wrn16_2, wrn40_2, wrn28_10",
        "<module>:<class> for your own, such as my_nets:TinyViT",
    ]


def create(name: str, num_classes: int, dtype: str = "float32", vocabulary_size: int = 0, **model_options: Any) -> nn.Module:
    """Builds a network: a flax module from inputs to float32 logits [B, num_classes].

    The inputs are normalised images, float32 [B, H, W, channels], or tokens, int32 [B, L]. deeplab_* return logits [B, H, W, num_classes];
    fcos_* return `fcos.Outputs`.

    Args:
      name: one of `names()`, or the import path of your own network, such as "my_nets:TinyViT".
      num_classes: C.
      dtype: computation dtype, "float32" or "bfloat16". Parameters, BatchNorm statistics and logits stay float32.
      vocabulary_size: number of token ids, for text; 0 for images.
      **model_options: the network's options; see `options`. Omitted ones keep their defaults.

    Raises:
      ValueError: an argument is unknown, of the wrong type or out of range. The message begins with the argument's name.
    """
    build = _find(name)
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; it must be at least 1")
    _check_input(name, vocabulary_size)
    arguments = {"num_classes": num_classes, **_dtype_argument(name, dtype), **check(name, **model_options)}
    if vocabulary_size:
        arguments["vocabulary_size"] = vocabulary_size
    try:
        return build(**arguments)
    except Exception as error:
        if not _is_own(name):
            raise
        raise ValueError(f"name is {name!r}; building it failed: {imports.one_line(error)}") from error


def check(name: str, **model_options: Any) -> dict[str, Any]:
    """The given options, cast to their types. ValueError, as by `create`, if the network or an option is unknown, or one out of range."""
    checked = fields.check(f"network {name}", options(name), model_options)
    if not _is_own(name):
        for option, value in checked.items():
            of_class.check_value(option, value)
        of_class.check_groups(_find(name).func, options(name) | checked)
    return checked


def options(name: str) -> dict[str, Any]:
    """The options of a network and their defaults.

    Raises:
      ValueError: there is no such network; the message begins with "name".
    """
    build = _find(name)
    return {option: value for option, value in of_class.defaults(build.func).items() if option not in build.keywords}


def in_trunk(layer: str, params: Mapping[str, Any]) -> bool:
    """Whether a layer belongs to a network's trunk, given its parameters: "trunk" in a network that has it, otherwise all but `HEADS`."""
    return layer == "trunk" if "trunk" in params else layer not in HEADS


def is_encoder(name: str) -> bool:
    """Whether a network is one of models/bert.py, whose sizes may be those of the weights that it starts from."""
    return _find(name).func is bert.Encoder


def is_text(name: str) -> bool:
    """Whether a network takes tokens rather than images.

    Raises:
      ValueError: there is no such network; the message begins with "name".
    """
    return "vocabulary_size" in _field_names(_find(name))


def _find(name: str) -> functools.partial:
    """The class of a network, with the fields that its name fixes."""
    if _is_own(name):
        return functools.partial(own.find(name))
    if name in MODELS:
        return MODELS[name]
    sized = re.fullmatch(rf"({'|'.join(SIZED)})(\d+)_(\d+)", name)
    if sized:
        depth, width = int(sized[2]), int(sized[3])
        if depth >= 10 and (depth - 4) % 6 == 0 and width > 0:
            network, numbers = SIZED[sized[1]]
            return functools.partial(network, **dict(zip(numbers, (depth, width), strict=True)))
    encoder = re.fullmatch(rf"({'|'.join(bert.KINDS)})([1-9]\d?)", name)
    if encoder:
        return functools.partial(bert.Encoder, kind=encoder[1], layers=int(encoder[2]))
    raise ValueError(f"name is {name!r}; known: {', '.join(names())}{fields.did_you_mean(name, MODELS)}")


def _is_own(name: str) -> bool:
    return ":" in name


def _field_names(build: functools.partial) -> set[str]:
    return {field.name for field in dataclasses.fields(build.func)}


def _check_input(name: str, vocabulary_size: int) -> None:
    """Raises ValueError if a network for text has no vocabulary, or one for images has one."""
    if vocabulary_size < 0:
        raise ValueError(f"vocabulary_size is {vocabulary_size}; it must be the number of token ids, or 0 for images")
    if is_text(name) and not vocabulary_size:
        raise ValueError(f"name is {name!r}, a network for text, but the inputs are images (vocabulary_size is 0)")
    if vocabulary_size and not is_text(name):
        suited = ", ".join(filter(is_text, MODELS))
        raise ValueError(f"name is {name!r}, a network for images, but the inputs are text (vocabulary_size is not 0); for text: {suited}")


def _dtype_argument(name: str, dtype: str) -> dict[str, Any]:
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}")
    if "dtype" in _field_names(_find(name)):
        return {"dtype": DTYPES[dtype]}
    if dtype != "float32":
        raise ValueError(f"dtype is {dtype!r}, but {name} has no field dtype")
    return {}
