"""Errors on the command line and in configs: each is reported in one line that names the field, before anything is written."""

import contextlib
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from flax import linen as nn
from helpers import ROOT, TINY, make_config
from ml_collections import ConfigDict

from distill_jax import (
    checks,
    command_line,
    configuration,
    default_config,
    logs,
    methods,
    sharding,
    state,
    study,
    trained,
)
from distill_jax.errors import UserError
from distill_jax.plan import Plan

DGKD, TOLERANT, KD, LSTSD, SD_LSTSD, TREC = (
    f"--config={ROOT / 'configs' / name}.py"
    for name in ("dgkd_digits", "tolerant_digits", "kd_cifar100", "lstsd_digits", "sd_lstsd_digits", "text_trec")
)
ONE_CYCLE = "--config.schedule.cycles=1"
GENERATIONS = ["--config.stages.name=generations", "--config.method.name=supervised"]


def read(*arguments, mode="train", workdir="nowhere", members=()):
    return command_line.read_config([*TINY, *arguments], mode, str(workdir), members)


def prepare(*arguments, workdir="nowhere"):
    """Runs the checks made before anything is trained or written."""
    return study.prepare(*read(*arguments, workdir=workdir))


def refusal(act, *arguments, **options):
    """The one-line message of the UserError."""
    with pytest.raises(UserError) as raised:
        act(*arguments, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # values out of range
        ("--config.seeds=0", "seeds is 0; it must lie in [1, 10000]"),
        ("--config.seeds=-1", "seeds is -1"),
        ("--config.seed=-1", "seed is -1; it must lie in [0, 4294967295]"),
        ("--config.seed=4294967296", "seed is 4294967296"),
        ("--config.seed=4294967295 --config.seeds=2", "seed + seeds is 4294967297"),
        ("--config.epochs=0", "epochs is 0"),
        ("--config.epochs=99999999999999999999", "epochs is 99999999999999999999; it must lie in [1, 1000000]"),
        ("--config.epochs=1000000 --config.batch_size=1", "epochs is 1000000, which makes 200,000,000 steps"),
        ("--config.batch_size=300", "batch_size is 300, but the training set has only 200 examples"),
        ("--config.checkpoint_every=0", "checkpoint_every is 0"),
        ("--config.dtype=float16", "dtype is 'float16'; known: float32, bfloat16; did you mean 'bfloat16'?"),
        ("--config.data.train_examples=5000", "data.train_examples is 5000; digits allows 0 to 1437"),
        ("--config.data.downsample=3", "data.downsample is 3, which does not divide the 8x8 images of digits"),
        ("--config.data.downsample=0", "data.downsample is 0; it must lie in [1, 16384]"),
        ("--config.data.crop_padding=9", "data.crop_padding is 9; the 8x8 images of digits allow 0 to 7"),
        ("--config.data.text.format=csv", "data.text.format is 'csv'"),
        ("--config.optimizer.learning_rate=nan", "optimizer.learning_rate is nan; it must be a finite number"),
        ("--config.optimizer.learning_rate=1e30", "optimizer.learning_rate is 1e+30; it must be at most 1,000,000"),
        ("--config.optimizer.weight_decay=nan", "optimizer.weight_decay is nan"),
        ("--config.optimizer.weight_decay=-1", "optimizer.weight_decay is -1.0; it must be at least 0"),
        ("--config.schedule.factor=nan", "schedule.factor is nan"),
        ("--config.schedule.factor=inf", "schedule.factor is inf"),
        ("--config.schedule.factor=-1", "schedule.factor is -1.0; it must lie in (0, 1]"),
        ("--config.schedule.warmup_epochs=9", "schedule.warmup_epochs is 9.0; it must lie in [0, 4]"),
        ("--config.schedule.amplitudes=(1,-1)", "schedule.amplitudes is -1; it must be positive"),
        ("--config.schedule.amplitudes=(0,1)", "schedule.amplitudes is 0"),
        ("--config.schedule.amplitudes=(1e400,1)", "schedule.amplitudes is inf"),
        ("--config.schedule.amplitudes=('a','b')", "schedule.amplitudes is 'a'; it must be of type float"),
        ("--config.schedule.amplitudes=0.5", "schedule.amplitudes has 1 entries; it must have 2, one per cycle"),
        ("--config.schedule.boundaries=(0.5,0.2)", "schedule.boundaries is (0.5, 0.2); it must be increasing fractions"),
        ("--config.schedule.boundaries=(1.5,)", "schedule.boundaries is (1.5,)"),
        ("--config.schedule.boundaries=('x',)", "schedule.boundaries[0] is 'x'"),
        ("--config.schedule.cycle_epochs=('a',)", "schedule.cycle_epochs is 'a'; it must be of type int"),
        ("--config.schedule.cycle_epochs=(nan,)", "schedule.cycle_epochs is '(nan,)'"),
        ("--config.schedule.cycle_epochs=(3,2)", "schedule.cycle_epochs is (3, 2); it must be positive integers that add up to epochs = 4"),
        (ONE_CYCLE, "schedule.cycles: cycle_ends is (4,); it must have two or more entries"),
        # wrong type
        ("--config.epochs=many", "--config.epochs=many: epochs must be of type int, such as 60"),
        ("--config.epochs", "--config.epochs: epochs must be of type int"),
        ("--config.data.flip=3", "--config.data.flip=3: data.flip must be of type bool, such as False"),
        ("--config.epochs=4 --config.epochs=x", "--config.epochs=x"),
        # no such field
        ("--config.modle.name=x", "--config.modle.name is no such field; did you mean 'model.name'?"),
        ("--config.data.nam=x", "--config.data.nam is no such field; did you mean 'data.name'?"),
        ("--config.optimizer.lr=1", "--config.optimizer.lr is no such field; optimizer has: clip_norm, learning_rate, momentum, name"),
        ("--config.model=resnet20", "--config.model is no such field; it is a group of fields: model.filters, model.name"),
        ("--config.method.temprature=2", "did you mean 'method.temperature'?"),
        ("--config.stages.generations=3", "--config.stages.generations is no such field; stages has: name"),
        # methods, networks
        ("--config.method.temperature=1e-3", "method.temperature is 0.001; it must lie in [0.01, 100]"),
        ("--config.method.temperature=nan", "method.temperature is nan"),
        ("--config.method.name=snapshots", "method.name is 'snapshots'; known: "),
        ("--config.method.name=snapshot+snapshot", "method.name is 'snapshot+snapshot', which names a method twice"),
        ("--config.method.name=supervised --config.method.label_smoothing=2", "method.label_smoothing is 2.0"),
        (f"{LSTSD} {ONE_CYCLE}", "method.generation_epochs is 5, but epochs is 4: there would be no long-term signal"),
        (SD_LSTSD, "method.long_short_term.generation_epochs is 5, but epochs is 4"),
        (f"{SD_LSTSD} --config.method.snapshot.temperature=-1", "method.snapshot.temperature is -1.0"),
        ("--config.model.name=resnet21", "did you mean 'resnet"),
        ("--config.model.name=text_cnn", "model.name is 'text_cnn', a network for text, but the inputs are images"),
        ("--config.model.filters=(1,2)", "model.filters is (1, 2); it must be three numbers"),
        # a user's own
        ("--config.model.name=json:loads", "model.name is 'json:loads'; it must be a subclass of flax.linen.Module"),
        ("--config.method.name=nowhere:x", "method.name is 'nowhere:x'; there is no module nowhere"),
        ("--config.method.name=json:JSONDecoder", "method.name is 'json:JSONDecoder'; it must be a function"),
        ("--config.method.name=json:loads", "method.name is 'json:loads'; building it failed: TypeError"),
        # teachers and initial weights
        ("--config.initial=nowhere", "initial: nowhere/config.json does not exist; is nowhere the workdir of a run?"),
        ("--config.teachers=('nowhere',)", "teachers: nowhere/config.json does not exist"),
        ("--config.teachers=(1,)", "teachers is 1; it must be of type str"),
        ("--config.teachers=('a','a')", "teachers names a more than once"),
        ("--config.data.voc.train=2007", "data.voc.train is 2007; it must be"),
        ("--config.initial=stage:x", "stage:x is given, but this run has no stages"),
        (f"{KD} --config.data.name=digits --config.data.crop_padding=0 {ONE_CYCLE}", "teachers: num_teachers is 0; distillation takes one"),
        # families: all stages are checked before the first
        ("--config.stages.name=generations", "method.name is 'snapshot', but stages 'generations' sets each stage's method; remove one"),
        (f"{TOLERANT} --config.stages.temperature=-1", "stages.temperature is -1.0"),
        (f"{TOLERANT} --config.stages.k=1", "stages.k is 1; it must be at least 2"),
        (f"{TOLERANT} {ONE_CYCLE} --config.stages.k=11", "stage generation_0: method.k is 11; it must lie in 2..10, the number of classes"),
        (f"{TOLERANT} --config.stages.weight_ce=('a',)", "stages.weight_ce[0] is 'a'; it must be of type float"),
        (f"{TOLERANT} --config.stages.weight_ce=(0.5,0.5)", "stages.weight_ce has 2 entries; stages.generations is 3"),
        (f"{TOLERANT} --config.seed=4294967000", "stage generation_1: seed is 4294968000"),
        (f"{DGKD} {ONE_CYCLE} --config.data.crop_padding=1", "stage kd_plain6_cifar10: method.guide_logits is 'table', which needs"),
        (f"{DGKD} --config.stages.temperature=0", "stages.temperature is 0.0"),
        (f"{DGKD} --config.stages.compare=()", "stages.compare is (); choose from"),
        (f"{DGKD} --config.stages.path=('plain2','resnet7')", "stages.path names 'resnet7'"),
        (f"{DGKD} {ONE_CYCLE} --config.stages.path=('plain2_cifar10','text_cnn')", "stage supervised_text_cnn: model.name is 'text_cnn'"),
        # paths
        ("--config=nothing.py", "--config=nothing.py: no such file"),
        ("--config.data.name=npz:nothing.npz", "nothing.npz: No such file or directory"),
        ("--config.data.name=cifar", "data.name 'cifar' is not known; known: "),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message):
    assert message in refusal(prepare, *arguments.split())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("def get_config(:", "SyntaxError in {file}:1: invalid syntax"),
        ("import nothing_such", "ModuleNotFoundError in {file}:1: No module named 'nothing_such'"),
        ("def get_config():\n    return 1 / 0", "ZeroDivisionError in {file}:2: division by zero"),
        ("import sys\nsys.exit(3)", "SystemExit in {file}:2: 3"),
        ("x = 1", "has no function get_config() that returns an ml_collections.ConfigDict"),
        ("def get_config():\n    return {}", "has no function get_config() that returns an ml_collections.ConfigDict"),
        ("from ml_collections import ConfigDict as C\ndef get_config():\n    return C()", "--config lacks data; start from"),
    ],
)
def test_a_config_file_that_fails_is_told_with_its_line(tmp_path, lines, message):
    file = tmp_path / "mine.py"
    file.write_text(lines)
    assert message.format(file=file) in refusal(read, f"--config={file}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("schedule.boundaries = 0.5", "mine.py:4: Could not override field 'boundaries'"),
        ("schedule.boundaries = None", "schedule.boundaries is None; it must be of type tuple, such as (0.5, 0.75)"),
        ("model = None", "model is None; it must be a group of fields: model.name"),
        ("model.name = None", "model.name is None; it must be a name"),
        ("data.text = None", "data.text is None; it must be a group of fields: data.text.format"),
        ("seed = True", "seed is True; it must be of type int"),
        ("foo = 1", "foo is not a config field"),
        ("data.nam = 1", "data.nam is not a config field; did you mean 'data.name'?"),
        ("method.foo = 1", "method.foo is not an option of method 'snapshot'"),
        ("model.foo = 1", "model.foo is not an option of network small_cnn"),
        ("stages.foo = 1", "stages has options (foo), but stages.name is ''"),
        ("teachers = ('a', ('b',))", "teachers is ('b',); it must be of type str"),
    ],
)
def test_a_field_of_a_config_file_is_checked(tmp_path, change, message):
    file = tmp_path / "mine.py"
    file.write_text(
        f"from configs import sd_digits\ndef get_config():\n    config = sd_digits.get_config()\n    config.{change}\n    return config"
    )
    assert message in refusal(prepare, f"--config={file}")


