"""Trains and evaluates the runs that a config describes, one after the other."""

import json
import os
import pathlib
import shlex
import statistics
from typing import Any, NamedTuple

from clu import parameter_overview
from ml_collections import ConfigDict

from distill_jax import (
    checkpoints,
    checks,
    configuration,
    experiment,
    given,
    initial,
    logs,
    loop,
    methods,
    processes,
    profiling,
    specs,
    stages,
    start,
    workdir,
)
from distill_jax.data import describe, tokenization
from distill_jax.errors import UserError
from distill_jax.experiment import Data, Experiment
from distill_jax.jobs import Job, begun_in, claim, finish_moving, is_finished, make_jobs, naming_stage, seed_folders
from distill_jax.results import summarise_seeds


class Study(NamedTuple):
    """All runs of a config, checked; nothing has been written yet."""

    config: ConfigDict
    root: pathlib.Path
    jobs: list[Job]
    experiments: dict[str, Experiment]  # by stage


def train(config: ConfigDict, root: str | os.PathLike, profile: int = 0) -> dict[str, Any]:
    """Trains the runs of a config, resuming those already begun in this workdir. Finished runs are not repeated.

    With config.seeds > 1, each seed is a separate run in root/seed_<seed>, and all share the compiled functions; more seeds can be added
    later. A family of runs (config.stages.name) has a sub-folder for each stage. All stages are checked before the first one is trained.

    Args:
      config: see default_config.py.
      root: the workdir.
      profile: number of train steps of each run, after its first ones, to write a profiler's trace of.

    Returns:
      The content of root/summary.json.

    Raises:
      UserError: bad input, or a loss that is not finite.
      Interrupted: by SIGTERM or SIGINT, after saving.
    """
    root = pathlib.Path(root).expanduser()
    checks.check(config)
    finish_moving(config, root)
    study = prepare(config, root)
    claim(config, root, study.jobs)
    later_steps = steps_after(study)
    summaries, shown = [], set()  # shown: stages whose parameters were printed
    for number, job in enumerate(study.jobs, start=1):
        if len(study.jobs) > 1:
            logs.say(f"[{number}/{len(study.jobs)}] {' '.join(filter(None, (job.stage, f'seed {job.seed}' if config.seeds > 1 else '')))}")
        if job.stage not in shown and not is_finished(job):
            shown.add(job.stage)
            logs.say(parameter_table(study.experiments[job.stage]))
        with logs.announced_compilation():
            summaries.append(run(study.experiments[job.stage], job, later_steps[number], profile))
        if number == len(study.jobs) or study.jobs[number].stage != job.stage:
            del study.experiments[job.stage]  # frees its compiled step
    return conclude(study, summaries)


def parameter_table(exp: Experiment) -> str:
    params = exp.spec.abstract_network()["params"]
    return parameter_overview.get_parameter_overview(params, include_stats=False)


def steps_after(study: Study) -> list[int]:
    """The steps of the unfinished runs after the first n, for each n from 0."""
    steps = [0 if is_finished(job) else study.experiments[job.stage].plan.steps for job in study.jobs]
    return [sum(steps[number:]) for number in range(len(steps) + 1)]


def run(exp: Experiment, job: Job, later_steps: int = 0, profile: int = 0) -> dict[str, Any]:
    """Trains one run unless it is finished; returns the content of its summary.json.

    Args:
      exp: of the job's stage, built for the first of its seeds.
      job: the run.
      later_steps: steps of later runs, to estimate the time left.
      profile: see `train`.
    """
    if is_finished(job):
        summary = workdir.load_summary(job.folder)
        logs.say(f"{job.folder}: already finished, {accuracy(summary)}")
        return summary
    exp = exp._replace(config=job.config)  # each seed has its own `initial` and `teachers`
    with workdir.exclusive(job.folder), profiling.traced(exp, profile, job.folder) as exp:
        configuration.check_claim(job.folder, job.config)  # again: another command may have claimed it meanwhile
        if not workdir.is_claimed(job.folder):
            workdir.claim(job.folder, configuration.recorded(job.template))
        experiment.remember_data(job.folder, exp.data)
        if exp.spec.tokenizer:
            workdir.write_text(job.folder / "tokenizer.json", exp.spec.tokenizer)
        workdir.write_json(job.folder / "network.json", specs.facts(exp.spec))
        summary = loop.train(exp, job.config.seed, job.folder, later_steps)
        processes.wait_for_all()  # so that the others find what the first process wrote
    return summary


