"""Families of runs: stages, each an ordinary run in a sub-folder, taught by earlier stages.

A stage is a dict of config overrides. Its teachers, given as `stage:NAME` in the field `teachers`, are read from the folders of finished
stages. A family's folder holds a sub-folder for each stage, summary.json with all of them under "stages", and table.md. To define your own:

    config.stages.name = "list"
    config.stages.list = {
        "big": {"model": {"name": "resnet56"}},
        "small": {"teachers": ("stage:big",), "method": {"name": "distillation", "weight_ce": 0.1, "temperature": 4.0}},
    }
"""

import fnmatch
import graphlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from distill_jax import fields, workdir
from distill_jax.errors import UserError
from distill_jax.results import main_result, markdown, percents, title
from distill_jax.stages import densely_guided, generations

STAGE = "stage:"


class Family(NamedTuple):
    """A kind of family."""

    stages: Callable[..., dict[str, dict[str, Any]]]  # (config, **options) -> the overrides of each stage, by name
    table: Callable[[list[dict[str, Any]]], str]  # the stages' summaries -> Markdown
    sets_methods: bool = True  # whether the family chooses the method of each stage


def plain_table(summaries: list[dict[str, Any]]) -> str:
    """A Markdown table with one row per stage."""
    rows = [
        [stage["stage"], stage["model"], stage["method"], *percents(stage, "train_accuracy", main_result(stage))] for stage in summaries
    ]
    return markdown(["stage", "network", "method", "train accuracy, %", title(summaries[0])], rows)


def needed_by(run: Any) -> list[str]:
    """Names of the stages whose networks a stage's config or overrides use."""
    networks = [*as_tuple(run.get("teachers")), run.get("initial")]
    return [network.removeprefix(STAGE) for network in networks if isinstance(network, str) and network.startswith(STAGE)]


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else ()


def listed(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """The stages of config.stages.list, each after those it needs; otherwise sorted by name, since a ConfigDict keeps no order.

    Raises:
      ValueError: two stages need each other.
    """
    runs = config.to_dict()["stages"].get("list", {})
    if not isinstance(runs, dict) or not all(isinstance(run, dict) for run in runs.values()):
        raise ValueError(f"list is {runs!r}; it must hold a dict of overrides for each stage, by name")
    for name in runs:
        if not re.fullmatch(r"\w[\w+-]*", name) or any(fnmatch.fnmatch(name, file) for file in (*workdir.FILES, "lock")):
            raise ValueError(f"list has a stage {name!r}; this cannot be the name of a stage's folder")
    needs = {name: [stage for stage in needed_by(run) if stage in runs] for name, run in runs.items()}
    try:
        return {name: runs[name] for name in graphlib.TopologicalSorter(needs).static_order()}
    except graphlib.CycleError as error:
        raise ValueError(f"list has stages that depend on each other: {', '.join(error.args[1])}") from error


FAMILIES = {
    "densely_guided": Family(densely_guided.stages, densely_guided.table),
    "generations": Family(generations.stages, generations.table),
    "list": Family(listed, plain_table, sets_methods=False),
}


def options(name: str) -> dict[str, Any]:
    """The options of a kind of family, and their defaults.

    Raises:
      ValueError: the name is unknown.
    """
    if not name:
        return {}
    fields.check_choice("name", name, FAMILIES)
    return fields.defaults(FAMILIES[name].stages)


def expand(config: ConfigDict) -> dict[str, ConfigDict]:
    """The configs of a family's stages, by name, in the order in which they run; a plain run is one stage without a name.

    A stage's `method` replaces the family's entirely; any other override replaces only that field.

    Raises:
      ValueError: an option of the family is unknown or out of range; the message begins with its name.
      UserError: a field of a stage is unknown, or a teacher is not an earlier stage.
    """
    if not config.stages.name:
        if needed_by(config):
            raise UserError(f"{STAGE}{needed_by(config)[0]} is given, but this run has no stages; name the workdir of a finished run")
        return {"": config}
    known, family = options(config.stages.name), FAMILIES[config.stages.name]
    given = {name: value for name, value in config.stages.items() if name not in ("name", "list")}
    given = fields.check(f"stages {config.stages.name!r}", known, given)
    if family.sets_methods and config.method.name != "supervised":
        raise UserError(f"method.name is {config.method.name!r}, but stages {config.stages.name!r} sets each stage's method; remove one")
    configs = {}
    for name, changes in family.stages(config, **given).items():
        configs[name] = changed(config, name, changes)
        earlier = tuple(configs)[:-1]
        for stage in needed_by(configs[name]):
            if stage not in earlier:
                raise UserError(f"stage {name}: {STAGE}{stage} is not an earlier stage; earlier stages: {', '.join(earlier) or 'none'}")
    if not configs:
        raise ValueError("list has no stage")
    return configs


def changed(config: ConfigDict, name: str, changes: dict[str, Any]) -> ConfigDict:
    """The config of one stage.

    Raises:
      UserError: a field is unknown, or a group of fields is not given as a dict.
    """
    stage = config.to_dict() | {"seeds": 1, "stages": {"name": ""}}
    for field, value in changes.items():
        known = [each for each in stage if each not in ("seeds", "stages")]
        if field not in known:
            raise UserError(f"stage {name}: {field} is not a field of a stage{fields.did_you_mean(field, known)}")
        if isinstance(stage[field], dict) and not isinstance(value, dict):
            raise UserError(f"stage {name}: {field} is {value!r}; it must be a dict of fields")
        stage[field] = value if field == "method" else merged(stage[field], value)
    return ConfigDict(stage)


def merged(value: Any, change: Any) -> Any:
    """Applies a change to a value; a dict changes only the entries it has."""
    if not (isinstance(value, dict) and isinstance(change, dict)):
        return change
    return value | {name: merged(value.get(name), each) for name, each in change.items()}
