"""run.py as a user sees it: one line for each error, never a stack trace."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

from distill_jax import command_line, compilation, processes


def call(*arguments):
    return subprocess.run([sys.executable, str(ROOT / "run.py"), *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.modle.name=x", "--config.modle.name is no such field; did you mean 'model.name'?"),
        ("--config.data.nam=x", "--config.data.nam is no such field; did you mean 'data.name'?"),
        ("--config.epochs=many", "--config.epochs=many: "),
        ("--config.data.flip=3", "--config.data.flip=3: "),
        ("--config=configs/nothing.py", "error: --config=configs/nothing.py: no such file"),
        ("--mode=predict --workdir=hf:encoder --config.batch_size=0", "error: batch_size is 0; it must lie in [1, 16777216]"),
        ("--mode=fly", "--mode=fly: value should be one of <train|eval|ensemble|features|linear_probe|predict|export>"),
        (
            "--workdir=hf:encoder",
            "error: --workdir=hf:encoder is a pre-trained network, for --mode=predict or export; the mode here is train",
        ),
        ("stray", "error: unknown argument 'stray'; set fields with --config.FIELD=VALUE"),
    ],
)
def test_a_mistake_is_told_in_one_line(argument, message, tmp_path):
    result = call(f"--workdir={tmp_path}/run", *argument.split())
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_bad_value_is_told_in_one_line(tmp_path):
    result = call("--config.batch_size=0", f"--workdir={tmp_path}/run")
    assert result.returncode == 1
    assert result.stderr == "error: batch_size is 0; it must lie in [1, 16777216]\n"
    assert not (tmp_path / "run").exists()


def test_help_needs_no_jax():
    code = f"import sys; sys.argv = ['run.py', '--help']; sys.path.insert(0, {str(ROOT)!r})\n"
    code += f"import runpy\ntry: runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')\n"
    code += "except SystemExit: print('jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "\n  --workdir:" in result.stdout and "\n  --config:" in result.stdout and result.stdout.endswith("False\n")


def test_the_usual_path_imports_no_tensorflow():
    code = "import sys, distill_jax.study, distill_jax.transfer; print('tensorflow' in sys.modules, 'tensorflow_datasets' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert result.stdout == "False False\n"


PROGRAM = """
from distill_jax import command_line
command_line.make_streams_safe()
command_line.import_jax()
from distill_jax import compilation
compilation.keep_programs()
import jax
print(jax.jit(lambda x: 3 * x + 1)(2.0))
"""


def compile_with(**environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, cwd=ROOT, env=kept | environment)
    assert (result.returncode, result.stdout, result.stderr) == (0, "7.0\n", "")


def test_compiled_programs_are_kept(tmp_path):
    """In the user's cache; a program whose writing was cut short is written again."""
    compile_with(XDG_CACHE_HOME=str(tmp_path))
    (folder,) = (tmp_path / "distill_jax").iterdir()
    kept = {path.name: path.read_bytes() for path in folder.glob("*-cache")}
    assert kept and folder.stat().st_mode & 0o77 == 0, "nobody else may write there: the programs are run"
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:20])
        path.with_name(path.name.removesuffix("cache") + "atime").unlink()
    compile_with(XDG_CACHE_HOME=str(tmp_path))
    assert {name: len(content) for name, content in kept.items()} == {path.name: path.stat().st_size for path in folder.glob("*-cache")}


def test_jax_may_keep_its_programs_elsewhere_or_nowhere(tmp_path):
    (tmp_path / "file").touch()
    compile_with(XDG_CACHE_HOME=str(tmp_path / "file"))
    compile_with(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "file"))
    compile_with(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert list((tmp_path / "mine").glob("*-cache")) and not (tmp_path / "cache").exists()


def test_several_processes_keep_no_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "are_several", lambda: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    compilation.keep_programs()
    assert not list(tmp_path.iterdir())


LOGGING = """
import logging
from absl import app, logging as orbax
from distill_jax import command_line
def main(argv):
    command_line.import_jax()
    logging.getLogger("jax._src.distributed").info("starting")
    logging.getLogger("jax._src.xla_bridge").warning("falling back to cpu")
    orbax.error("a file was not written")
app.run(main)
"""


def test_what_jax_warns_of_is_shown_and_what_orbax_logs_is_not():
    result = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.stderr.count("\n") == 1 and "falling back to cpu" in result.stderr


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ("configs/sd_cifar100.py", "runs/sd_cifar100"),
        ("configs/comparison_finetune.py:rte", "runs/comparison_finetune_rte"),
        ("configs/comparison_transfer_bccd.py:../runs/imagenette", "runs/comparison_transfer_bccd_runs_imagenette"),
    ],
)
def test_the_default_workdir_is_named_after_the_config(config, folder):
    assert command_line.default_workdir(config) == folder
