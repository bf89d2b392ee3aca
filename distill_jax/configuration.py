"""Reads configs, fills in missing fields, and compares them with a workdir's config."""

import copy
import json
import os
import pathlib
import runpy
import traceback
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from distill_jax import default_config, stages, workdir
from distill_jax.checks import OPTIONS, check, check_groups, naming
from distill_jax.errors import UserError
from distill_jax.fields import flatten

# These may differ when a run is resumed: they do not change what it computes.
HARMLESS = ("log_every", "data.dir")
NETWORKS = ("initial", "teachers")  # fields that name networks, in which {seed} stands for the run's seed
OF_ALL_SAMPLES = {"downsample": 1, "train_examples": 0, "validation_examples": 0, "text": {"test": ""}}  # of config.data
OLDEST = ("seed", "epochs", "data.name", "model.name", "method.name")  # fields that the config of every workdir has
# Network options that older configs list for every network, with "" or 0 as the default.
FORMER_MODEL_OPTIONS = ("shortcut", "version", "width", "feature_maps", "layers", "heads", "pooling")


def read(path: str) -> ConfigDict:
    """The config returned by a file's get_config().

    Raises:
      UserError: there is no such file, or it fails to run; the message names the file and the line.
    """
    config = call(path, "get_config")
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={path}: has no function get_config() that returns an ml_collections.ConfigDict")
    check_groups(config)
    return config.unlock()


def call(path: str, function: str) -> Any:
    """What a function of a config file returns; None if the file does not have it. `path` may end in an argument: FILE:ARGUMENT.

    Raises:
      UserError: as for `read`.
    """
    file, _, argument = path.partition(":")
    if not pathlib.Path(file).is_file():
        raise UserError(f"--config={path}: no such file")
    try:
        names = runpy.run_path(file)
        return names[function](*[argument] if argument else []) if function in names else None
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise UserError(f"--config={path}: {type(error).__name__} in {_line_of(error, file)}: {' '.join(str(error).split())}") from error


def of_workdir(folder: pathlib.Path) -> ConfigDict:
    """The config of the run in a workdir, with missing fields filled in.

    Raises:
      UserError: the folder is not a workdir, or its config.json is damaged.
    """
    given, schema = workdir.load_config(folder)
    if "model_type" in given:
        raise UserError(f"{folder} is not a workdir but a network in Hugging Face's layout; name it hf:{folder}")
    missing = [field for field in OLDEST if field not in flatten(given)]
    try:
        if missing:
            raise UserError(f"it lacks {missing[0]}")
        full = _completed(given)
        check_groups(full)
        if schema == 1:
            full["model"] = _without_former_options(full["model"])
        config = ConfigDict(full)
        check(config)
    except (UserError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} is damaged: {error}; restore it, or choose another --workdir") from error
    return config


def of_workdir_for(folder: pathlib.Path, data_name: str | None) -> ConfigDict:
    """The config of a workdir; for a data set that is not its own, without the fields that select or scale its own samples.

    Args:
      folder: the workdir.
      data_name: data.name, or None for its own.

    Raises:
      UserError: as for `of_workdir`.
    """
    config = of_workdir(folder)
    if data_name not in (None, config.data.name):
        config = ConfigDict(stages.merged(config.to_dict(), {"data": OF_ALL_SAMPLES}))
    return config


def with_options(config: ConfigDict, overrides: Mapping[str, str]) -> ConfigDict:
    """The config with every option of its method, network and family, so that all of them can be set on the command line.

    Args:
      config: from an experiment's file.
      overrides: the command line's values, by field. Changing a name, such as method.name, drops the options of the old one.

    Raises:
      UserError: a name is unknown.
    """
    config = config.copy_and_resolve_references().unlock()
    for part, options in OPTIONS.items():
        if part not in config or "name" not in config[part]:
            continue
        name = overrides.get(f"{part}.name", config[part].name)
        if name != config[part].name:
            config[part] = ConfigDict({"name": name})
        with naming(part):
            _add(config[part], options(name))
    return config


