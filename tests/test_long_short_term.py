"""Long Short-Term Sample Distillation: the table, the loss, and runs with it, alone and beside a snapshot."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, Crash, act_at, batch_of, bits, build, crash, make_config, read_lines, run, start, step
from ml_collections import ConfigDict
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from configs import lstsd_digits, sd_lstsd_digits
from distill_jax import methods
from distill_jax.errors import UserError
from distill_jax.methods.long_short_term import SampleSignal, read_rows, write_rows
from distill_jax.state import empty_metrics


def lstsd_config(source=lstsd_digits, **fields):
    config = make_config()
    config.method = source.get_config().method
    table = config.method if source is lstsd_digits else config.method.long_short_term
    table.generation_epochs = 2
    table.update(fields)
    return config


@pytest.fixture(scope="module")
def table_exp():
    return build(lstsd_config())


def make_method(**options):
    return methods.long_short_term(num_examples=50, num_classes=7, **options)


@pytest.mark.parametrize("symmetric", [True, False])
def test_loss_by_hand_with_signals_that_do_not_all_exist(symmetric):
    rng = np.random.default_rng(0)
    student, short, long = 3 * rng.standard_normal((3, 6, 7)).astype(np.float32)
    labels, has_short, has_long = rng.integers(0, 7, 6), np.array([1, 1, 0, 1, 0, 1], bool), np.array([1, 0, 0, 1, 0, 0], bool)
    parts = make_method(temperature=3.0, weight_long=0.3, weight_short=0.7, symmetric=symmetric).loss(
        student, labels, SampleSignal(short, long, has_short, has_long)
    )
    students_T, factor = (3.0, 9.0) if symmetric else (1.0, 1.0)

    def kd_B(teacher):
        return factor * entropy(softmax(teacher.astype(float) / 3, axis=1), softmax(student.astype(float) / students_T, axis=1), axis=1)

    ce = -log_softmax(student.astype(float), axis=1)[np.arange(6), labels].mean()
    teacher = 0.7 * (kd_B(short) * has_short).mean() + 0.3 * (kd_B(long) * has_long).mean()
    assert parts.ce == pytest.approx(ce, rel=1e-5)
    assert parts.teacher == pytest.approx(teacher, rel=1e-5)
    assert parts.loss == pytest.approx(ce + teacher, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_batch_writes_its_own_rows_and_no_other(dtype):
    table = make_method(table_dtype=dtype).init(None)
    rng = np.random.default_rng(0)
    everything = rng.standard_normal((50, 7)).astype(np.float32)
    table = write_rows(table, jnp.arange(50), everything)
    ids, logits = np.array([7, 3, 49]), rng.standard_normal((3, 7)).astype(np.float32)
    after = write_rows(table, ids, logits)
    others = np.setdiff1d(np.arange(50), ids)
    assert np.array_equal(after.short[others], table.short[others])
    assert np.array_equal(after.short[ids], logits.astype(after.short.dtype))
    assert np.array_equal(after.long, table.long) and not after.has_long.any()
    assert np.array_equal(read_rows(after, ids).short_BxC, after.short[ids].astype(np.float32))


def test_rows_are_keyed_by_id_whatever_the_order():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((50, 7)).astype(np.float32)
    tables = []
    for order in (np.arange(50), rng.permutation(50)):
        table = make_method().init(None)
        for ids in order.reshape(5, 10):
            table = write_rows(table, ids, logits[ids])
        tables.append(table)
    assert bits(tables[0]) == bits(tables[1])
    assert tables[0].has_short.sum() == 50


def test_a_row_holds_the_logits_of_the_step(table_exp):
    state, key = start(table_exp)
    ids = np.arange(40) * 5
    state, logits = step(table_exp, state, key, ids)
    table = table_exp.observe(state.teacher, ids, logits)
    assert np.array_equal(table.short[ids], logits)
    assert set(np.flatnonzero(table.has_short)) == set(ids)


def test_a_clean_view_is_stored_on_demand():
    """The logits of the weights before the step, on samples without the step's augmentation."""
    exp = build(lstsd_config(view="clean"))
    state, key = start(exp)
    ids = np.arange(40) * 5
    inputs = exp.spec.to_inputs({"image": exp.data.dataset.train["image"][ids]})
    expected = jax.jit(exp.spec.module().apply)(state.network, inputs)
    _, logits = step(exp, state, key, ids)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_long_signal_is_the_last_of_a_mini_generation_and_stays():
    method = make_method(generation_epochs=2)
    long, count = [], []
    table = method.init(None)
    for epoch in range(1, 6):
        left_out = 10 if epoch < 3 else 0  # which no teacher knows before their first visit
        table = write_rows(table, jnp.arange(50 - left_out), jnp.full((50 - left_out, 7), float(epoch)))
        table = method.end_epoch(table, None, epoch)
        long.append(table.long[jnp.array([0, 49]), 0].tolist())
        count.append(int(table.has_long.sum()))
    assert long == [[0, 0], [2, 0], [2, 0], [4, 4], [4, 4]] and count == [0, 40, 40, 50, 50]


