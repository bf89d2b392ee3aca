"""Kills runs of SD, LSTSD, generations and DGKD at random (SIGKILL) and compares each with an uninterrupted twin by its parameters.

    python benchmarks/faults.py --kills=20 --minutes=20

A run on digits is started, killed after a random time, and restarted by the same command, until it ends; then comes the next run, until
the given number of kills is reached. A run fails if it cannot resume, or if the parameters of any stage differ from its twin's.
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from distill_jax.files import read_json, read_jsonl

ROOT = pathlib.Path(__file__).parent.parent
SMALL = [
    "--config.batch_size=40", "--config.data.train_examples=200", "--config.eval_every=5", "--config.checkpoint_every=1",
    "--config.log_every=2",
]  # fmt: skip
RUNS = {  # name: config, and overrides that make it last about ten seconds
    "SD": ("sd_digits", ["--config.epochs=40", "--config.schedule.cycles=4"]),
    "LSTSD": ("lstsd_digits", ["--config.epochs=40"]),
    "tolerant generations": ("tolerant_digits", ["--config.epochs=15", "--config.stages.generations=2"]),
    "DGKD": ("dgkd_digits", ["--config.epochs=6"]),
}


class Outcome(NamedTuple):
    """The outcome of one method's runs."""

    steps: list[int]  # finished steps, over all stages, at each kill; 0: no step was finished
    runs: int  # runs that were killed and compared with the twin
    stages: int  # stages per run
    equal: bool


def command(name: str, workdir: pathlib.Path) -> list[str]:
    config, arguments = RUNS[name]
    return [sys.executable, str(ROOT / "run.py"), f"--config={ROOT / 'configs' / config}.py", f"--workdir={workdir}", *SMALL, *arguments]


def start(name: str, workdir: pathlib.Path) -> subprocess.Popen:
    """Starts a run. Its compiled programs are cached beside it, so that a restart takes seconds."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(command(name, workdir), stdout=subprocess.DEVNULL, env=environment)


def hashes(workdir: pathlib.Path) -> list[str]:
    """params_sha256 of a finished run, or of each of its stages."""
    summary = read_json(workdir / "summary.json")
    return [stage["params_sha256"] for stage in summary.get("stages", [summary])]


def logged_steps(workdir: pathlib.Path) -> int:
    """Finished steps over all stages, according to the logs."""
    return sum(max((line["step"] for line in read_jsonl(path)), default=0) for path in workdir.rglob("metrics.jsonl"))


def timed_run(name: str, workdir: pathlib.Path) -> tuple[float, float]:
    """Times an uninterrupted run: seconds until its first line of metrics, and until its end."""
    begun = time.monotonic()
    process = start(name, workdir)
    while process.poll() is None and not logged_steps(workdir):
        time.sleep(0.02)
    first = time.monotonic() - begun
    if process.wait() != 0:
        sys.exit(f"error: {name}: the uninterrupted run failed")
    return first, time.monotonic() - begun


def disturb(name: str, folder: pathlib.Path, kills: int, deadline: float, rng: random.Random) -> Outcome:
    """Kills runs of a method `kills` times in total, or until the deadline. When one finishes, the next one starts."""
    timed_run(name, folder / "warm")  # compiles
    first, whole = timed_run(name, folder / "twin")
    expected, steps, compared, equal = hashes(folder / "twin"), [], 0, True
    while len(steps) < kills and time.monotonic() < deadline:
        workdir = folder / f"killed_{compared}"
        status = None
        while status is None and len(steps) < kills and time.monotonic() < deadline:
            process = start(name, workdir)
            try:
                status = process.wait(timeout=rng.uniform(0.7 * first, first + 0.5 * (whole - first)))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                steps.append(logged_steps(workdir))
        status = start(name, workdir).wait() if status is None else status
        compared += 1
        equal &= status == 0 and hashes(workdir) == expected
    return Outcome(steps, compared, len(expected), equal)


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="in total over all methods")
    parser.add_argument("--minutes", type=float, default=20, help="no kills after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=list(RUNS), choices=list(RUNS))
    arguments = parser.parse_args(argv)
    rng, end = random.Random(arguments.seed), time.monotonic() + 60 * arguments.minutes
    rows = ["| method | runs | stages per run | kills | finished steps at each kill | all equal their twin |", "|---|---|---|---|---|---|"]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(arguments.methods):
            share = arguments.kills // len(arguments.methods) + (number < arguments.kills % len(arguments.methods))
            deadline = time.monotonic() + (end - time.monotonic()) / (len(arguments.methods) - number)
            outcome = disturb(name, pathlib.Path(folder) / str(number), share, deadline, rng)
            wrong += not outcome.equal
            killed_at, verdict = ", ".join(map(str, outcome.steps)), "yes" if outcome.equal else "NO"
            rows.append(f"| {name} | {outcome.runs} | {outcome.stages} | {len(outcome.steps)} | {killed_at} | {verdict} |")
            print(rows[-1], flush=True)
    table = "\n".join(rows)
    print(table)
    if wrong:
        sys.exit(f"error: {wrong} of {len(arguments.methods)} methods had a run that differs from its twin")
    return table


if __name__ == "__main__":
    main()
