"""The runs that a config describes, one for each stage and seed, and their folders."""

import pathlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

from ml_collections import ConfigDict

from distill_jax import checks, configuration, logs, processes, stages, workdir
from distill_jax.errors import UserError, prefixed


class Job(NamedTuple):
    """One run."""

    stage: str  # "" for a run that is not a stage of a family
    seed: int  # one of the config's seeds; a stage's config may have a different one
    folder: pathlib.Path
    config: ConfigDict
    template: ConfigDict  # the same as its workdir records it: with {seed} in `initial` and `teachers` not yet replaced


def is_finished(job: Job) -> bool:
    """Whether a run has its summary and the weights of its last epoch."""
    return workdir.exists(job.folder / "summary.json") and workdir.exists(workdir.snapshot_path(job.folder, job.config.epochs))


def make_jobs(config: ConfigDict, root: pathlib.Path) -> list[Job]:
    """The runs of a config, stage by stage, and seed by seed within a stage, so that each stage is compiled once.

    Raises:
      UserError: a stage is invalid.
    """
    families = {}
    for seed in range(config.seed, config.seed + config.seeds):
        with checks.naming("stages"):
            families[seed] = stages.expand(config_of_seed(config, seed))
    folders = seed_folders(config, root)
    names = list(families[config.seed])
    if len({family[names[-1]].seed for family in families.values()}) < len(families):
        raise UserError(f"stages: {names[-1]}, the last, sets its own seed, which would make the results of all seeds one; leave it out")
    return [make_job(name, seed, folders[seed] / name, families[seed][name]) for name in names for seed in families]


def make_job(stage: str, seed: int, folder: pathlib.Path, config: ConfigDict) -> Job:
    own = ConfigDict(config.to_dict() | {field: configuration.of_seed(config[field], seed) for field in configuration.NETWORKS})
    return Job(stage, seed, folder, own, config if config.seed == seed else own)  # alone, a stage would put its own seed for {seed}


def naming_stage(job: Job) -> AbstractContextManager[None]:
    """Prefixes a UserError with the job's stage, if it has one."""
    return prefixed(job.stage and f"stage {job.stage}")


def seed_folders(config: ConfigDict, root: pathlib.Path) -> dict[int, pathlib.Path]:
    """The folder of each seed."""
    seeds = range(config.seed, config.seed + config.seeds)
    return {config.seed: root} if config.seeds == 1 else {seed: root / f"seed_{seed}" for seed in seeds}


def config_of_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """The config of one of several seeds, as a separate run."""
    return ConfigDict(config.to_dict() | {"seed": seed, "seeds": 1})


def begun_in(job: Job, root: pathlib.Path) -> pathlib.Path:
    """Where a run's files are now: when seeds are added to a single-seed run, it stays in the root until `claim` moves it."""
    is_moving = holds_one_seed(root) and job.folder.is_relative_to(root / f"seed_{job.seed}")
    return root / job.stage if is_moving and not workdir.is_claimed(job.folder) else job.folder


def holds_one_seed(root: pathlib.Path) -> bool:
    """Whether a folder is the workdir of a single-seed run or family. The first process decides for all."""
    return bool(processes.on_first_only(lambda: (root / "config.json").exists() and configuration.of_workdir(root).seeds == 1))


def claim(config: ConfigDict, root: pathlib.Path, jobs: Iterable[Job]) -> None:
    """Claims the folders above the runs for the config."""
    if config.seeds > 1 and holds_one_seed(root):
        move_first_seed(config, root)
    owners = {root: config} | {folder: config_of_seed(config, seed) for seed, folder in seed_folders(config, root).items()}
    runs = {job.folder for job in jobs}
    for folder, own in owners.items():
        if folder not in runs and processes.on_first_only(lambda: is_to_be_claimed(folder, own)):  # noqa: B023
            workdir.claim(folder, configuration.recorded(own))


def is_to_be_claimed(folder: pathlib.Path, config: ConfigDict) -> bool:
    return not (folder / "config.json").exists() or configuration.of_workdir(folder).seeds != config.seeds


def move_first_seed(config: ConfigDict, root: pathlib.Path) -> None:
    """Turns the single-seed run or family in `root` into the first of several."""
    target, names = root / f"seed_{config.seed}", [job.stage for job in make_jobs(config_of_seed(config, config.seed), root)]
    logs.say(f"{root}: the run of seed {config.seed} moves into {target.name}")
    processes.on_first(lambda: workdir.move_into(root, target, names))
    workdir.claim(root, configuration.recorded(config))


def finish_moving(config: ConfigDict, root: pathlib.Path) -> None:
    """Finishes an interrupted `move_first_seed`, so that all files of the run are in one place."""
    configuration.check_claim(root, config)
    if workdir.is_moving(root / f"seed_{config.seed}") and holds_one_seed(root):
        move_first_seed(config, root)
