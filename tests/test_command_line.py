"""run.py as a user meets it: one line for each mistake, and never a stack trace."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def call(*arguments):
    return subprocess.run([sys.executable, str(ROOT / "run.py"), *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.modle.name=x", "no such field: 'modle' Did you mean \"model\""),
        ("--config.data.nam=x", "no such field: 'nam' Did you mean \"name\""),
        ("--config.epochs=many", "--config.epochs=many: invalid literal for int()"),
        ("--config.data.flip=3", "--config.data.flip=3"),
        ("--config=configs/nothing.py", "No such file or directory: 'configs/nothing.py'"),
        ("--mode=fly", "--mode=fly: value should be one of <train|eval|ensemble|features|linear_probe>"),
        ("stray", "unknown argument 'stray'"),
    ],
)
def test_a_mistake_is_told_in_one_line(argument, message, tmp_path):
    result = call(argument, f"--workdir={tmp_path}/run")
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_bad_value_is_told_in_one_line(tmp_path):
    result = call("--config.batch_size=0", f"--workdir={tmp_path}/run")
    assert result.returncode == 1
    assert result.stderr == "error: batch_size is 0; it must be at least 1\n"
    assert not (tmp_path / "run").exists()


def test_help_needs_no_jax():
    code = f"import sys; sys.argv = ['run.py', '--help']; sys.path.insert(0, {str(ROOT)!r})\n"
    code += f"import runpy\ntry: runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')\n"
    code += "except SystemExit: print('jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "--workdir" in result.stdout and result.stdout.endswith("False\n")


def test_the_usual_path_imports_no_tensorflow():
    code = "import sys, distill_jax.train; print('tensorflow' in sys.modules, 'tensorflow_datasets' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert result.stdout == "False False\n"
