"""Snapshot Distillation in the train step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clu import metrics
from helpers import bits, run, run_epoch, start, step

from distill_jax import methods, models
from distill_jax.data import augment

STEPS = 5


def test_the_teacher_is_the_last_snapshot_and_does_not_move(exp):
    state, key = start(exp)
    for epoch in (1, 2):
        assert state.teacher is None
        state, _ = run_epoch(exp, state, key, epoch)
        state = state.replace(teacher=exp.method.end_epoch(state.teacher, state.network, epoch))
    at_cycle_end = bits(state.network)
    assert bits(state.teacher) == at_cycle_end
    for epoch in (3, 4):
        state, _ = run_epoch(exp, state, key, epoch)
        state = state.replace(teacher=exp.method.end_epoch(state.teacher, state.network, epoch))
        assert bits(state.teacher) == at_cycle_end != bits(state.network)


def test_no_gradient_reaches_the_teacher(exp):
    """One step equals a step by hand in which the teacher's logits are constants."""
    state, key = start(exp)
    state, _ = run_epoch(exp, state, key, 1)
    state = state.replace(teacher=exp.method.end_epoch(None, state.network, 2))
    before = jax.tree.map(jnp.copy, state)
    after, _ = step(exp, state, key, np.arange(40))

    model = models.create("small_cnn", 10)
    mean, std = augment.channel_statistics(exp.data.dataset.train["image"])
    rows = {name: value[:40] for name, value in exp.data.dataset.train.items()}
    augmented = augment.make_augment(crop_padding=1, flip=False)(rows, jax.random.split(jax.random.fold_in(key, before.step), 3)[0])
    inputs = (augmented["image"].astype(np.float32) / 255 - mean) / std
    teacher = np.asarray(jax.jit(model.apply)(before.teacher, inputs))

    def loss_by_hand(params):
        variables = {"params": params, "batch_stats": before.batch_stats}
        logits, _ = model.apply(variables, inputs, train=True, mutable=["batch_stats"])
        log_student = jax.nn.log_softmax(logits)
        soft = jax.nn.softmax(teacher / 2.0)
        ce = -log_student[jnp.arange(40), rows["label"]].mean()
        return 1.5 * ce + (soft * (jnp.log(soft) - log_student)).sum(axis=1).mean()

    rate = float(exp.plan.learning_rates[STEPS])
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.trace(0.9, nesterov=True), optax.scale(-rate))
    trace = before.opt_state[1][0].trace
    opt_state = (optax.EmptyState(), optax.TraceState(trace), optax.ScaleState())
    updates, _ = optimizer.update(jax.jit(jax.grad(loss_by_hand))(before.params), opt_state, before.params)
    expected = optax.apply_updates(before.params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected)


def test_a_teacher_that_follows_predicts_anew_at_each_evaluation(exp, tmp_path):
    """Otherwise a snapshot, which stays for a cycle, would predict in epoch 3 alone."""
    epochs = []

    def predict(state):
        if (said := exp.predict_teacher(state)) is not None:
            epochs.append(int(state.step) // 5)
        return said

    following = exp.method._replace(follow=lambda teacher, network: teacher)
    run(exp._replace(predict_teacher=predict, method=following), 0, tmp_path)
    assert epochs == [3, 4]


def test_two_compiled_steps_serve_both_cycles(finished, exp):
    """One step without a teacher and one with it."""
    assert exp.train_step._cache_size() == 2


def test_golden_numbers(exp):
    """Mean losses of the first two epochs, recorded from this code to detect unintended changes."""
    state, key = start(exp)
    seen = []
    for epoch in (1, 2):
        state, epoch_metrics = run_epoch(exp, state, key, epoch)
        seen.append(float(epoch_metrics.compute()["loss"]))
    assert seen == pytest.approx([2.3287, 2.0611], rel=1e-3)


def test_epoch_metrics_are_means(exp):
    state, key = start(exp)
    _, epoch_metrics = run_epoch(exp, state, key, 1)
    assert isinstance(epoch_metrics.loss, metrics.Average)
    assert int(epoch_metrics.train_accuracy.count) == 200
    assert epoch_metrics.compute()["loss_teacher"] == 0


def test_one_cycle_has_no_teacher():
    with pytest.raises(ValueError, match=r"^cycle_ends is \(4,\)"):
        methods.snapshot_distillation(apply=None, cycle_ends=(4,))
