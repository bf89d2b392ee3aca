"""Checks all fields of a config, before anything is trained or written."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ml_collections import ConfigDict

from distill_jax import default_config, fields, methods, models, stages
from distill_jax.errors import UserError
from distill_jax.tasks import TASKS

# The config fields that determine a method's Setting.
FIELDS_OF_SETTING = {
    "cycle_ends": "schedule.cycles",
    "num_teachers": "teachers",
    "num_classes": "data.name",
    "num_examples": "data.name",
    "batch_size": "batch_size",
}
OPTIONS = {"method": methods.options, "model": models.options, "stages": stages.options}  # by the group's `name`

WHOLE = {  # field -> its smallest and largest value
    "seed": (0, 2**32 - 1),
    "seeds": (1, 10_000),
    "epochs": (1, 10**6),
    "batch_size": (1, 2**24),
    "log_every": (1, 2**31),
    "eval_every": (1, 2**31),
    "checkpoint_every": (1, 2**31),
    "data.image_size": (0, 2**14),
    "data.downsample": (1, 2**14),
    "data.void": (0, 255),
    "data.train_examples": (0, 2**31),
    "data.validation_examples": (0, 2**31),
    "data.crop_padding": (0, 2**14),
    "data.text.max_length": (3, 2**16),
    "data.text.vocabulary_size": (4, 2**24),
    "optimizer.reference_batch_size": (0, 2**24),
    "schedule.cycles": (1, 10**6),
}
LARGEST = 1_000_000  # larger rates overflow at once
REAL = {  # field, or field whose entries -> the arguments of `fields.check_range`
    "optimizer.learning_rate": {"low": 0, "open_low": True},
    "optimizer.momentum": {"low": 0, "high": 1, "open_high": True},
    "optimizer.weight_decay": {"low": 0},
    "optimizer.clip_norm": {"low": 0},
    "optimizer.trunk_rate": {"low": 0},
    "schedule.power": {"low": 0, "open_low": True},
    "schedule.factor": {"low": 0, "high": 1, "open_low": True},
    "schedule.amplitudes": {"low": 0, "open_low": True},
}
CHOICES = {
    "dtype": tuple(models.DTYPES),
    "data.damaged": ("refuse", "skip"),
    "data.task": tuple(TASKS),
    "data.text.format": ("trec", "tsv", "glue"),
    "optimizer.name": ("sgd", "adamw"),
    "schedule.name": ("cosine", "poly", "step"),
}


@contextmanager
def naming(part: str) -> Iterator[None]:
    """Turns a ValueError whose message begins with an option of `part` into a UserError that names the config field."""
    try:
        yield
    except ValueError as error:
        name, rest = re.fullmatch(r"([\w.\[\]]*)(.*)", " ".join(str(error).split())).groups()
        field = f"{part}.{name}" if part else name
        if name in FIELDS_OF_SETTING:
            field = name if FIELDS_OF_SETTING[name] == name else f"{FIELDS_OF_SETTING[name]}: {name}"
        raise UserError(f"{field}{rest}") from error


def check(config: ConfigDict) -> None:
    """Raises UserError, naming the field, if one is missing, unknown, of the wrong type, or out of range."""
    check_groups(config)
    known, given = (fields.flatten(_without_options(each)) for each in (default_config.get_config(), config))
    for field in known:
        if field not in given:
            raise UserError(f"--config lacks {field}; start from distill_jax.default_config.get_config()")
    for field, value in given.items():
        if field not in known:
            raise UserError(f"{field} is not a config field{fields.near(field, known)}")
        with naming(""):
            fields.cast(field, value, known[field])
    with naming(""):
        for field, (low, high) in WHOLE.items():
            fields.check_range(field, given[field], low, high)
        for field, choices in CHOICES.items():
            fields.check_choice(field, given[field], choices)
        _check_numbers(given)
    if not config.stages.name and len(config.stages) > 1:
        raise UserError(f"stages has options ({', '.join(name for name in config.stages if name != 'name')}), but stages.name is ''")


def check_groups(config: Mapping[str, Any]) -> None:
    """Raises UserError unless every group of fields is a group, and those that hold options (method, model, stages) have a name."""
    _check_groups(config, default_config.get_config())
    for part in OPTIONS:
        if not isinstance(config[part].get("name"), str):
            raise UserError(f"{part}.name is {config[part].get('name')!r}; it must be a name")


def _check_groups(config: Mapping[str, Any], like: ConfigDict, prefix: str = "") -> None:
    for name in (name for name, value in like.items() if isinstance(value, ConfigDict)):
        if name not in config:
            raise UserError(f"--config lacks {prefix}{name}; start from distill_jax.default_config.get_config()")
        if not isinstance(config[name], ConfigDict | dict):
            inside = ", ".join(f"{prefix}{name}.{field}" for field in like[name])
            raise UserError(f"{prefix}{name} is {config[name]!r}; it must be a group of fields: {inside}")
        _check_groups(config[name], like[name], f"{prefix}{name}.")


def _check_numbers(given: Mapping[str, Any]) -> None:
    for field, interval in REAL.items():
        for entry in given[field] if isinstance(given[field], tuple | list) else (given[field],):
            fields.cast(field, entry, 1.0)
            fields.check_range(field, entry, **interval)
            if entry > LARGEST:
                raise ValueError(f"{field} is {entry}; it must be at most {LARGEST:,}")
    for length in given["schedule.cycle_epochs"]:
        fields.check_range("schedule.cycle_epochs", fields.cast("schedule.cycle_epochs", length, 1), 1)
    fields.check_range("seed + seeds", given["seed"] + given["seeds"], 0, 2**32)
    fields.check_range("schedule.warmup_epochs", given["schedule.warmup_epochs"], 0, given["epochs"])
    boundaries = [fields.cast("schedule.boundaries", entry, 0.5) for entry in given["schedule.boundaries"]]
    if any(not 0 < entry < 1 for entry in boundaries) or boundaries != sorted(set(boundaries)):
        raise ValueError(f"schedule.boundaries is {tuple(boundaries)}; it must be increasing fractions of the run, between 0 and 1")
    for field in ("data.voc.train", "data.voc.test"):
        for name in given[field]:
            fields.cast(field, name, "")
    teachers = [fields.cast("teachers", name, "") for name in given["teachers"]]
    for name in teachers:
        if teachers.count(name) > 1:
            raise ValueError(f"teachers names {name} more than once")


def _without_options(config: ConfigDict) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in OPTIONS}
