"""The networks by name. A new one is a new file here and a line in `MODELS`."""

import functools
import inspect
import re

import jax.numpy as jnp
from flax import linen as nn

from distill_jax.errors import UserError
from distill_jax.models.densenet import DenseNet
from distill_jax.models.resnet_cifar import DEPTHS, SHORTCUTS, ResNet
from distill_jax.models.small_cnn import SmallCNN

MODELS = {
    "small_cnn": SmallCNN,
    **{f"resnet{depth}": functools.partial(ResNet, depth=depth) for depth in DEPTHS},
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def names() -> list[str]:
    """What `create` can be asked for."""
    return sorted(MODELS) + ["densenet<L>_<k> with L = 6n + 4, such as densenet100_12, densenet100_24, densenet190_40"]


def create(name: str, num_classes: int, dtype: str = "float32", **options: str) -> nn.Module:
    """The network `name`: a flax module from images [B, H, W, channels] to float32 logits [B, num_classes].

    Args:
      name: one of `names()`.
      num_classes: C.
      dtype: of the compute, "float32" or "bfloat16".
      **options: the network's own fields `model.*`; "" stands for its default.

    Raises:
      UserError: an unknown name, option or dtype.
    """
    options = {option: value for option, value in options.items() if value != ""}
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}")
    build = _find(name)
    known = {"shortcut": SHORTCUTS} if "shortcut" in inspect.signature(build).parameters else {}
    for option, value in options.items():
        if option not in known:
            raise UserError(f"model.{option} is no field of {name}, which has: {', '.join(known) or 'none'}")
        if value not in known[option]:
            raise UserError(f"model.{option} is {value!r}; known: {', '.join(known[option])}")
    return build(num_classes=num_classes, dtype=DTYPES[dtype], **options)


def _find(name: str):
    densenet = re.fullmatch(r"densenet(\d+)_(\d+)", name)
    if densenet:
        depth, growth = map(int, densenet.groups())
        if depth >= 10 and (depth - 4) % 6 == 0 and growth > 0:
            return functools.partial(DenseNet, depth=depth, growth=growth)
    elif name in MODELS:
        return MODELS[name]
    raise UserError(f"model.name is {name!r}; known: {', '.join(names())}")
