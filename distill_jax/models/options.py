"""The options of networks: which fields of a flax class are options, and the allowed values for the networks in this folder."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from distill_jax.fields import check_choice, check_range, is_plain
from distill_jax.models import fcos, layers, resnet_cifar, resnet_imagenet, transformer

NOT_OPTIONS = ("parent", "name", "num_classes", "dtype", "vocabulary_size")  # flax's own fields, and the arguments of `models.create`
CHOICES = {
    "shortcut": resnet_cifar.SHORTCUTS, "version": resnet_imagenet.VERSIONS, "pooling": transformer.POOLINGS, "norm": layers.NORMS,
}  # fmt: skip
STRIDES = (8, 16, 32)
LOWEST = {
    "channels": 1, "rates": 1, "filters": 1, "max_length": 0, "width": 1, "feature_maps": 1, "layers": 1, "heads": 1, "convolutions": 0,
    "mlp_width": 1, "positions": 1,
}  # fmt: skip
LARGEST = 2**16 - 1


def defaults(network: type) -> dict[str, Any]:
    """The options of a flax class and their defaults: the fields whose default is a number, string, bool, None, or a tuple of these."""
    fields = [field for field in dataclasses.fields(network) if field.init and field.name not in NOT_OPTIONS]
    all_defaults = {field.name: default(field) for field in fields}
    return {name: value for name, value in all_defaults.items() if is_plain(value)}


def default(field: dataclasses.Field) -> Any:
    """A field's default; `dataclasses.MISSING` if it has none."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return tuple(value) if isinstance(value, list) else value


def check_value(option: str, value: Any) -> None:
    """Raises ValueError if a value is out of range; the message begins with the option's name."""
    if option in CHOICES:
        check_choice(option, value, CHOICES[option])
    elif option == "output_stride" and value not in STRIDES:
        raise ValueError(f"output_stride is {value}; it must be one of {', '.join(map(str, STRIDES))}")
    elif option == "dropout":
        check_range(option, value, 0, 1, open_high=True)
    elif option in LOWEST:
        numbers = {f"{option}[{row}]": number for row, number in enumerate(value)} if isinstance(value, tuple) else {option: value}
        for name, number in numbers.items():
            check_range(name, number, LOWEST[option], LARGEST)
    if option == "filters" and len(value) != 3:
        raise ValueError(f"filters is {value}; it must be three numbers")


def check_groups(network: type, values: Mapping[str, Any]) -> None:
    """Raises ValueError unless the groups of GroupNorm divide the channels of a flax class with these options; see `layers`."""
    has_groups = values.get("norm") == "group"
    multiples = {"width": layers.GROUPS} if has_groups else {}
    if "channels" in values and (has_groups or network is fcos.FCOS):
        multiples["channels"] = layers.GROUP
    for option, multiple in multiples.items():
        if values[option] % multiple:
            raise ValueError(f"{option} is {values[option]}; it must be a multiple of {multiple}, for the groups of GroupNorm")
