"""The networks that a config names for a run to start from (`initial`) and to be taught by (`teachers`)."""

import pathlib
from collections.abc import MutableMapping
from typing import NamedTuple

from ml_collections import ConfigDict

from distill_jax import pretrained, trained, workdir
from distill_jax.data import Dataset, tokenization
from distill_jax.errors import UserError, prefixed
from distill_jax.specs import Spec


class Given(NamedTuple):
    """The specs of the networks that a run still needs."""

    initial: Spec | None
    teachers: dict[str, Spec]  # by their entries in config.teachers


def read(config: ConfigDict, folder: pathlib.Path, known: MutableMapping[str, Spec], needs_initial: bool, needs_teachers: bool) -> Given:
    """Reads the specs, as they are without the run's data: see `fitted`.

    Args:
      config: of the run.
      folder: of the run.
      known: the specs of networks by the names that the config gives them, such as stage:NAME for an earlier stage. Those read here are
        added, so that several runs read a network once.
      needs_initial: whether the run needs config.initial, if it names one.
      needs_teachers: whether it needs config.teachers.

    Raises:
      UserError: there is no such network; the message begins with the field.
    """

    def spec_of(field, name):
        if name not in known:
            with prefixed(field):
                known[name] = trained.find(trained.resolve(name, folder)).spec
        return known[name]

    initial = spec_of("initial", config.initial) if needs_initial and config.initial else None
    return Given(initial, {name: spec_of("teachers", name) for name in config.teachers if needs_teachers})


def tokenizer(config: ConfigDict, begun_in: pathlib.Path, networks: Given) -> str:
    """The tokenizer of a pre-trained network, or of one fine-tuned from it, that is given to a run; "" if there is none.

    A run that has begun has its own copy, in `begun_in`, where its files are now.
    """
    own = begun_in / "tokenizer.json"
    if workdir.exists(own) and not tokenization.is_fitted(recorded := own.read_text(encoding="utf-8")):
        return recorded
    for spec in (networks.initial, *networks.teachers.values()):
        if spec and spec.tokenizer and not tokenization.is_fitted(spec.tokenizer):
            return tokenization.adopted(spec.tokenizer, config.data.text.max_length)
    return ""


def fitted(networks: Given, config: ConfigDict, dataset: Dataset) -> Given:
    """The specs, with those of pre-trained networks fitted to a run's data.

    Raises:
      UserError: one does not fit, or takes images instead of sentences or the other way round; the message begins with the field.
    """

    def fit(field, name, spec):
        with prefixed(field):
            if bool(spec.tokenizer) != bool(dataset.tokenizer):
                takes, has = ("sentences", "images") if spec.tokenizer else ("images", "sentences")
                raise UserError(f"{name} takes {takes}, but {dataset.name} has {has}")
            return pretrained.fitted(spec, dataset) if pretrained.is_source(name) else spec

    initial = networks.initial and fit("initial", config.initial, networks.initial)
    return Given(initial, {name: fit("teachers", name, spec) for name, spec in networks.teachers.items()})
