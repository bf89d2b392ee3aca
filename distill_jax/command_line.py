"""The command line: a config file, overrides of its fields, and one-line errors."""

import contextlib
import os
import pathlib
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from absl import flags, logging

from distill_jax import terminal

if TYPE_CHECKING:
    from ml_collections import ConfigDict

OVERRIDE = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
QUICKSTART = pathlib.Path(__file__).parent.parent / "configs" / "sd_digits.py"
HELP = (
    "The experiment's file; --config.FIELD=VALUE sets a field (distill_jax/default_config.py lists them). Default: the workdir's own "
    "config; in a new workdir, configs/sd_digits.py."
)
WORKDIR_HELP = "Folder for the run's files. Default: runs/<name of the config file>. For predict, export: also hf:DIR, torchvision:FILE."
UNWRITABLE = (OSError, ValueError, AttributeError, RuntimeError)  # raised by a stream that is closed, or was being written to
SMALLER = "try a smaller batch_size or network"
MODES = {  # --mode -> what it does
    "train": "train, or resume",
    "eval": "evaluate the workdir's newest checkpoint",
    "ensemble": "average the predictions of the workdir's stages or seeds, or of --members",
    "features": "write the features of the config's data set",
    "linear_probe": "write the features and fit a logistic regression on them",
    "predict": "apply the network to --inputs: classes go to standard output as CSV, boxes and masks to pictures in --output",
    "export": "write the network in a --format that other programs read",
}
OF_MODES = {  # flags that belong to some modes
    "members": ("ensemble",),
    "inputs": ("predict",),
    "format": ("export",),
    "output": ("export", "predict"),
}
OF_PRETRAINED = ("predict", "export")  # modes that take hf:DIR or torchvision:FILE for a workdir
flags.DEFINE_bool("traceback", False, "After an error, also print where in the code it was raised.")
PROFILE = flags.DEFINE_integer("profile", 0, "Trace this many train steps of each run, for TensorBoard.", lower_bound=0)
MEMBERS = flags.DEFINE_list("members", [], "Workdirs of finished runs, for --mode=ensemble.")
INPUTS = flags.DEFINE_string(
    "inputs",
    None,
    "For --mode=predict: an image, or a folder, searched recursively; or a text file with one sentence per line, or one pair of "
    "sentences, separated by a tab. - reads lines from standard input: sentences, or the paths of images.",
)
FORMAT = flags.DEFINE_enum("format", "safetensors", ["safetensors", "stablehlo"], "For --mode=export; see distill_jax/export.py.")
OUTPUT = flags.DEFINE_string(
    "output", None, "The folder to write. Default: <workdir>/export/<format>, or <workdir>/predictions for --mode=predict's pictures."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    None,
    "Train with multiple processes, one per host or per GPU, each started with this same command and a shared workdir. On TPU pods and "
    "under Slurm, JAX finds the other processes; elsewhere, set --coordinator, --processes and --process. The tasks of one srun train "
    "together even without this flag; use --nodistributed if each is a separate run.",
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "With multiple processes: address and a free port of the first, HOST:PORT.")
PROCESSES = flags.DEFINE_integer("processes", None, "With multiple processes: how many there are.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "With multiple processes: the index of this one, from 0.", lower_bound=0)
JOIN_TIMEOUT = flags.DEFINE_integer("join_timeout", 300, "With multiple processes: seconds to wait for all to join.", lower_bound=1)


def describe_modes() -> str:
    return " ".join(f"{mode}: {does}." for mode, does in MODES.items())


def parse(argv: list[str]) -> list[str]:
    """Parses the flags for `app.run`, except the config and its overrides, which `read_config` reads.

    Returns:
      The program's name, then the arguments that belong to the config.
    """
    own, of_config, lacks_value = [], [], False
    for argument in argv[1:]:
        is_of_config = re.fullmatch(r"--?config(=.*)?", argument, re.DOTALL) or OVERRIDE.fullmatch(argument)
        if is_of_config:
            of_config.append(argument)
        elif lacks_value and not argument.startswith("-"):
            of_config[-1] += f"={argument}"
        else:
            own.append(argument)
        lacks_value = bool(is_of_config) and "=" not in argument
    if any(argument.lstrip("-") in ("help", "helpfull", "helpshort") for argument in own):
        flags.DEFINE_string("config", None, HELP)
        flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS["config"])  # --help shows the key flags of the program
    try:
        rest = flags.FLAGS([argv[0], *own])
    except flags.Error as error:
        fail(" ".join(str(error).split()))
    except BrokenPipeError:  # --help | head
        _end(1)
    for flag, modes in OF_MODES.items():
        if flags.FLAGS[flag].present and flags.FLAGS["mode"].value not in modes:
            fail(f"--{flag} belongs to --mode={' or '.join(modes)}; the mode here is {flags.FLAGS['mode'].value}")
    if len(rest) > 1:
        fail(f"unknown argument {rest[1]!r}; set fields with --config.FIELD=VALUE")
    return [argv[0], *of_config]