def only_given(config: ConfigDict, given: ConfigDict, overrides: Mapping[str, str]) -> ConfigDict:
    """The config without the options that `with_options` added and nobody set: their values follow from the names."""
    config = config.copy_and_resolve_references().unlock()
    for part in OPTIONS:
        if part in config:
            kept = given[part] if given[part].name == config[part].name else ConfigDict({"name": ""})
            _keep(config[part], kept, part, overrides)
    return config


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as nested dicts, with every field and option, either given or default."""
    full = _completed(config.to_dict() if isinstance(config, ConfigDict) else config)
    for part, options in OPTIONS.items():
        try:
            _add(full[part], options(full[part]["name"]))
        except ValueError:  # a user's own network that no longer exists
            pass
    return full


def recorded(config: ConfigDict) -> dict[str, Any]:
    """The config as a workdir keeps it: resolved, except that a family's networks, which its stages choose, keep the options given."""
    return resolved(config) | ({"model": config.model.to_dict()} if config.stages.name else {})


def check_claim(folder: pathlib.Path, config: ConfigDict) -> None:
    """Raises UserError if a workdir belongs to a different config. A config that only adds seeds counts as the same."""
    workdir.check_path(folder)
    if not workdir.is_claimed(folder):
        return
    theirs = of_workdir(folder)
    if differing := differences(theirs.to_dict(), config):
        raise UserError(f"workdir {folder} belongs to another config: {'; '.join(differing)}. Choose another with --workdir.")
    if config.seeds == 1 and workdir.is_moving(folder / f"seed_{theirs.seed}"):
        raise UserError(f"workdir {folder}: adding seeds was interrupted; repeat that command, with the same --config.seeds")


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Describes the fields in which a workdir's config differs from another. More seeds are no difference."""
    theirs, ours = flatten(resolved(theirs)), flatten(resolved(ours))
    more_seeds = theirs["seeds"] < ours["seeds"]
    if theirs["seeds"] == 1:
        for config in (theirs, ours):
            config |= {field: of_seed(config[field], theirs["seed"]) for field in NETWORKS}
    return [
        f"{field} is {_shown(theirs, field)} there and {_shown(ours, field)} here"
        for field in sorted(theirs.keys() | ours.keys())
        if field not in HARMLESS and not (field == "seeds" and more_seeds) and not _same(field, theirs.get(field), ours.get(field))
    ]


def of_seed(names: Any, seed: int) -> Any:
    """The value of `initial` or `teachers` for one seed, which replaces {seed}. Leaves values of other types for `check` to find."""
    if isinstance(names, str):
        return names.replace("{seed}", str(seed))
    return tuple(of_seed(name, seed) for name in names) if isinstance(names, tuple | list) else names


def _same(field: str, theirs: Any, ours: Any) -> bool:
    """Whether two values are the same; one folder has several spellings."""
    if field in NETWORKS:
        theirs, ours = ([os.path.abspath(name) for name in ([given] if isinstance(given, str) else given)] for given in (theirs, ours))
    return json.dumps(theirs) == json.dumps(ours)


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with defaults for missing fields: it may be older than those fields."""
    full = default_config.get_config().to_dict()
    for part in OPTIONS:
        full[part] = {"name": full[part]["name"]}
    return stages.merged(full, copy.deepcopy(dict(config)))


def _without_former_options(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name not in FORMER_MODEL_OPTIONS or value not in ("", 0)}


def _add(part: Any, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if isinstance(value, dict):
            if name not in part:
                part[name] = {}
            _add(part[name], value)
        elif name not in part:
            part[name] = value


def _keep(part: ConfigDict, given: Any, path: str, overrides: Mapping[str, str]) -> None:
    for name in list(part):
        field = f"{path}.{name}"
        if isinstance(part[name], ConfigDict):
            _keep(part[name], given.get(name, {}), field, overrides)
        elif name != "name" and name not in given and field not in overrides:
            del part[name]


def _line_of(error: BaseException, file: str) -> str:
    """file:line, where a config file raised an error, or where any file has a syntax error."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{error.filename}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}:{lines[-1]}" if lines else file


def _shown(flat: Mapping[str, Any], field: str) -> str:
    return repr(flat[field]) if field in flat else "not set"
