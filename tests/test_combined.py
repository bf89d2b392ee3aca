"""Methods combined in one: what cannot go together, and how much of the labels is left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_helpers import B, C, make

from distill_jax.methods.combined import combine
from distill_jax.methods.densely_guided import Guidance
from distill_jax.methods.ps_kd import PastPrediction


def test_two_orders_are_refused():
    with pytest.raises(ValueError, match="^name combines methods that each need their own sample order"):
        make("cs_kd+dlb")


def test_each_member_draws_its_own_numbers():
    def draw(teacher, batch, key):
        return jax.random.uniform(key)

    member = make("supervised")._replace(signal=draw)
    key = jax.random.key(0)
    drawn = [float(number) for number in combine([member] * 3).signal((None,) * 3, None, key)]
    assert drawn[0] == float(jax.random.uniform(key)) and len(set(drawn)) == 3


def test_a_table_for_one_member_is_one_for_the_run():
    """Then no frozen network has a forward pass in a step, whichever member is taught by it."""
    options = {"distillation": {"weight_ce": 0.9}, "densely_guided": {"weight_teacher": 0.1}}
    assert make("distillation+densely_guided+ema_teacher", **options).forwards(1) == 1 + 1
    options["distillation"]["guide_logits"] = "table"
    assert make("distillation+densely_guided+ema_teacher", **options).forwards(1) == 1


def test_a_table_of_another_view_is_refused():
    """PS-KD and DLB store the logits of the step."""
    with pytest.raises(ValueError, match="^name combines methods that store the logits of the step"):
        make("long_short_term+ps_kd", long_short_term={"generation_epochs": 2, "view": "clean"})
    assert make("snapshot+long_short_term", long_short_term={"view": "clean", "weight_long": 0.0}).observes == "clean"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("supervised", {"label_smoothing": 0.2}),
        ("patriarch", {"eta": 0.7}),
        ("snapshot", {"temperature": 1e2}),
        ("ps_kd", {"weight": 0.7}),
        ("distillation", {"weight_ce": 0.3}),
        ("densely_guided", {"weight_teacher": 0.9}),
        ("densely_guided", {"weight_teacher": 0.9, "form": "code"}),
    ],
)
def test_a_method_knows_how_much_the_labels_count(name, options):
    """What the loss changes by when the labels change, per change of the cross-entropy."""
    rng = np.random.default_rng(0)
    student, other = 3 * rng.standard_normal((2, B, C)).astype(np.float32)
    labels = rng.integers(0, C, B)
    method = make(name, num_teachers=3 if name == "densely_guided" else 1, **options)
    signals = {
        "ps_kd": PastPrediction(other, jnp.full(B, 0.7)),
        "distillation": other,
        "densely_guided": Guidance(np.stack([other] * 3), jnp.ones(3)),
    }
    one, two = (method.loss(student, each, signals.get(name)) for each in (labels, (labels + 1) % C))
    assert method.weight_ce == pytest.approx(float((two.loss - one.loss) / (two.ce - one.ce)), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "taken"),
    [
        ("distillation+ps_kd", {}, "1.2"),
        ("supervised+distillation", {"supervised": {"label_smoothing": 0.1}, "distillation": {"weight_ce": 0.1}}, "1"),
        ("supervised+densely_guided", {"supervised": {"label_smoothing": 0.1}}, "1.1"),
    ],
)
def test_methods_that_leave_nothing_of_the_labels_are_refused(name, options, taken):
    """Otherwise training would push the labels' probability down, and nothing would tell."""
    with pytest.raises(ValueError, match=f"^name combines methods that together take {taken} of the labels' weight of 1;"):
        make(name, **options)


def test_methods_that_leave_some_of_the_labels_are_not():
    """Nor one that ignores them by itself, beside another that takes nothing."""
    smoothed = {"supervised": {"label_smoothing": 0.1}, "distillation": {"weight_ce": 0.2}}
    assert make("supervised+distillation", **smoothed).weight_ce == pytest.approx(0.1)
    assert make("densely_guided+ema_teacher").weight_ce == 0