@pytest.fixture(scope="module")
def finished_table(table_exp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lstsd")
    return folder, run(table_exp, 0, folder)


def test_the_signal_starts_when_it_exists(finished_table):
    ends = [line for line in read_lines(finished_table[0]) if line["step"] % 5 == 0]
    assert ends[0]["loss_teacher"] == 0 and min(line["loss_teacher"] for line in ends[1:]) > 0


def copies_of_a_table(lowered):
    text = lowered.compile().as_text()
    assert "f32[1024,10]" in text
    return [line for line in text.splitlines() if "= f32[1024,10]" in line and " copy(" in line]


def test_no_step_copies_the_table(table_exp):
    exp = table_exp
    state, key = start(exp)
    batch, logits = batch_of(exp, np.arange(40)), jnp.zeros((40, 10))
    arguments = state, empty_metrics(exp.data.mesh), exp.data.train, batch, key
    assert not copies_of_a_table(exp.train_step.lower(*arguments))
    assert not copies_of_a_table(exp.observe.lower(state.teacher, batch["id"], logits))

    def step_that_also_writes(state, *others):
        state, epoch_metrics, logits = exp.train_step(state, *others)
        return state.replace(teacher=write_rows(state.teacher, batch["id"], logits)), epoch_metrics

    assert copies_of_a_table(jax.jit(step_that_also_writes, donate_argnums=0).lower(*arguments))


def test_without_weights_it_is_supervised_training_bit_for_bit(tmp_path):
    neither = run(build(lstsd_config(weight_long=0.0, weight_short=0.0)), 0, tmp_path / "neither")
    config = lstsd_config()
    config.method = ConfigDict({"name": "supervised"})
    supervised = run(build(config), 0, tmp_path / "supervised")
    assert neither["params_sha256"] == supervised["params_sha256"]


def test_a_crash_changes_nothing_in_the_end(table_exp, finished_table, tmp_path):
    """The checkpoint holds the tables."""
    check_crash(table_exp, finished_table[1], tmp_path)


def test_a_crash_of_a_combination_changes_nothing_in_the_end(tmp_path):
    """The checkpoint holds the snapshot beside the tables."""
    exp = build(lstsd_config(sd_lstsd_digits))
    check_crash(exp, run(exp, 0, tmp_path / "whole"), tmp_path / "broken")


def check_crash(exp, whole, folder):
    with pytest.raises(Crash):
        run(act_at(exp, 17, crash), 0, folder)
    assert not (folder / "summary.json").exists()
    assert run(exp, 0, folder)["params_sha256"] == whole["params_sha256"]


def test_a_combination_adds_both_teachers_to_one_cross_entropy():
    rng = np.random.default_rng(0)
    student, snapshot, short, long = 3 * rng.standard_normal((4, 6, 7)).astype(np.float32)
    labels, everything = rng.integers(0, 7, 6), np.ones(6, bool)
    rows = SampleSignal(short, long, everything, everything)
    setting = methods.Setting(apply=None, cycle_ends=(1, 2), num_examples=50, num_classes=7)
    sd, lstsd = methods.create("snapshot", setting), methods.create("long_short_term", setting, weight_long=0.2)
    both = methods.create("snapshot+long_short_term", setting, long_short_term={"weight_long": 0.2})
    parts = both.loss(student, labels, (snapshot, rows))
    one, other = sd.loss(student, labels, snapshot), lstsd.loss(student, labels, rows)
    assert parts.ce == one.ce == other.ce
    assert parts.loss == pytest.approx(float(one.loss + other.loss - one.ce), rel=1e-6)
    assert parts.teacher == pytest.approx(float(one.teacher + other.teacher), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"weight_long": -1.0}, "weight_long is -1.0"),
        ({"generation_epochs": 0}, "generation_epochs is 0"),
        ({"view": "augmented"}, "view is 'augmented'; known: training, clean"),
        ({"table_dtype": "int8"}, "table_dtype is 'int8'; known: float32, bfloat16"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_method(**options)
    with pytest.raises(UserError, match=f"^method.{message}"):
        build(lstsd_config(**options))


@pytest.mark.parametrize("devices", [1, 3, 6, 7, 8, 1536])
def test_a_table_splits_evenly_over_any_number_of_devices(devices):
    for num_examples in (1, 1024, 50_000):
        method = methods.long_short_term(num_examples, 2, devices)
        rows = len(jax.eval_shape(method.init, None).short)
        assert rows >= num_examples and rows % devices == rows % 1024 == 0


ON_THREE_DEVICES = """
import pathlib
import sys
import jax
import jax.numpy as jnp
import numpy as np
from helpers import build, make_config, run, start, step
from ml_collections import ConfigDict
from distill_jax import methods
from distill_jax.state import layout

def check_layout(exp, state):
    planned = jax.tree.leaves(jax.tree.broadcast(layout(exp.method, exp.data.mesh), state))
    for leaf, its_layout in zip(jax.tree.leaves(state), planned, strict=True):
        assert leaf.sharding == its_layout, (leaf.shape, leaf.sharding)

method = ConfigDict({"name": "snapshot+long_short_term+ps_kd+dlb+ema_teacher", "long_short_term": {"generation_epochs": 1}})
config = make_config(epochs=2, batch_size=60, model__name="plain2_cifar10", method=method)
exp = build(config)
state, key = start(exp)
for epoch in (1, 2):
    state, logits = step(exp, state, key, np.arange(60))
    state = state.replace(teacher=exp.observe(state.teacher, np.arange(60), logits))
    state = state.replace(teacher=exp.method.end_epoch(state.teacher, state.network, epoch))
    check_layout(exp, state)
print("a third:", state.teacher[1].short.addressable_shards[0].data.shape)

def forgetful(num_examples, num_classes, num_devices):
    def forget(table, ids, logits):  # its result depends on no array: nothing says how it is split
        return jax.tree.map(jnp.zeros_like, table)
    return methods.long_short_term(num_examples, num_classes, num_devices)._replace(observe=forget)

methods.METHODS["forgetful"] = forgetful
config.method = ConfigDict({"name": "forgetful"})
forgets = build(config)
fresh, _ = start(forgets)
check_layout(forgets, fresh.replace(teacher=forgets.observe(fresh.teacher, np.arange(60), logits)))
print("steps:", run(exp, 0, pathlib.Path(sys.argv[1]))["steps"])
"""


def test_on_three_devices(tmp_path):
    """A table's rows are a multiple of 1,024, which is not a multiple of 3. The state keeps its layout at each step."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "3"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", ON_THREE_DEVICES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "a third: (1024, 10)\n" in done.stdout and "steps: 6\n" in done.stdout
