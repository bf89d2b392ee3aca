"""The networks that a config names for a run to start from (`initial`) and to be taught by (`teachers`)."""

import pathlib
from collections.abc import Mapping

from ml_collections import ConfigDict

from distill_jax import models, pretrained, trained, workdir
from distill_jax.data import Dataset, tokenization
from distill_jax.errors import UserError
from distill_jax.specs import Spec
from distill_jax.stages import STAGE


def spec_of(name: str, folder: pathlib.Path, stages: Mapping[str, Spec], dataset: Dataset | None = None) -> Spec:
    """The spec of a network.

    Args:
      name: an entry of `teachers` or `initial`.
      folder: of the run that it is given to.
      stages: the specs of earlier stages, by name.
      dataset: that of the run, to which a pre-trained network's spec is fitted; None to leave it as it is.

    Raises:
      UserError: there is no such network.
    """
    if name.startswith(STAGE):
        return stages[name.removeprefix(STAGE)]
    spec = trained.find(trained.resolve(name, folder)).spec
    return pretrained.fitted(spec, dataset) if dataset and pretrained.is_source(name) else spec


def tokenizer(config: ConfigDict, folder: pathlib.Path, begun_in: pathlib.Path, stages: Mapping[str, Spec]) -> str:
    """The tokenizer of a pre-trained network, or of one fine-tuned from it, that is given to a run; "" if there is none.

    A run that has begun has its own copy. Arguments as for `spec_of`; begun_in: where the run's files are now.
    """
    own = begun_in / "tokenizer.json"
    if workdir.exists(own) and not tokenization.is_fitted(recorded := own.read_text(encoding="utf-8")):
        return recorded
    for name in filter(None, (config.initial, *config.teachers)):
        try:
            spec = spec_of(name, folder, stages)
        except UserError:
            continue  # it is named when the run is built
        if spec.tokenizer and not tokenization.is_fitted(spec.tokenizer):
            return tokenization.adopted(spec.tokenizer, config.data.text.max_length)
    return ""


def determining(initial: str, theirs: Spec, dataset: Dataset) -> Spec | None:
    """The spec, if it determines that of a network that starts from it: see `specs.completed`."""
    is_trunk = dataset.task != theirs.task
    return theirs if pretrained.is_source(initial) or is_trunk or models.is_encoder(theirs.model["name"]) else None
