"""Families of runs: a list of stages, each an ordinary run in a sub-folder, taught by the stages before it.

A stage is data: what it changes in the family's config. Its teachers, `stage:NAME` in its field `teachers`, are read from the folders of
finished stages. The folder of a family holds a folder a stage, summary.json with all of them under "stages", and table.md.
"""

import graphlib
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from distill_jax.errors import UserError
from distill_jax.networks import STAGE
from distill_jax.stages import densely_guided, generations
from distill_jax.tables import markdown, percents


class Family(NamedTuple):
    """A kind of families."""

    stages: Callable[[ConfigDict], dict[str, dict[str, Any]]]  # config -> what each stage changes in it
    table: Callable[[list[dict[str, Any]]], str]  # the stages' summaries -> Markdown


def plain_table(summaries: list[dict[str, Any]]) -> str:
    """A row a stage."""
    rows = [[stage["stage"], stage["model"], stage["method"], *percents(stage, "train_accuracy", "test_accuracy")] for stage in summaries]
    return markdown(["stage", "network", "method", "train accuracy, %", "test accuracy, %"], rows)


def needed_by(run: Any) -> list[str]:
    """The stages, by name, whose networks a stage's config, or what it changes in the family's, asks for."""
    networks = (*run.get("teachers", ()), run.get("initial", ""))
    return [network.removeprefix(STAGE) for network in networks if network.startswith(STAGE)]


def listed(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """The stages of config.stages.list, each after those that it needs; otherwise by name, since a ConfigDict keeps no order.

    Raises:
      UserError: two stages need each other.
    """
    runs = config.stages.get("list", ConfigDict()).to_dict()
    needs = {name: [stage for stage in needed_by(run) if stage in runs] for name, run in runs.items()}
    try:
        return {name: runs[name] for name in graphlib.TopologicalSorter(needs).static_order()}
    except graphlib.CycleError as error:
        raise UserError(f"stages.list: these need each other: {', '.join(error.args[1])}") from error


FAMILIES = {
    "densely_guided": Family(densely_guided.stages, densely_guided.table),
    "generations": Family(generations.stages, generations.table),
    "list": Family(listed, plain_table),
}


def family(config: ConfigDict) -> Family:
    """The kind of family that config.stages.name asks for."""
    if config.stages.name not in FAMILIES:
        raise UserError(f"stages.name is {config.stages.name!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[config.stages.name]


def expand(config: ConfigDict) -> dict[str, ConfigDict]:
    """The configs of a family's stages, by name, in the order in which they run; a plain run is one stage without a name.

    A stage's `method` replaces the family's as a whole; any other field of a stage replaces that field alone.

    Raises:
      UserError: an unknown field, or a teacher that is no earlier stage.
    """
    if not config.stages.name:
        return {"": config}
    configs = {}
    for name, changes in family(config).stages(config).items():
        configs[name] = changed(config, name, changes)
        earlier = tuple(configs)[:-1]
        for stage in needed_by(configs[name]):
            if stage not in earlier:
                raise UserError(f"stage {name}: {STAGE}{stage} is no earlier stage; those are: {', '.join(earlier) or 'none'}")
    if not configs:
        raise UserError("stages.list has no stage")
    return configs


def changed(config: ConfigDict, name: str, changes: dict[str, Any]) -> ConfigDict:
    """The config of one stage."""
    stage = ConfigDict(config.to_dict() | {"seeds": 1, "stages": {"name": ""}})
    if "method" in changes:
        stage.method = ConfigDict(changes["method"])
    stage.lock()
    try:
        stage.update({field: value for field, value in changes.items() if field != "method"})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"stage {name}: {' '.join(str(error).split())}") from error
    return stage