@pytest.mark.parametrize("field", [name for name in default_config.get_config() if name != "teachers"])
def test_a_field_that_a_config_lacks_is_named(field):
    config = make_config()
    del config[field]
    assert f"--config lacks {field}" in refusal(checks.check, config)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (3, "stages.list is 3; it must hold a dict of overrides for each stage"),
        ({}, "stages.list has no stage"),
        ({"a": 3}, "stages.list is {'a': 3}; it must hold a dict of overrides"),
        ({"a": {"epoch": 3}}, "stage a: epoch is not a field of a stage; did you mean 'epochs'?"),
        ({"a": {"epochs": "x"}}, "stage a: epochs is 'x'; it must be of type int"),
        ({"a": {"model": "resnet20"}}, "stage a: model is 'resnet20'; it must be a dict of fields"),
        ({"a": {"data": {"nam": "digits"}}}, "stage a: data.nam is not a config field; did you mean 'data.name'?"),
        ({"a": {"method": {"temperature": 3.0}}}, "stage a: method.name is None; it must be a name"),
        ({"a": {"schedule": {"cycles": 7}}}, "stage a: schedule.cycles is 7"),
        ({"a": {"teachers": (3,)}}, "stage a: teachers is 3; it must be of type str"),
        ({"a": {"teachers": 3}}, "stage a: teachers is 3; it must be of type tuple"),
        ({"a": {"teachers": ("stage:a",)}}, "stages.list has stages that depend on each other"),
        ({"a": {"initial": "stage:b"}}, "stage a: stage:b is not an earlier stage"),
        ({"a": {"seeds": 3}}, "stage a: seeds is not a field of a stage"),
        ({"a/b": {}}, "stages.list has a stage 'a/b'; this cannot be the name of a stage's folder"),
        ({"checkpoints": {}}, "stages.list has a stage 'checkpoints'"),
        ({"seed_0": {}}, "stages.list has a stage 'seed_0'"),
    ],
)
def test_a_list_of_stages_is_checked_as_a_whole(listed, message, tmp_path):
    config = make_config(stages={"name": "list", "list": listed})
    assert message in refusal(study.train, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_begin_leaves_no_workdir(tmp_path):
    """So that the corrected config can use it."""
    for mistake in ("--config.initial=nowhere", "--config.teachers=('nowhere',)", "--config.data.name=npz:nowhere", "--config.epochs=0"):
        refusal(study.train, *read(mistake, workdir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["lr=[0.1]", "a*b", "q?", "back\\slash", "[x]/y"])
def test_paths_that_orbax_takes_for_patterns_are_refused(tmp_path, name):
    assert "in its path, which orbax treats as a pattern" in refusal(prepare, workdir=tmp_path / name)


def test_a_link_to_such_a_path_is_refused_too(tmp_path):
    (tmp_path / "a[b]").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a[b]")
    assert "a[b] has [ ] in its path" in refusal(prepare, workdir=tmp_path / "link")


def test_a_value_belongs_to_the_field_right_before_it(monkeypatch):
    def fail(message):
        raise UserError(message)

    monkeypatch.setattr(command_line, "fail", fail)
    try:
        assert command_line.parse(["run.py", "--config.epochs", "3", "--traceback"]) == ["run.py", "--config.epochs=3"]
        assert command_line.parse(["run.py", "--config", "a.py", "--config.data.flip"]) == ["run.py", "--config=a.py", "--config.data.flip"]
        for stray in (["--config.data.flip", "--traceback", "3"], ["--config.epochs=3", "4"]):
            with pytest.raises(UserError, match="unknown argument '[34]'"):
                command_line.parse(["run.py", *stray])
    finally:
        flags.FLAGS.unparse_flags()


def test_an_object_store_is_refused():
    assert "is in an object store; --workdir must be on a mounted file system" in refusal(prepare, workdir="gs://bucket/run")


def test_a_workdir_that_the_locale_cannot_tell_is_refused(tmp_path):
    assert "set a UTF-8 one" in refusal(prepare, workdir=tmp_path / os.fsdecode(b"\xfc"))


def test_every_option_can_be_given_whether_the_file_lists_it_or_not():
    config, _ = read("--config.method.name=supervised", "--config.method.label_smoothing=0.1")
    assert config.method.to_dict() == {"name": "supervised", "label_smoothing": 0.1}, "the options of the file's own method are gone"
    config, _ = read("--config.model.name=resnet8", "--config.model.shortcut=projection")
    assert config.model.to_dict() == {"name": "resnet8", "shortcut": "projection"}
    config, _ = read("--config.schedule.cycle_epochs=(1,3)", "--config.schedule.cycle_epochs=(2,2)")
    assert config.schedule.cycle_epochs == (2, 2), "the last one counts"
    assert read("--config.schedule.boundaries=0.5")[0].schedule.boundaries == (0.5,)


def test_the_order_of_arguments_does_not_matter():
    assert read("--config.epochs=7", LSTSD)[0].to_dict() == read(LSTSD, "--config.epochs=7")[0].to_dict()


def test_a_family_of_one_method_may_have_options_of_its_own(tmp_path):
    jobs = prepare(*GENERATIONS, ONE_CYCLE, "--config.method.label_smoothing=0.1", workdir=tmp_path).jobs
    assert [job.stage for job in jobs] == [f"generation_{number}" for number in range(6)]


def my_method(rate=0.1, kind="fine"):
    if rate > 1:
        raise ValueError(f"rate is {rate}; it must be at most 1")
    return {"fine": methods.supervised(), "other": 3}[kind]


def test_a_users_own_method_is_checked(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "my_methods", sys.modules[__name__])
    own = "--config.method.name=my_methods:my_method"
    assert prepare(own, "--config.method.rate=0.5", workdir=tmp_path).jobs
    assert refusal(prepare, own, "--config.method.rate=2") == "method.rate is 2.0; it must be at most 1"
    assert "--config.method.rat is no such field; did you mean 'method.rate'?" == refusal(prepare, own, "--config.method.rat=2")
    assert "it returns int, not a Method" in refusal(prepare, own, "--config.method.kind=other")
    assert "building it failed: KeyError: 'none'" in refusal(prepare, own, "--config.method.kind=none")


def unresumable(kind=""):
    """Methods that train, but whose runs could not resume."""

    def at_the_end(teacher, network, epochs_done):
        return float(jax.tree.leaves(network)[0].sum()) if epochs_done == 2 else teacher

    def follow(teacher, network):
        return jax.tree.map(jnp.copy, network)

    return methods.supervised()._replace(end_epoch=at_the_end) if kind == "end_epoch" else methods.supervised()._replace(follow=follow)


@pytest.mark.parametrize(
    ("kind", "message"), [("end_epoch", "ConcretizationTypeError: "), ("follow", "TypeError: follow changes the shapes of the teacher")]
)
def test_a_users_own_method_can_resume(monkeypatch, tmp_path, kind, message):
    monkeypatch.setitem(sys.modules, "my_methods", sys.modules[__name__])
    told = refusal(prepare, "--config.method.name=my_methods:unresumable", f"--config.method.kind={kind}", ONE_CYCLE, workdir=tmp_path)
    assert f"method.name is 'my_methods:unresumable'; its runs could not resume, since jax.eval_shape fails: {message}" in told


def test_a_users_own_method_in_a_combination(monkeypatch, tmp_path):
    """Its options are named after the function: a config's field cannot have the dots of a path."""
    for module in ("my", "my.methods"):
        monkeypatch.setitem(sys.modules, module, sys.modules[__name__])
    combined = "--config.method.name=my.methods:my_method+cs_kd"
    config = prepare(combined, "--config.method.my_method.rate=0.5", workdir=tmp_path).config
    assert ConfigDict(configuration.recorded(config)).method.my_method.to_dict() == {"rate": 0.5, "kind": "fine"}
    assert refusal(prepare, combined, "--config.method.my_method.rate=2") == "method.my_method.rate is 2.0; it must be at most 1"
    twice = "method.name is 'my:my_method+my.methods:my_method', which names a method twice"
    assert refusal(prepare, "--config.method.name=my:my_method+my.methods:my_method") == twice


class Pooled(nn.Module):
    num_classes: int
    kind: str = "float16"

    @nn.compact
    def __call__(self, inputs, train=False):
        logits = nn.Dense(self.num_classes, name="head")(inputs.reshape(len(inputs), -1))
        return {"float16": logits.astype("float16"), "pair": (logits, logits), "scalar": logits.mean()}[self.kind]


@pytest.mark.parametrize(("kind", "found"), [("float16", "[((1, 10), 'float16')]"), ("pair", "((1, 10), 'float32'), "), ("scalar", "()")])
def test_what_a_users_own_network_returns_is_checked(monkeypatch, tmp_path, kind, found):
    monkeypatch.setitem(sys.modules, "my_nets", sys.modules[__name__])
    message = refusal(prepare, "--config.model.name=my_nets:Pooled", f"--config.model.kind={kind}", workdir=tmp_path / "run")
    assert found in message and message.endswith("for one input; it must return logits, float32 [1, 10]")


class Headless(nn.Module):
    def __call__(self, inputs, train=False):
        return inputs.reshape(len(inputs), -1)


def test_features_need_a_layer_called_head():
    assert "Headless has no layer named 'head'" in refusal(trained.penultimate, Headless(), {}, np.zeros((1, 8, 8, 1), np.float32))


@pytest.mark.parametrize("devices", [1, 3, 6, 8])
def test_tables_split_over_any_number_of_devices(devices):
    table = methods.long_short_term(200, 10, devices).init(None)
    assert {leaf.shape[0] % devices for leaf in jax.tree.leaves(table)} == {0} and len(table.short) >= 200


def test_an_epoch_of_one_step_has_a_speed(tmp_path):
    plan = Plan(2, 1, 40, (2,), np.array([0.1, 0.05]), "test")
    metrics = state.empty_metrics(sharding.make_mesh())
    one = state.TrainMetrics.single_from_model_output(
        loss=1.0, loss_ce=1.0, loss_teacher=0.0, logits=np.zeros((1, 2)), labels=np.zeros(1, np.int32)
    )
    with contextlib.closing(logs.RunLog(tmp_path, plan, 100, 0)) as log:
        for step in (1, 2):
            log.after_step(metrics.merge(one))
            line = log.train_line(step, metrics.merge(one))
            assert line["images_per_second"] > 0
            log.end_epoch(line)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "out of memory: the data and the network do not fit; try a smaller batch_size or network"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "out of memory: RESOURCE_EXHAUSTED: Out"),
        (BrokenPipeError(32, "Broken pipe"), "the output was closed"),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
    ],
)
def test_errors_that_are_no_bugs_get_one_line(monkeypatch, capsys, error, line):
    monkeypatch.setattr(os, "_exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit), command_line.errors_in_one_line():
            raise error
    finally:
        signal.signal(signal.SIGINT, handler)
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}") and said.count("\n") == 1
