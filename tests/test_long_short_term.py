"""Long Short-Term Sample Distillation: the table, the loss, and runs with it, alone and beside a snapshot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_config
from ml_collections import ConfigDict
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from test_run import Crash, act_at, crash
from test_snapshot import batch_of, bits, start

from configs import lstsd_digits, sd_lstsd_digits
from distill_jax import logs, methods, sharding, train
from distill_jax.errors import UserError
from distill_jax.methods.long_short_term import SampleSignal, read_rows, write_rows


def lstsd_config(source=lstsd_digits, **fields):
    config = make_config()
    config.method = source.get_config().method
    table = config.method if source is lstsd_digits else config.method.long_short_term
    table.generation_epochs = 2
    table.update(fields)
    return config


@pytest.fixture(scope="module")
def table_program():
    return train.build(lstsd_config())


def make_method(**fields):
    return methods.create("long_short_term", methods.Setting(None, (1,), 50, 7, sharding.make_mesh(jax.devices()[:1])), **fields)


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
    table = make_method(table_dtype=dtype).init(None, ())
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
        table = make_method().init(None, ())
        for ids in order.reshape(5, 10):
            table = write_rows(table, ids, logits[ids])
        tables.append(table)
    assert bits(tables[0]) == bits(tables[1])
    assert tables[0].has_short.sum() == 50


def test_a_row_holds_the_logits_of_the_step(table_program):
    program = table_program
    state, key = start(program)
    state = state.replace(teacher=program.method.init(state, ()))
    ids = np.arange(40) * 5
    state, _, logits = program.train_step(state, train.empty_metrics(program), program.train_source, batch_of(program, ids), key)
    table = program.observe(state.teacher, ids, logits)
    assert np.array_equal(table.short[ids], logits)
    assert set(np.flatnonzero(table.has_short)) == set(ids)


def test_a_clean_view_is_stored_on_demand():
    """The logits of the weights before the step, without the augmentation that the step itself sees."""
    program = train.build(lstsd_config(view="clean"))
    state, key = start(program)
    state = state.replace(teacher=program.method.init(state, ()))
    ids = np.arange(40) * 5
    expected = program.predict(train.variables(state), program.train_source, batch_of(program, ids))
    _, _, logits = program.train_step(state, train.empty_metrics(program), program.train_source, batch_of(program, ids), key)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_long_signal_is_the_last_of_a_mini_generation_and_stays():
    method = make_method(generation_epochs=2)
    state = ConfigDict({"teacher": None}, convert_dict=False)
    long = []
    table = method.init(None, ())
    for epoch in range(1, 6):
        table = write_rows(table, jnp.arange(50), jnp.full((50, 7), float(epoch)))
        state.teacher = table
        table = method.end_epoch(state, epoch)
        long.append(float(table.long[0, 0]))
    assert long == [0, 2, 2, 4, 4]


@pytest.fixture(scope="module")
def finished_table(table_program, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("lstsd")
    return workdir, train.run(table_program, 0, workdir)


def test_the_signal_starts_when_it_exists(finished_table):
    ends = [line for line in logs.read_jsonl(finished_table[0] / "metrics.jsonl") if line["step"] % 5 == 0]
    assert ends[0]["loss_teacher"] == 0 and min(line["loss_teacher"] for line in ends[1:]) > 0


def copies_of_a_table(lowered):
    text = lowered.compile().as_text()
    assert "f32[1024,10]" in text
    return [line for line in text.splitlines() if "= f32[1024,10]" in line and " copy(" in line]


def test_no_step_copies_the_table(table_program):
    program = table_program
    state, key = start(program)
    state = state.replace(teacher=program.method.init(state, ()))
    batch, logits = batch_of(program, np.arange(40)), jnp.zeros((40, 10))
    arguments = state, train.empty_metrics(program), program.train_source, batch, key
    assert not copies_of_a_table(program.train_step.lower(*arguments))
    assert not copies_of_a_table(program.observe.lower(state.teacher, batch["id"], logits))

    def step_that_also_writes(state, *others):
        state, epoch_metrics, logits = program.train_step(state, *others)
        return state.replace(teacher=write_rows(state.teacher, batch["id"], logits)), epoch_metrics

    assert copies_of_a_table(jax.jit(step_that_also_writes, donate_argnums=0).lower(*arguments))


def test_without_weights_it_is_supervised_training_bit_for_bit(tmp_path):
    neither = train.train(lstsd_config(weight_long=0.0, weight_short=0.0), tmp_path / "neither")
    config = lstsd_config()
    config.method = ConfigDict({"name": "supervised"})
    supervised = train.train(config, tmp_path / "supervised")
    assert neither["params_sha256"] == supervised["params_sha256"]


@pytest.mark.parametrize("source", [lstsd_digits, sd_lstsd_digits])
def test_a_crash_changes_nothing_in_the_end(source, tmp_path):
    """The checkpoint holds the tables, and for the combination the snapshot beside them."""
    program = train.build(lstsd_config(source))
    whole = train.run(program, 0, tmp_path / "whole")
    with pytest.raises(Crash):
        train.run(act_at(program, 17, crash), 0, tmp_path / "broken")
    assert not (tmp_path / "broken" / "summary.json").exists()
    assert train.run(program, 0, tmp_path / "broken")["params_sha256"] == whole["params_sha256"]


def test_a_combination_adds_both_teachers_to_one_cross_entropy():
    rng = np.random.default_rng(0)
    student, snapshot, short, long = 3 * rng.standard_normal((4, 6, 7)).astype(np.float32)
    labels, everything = rng.integers(0, 7, 6), np.ones(6, bool)
    rows = SampleSignal(short, long, everything, everything)
    setting = methods.Setting(None, (1, 2), 50, 7, sharding.make_mesh(jax.devices()[:1]))
    sd, lstsd = methods.create("snapshot", setting), methods.create("long_short_term", setting, weight_long=0.2)
    both = methods.create("snapshot+long_short_term", setting, long_short_term={"weight_long": 0.2})
    parts = both.loss(student, labels, (snapshot, rows))
    one, other = sd.loss(student, labels, snapshot), lstsd.loss(student, labels, rows)
    assert parts.ce == one.ce == other.ce
    assert parts.loss == pytest.approx(float(one.loss + other.loss - one.ce), rel=1e-6)
    assert parts.teacher == pytest.approx(float(one.teacher + other.teacher), rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "method.temperature is 0.0"),
        ({"weight_long": -1.0}, "method.weight_long is -1.0"),
        ({"generation_epochs": 0}, "method.generation_epochs is 0"),
        ({"view": "augmented"}, "method.view is 'augmented'; known: training, clean"),
        ({"table_dtype": "int8"}, "method.table_dtype is 'int8'; known: float32, bfloat16"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        make_method(**fields)
