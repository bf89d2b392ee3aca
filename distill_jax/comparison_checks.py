"""What is checked of a comparison before anything is trained. See compare.py."""

import json
import pathlib
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from distill_jax import checks, experiment, given, jobs, models, specs, stages
from distill_jax.comparison import ARM, Arm, Comparison, final_config, summary_of, teaching_arms, tuning_config, wanted
from distill_jax.errors import UserError, prefixed
from distill_jax.fields import did_you_mean
from distill_jax.plan import make_plan

SHARED = ("seed", "seeds", "data.validation_examples")  # fields that no arm may change


def check(comparison: Comparison, only: Sequence[str]) -> None:
    """Raises UserError if an arm in `only` is unknown, or a run that is wanted cannot be trained."""
    arms, loaded, known = comparison.arms, {}, {}
    for name in only:
        if name not in arms:
            raise UserError(f"--arms: there is no arm {name!r}; there are {', '.join(arms)}{did_you_mean(name, arms)}")
    checks.check(comparison.config)
    if any(teacher.startswith(ARM) for teacher in comparison.config.teachers):
        raise UserError(f"teachers is {comparison.config.teachers}; {ARM}NAME belongs to the changes of an arm")
    if comparison.config.seeds < 2:
        raise UserError(f"seeds is {comparison.config.seeds}; a comparison needs two or more")
    if len(next(iter(arms.values())).tries) > 1 and not comparison.config.data.validation_examples:
        raise UserError("data.validation_examples is 0; choosing among tries needs a validation set")
    for name, arm in arms.items():
        with prefixed(f"arm {name}"):
            for changes in (arm.changes, *arm.tries):
                check_changes(changes, comparison.config)
            check_teaching_arms(arms, name)
    for name in wanted(arms, only):
        with prefixed(f"arm {name}"):
            for teacher in teaching_arms(arms[name]):
                if teacher not in wanted(arms, only) and not summary_of(comparison, teacher):
                    raise UserError(f"{ARM}{teacher} is not finished with this config; add {teacher} to --arms")
            is_finished = bool(summary_of(comparison, name))
            for attempt in range(len(arms[name].tries)):
                config = final_config(comparison, name, attempt)
                check_runs(config, loaded)
                if not is_finished:
                    check_networks(config, comparison.root, known)
                    if len(arms[name].tries) > 1:
                        check_networks(tuning_config(comparison, name, attempt), comparison.root, known)


def check_changes(changes: Mapping[Any, Any], config: Mapping[str, Any], prefix: str = "") -> None:
    """Raises UserError unless changes have the form of a config's fields, and leave alone those that all arms share."""
    for field, value in changes.items():
        if not isinstance(field, str) or "." in field:
            raise UserError(f"{prefix}{field!r} is no field; a group of fields is a dict, as in {{'optimizer': {{'learning_rate': 0.1}}}}")
        if prefix + field in SHARED:
            raise UserError(f"{prefix}{field} is the same for all arms; set it in get_config()")
        if field == "teachers" and not (isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)):
            raise UserError(f"{prefix}teachers is {value!r}; it must be a tuple of names, as in ('{ARM}NAME',)")
        group = config.get(field)
        if isinstance(value, dict):
            check_changes(value, group if isinstance(group, ConfigDict) else {}, f"{prefix}{field}.")
        elif isinstance(group, ConfigDict):
            raise UserError(f"{prefix}{field} is {value!r}; it must be a dict of fields")


def check_teaching_arms(arms: Mapping[str, Arm], name: str) -> None:
    """Raises UserError unless the arms that teach an arm are earlier ones."""
    earlier = list(arms)[: list(arms).index(name)]
    for teacher in teaching_arms(arms[name]):
        if teacher not in earlier:
            raise UserError(f"{ARM}{teacher} is not an earlier arm; earlier arms: {', '.join(earlier) or 'none'}")


def check_runs(config: ConfigDict, loaded: dict[str, experiment.Data]) -> None:
    """Checks everything that depends on neither the network nor its teachers; study.train checks the rest."""
    checks.check(config)
    for job in jobs.make_jobs(config, pathlib.Path("final")):
        with jobs.naming_stage(job):
            checks.check(job.config)
            key = json.dumps(job.config.data.to_dict())
            data = loaded[key] = loaded.get(key) or experiment.load_data(job.config)
            plan, _ = make_plan(job.config, data.dataset, data.mesh)
            experiment.make_method(job.config, data, plan, apply=None)
            with checks.naming("model"):
                models.check(**job.config.model)


def check_networks(config: ConfigDict, root: pathlib.Path, known: dict[str, specs.Spec]) -> None:
    """Raises UserError unless the given networks exist, except those that earlier stages or (as teachers) earlier arms will train.

    Those that exist are read once and added to `known`.
    """
    for job in jobs.make_jobs(config, pathlib.Path("final")):
        later = [name for name in (job.config.initial, *job.config.teachers) if name.startswith(stages.STAGE)]
        later += [name for name in job.config.teachers if pathlib.Path(name).is_relative_to(root.absolute())]
        with jobs.naming_stage(job):
            given.read(job.config, pathlib.Path(), ChainMap(known, dict.fromkeys(later)), needs_initial=True, needs_teachers=True)