def default_workdir(config: str) -> str:
    """runs/<name of the config file>, and its argument: configs/comparison_finetune.py:rte -> runs/comparison_finetune_rte."""
    path, _, argument = config.partition(":")
    return "_".join([f"runs/{pathlib.Path(path).stem}", *re.findall(r"\w+", argument)])


def read_config(arguments: list[str], mode: str, workdir: str | None, members: Sequence[str] = ()) -> "tuple[ConfigDict, pathlib.Path]":
    """The config, with its overrides, and the workdir.

    Without --config, it is the config of the workdir or of the first member; in a new workdir, the quickstart; and for a pre-trained
    network instead of a workdir, the default config.

    Args:
      arguments: as returned by `parse`, in any order; if a field is given several times, the last value wins.
      mode: what to do.
      workdir: as given on the command line; None for `default_workdir`.
      members: of an ensemble, as given on the command line.

    Raises:
      UserError: the config cannot be read, or an override names an unknown field or has a value of the wrong type.
    """
    from distill_jax import checks, configuration, default_config, fields, pretrained  # here, so that --help does not wait for jax
    from distill_jax.errors import UserError
    from distill_jax.workdir import check_path

    paths = [argument.partition("=")[2] for argument in arguments if not OVERRIDE.fullmatch(argument)]
    overrides = {}  # field -> the argument
    for argument in arguments:
        if match := OVERRIDE.fullmatch(argument):
            overrides.pop(match[2], None)
            overrides[match[2]] = argument
    values = {field: OVERRIDE.fullmatch(argument)[3] or "" for field, argument in overrides.items()}
    folder = pathlib.Path(workdir or default_workdir(paths[-1] if paths else str(QUICKSTART))).expanduser()
    if members and workdir is None:
        raise UserError("--members also needs --workdir, the folder for ensemble.json")
    is_pretrained = workdir is not None and pretrained.is_source(workdir)
    if is_pretrained and mode not in OF_PRETRAINED:
        raise UserError(f"--workdir={workdir} is a pre-trained network, for --mode={' or '.join(OF_PRETRAINED)}; the mode here is {mode}")
    if is_pretrained and not paths:
        given = default_config.get_config()
    elif paths or (mode == "train" and not (folder / "config.json").exists()):
        given = configuration.read(paths[-1] if paths else str(QUICKSTART))
    else:
        source = pathlib.Path(members[0]).expanduser() if members else folder
        check_path(source)
        given = configuration.of_workdir_for(source, values.get("data.name"))
    config = configuration.with_options(given, values)
    known = fields.flatten(config)
    for field, argument in overrides.items():
        if field not in known:
            raise UserError(f"{argument.partition('=')[0]} is no such field{fields.near(field, known)}")
        if not _override(config, argument):
            raise UserError(f"{argument}: {field} must be of type {type(known[field]).__name__}, such as {known[field]!r}")
    config = configuration.only_given(config, given, values)
    if mode not in ("train", "eval"):  # which check each stage
        checks.check(config)
    return config, folder


