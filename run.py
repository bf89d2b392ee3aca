"""Trains, evaluates or uses what a config describes.

python run.py                                                     # the quickstart: Snapshot Distillation on digits
python run.py --config=configs/sd_cifar100.py --workdir=/data/sd  # the same command again resumes the run
python run.py --config=configs/sd_cifar100.py --workdir=/data/sd --mode=eval
python run.py --config=configs/tolerant_cifar100.py --workdir=/data/tolerant --mode=ensemble
python run.py --config=configs/supervised_cifar100.py --config.data.name=digits --workdir=/data/sd --mode=linear_probe
srun python run.py --distributed --config=configs/sd_imagenet.py --config.data.dir=DIR --workdir=/data/sd_imagenet  # several processes
"""

import os
import pathlib
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

QUICKSTART = str(pathlib.Path(__file__).parent / "configs" / "sd_digits.py")
CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment; --config.FIELD=VALUE overrides. Default: configs/sd_digits.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run keeps its files. Default: runs/<name of the config file>.")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "ensemble", "features", "linear_probe"],
    "train. eval: evaluate the workdir's newest checkpoint. ensemble: of the workdir's stages or seeds, or of --members. "
    "features: write those of the config's data set; linear_probe: and fit a logistic regression on them.",
)
MEMBERS = flags.DEFINE_list("members", [], "Workdirs of finished runs, for --mode=ensemble.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    None,
    "Train with several processes, one a host or one a GPU, each started with this same command and a workdir that all of them see. "
    "On TPU pods and under Slurm JAX finds the other processes; elsewhere the next three say. Tasks of one srun are taken for such "
    "processes without it; --nodistributed if each is a run of its own.",
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "Of several processes: address and a free port of the first, HOST:PORT.")
PROCESSES = flags.DEFINE_integer("processes", None, "Of several processes: how many there are.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "Of several processes: which one this is, from 0.", lower_bound=0)
JOIN_TIMEOUT = flags.DEFINE_integer("join_timeout", 300, "Of several processes: seconds to wait for all to come.", lower_bound=1)


def parse_flags(argv: list[str]) -> list[str]:
    """Like absl's own parser, with the quickstart by default; a config that cannot be read, or lacks a field, is told in one line."""
    if not any(argument.split("=")[0] in ("--config", "-config") for argument in argv):
        argv = [argv[0], f"--config={QUICKSTART}", *argv[1:]]
    try:
        remaining = app.parse_flags_with_usage(argv)
        CONFIG.value.lock()
        return remaining
    except (AttributeError, KeyError) as error:
        fail(f"--config has no such field: {one_line(error)}")
    except (OSError, TypeError, ValueError) as error:
        fail(f"--config: {one_line(error)}")


def one_line(error: Exception) -> str:
    """The message of an error, or of the one it wraps."""
    inner = error.args[0] if error.args else error
    return one_line(inner) if isinstance(inner, Exception) else " ".join(str(inner).split())


def fail(message: str) -> NoReturn:
    """Ends the process at once: in good order it would wait for the other processes, which may be waiting for this one."""
    print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        fail(f"unknown argument {argv[1]!r}; fields are given as --config.FIELD=VALUE")
    from distill_jax import logs, processes, train, transfer  # here, so that --help need not wait for jax
    from distill_jax.errors import Interrupted, UserError

    logging.set_verbosity(logging.FATAL)  # orbax tells every file it touches, and every error that it raises as well
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = pathlib.Path(WORKDIR.value or f"runs/{name}").expanduser()
    actions = {
        "train": train.train,
        "eval": train.evaluate_checkpoint,
        "ensemble": lambda config, workdir: transfer.ensemble(config, workdir, MEMBERS.value),
        "features": transfer.features,
        "linear_probe": transfer.linear_probe,
    }
    distributed = COORDINATOR.value is not None or processes.is_cluster() if DISTRIBUTED.value is None else DISTRIBUTED.value
    if distributed and MODE.value not in ("train", "eval"):
        fail(f"--mode={MODE.value} is for one process; start it without --distributed, on one host")
    try:
        if distributed:
            processes.join(COORDINATOR.value, PROCESSES.value, PROCESS.value, JOIN_TIMEOUT.value)
        actions[MODE.value](CONFIG.value, workdir)
    except UserError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or workdir}: {error.strerror or error}. The same command goes on from the last checkpoint")
    except Interrupted as interrupted:
        logs.say(str(interrupted))
        sys.exit(128 + interrupted.signal_number)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
