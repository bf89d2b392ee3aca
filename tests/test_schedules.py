"""Learning rates at the first, middle and last iteration of each cycle, computed by hand from the formula."""

import math

import jax
import numpy as np
import optax
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from distill_jax import default_config, models, optimizers, schedules


def test_cycles_are_as_equal_as_whole_epochs_allow():
    assert schedules.cycle_ends(164, 2) == (82, 164)
    assert schedules.cycle_ends(164, 3) == (55, 109, 164)
    assert schedules.cycle_ends(10, 2, (3, 7)) == (3, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 0), "^cycles is 0; it must lie in 1..epochs = 10$"),
        ((3, 4), "^cycles is 4; it must lie in 1..epochs = 3$"),
        ((10, 1, (3, 6)), r"^cycle_epochs is \(3, 6\); it must be positive integers that add up to epochs = 10$"),
        ((10, 1, (0, 10)), r"^cycle_epochs is \(0, 10\); it must be positive"),
        ((10, 1, (2.5, 7.5)), r"^cycle_epochs is \(2.5, 7.5\); it must be positive integers"),
    ],
)
def test_impossible_cycles(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedules.cycle_ends(*arguments)


def test_cyclic_cosine_by_hand():
    rate = schedules.cyclic_cosine(peaks=[0.1, 0.05], ends=[100, 300])
    assert rate(0) == pytest.approx(0.1)
    assert rate(50) == pytest.approx(0.05)
    assert rate(99) == pytest.approx(0.05 * (1 + math.cos(math.pi * 0.99)), rel=1e-3)
    assert rate(100) == pytest.approx(0.05)
    assert rate(200) == pytest.approx(0.025)
    assert rate(299) == pytest.approx(0.025 * (1 + math.cos(math.pi * 0.995)), rel=1e-3)


def test_schedule_of_a_config():
    config = default_config.get_config()
    config.schedule.cycles = 2
    config.schedule.amplitudes = (1.0, 0.5)
    rate = schedules.create(config.schedule, learning_rate=0.2, epochs=10, steps_per_epoch=7)
    assert [float(rate(step)) for step in (0, 35)] == pytest.approx([0.2, 0.1])
    assert rate(34) < 0.001


def test_step_decay_falls_at_its_boundaries():
    config = default_config.get_config()
    config.schedule.name = "step"
    rate = schedules.create(config.schedule, learning_rate=0.1, epochs=164, steps_per_epoch=390)
    steps = [0, 82 * 390 - 1, 82 * 390, 123 * 390 - 1, 123 * 390]
    assert [float(rate(step)) for step in steps] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_poly_falls_to_zero_in_each_cycle():
    config = default_config.get_config()
    config.schedule.update({"name": "poly", "cycles": 2, "power": 0.9})
    rate = schedules.create(config.schedule, learning_rate=0.01, epochs=10, steps_per_epoch=8)
    expected = [0.01 * (1 - step / 40) ** 0.9 for step in range(40)]
    assert [float(rate(step)) for step in range(80)] == pytest.approx(expected * 2, rel=1e-4)


def test_boundaries_that_fall_on_one_step_both_count():
    rate = schedules.step_decay(1.0, (3, 3, 5), 0.1)
    assert [float(rate(step)) for step in (2, 3, 5)] == pytest.approx([1.0, 0.01, 0.001])


def test_warmup_rises_linearly_to_the_schedule():
    config = default_config.get_config()
    plain = schedules.create(config.schedule, learning_rate=0.1, epochs=10, steps_per_epoch=8)
    config.schedule.warmup_epochs = 0.5
    warm = schedules.create(config.schedule, learning_rate=0.1, epochs=10, steps_per_epoch=8)
    ratios = [float(warm(step) / plain(step)) for step in (0, 1, 2, 3, 4, 50)]
    assert ratios == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_linear_decay_with_warmup_by_hand():
    """Two cycles of 10 epochs of 2 steps; warm-up over the first 4 steps."""
    fields = {"name": "poly", "power": 1.0, "cycles": 2, "amplitudes": (1.0, 0.5), "warmup_epochs": 2.0}
    config = ConfigDict(default_config.get_config().schedule.to_dict() | fields)
    rate = schedules.create(config, 0.2, epochs=20, steps_per_epoch=2)
    expected = [0.2 * (1 - i / 20) * min(1, (i + 1) / 4) for i in range(20)] + [0.1 * (1 - i / 20) for i in range(20)]
    assert [float(rate(step)) for step in range(40)] == pytest.approx(expected)


def test_clipping_and_the_rate_of_the_trunk_by_hand():
    fields = {"name": "sgd", "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    gradient = {"head": {"bias": np.float32([3, 0])}, "layer0": {"query": {"bias": np.float32([4])}}}  # of norm 5
    params = jax.tree.map(np.zeros_like, gradient)
    cases = [(0.0, 1.0, -0.3, -0.4), (2.0, 1.0, -0.12, -0.16), (9.0, 0.5, -0.3, -0.2), (2.0, 0.0, -0.12, 0)]
    for clip_norm, trunk_rate, head, trunk in cases:
        optimizer = optimizers.create(ConfigDict(fields | {"clip_norm": clip_norm, "trunk_rate": trunk_rate}), lambda step: 0.1)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        assert np.asarray(updates["head"]["bias"]) == pytest.approx([head, 0])
        assert np.asarray(updates["layer0"]["query"]["bias"]) == pytest.approx([trunk])


@pytest.mark.parametrize(
    "layers, trunk",
    [
        (("stem", "stage1", "head"), {"stem", "stage1"}),
        (("word_embeddings", "layer0", "pooler", "head"), {"word_embeddings", "layer0"}),  # a pre-trained encoder often lacks a pooler
        (("trunk", "aspp_project_conv", "classifier"), {"trunk"}),
    ],
)
def test_only_the_trunk_is_slowed_down(layers, trunk):
    fields = {"name": "sgd", "weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "trunk_rate": 0.0}
    gradient = {name: {"bias": np.ones(1, np.float32)} for name in layers}
    optimizer = optimizers.create(ConfigDict(fields), lambda step: 0.1)
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert {name for name in layers if not np.any(updates[name]["bias"])} == trunk


def test_what_decays_in_a_transformer():
    """Kernels and embeddings; no bias, not even attention's, which has two axes."""
    module = models.create("transformer", 3, vocabulary_size=9, layers=1, width=8, heads=2)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape), dict(jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 4), int))))
    params = params["params"]
    optimizer = optimizers.create(ConfigDict({"name": "adamw", "weight_decay": 0.1}), lambda step: 1.0)
    updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params), params)
    decay = {path: bool(np.any(leaf)) for path, leaf in traverse_util.flatten_dict(updates, sep="/").items()}
    assert params["block1_attention"]["query"]["bias"].shape == (2, 4)
    assert decay == {path: path == "positions" or path.endswith(("kernel", "embedding")) for path in decay}


