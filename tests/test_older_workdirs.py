"""Workdirs of an earlier version of this code (commit b4353ef, schema 1): evaluated, resumed, and used as teachers.

tests/data/workdirs_b4353ef.tar.xz holds two, both stopped by SIGTERM: `both`, from configs/sd_lstsd_digits.py in its second cycle, and
`path`, from configs/dgkd_digits.py with a finished plain4_cifar10 and its student. expected.json has the results of that code after
resuming them. On the same kind of processor with the same jaxlib, this code gives the same results bit for bit.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import types

import numpy as np
import pytest
from flax import linen as nn
from helpers import ROOT, make_config, with_fields
from ml_collections import ConfigDict

import distill_jax
from configs import dgkd_digits, sd_digits, sd_lstsd_digits
from distill_jax import archive, configuration, files, study, workdir

SMALL = {"batch_size": 40, "data__train_examples": 120, "eval_every": 1, "checkpoint_every": 2, "log_every": 1}
GENERATION = {"method__long_short_term__generation_epochs": 1}
STUDENT = "kd_plain2_cifar10"


def both_config():
    return with_fields(sd_lstsd_digits.get_config(), epochs=4, schedule__cycles=2, model__name="plain2_cifar10", **SMALL, **GENERATION)


def path_config():
    config = with_fields(dgkd_digits.get_config(), epochs=2, **SMALL)
    config.stages.update({"path": ("plain4_cifar10", "plain2_cifar10"), "compare": ("dgkd",), "form": "paper", "weight_teacher": 0.5})
    return config


@pytest.fixture
def older(tmp_path):
    with tarfile.open(ROOT / "tests" / "data" / "workdirs_b4353ef.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def machine():
    """What a bit-exact result depends on: the processor's features, the cores that this process may use, and the compiler. "" if not on
    Linux."""
    cpu = pathlib.Path("/proc/cpuinfo")
    if not cpu.exists():
        return ""
    features = next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "")
    return hashlib.sha256(f"{features} {len(os.sched_getaffinity(0))} {importlib.metadata.version('jaxlib')}".encode()).hexdigest()


def check_ends_as_expected(older, run):
    expected = files.read_json(older / "expected.json")
    losses = {str(line["step"]): line["loss"] for line in files.read_jsonl(older / run / "metrics.jsonl")}
    assert losses == pytest.approx(expected[run]["losses"], rel=0.02)
    if machine() != expected["machine"]:
        pytest.skip("within 2 % of the losses of the older code; the bits are compared only on the kind of machine that it ran on")
    assert losses == expected[run]["losses"]
    assert workdir.load_summary(older / run)["params_sha256"] == expected[run]["params_sha256"]


def train_as_users_do(config, folder):
    """Trains in a process of its own, with all of LLVM's optimizations, of which conftest.py leaves few; returns what it printed."""
    code = f"import test_older_workdirs as here; here.study.train(here.{config.__name__}(), {str(folder)!r})"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_snapshots_and_tables_are_evaluated_and_resumed(older):
    result = study.evaluate(configuration.of_workdir(older / "both"), older / "both")
    evaluated = files.read_json(older / "expected.json")["both"]["evaluated"]
    assert result["step"] == evaluated["step"] and result["test_nll"] == pytest.approx(evaluated["test_nll"], rel=1e-4)
    assert "resuming after step 8 of 12" in train_as_users_do(both_config, older / "both")
    check_ends_as_expected(older, "both")


def test_a_family_goes_on_with_its_finished_teacher(older):
    said = train_as_users_do(path_config, older / "path")
    assert "plain4_cifar10: already finished" in said and "resuming after step 5 of 6" in said
    check_ends_as_expected(older, f"path/{STUDENT}")


def test_a_finished_run_is_loaded_and_teaches(older, tmp_path):
    network = distill_jax.load(older / "path" / "plain4_cifar10")
    assert network.predict(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)
    config = with_fields(sd_digits.get_config(), epochs=1, schedule__cycles=1, model__name="plain2_cifar10", **SMALL)
    config.method, config.teachers = ConfigDict({"name": "distillation"}), (str(older / "path" / "plain4_cifar10"),)
    assert study.train(config, tmp_path / "student")["teacher_agreement"] > 0


def test_another_config_is_refused(older):
    config = both_config()
    config.batch_size = 20
    with pytest.raises(distill_jax.UserError, match="belongs to another config: batch_size is 40 there and 20 here. Choose another"):
        study.train(config, older / "both")


@pytest.mark.parametrize(("schema", "kept"), [(1, {"name": "my_nets:Net"}), (2, {"name": "my_nets:Net", "layers": 0})])
def test_only_the_oldest_workdirs_have_options_of_all_networks(tmp_path, monkeypatch, schema, kept):
    """In schema 1, 0 and "" stood for defaults. Later, 0 is what the network was trained with."""

    class Net(nn.Module):
        num_classes: int
        layers: int = 3

    monkeypatch.setitem(sys.modules, "my_nets", types.SimpleNamespace(Net=Net))
    content = configuration.recorded(make_config())
    workdir.write_json(tmp_path / "config.json", content | {"schema": schema, "model": {"name": "my_nets:Net", "layers": 0}})
    assert configuration.of_workdir(tmp_path).model.to_dict() == kept


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "results").glob("*/config.json")))
def test_configs_of_all_ages_are_read(tmp_path, name):
    """The configs of the studies in results/, which are older than some fields and checks."""
    rows = archive.read_runs(ROOT / "results" / name)
    for content in sorted({json.dumps(archive.nest(row.config | {"seed": 0})) for row in rows}):
        (tmp_path / "config.json").write_text(content)
        config = configuration.of_workdir(tmp_path)
        configuration.check_claim(tmp_path, config)
        assert config.data.name == json.loads(content)["data"]["name"]
