"""Augmentation, normalisation and the order of the samples."""

import jax
import numpy as np
import pytest
from helpers import png

from distill_jax import specs
from distill_jax.data import augment, streaming
from distill_jax.data.batches import epoch_order, evaluation_order

IMAGES = np.random.default_rng(0).integers(1, 256, (64, 6, 6, 3), np.uint8)  # no black pixels, so that padding is visible


def test_crops_are_windows_of_the_padded_image_and_all_windows_occur():
    crops = np.asarray(augment.random_crop(IMAGES, jax.random.key(0), padding=1))
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = set()
    for crop, image in zip(crops, padded, strict=True):
        matches = [(y, x) for y in range(3) for x in range(3) if np.array_equal(crop, image[y : y + 6, x : x + 6])]
        assert len(matches) == 1
        places.add(matches[0])
    assert len(places) == 9


def test_flip_mirrors_about_half():
    flipped = np.asarray(augment.random_flip(IMAGES, jax.random.key(0)))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, IMAGES, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)]
    assert sum(mirrored) + sum(kept) == 64 and 16 < sum(mirrored) < 48


def test_normalised_images_have_zero_mean_and_unit_variance():
    mean, std = augment.channel_statistics(IMAGES)
    np.testing.assert_allclose(mean, (IMAGES / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, (IMAGES / 255).std(axis=(0, 1, 2)), rtol=1e-5)
    inputs = specs.Spec({}, 10, (6, 6, 3), tuple(mean), tuple(std)).to_inputs({"image": IMAGES})
    np.testing.assert_allclose(inputs.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_augmentation_is_a_function_of_the_key():
    views = augment.make_augment(crop_padding=2, flip=True)
    one, same, other = (views({"image": IMAGES}, jax.random.key(seed))["image"] for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_an_epoch_visits_each_sample_at_most_once():
    order = epoch_order(seed=0, epoch=1, num_examples=103, batch_size=10)
    assert order.shape == (10, 10) and len(set(order.ravel())) == 100 and order.max() < 103
    assert np.array_equal(order, epoch_order(0, 1, 103, 10))
    assert not np.array_equal(order, epoch_order(0, 2, 103, 10))
    assert not np.array_equal(order, epoch_order(1, 1, 103, 10))


def test_the_order_is_the_same_under_every_numpy():
    order = epoch_order(seed=3, epoch=7, num_examples=1437, batch_size=128)
    assert order[0, :12].tolist() == [377, 840, 144, 1071, 133, 1271, 68, 702, 161, 1236, 57, 744]
    assert order[-1, -3:].tolist() == [1339, 520, 709]


def test_the_crop_of_a_sample_is_the_same_under_every_numpy():
    generators = [np.random.Generator(np.random.PCG64((0, 1, sample))) for sample in (0, 1)]
    assert [streaming.random_box(500, 375, generator) for generator in generators] == [(49, 1, 495, 344), (186, 56, 449, 262)]
    pixels = np.random.RandomState(0).randint(0, 256, (375, 500, 3)).astype(np.uint8)
    records = [streaming.Record("noise", png(pixels).getvalue(), label) for label in (0, 1)]
    crop = next(streaming.batches(streaming.columns(records, None, 8)["image"], np.array([[1]]), (0, 1)))["image"][0]
    np.testing.assert_array_equal(crop, streaming.read_crop(records[1], 8, np.random.Generator(np.random.PCG64((0, 1, 1)))))


@pytest.mark.parametrize(("examples", "batch", "rows"), [(10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_evaluation_visits_every_sample(examples, batch, rows):
    order = evaluation_order(examples, batch)
    assert order.shape == (rows, batch)
    assert np.array_equal(order.ravel()[:examples], np.arange(examples))
