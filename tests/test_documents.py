"""What the documents say works: every command is parsed and its config checked; Python snippets and examples are run."""

import pathlib
import re
import runpy
import shlex
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from helpers import ROOT, TINY, Crash, act_at, crash, make_config

import distill_jax
import run as run_py
from configs import own_images, own_text
from distill_jax import checks, command_line, experiment, jobs, losses, methods, models, report, study
from distill_jax.errors import UserError

FOLDERS = ("", "*/", "results/*/", "distill_jax/*/")
DOCUMENTS = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}README.md"))]
SOURCES = [ROOT / "run.py", *sorted(ROOT.glob("configs/*.py"))]


def commands(path):
    """The run.py commands in a document, as lists of arguments."""
    text = path.read_text().replace("\\\n", " ")
    for name, value in reversed(re.findall(r'^ +([A-Z]+)="(.*)"$', text, re.MULTILINE)):  # shell variables; later ones may use earlier ones
        text = text.replace(f"${name}", value)
    for line in text.splitlines():
        found = re.search(r"python (?:\.\./)?run\.py(.*)", re.split(r"  +[#&]", line)[0])
        if found:
            arguments = re.split(r" [>|] ", found[1])[0]  # without the shell's pipe
            quoted = arguments.count('"') % 2  # the closing quote of the whole command
            yield shlex.split(arguments.rstrip('"') if quoted else arguments)


ALL = [(path.relative_to(ROOT), arguments) for path in (*DOCUMENTS, *SOURCES) for arguments in commands(path)]


@pytest.fixture
def cli(monkeypatch):
    def fail(message):
        raise UserError(message)

    monkeypatch.setattr(command_line, "fail", fail)
    monkeypatch.chdir(ROOT)
    yield
    flags.FLAGS.unparse_flags()
    for module in ("my_nets", "my_methods"):  # of examples/; other tests have modules of these names
        sys.modules.pop(module, None)


@pytest.mark.parametrize(("path", "arguments"), ALL, ids=[f"{path} {' '.join(arguments)}"[:100] for path, arguments in ALL])
def test_every_command_is_understood(path, arguments, cli, finished, monkeypatch):
    if any("my_nets" in argument or "my_methods" in argument for argument in arguments):
        monkeypatch.syspath_prepend(str(ROOT / "examples"))
    rest = command_line.parse(["run.py", *arguments])
    mode, workdir = run_py.MODE.value, run_py.WORKDIR.value
    has_config = any(argument.startswith("--config=") for argument in arguments)
    if mode != "train" and not has_config:
        workdir = str(finished[0])
    config, _ = command_line.read_config(rest[1:], mode, workdir)
    checks.check(config)
    assert jobs.make_jobs(config, pathlib.Path("nowhere"))


def test_there_are_commands():
    assert len(ALL) > 60


def test_every_command_of_the_report_is_understood():
    found = [line for path in DOCUMENTS for line in re.findall(r"python -m distill_jax\.report (?!--help)([^`#\n]+)", path.read_text())]
    assert len(found) >= 6
    for arguments in found:
        report.make_parser().parse_args(shlex.split(arguments))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text()) < 8000


def test_the_names_of_all_methods_and_networks_are_documented():
    text = (ROOT / "configs" / "README.md").read_text()
    families = {re.match(r"[a-z_]+", name)[0] for name in models.names() if name[0] != "<"}
    assert not {name for name in methods.METHODS if f"`{name}`" not in text} | {name for name in families if f"`{name}" not in text}


def test_what_a_step_does_is_read_in_four_short_files():
    files = ("run.py", "distill_jax/loop.py", "distill_jax/step.py", "distill_jax/methods/snapshot.py")
    assert sum(len((ROOT / name).read_text().splitlines()) for name in files) < 250


def test_links_lead_somewhere():
    for path in DOCUMENTS:
        for link, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", path.read_text()):
            target = path.parent / link if link else path
            assert link.startswith("http") or target.exists(), f"{path}: {link}"
            headings = re.findall("^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
            anchors = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]
            assert not heading or heading in anchors, f"{path}: {heading}"


def test_snippets_of_the_readme_run(finished, monkeypatch, tmp_path):
    load, method, own_method = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sd_digits").symlink_to(finished[0])
    monkeypatch.chdir(tmp_path)
    images = np.zeros((3, 20, 30, 1), np.uint8)
    names = {"images": images}
    exec(load, names)
    network = names["network"]
    assert network.predict(images).shape == (3, 10) and network.classes == tuple("0123456789")

    names |= {"variables": network.variables, "ids": jnp.arange(3), "key": None, "labels": jnp.arange(3), "logits": jnp.zeros((3, 10))}
    own = SimpleNamespace(apply=lambda variables, inputs: network.module.apply(variables, inputs, train=False))
    exec(method, names | {"model": own, "images": jnp.zeros((3, 8, 8, 1)), "epoch": 10})
    exec(own_method, names)
    labels, logits = jnp.arange(3), jnp.eye(3, 10)
    assert names["logit_penalty"](weight=0.5).loss(logits, labels, None).loss == losses.cross_entropy(logits, labels) + 0.5 * 0.1