def _override(config: "ConfigDict", argument: str) -> bool:
    """Sets one field of a config; returns whether the value has the field's type."""
    from ml_collections import config_flags

    parsed, argv = flags.FlagValues(), ["run.py", argument]
    config_flags.DEFINE_config_dict("config", config, HELP, parsed, lock_config=False, sys_argv=argv)
    try:
        parsed(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def join_other_processes(mode: str) -> None:
    """Joins the other processes, if the flags or the environment name any; checks that there are devices, and keeps compiled programs.

    Raises:
      UserError: the mode takes a single process, the others cannot be joined, or there is no device.
    """
    from distill_jax import compilation, processes, sharding
    from distill_jax.errors import UserError

    if processes.is_one_of_several(DISTRIBUTED.value, COORDINATOR.value, PROCESSES.value, PROCESS.value):
        if mode not in ("train", "eval"):
            raise UserError(f"--mode={mode} takes a single process; start it on one host, with --nodistributed")
        processes.join(COORDINATOR.value, PROCESSES.value, PROCESS.value, JOIN_TIMEOUT.value)
    sharding.check_backend()
    compilation.keep_programs()


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the process with one line for every error that is not a bug; with --traceback, also prints the stack trace."""
    from distill_jax.errors import Interrupted, UserError

    # Not KeyboardInterrupt: JAX's garbage-collection callback would swallow it, and modules wrap it while they are imported.
    interrupted = "interrupted; repeat the command to resume a run from its last checkpoint"
    signal.signal(signal.SIGINT, lambda *_: fail(interrupted, status=128 + signal.SIGINT))
    try:
        yield
    except UserError as error:
        fail(str(error))
    except Interrupted as stopped:
        print(stopped, flush=True)
        _end(128 + stopped.signal_number)
    except MemoryError as error:
        fail(f"out of memory: {' '.join(str(error).split()) or 'the data and the network do not fit'}; {SMALLER}")
    except BrokenPipeError:
        fail("the output was closed; repeat the command to resume a run from its last checkpoint")
    except OSError as error:
        hint = " (--traceback shows where)" if flags.FLAGS.is_parsed() else ""
        fail(f"{error.filename or 'system'}: {error.strerror or error}{hint}")
    except RuntimeError as error:  # includes XLA's errors
        said = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in said and "out of memory" not in said.lower():
            raise
        fail(f"out of memory: {said[:200].rstrip('.')}; {SMALLER}")


def import_jax() -> None:
    """Imports jax, which takes a second.

    Raises:
      UserError: an environment variable of JAX has an invalid value.
    """
    from distill_jax.errors import UserError

    terminal.show("importing JAX ...")
    try:
        import jax  # noqa: F401
    except ValueError as error:
        raise UserError(f"JAX cannot be imported: {error}; check the environment variables JAX_*") from error
    logging.set_verbosity(logging.WARNING)  # JAX's, such as that it uses the CPU since it cannot use the GPU
    logging.get_absl_logger().setLevel("CRITICAL")  # orbax's: it logs every file it touches, and also every error it raises
    terminal.show("")


def make_streams_safe() -> None:
    """Makes printing and reading safe if a standard stream is closed or cannot encode a class name, and prints warnings on one line."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # occupies the number; otherwise the next file opened would get what libraries print
    sys.stdout, sys.stderr = sys.stdout or open(os.devnull, "w"), sys.stderr or open(os.devnull, "w")
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stdout.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)


def fail(message: str, status: int = 1) -> NoReturn:
    """Prints one line and exits at once: a regular exit would wait for other processes, which may be waiting for this one."""
    with contextlib.suppress(*UNWRITABLE):
        terminal.show("")
        if flags.FLAGS["traceback"].present and flags.FLAGS["traceback"].value and sys.exc_info()[0]:
            traceback.print_exc()
        print(f"error: {message}", file=sys.stderr)
    _end(status)


def _end(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(*UNWRITABLE):
            stream.flush()
    os._exit(status)
