"""The ImageNet recipe: its fields, and that each config fits the data it names."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import log_softmax

from configs import dgkd_imagenet, lstsd_imagenet, sd_imagenet, supervised_imagenet, tolerant_imagenet
from distill_jax import jobs, methods, optimizers, study

SETTING = methods.Setting(apply=None, cycle_ends=(1,), num_examples=50, num_classes=7)


def test_label_smoothing_is_the_cross_entropy_with_smoothed_labels():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((5, 7)).astype(np.float32), np.array([0, 3, 6, 3, 1])
    smoothed = 0.9 * np.eye(7)[labels] + 0.1 / 7
    expected = -(smoothed * log_softmax(logits, axis=1)).sum(axis=1).mean()
    losses = methods.supervised(label_smoothing=0.1).loss(logits, labels, None)
    np.testing.assert_allclose(losses.loss, expected, rtol=1e-6)
    plain = methods.supervised().loss(logits, labels, None)
    assert losses.ce == plain.ce == plain.loss and losses.teacher == 0
    with pytest.raises(ValueError, match=r"^label_smoothing is 1.0; it must lie in \[0, 1\)"):
        methods.supervised(label_smoothing=1.0)


def test_it_adds_to_another_method():
    options = {"supervised": {"label_smoothing": 0.2}, "patriarch": {"eta": 0.5, "k": 2}}
    both = methods.create("supervised+patriarch", setting=SETTING, **options)
    parts = [methods.supervised(label_smoothing=0.2), methods.patriarch(7, eta=0.5, k=2)]
    logits, labels = np.random.default_rng(1).standard_normal((4, 7)).astype(np.float32), np.array([0, 1, 2, 3])
    smoothed, tolerant = (part.loss(logits, labels, None) for part in parts)
    np.testing.assert_allclose(both.loss(logits, labels, (None, None)).loss, smoothed.loss + tolerant.loss - smoothed.ce, rtol=1e-6)


def test_the_learning_rate_goes_with_the_batch():
    fields = ConfigDict({"learning_rate": 0.1, "reference_batch_size": 256})
    assert optimizers.scaled_rate(fields, 1024) == pytest.approx(0.4)
    fields.reference_batch_size = 0
    assert optimizers.scaled_rate(fields, 1024) == 0.1


@pytest.mark.parametrize("source", [supervised_imagenet, sd_imagenet, lstsd_imagenet, tolerant_imagenet, dgkd_imagenet])
def test_each_config_streams_a_folder(source, photographs, tmp_path):
    config = source.get_config()
    config.update_from_flattened_dict({"data.name": f"folder:{photographs}", "data.image_size": 32, "batch_size": 32})
    if source is tolerant_imagenet:
        config.stages.k = 2  # there are two classes
    exp = study.prepare(config, tmp_path).experiments[jobs.make_jobs(config, tmp_path)[0].stage]
    assert exp.spec.input_shape == (32, 32, 3) and exp.data.train == {} and exp.plan.steps_per_epoch == 3
    peak = max(exp.plan.learning_rates)
    assert peak == pytest.approx(0.1 * 32 / 256, rel=0.02)
    if config.schedule.warmup_epochs:
        assert exp.plan.learning_rates[0] == pytest.approx(peak / 15, rel=0.01)
