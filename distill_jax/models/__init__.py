"""The networks by name. A new one is a new file here and a line in `MODELS`, or in `SIZED` if its name ends in two numbers."""

import functools
import inspect
import re

import jax.numpy as jnp
from flax import linen as nn

from distill_jax.errors import UserError
from distill_jax.models import plain_cnn, resnet_imagenet, transformer, vgg
from distill_jax.models.densenet import DenseNet
from distill_jax.models.resnet_cifar import DEPTHS, SHORTCUTS, ResNet
from distill_jax.models.small_cnn import SmallCNN
from distill_jax.models.text_cnn import TextCNN
from distill_jax.models.wide_resnet import WideResNet

TEXT_MODELS = {"text_cnn": TextCNN, "transformer": transformer.Transformer}
MODELS = {
    "small_cnn": SmallCNN,
    **{f"resnet{depth}": functools.partial(ResNet, depth=depth) for depth in DEPTHS},
    **{f"resnet{depth}": functools.partial(resnet_imagenet.ImageNetResNet, depth=depth) for depth in resnet_imagenet.BLOCKS},
    **{f"vgg{depth}": functools.partial(vgg.VGG, depth=depth) for depth in vgg.CONVOLUTIONS},
    **{layout: functools.partial(plain_cnn.PlainCNN, layout=layout) for layout in plain_cnn.LAYERS},
    **TEXT_MODELS,
}
SIZED = {  # family -> (class, its fields for the two numbers of <family><depth>_<width>); the depth is 6n + 4
    "densenet": (DenseNet, ("depth", "growth")),
    "wrn": (WideResNet, ("depth", "widen_factor")),
}
SIZES = range(1, 2**16)
OPTIONS = {  # a network has those that are fields of its class
    "shortcut": SHORTCUTS,
    "version": resnet_imagenet.VERSIONS,
    "pooling": transformer.POOLINGS,
    "width": SIZES,
    "layers": SIZES,
    "heads": SIZES,
    "feature_maps": SIZES,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def names() -> list[str]:
    """What `create` can be asked for."""
    return sorted(MODELS) + [
        "densenet<L>_<k> with L = 6n + 4, such as densenet100_12, densenet100_24, densenet190_40",
        "wrn<d>_<k> with d = 6n + 4, such as wrn16_2, wrn40_2, wrn28_10",
    ]


def create(name: str, num_classes: int, dtype: str = "float32", vocabulary_size: int = 0, **options: str | int) -> nn.Module:
    """The network `name`: a flax module from images [B, H, W, channels], or tokens [B, L], to float32 logits [B, num_classes].

    Args:
      name: one of `names()`.
      num_classes: C.
      dtype: of the compute, "float32" or "bfloat16".
      vocabulary_size: number of token ids of a text set; 0 for images.
      **options: the network's own fields `model.*`; "" or 0 stands for its default.

    Raises:
      UserError: an unknown name, option or dtype, or a network for text where the data are images, or the other way round.
    """
    options = {option: value for option, value in options.items() if value not in ("", 0)}
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}")
    build = _find(name)
    if (name in TEXT_MODELS) != bool(vocabulary_size):
        suited = ", ".join(TEXT_MODELS) if vocabulary_size else "one for images"
        raise UserError(f"model.name is {name!r}, but the data are {'text' if vocabulary_size else 'images'}; choose {suited}")
    known = {option: values for option, values in OPTIONS.items() if option in inspect.signature(build).parameters}
    for option, value in options.items():
        if option not in known:
            raise UserError(f"model.{option} is no field of {name}, which has: {', '.join(known) or 'none'}")
        if value not in known[option]:
            raise UserError(f"model.{option} is {value!r}; known: {_listed(known[option])}")
    if vocabulary_size:
        options["vocabulary_size"] = vocabulary_size
    return build(num_classes=num_classes, dtype=DTYPES[dtype], **options)


def _listed(values: tuple[str, ...] | range) -> str:
    return f"{values[0]} to {values[-1]}" if isinstance(values, range) else ", ".join(values)


def _find(name: str):
    if name in MODELS:
        return MODELS[name]
    sized = re.fullmatch(rf"({'|'.join(SIZED)})(\d+)_(\d+)", name)
    if sized:
        depth, width = int(sized[2]), int(sized[3])
        if depth >= 10 and (depth - 4) % 6 == 0 and width > 0:
            build, fields = SIZED[sized[1]]
            return functools.partial(build, **dict(zip(fields, (depth, width), strict=True)))
    raise UserError(f"model.name is {name!r}; known: {', '.join(names())}")