@pytest.mark.parametrize("method", ["snapshot", "long_short_term"])
def test_a_method_in_anybodys_loop(method, tmp_path, monkeypatch, capsys):
    """The example imports nothing from the project but the method, leaves no files behind, and learns."""
    path = ROOT / "examples" / "own_loop.py"
    imported = re.findall(r"from (distill_jax\S*) import (.*)", path.read_text())
    assert imported == [("distill_jax.methods", "Batch, long_short_term, snapshot_distillation")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [path.name, method])
    runpy.run_path(str(path))
    assert float(capsys.readouterr().out.removeprefix("test accuracy ").rstrip("%\n")) > 88
    assert not list(tmp_path.iterdir())


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """A user's folder, outside the repository, with a network and a method."""
    for name in ("nets", "methods"):
        (tmp_path / f"users_{name}.py").write_text((ROOT / "examples" / f"my_{name}.py").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


OWN = [arguments for path, arguments in ALL if str(path) == "README.md" and any("=my_" in argument for argument in arguments)]


@pytest.mark.parametrize("arguments", OWN, ids=["network", "method"])
def test_a_network_and_a_method_of_ones_own(arguments, own_files, tmp_path, monkeypatch):
    """The README's commands, with fewer epochs, and with the files of examples/ under other names in a folder elsewhere."""
    own = [argument.replace("=my_", "=users_") for argument in arguments if argument.startswith("--config.")]
    config, folder = command_line.read_config([*TINY, *own], "train", str(tmp_path / "run"))
    with pytest.raises(Crash), monkeypatch.context() as patch:
        build = experiment.build
        patch.setattr(experiment, "build", lambda *built: act_at(build(*built), 7, crash))
        study.train(config, folder)
    summary = study.train(config, folder)  # resumes
    assert own[0] in (f"--config.method.name={summary['method']}", f"--config.model.name={summary['model']}")
    assert study.evaluate(config, folder)["test_accuracy"] == summary["test_accuracy"] > 0.2
    assert distill_jax.load(folder).predict(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 10)


MEMORY = """
import jax
import jax.numpy as jnp
from distill_jax.methods import Method, supervised

def memory():
    \"\"\"Keeps the networks of the last two epochs.\"\"\"
    def signal(pair, batch, key):
        return None
    def end_epoch(pair, now, done):
        return (jax.tree.map(jnp.copy, now), pair and pair[0])
    return Method(signal, supervised().loss, end_epoch=end_epoch)
"""


def test_a_methods_arguments_may_have_any_name(tmp_path, monkeypatch):
    (tmp_path / "users_memory.py").write_text(MEMORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = make_config(method={"name": "users_memory:memory"})
    summary = study.train(config, tmp_path / "run")
    assert study.evaluate(config, tmp_path / "run")["test_accuracy"] == summary["test_accuracy"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("model.name=users_nets:Mixer model.wdith=16", "config.model.wdith is no such field; did you mean 'model.width'?"),
        ("model.name=users_nets:Mixr", "model.name is 'users_nets:Mixr'; module users_nets (.*) has no Mixr"),
        ("method.name=users_methods:class_means method.wieght=1", "config.method.wieght is no such field; did you mean 'method.weight'?"),
        ("method.name=no_methods:any", "method.name is 'no_methods:any'; there is no module no_methods"),
    ],
)
def test_what_ones_own_do_not_have_is_refused(own, message, own_files):
    with pytest.raises(UserError, match=message):
        command_line.read_config([f"--config.{field}" for field in own.split()], "train", "run")


def test_ones_own_images(photographs, tmp_path):
    config = own_images.get_config()
    config.data.name, config.data.image_size, config.epochs = f"folder:{photographs}", 16, 2
    config.model.name = "small_cnn"  # compiles faster
    summary = study.train(config, tmp_path)
    assert summary["classes"] == ["china", "flower"] and summary["test_accuracy"] > 0.5
    network = distill_jax.load(tmp_path)
    assert network.predict(np.zeros((1, 40, 50, 3), np.uint8)).shape == (1, 2)


def test_ones_own_sentences(tmp_path):
    rng = np.random.default_rng(0)
    words = {"good": ["fine", "great"], "bad": ["poor", "dull"]}
    lines = [f"{label}\ta {rng.choice(words[label])} film" for label in rng.choice(list(words), 200)]
    (tmp_path / "reviews.tsv").write_text("\n".join(lines))
    config = own_text.get_config()
    config.data.name = f"text:{tmp_path / 'reviews.tsv'}"
    assert study.train(config, tmp_path / "run")["test_accuracy"] > 0.9
    network = distill_jax.load(tmp_path / "run")
    assert network.classes == ("bad", "good")
    assert network.predict(["a great film", "a dull film"]).argmax(axis=1).tolist() == [1, 0]


def test_the_public_names():
    assert all(getattr(distill_jax, name) is not None for name in distill_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        distill_jax.trian  # noqa: B018
