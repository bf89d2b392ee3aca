"""Trains or evaluates what a config describes.

    python run.py                                                     # the quickstart: Snapshot Distillation on digits
    python run.py --config=configs/sd_cifar100.py --workdir=/data/sd  # the same command again resumes the run
    python run.py --config=configs/sd_cifar100.py --workdir=/data/sd --mode=eval
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

QUICKSTART = str(pathlib.Path(__file__).parent / "configs" / "sd_digits.py")
CONFIG = config_flags.DEFINE_config_file("config", QUICKSTART, "The experiment; --config.FIELD=VALUE overrides a field.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run keeps its files. Default: runs/<name of the config file>.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "train, or eval: evaluate the workdir's newest checkpoint.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; fields are given as --config.FIELD=VALUE")
    from distill_jax import train  # here, so that --help need not wait for jax
    from distill_jax.errors import Interrupted, UserError

    logging.set_verbosity(logging.ERROR)  # orbax tells every file it touches
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = pathlib.Path(WORKDIR.value or f"runs/{name}").expanduser()
    try:
        {"train": train.train, "eval": train.evaluate_checkpoint}[MODE.value](CONFIG.value, workdir)
    except UserError as error:
        sys.exit(f"error: {error}")
    except Interrupted as interrupted:
        print(interrupted, flush=True)
        sys.exit(128 + interrupted.signal_number)


if __name__ == "__main__":
    app.run(main)