def evaluate(config: ConfigDict, root: str | os.PathLike) -> dict[str, Any]:
    """Evaluates the newest checkpoint of each run in a workdir on the test set.

    Returns:
      The content of root/eval.json: the run's results or, for several stages or seeds, the results of each under "runs" and the mean
      accuracy of the last stage, if any of its runs has a checkpoint.

    Raises:
      UserError: the workdir has no checkpoint, or belongs to another config.
    """
    study = prepare(config, pathlib.Path(root).expanduser(), training=False)
    jobs = [job for job in study.jobs if workdir.has_checkpoint(job.folder)]
    if not jobs:
        first = study.jobs[0].folder
        raise UserError(f"workdir {first} has no checkpoint to evaluate; train first, with the same --config and --workdir")
    for job in study.jobs:
        if job not in jobs:
            logs.say(f"{job.folder} has no checkpoint; left out")
    runs = []
    for job in jobs:
        result = evaluate_run(study.experiments[job.stage], job)
        runs.append(({"stage": job.stage} if job.stage else {}) | result)
    last_stage = study.jobs[-1].stage
    name = study.experiments[last_stage].plan.result
    of_last_stage = [result[name] for job, result in zip(jobs, runs, strict=True) if job.stage == last_stage]
    mean = {name: statistics.mean(of_last_stage)} if of_last_stage else {}
    result = runs[0] if len(runs) == 1 else mean | {"runs": runs}
    workdir.write_json(study.root / "eval.json", result)
    logs.say(f"{study.root / 'eval.json'}" + "".join(f": {name.replace('_', ' ')} {value:.2%}" for value in mean.values()))
    return result


def evaluate_run(exp: Experiment, job: Job) -> dict[str, Any]:
    """Evaluates the newest checkpoint of one run: its step and its test metrics."""
    manager = checkpoints.open_manager(job.folder / "checkpoints")
    step = checkpoints.latest_step(manager)
    if step is None:
        raise UserError(f"workdir {job.folder} has no intact checkpoint to evaluate; train first")
    state, _ = start.restore(exp, manager, step)
    return {"seed": job.config.seed, "step": step, **experiment.evaluate_network(exp, state.network, None)}


def prepare(config: ConfigDict, root: pathlib.Path, training: bool = True) -> Study:
    """Checks everything that can be checked before the first run: all fields of all stages, the workdirs, the data, the teachers.

    Args:
      config: see default_config.py.
      root: the workdir.
      training: False if the runs are only evaluated, which needs neither their teachers nor their initial weights.

    Raises:
      UserError: a check failed.
    """
    checks.check(config)
    configuration.check_claim(root, config)
    jobs = make_jobs(config, root)
    for job in jobs:
        with naming_stage(job):
            checks.check(job.config)
        configuration.check_claim(job.folder, job.config)
    data, experiments, known = {}, {}, {}
    for job in jobs:
        with naming_stage(job):
            to_train = training and not all(is_finished(each) for each in jobs if each.stage == job.stage)
            networks = given_to(job, root, known, to_train)
            tokenizer = given.tokenizer(job.config, begun_in(job, root), networks)
            key = json.dumps(job.config.data.to_dict()) + tokenization.words_of(tokenizer)
            if key not in data:
                data[key] = experiment.load_data(job.config, tokenizer)
                logs.say(f"{job.config.data.name}: {describe(data[key].dataset)}; {processes.devices()}")
            networks = given.fitted(networks, job.config, data[key].dataset)
            if job.stage not in experiments:
                experiments[job.stage] = build(job, root, data[key], experiments, networks, to_train)
            for number, (teacher, spec) in enumerate(networks.teachers.items()):
                specs.check_fits(f"teacher {teacher}", spec, experiments[job.stage].spec, data[key].dataset.name)
                specs.check_same(f"teacher {teacher}", spec, experiments[job.stage].teachers[number])
            spec = known[f"{stages.STAGE}{job.stage}"] = experiments[job.stage].spec
            if networks.initial:
                initial.check(job.config.initial, networks.initial, spec, data[key].dataset.name)
                specs.check_normalisation(f"initial: {job.config.initial}", networks.initial, spec)
            elif to_train and not job.config.initial and not workdir.has_checkpoint(begun_in(job, root)):
                initial.check_new(spec.model)
        if workdir.exists(begun_in(job, root) / "data.json"):
            experiment.remember_data(begun_in(job, root), data[key])
    return Study(config, root, jobs, experiments)