def test_the_new_fields_leave_older_states_as_they_are():
    """An optimizer's state is in every checkpoint."""
    for name in ("sgd", "adamw"):
        fields = default_config.get_config().optimizer.to_dict() | {"name": name}
        older = {field: value for field, value in fields.items() if field not in ("clip_norm", "trunk_rate")}
        states = [optimizers.create(ConfigDict(each), lambda step: 0.1).init({"head": np.zeros(2)}) for each in (fields, older)]
        assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_adamw_by_hand():
    """Two steps on a matrix, which decays, and a bias, which does not."""
    optimizer = optimizers.create(ConfigDict({"name": "adamw", "weight_decay": 0.1}), lambda step: 0.01)
    params = {"kernel": np.full((1, 2), 0.5), "bias": np.full(2, 0.5)}
    gradients = [{"kernel": np.full((1, 2), g), "bias": np.full(2, g)} for g in (2.0, -1.0)]
    state, ours = optimizer.init(params), params
    mean = square = 0.0
    expected = {name: leaf.copy() for name, leaf in params.items()}
    for step, gradient in enumerate(gradients, start=1):
        updates, state = optimizer.update(gradient, state, ours)
        ours = optax.apply_updates(ours, updates)
        g = gradient["bias"][0]
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        move = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        expected["kernel"] -= 0.01 * (move + 0.1 * expected["kernel"])
        expected["bias"] -= 0.01 * move
    for name in params:
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-5)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="^name is 'lion'; known: sgd, adamw$"):
        optimizers.create(ConfigDict({"name": "lion"}), lambda step: 0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup_epochs": 11.0}, "^warmup_epochs is 11.0; it must lie in 0..epochs = 10$"),
        ({"name": "linear"}, "^name is 'linear'; known: cosine, poly, step$"),
        ({"name": "step", "amplitudes": (1.0,)}, r"^amplitudes is \(1.0,\), which is for cosine and poly; the schedule is step$"),
        ({"amplitudes": (1.0, 1.0)}, "^amplitudes has 2 entries; it must have 1, one per cycle$"),
    ],
)
def test_bad_schedule(fields, message):
    schedule = ConfigDict(default_config.get_config().schedule.to_dict() | fields)
    with pytest.raises(ValueError, match=message):
        schedules.create(schedule, 0.1, 10, 7)