def given_to(job: Job, root: pathlib.Path, known: dict[str, specs.Spec], to_train: bool) -> given.Given:
    """The networks that a run still needs: if it is to train, its teachers; and the initial weights, until a checkpoint has them."""
    folder = begun_in(job, root)
    is_begun = workdir.exists(folder / "network.json") and (not to_train or workdir.has_checkpoint(folder))
    return given.read(job.config, job.folder, known, not is_begun, to_train)


def build(job: Job, root: pathlib.Path, data: Data, earlier: dict[str, Experiment], networks: given.Given, to_train: bool) -> Experiment:
    """The experiment of a stage, given those of the stages before it."""
    folder = begun_in(job, root)
    recorded = specs.read(folder) if workdir.exists(folder / "network.json") else None
    for teacher, spec in networks.teachers.items():
        specs.check_head(f"teacher {teacher}", spec)
    exp = experiment.build(job.config, data, tuple(networks.teachers.values()), recorded, networks.initial)
    if to_train and ":" in job.config.method.name:
        with checks.naming("method"):
            methods.check_resumes(job.config.method.name, exp.method, exp.spec.abstract_network(), exp.plan.epochs)
    return experiment.sharing(exp, earlier.values())


def conclude(study: Study, summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes the summaries of the folders above the runs; returns the content of root/summary.json."""
    config, root = study.config, study.root
    by_seed = {seed: [] for seed in seed_folders(config, root)}
    for job, summary in zip(study.jobs, summaries, strict=True):
        by_seed[job.seed].append(({"stage": job.stage} if job.stage else {}) | summary)
    if config.stages.name:
        families = {seed: runs[-1] | {"stages": runs} for seed, runs in by_seed.items()}
        for seed, folder in seed_folders(config, root).items():
            workdir.write_json(folder / "summary.json", families[seed])
        whole = list(families.values())
    else:
        whole = [runs[0] for runs in by_seed.values()]
    summary = whole[0] if config.seeds == 1 else summarise_seeds(whole) | {"seeds": list(by_seed)}  # a stage may have its own seed
    workdir.write_json(root / "summary.json", summary)
    if config.stages.name:
        table = stages.FAMILIES[config.stages.name].table(summary["stages"])
        workdir.write_text(root / "table.md", table + "\n")
        logs.say(f"{table}\n{root / 'table.md'} has this table")
    logs.say(f"plots: python -m distill_jax.report {shlex.quote(str(root))} --html {shlex.quote(str(root / 'report.html'))}")
    logs.say(f"{root}: {accuracy(summary)}")
    return summary


def accuracy(summary: dict[str, Any]) -> str:
    """The result of one run, or the mean of several seeds, as text: "test accuracy 98.72%"."""
    split, metric = summary.get("evaluated_on", "test"), summary.get("metric", "accuracy")
    name = f"{split}_{metric}"
    name = name if name in summary else "test_accuracy"  # schema-1 summaries use this name for validation data too
    seeds = f" (mean of {len(summary['seeds'])} seeds, standard deviation {summary[name + '_std']:.2%})" if "seeds" in summary else ""
    return f"{split} {metric} {summary[name]:.2%}{seeds}"
