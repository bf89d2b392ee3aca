"""Images read from disk: crops, order, interrupted runs, damaged files."""

import io
import itertools
import os
import signal
import sys

import jax
import numpy as np
import pytest
from helpers import Crash, act_at, bits, build, crash, make_config, png, prepare_tfds, run, start, write_images
from PIL import Image
from sklearn.datasets import load_sample_images

import distill_jax
from configs import sd_lstsd_digits
from distill_jax import files, models, study, trained
from distill_jax.data import load, streaming
from distill_jax.data.batches import epoch_order, evaluation_batches, training_batches
from distill_jax.data.streaming import Record, central_box, random_box, read_crop
from distill_jax.errors import Interrupted, UserError
from distill_jax.methods.dlb import overlapping_order


def streaming_config(folder, **fields):
    own = {"data__name": f"folder:{folder}", "data__image_size": 16, "data__crop_padding": 0, "data__train_examples": 0}
    config = make_config(**own | fields)
    config.method = sd_lstsd_digits.get_config().method
    config.method.long_short_term.generation_epochs = 2
    return config


@pytest.fixture(scope="module")
def streamed(photographs):
    return build(streaming_config(photographs))


@pytest.fixture(scope="module")
def undisturbed(streamed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(streamed, 0, folder)


def ramp(width, height):
    """An image whose red value is the column and whose green value is the row."""
    return np.stack(np.broadcast_arrays(np.arange(width), np.arange(height)[:, None], 7), axis=-1).astype(np.uint8)


def record_of(pixels):
    return Record("a ramp", png(pixels).getvalue(), 0)


def test_the_central_crop():
    assert central_box(256, 256) == (16, 16, 240, 240)
    assert central_box(400, 320) == (60, 20, 340, 300)
    view = read_crop(record_of(ramp(96, 64)), 28, None)
    assert view.shape == (28, 28, 3) and view.dtype == np.uint8
    expected = 4 + 2 * np.arange(28) + 0.5  # the centre of each pair of rows 4..59
    np.testing.assert_allclose(view[:, 5, 1], expected, atol=1)
    np.testing.assert_allclose(view[9, :, 0], expected + 16, atol=1)
    assert (view[..., 2] == 7).all()


def test_random_crops_lie_within_the_image_and_have_their_sizes():
    rng, width, height = np.random.default_rng(0), 120, 120
    boxes = np.array([random_box(width, height, rng) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (right <= width).all() and (bottom <= height).all()
    area, aspect = (right - left) * (bottom - top) / (width * height), (right - left) / (bottom - top)
    assert 0.075 < area.min() < 0.1 and 0.9 < area.max() <= 1
    assert 0.73 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.36
    assert abs(np.median(np.log(aspect))) < 0.03
    assert random_box(100, 2, rng) == (49, 0, 51, 2), "no crop of that aspect fits: the central square"


def test_a_crop_is_the_part_of_the_image_that_its_box_says():
    rng = np.random.default_rng(3)
    left, top, right, bottom = random_box(200, 150, np.random.default_rng(3))
    view = read_crop(record_of(ramp(200, 150)), 16, rng).astype(float)
    places = (np.arange(16) + 0.5) / 16
    np.testing.assert_allclose(view[4, :, 0], left + places * (right - left) - 0.5, atol=1.5)
    np.testing.assert_allclose(view[:, 4, 1], top + places * (bottom - top) - 0.5, atol=1.5)


def test_a_jpeg_that_is_decoded_small_looks_the_same():
    photograph = load_sample_images().images[0]
    buffer = io.BytesIO()
    Image.fromarray(photograph).save(buffer, "JPEG", quality=95)
    view = read_crop(Record("china", buffer.getvalue(), 0), 32, None).astype(float)
    whole = Image.open(buffer).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR, central_box(640, 427))
    assert np.abs(view - np.asarray(whole)).mean() < 3


def test_batches_come_in_the_order_of_the_epoch(streamed):
    rows, mesh = streamed.data.dataset.train, streamed.data.mesh
    batches = list(training_batches(rows, 5, 2, 0, 40, mesh))
    np.testing.assert_array_equal([batch["id"] for batch in batches], epoch_order(5, 2, 123, 40))
    assert batches[0]["image"].shape == (40, 16, 16, 3) and batches[0]["image"].dtype == np.uint8
    for batch in batches:
        np.testing.assert_array_equal(batch["label"], rows["label"][batch["id"]])
    rest = list(training_batches(rows, 5, 2, 2, 40, mesh))
    assert len(rest) == 1
    jax.tree.map(np.testing.assert_array_equal, rest[0], batches[2])


def test_a_crop_is_a_function_of_seed_epoch_and_id(streamed):
    images = streamed.data.dataset.train["image"]

    def crops(ids, *crop_seed):
        return next(streaming.batches(images, np.array([ids]), crop_seed))["image"]

    first = crops([3, 8, 120], 0, 1)
    np.testing.assert_array_equal(first[[2, 0]], crops([120, 3], 0, 1))
    assert (first != crops([3, 8, 120], 0, 2)).any() and (first != crops([3, 8, 120], 1, 1)).any()


def test_a_sample_shown_twice_has_two_crops(streamed):
    """As in DLB, whose batches overlap by half; also where an epoch is resumed."""
    rows, mesh = streamed.data.dataset.train, streamed.data.mesh
    first, second = itertools.islice(training_batches(rows, 0, 1, 0, 40, mesh, overlapping_order), 2)
    (again,) = itertools.islice(training_batches(rows, 0, 1, 1, 40, mesh, overlapping_order), 1)
    assert np.array_equal(first["id"][20:], second["id"][:20]) and not np.array_equal(first["image"][20:], second["image"][:20])
    assert bits(again) == bits(second)


def test_evaluation_sees_every_image_once(streamed):
    images = streamed.data.dataset.test["image"]
    batches = list(evaluation_batches(streamed.data.dataset.test, 40, streamed.data.mesh))
    assert [batch["image"].shape[0] for batch in batches] == [40] and len(images.records) == 34
    expected = np.stack([read_crop(images.records[row], 16, None) for row in range(34)])
    np.testing.assert_array_equal(batches[0]["image"][:34], expected)
    network = start(streamed)[0].network
    logits = streamed.predict(network)
    normalised = (expected / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    model = models.create("small_cnn", num_classes=2)
    np.testing.assert_allclose(logits, model.apply(network, normalised.astype(np.float32), train=False), atol=1e-4)


def test_a_run_learns_and_tells_what_it_waited_for(undisturbed):
    folder, summary = undisturbed
    assert summary["test_accuracy"] > 0.7 and summary["steps"] == 12
    lines = files.read_jsonl(folder / "metrics.jsonl")
    assert all(0 <= line["data_wait"] <= 1 for line in lines)
    assert lines[-1]["loss_teacher"] > 0


@pytest.mark.parametrize("step", [4, 8])
def test_stopped_in_mid_epoch_it_goes_on_as_if_nothing_were(undisturbed, streamed, tmp_path, step):
    with pytest.raises(Interrupted, match=f"saved after step {step}"):
        run(act_at(streamed, step - 1, lambda: os.kill(os.getpid(), signal.SIGTERM)), 0, tmp_path)
    assert run(streamed, 0, tmp_path)["params_sha256"] == undisturbed[1]["params_sha256"]


def test_predictions_see_the_part_that_evaluation_sees(undisturbed, streamed, photographs):
    network = distill_jax.load(undisturbed[0])
    image = np.asarray(Image.open(next((photographs / "val" / "flower").iterdir())).resize((64, 64)))
    seen = read_crop(record_of(image), 16, None)
    kept = network.map(trained.forward, {"image": seen[None]}, 1)
    np.testing.assert_allclose(network.logits(image[None]), kept, rtol=1e-6)


def test_a_crash_is_made_up_for(undisturbed, streamed, tmp_path):
    with pytest.raises(Crash):
        run(act_at(streamed, 10, crash), 0, tmp_path)
    assert run(streamed, 0, tmp_path)["params_sha256"] == undisturbed[1]["params_sha256"]


def damage(target):
    write_images(target, per_class=(8, 8), test=3)
    cut, empty = target / "train" / "china" / "002.JPEG", target / "val" / "flower" / "001.JPEG"
    cut.write_bytes(cut.read_bytes()[:200])
    empty.write_bytes(b"")
    return cut, empty


def test_a_damaged_image_is_named(tmp_path):
    cut, _ = damage(tmp_path / "images")
    config = streaming_config(tmp_path / "images", batch_size=4)
    with pytest.raises(UserError, match=f"{cut}: not a readable image; remove it, or leave out all such images with"):
        study.train(config, tmp_path / "run")


def test_damaged_images_are_left_out_and_counted(tmp_path, capsys):
    cut, empty = damage(tmp_path)
    data = load(f"folder:{tmp_path}", image_size=16, damaged="skip")
    said = capsys.readouterr().out
    assert f"left out 1 unreadable of 16 images: {cut}" in said and f"left out 1 unreadable of 6 images: {empty}" in said
    assert data.train["image"].shape == (15, 16, 16, 3) and data.test["image"].shape == (5, 16, 16, 3)
    assert data.train["label"].tolist() == [0] * 7 + [1] * 8 and data.test["label"].tolist() == [0, 0, 0, 1, 1]
    assert [data.train["image"].records[row].file for row in data.train["image"].rows[1:3]] == [
        str(cut.with_name("001.JPEG")),
        str(cut.with_name("003.JPEG")),
    ]


def test_data_that_changed_since_the_run_began(tmp_path):
    write_images(tmp_path / "images", per_class=(40, 8), test=3)
    config = streaming_config(tmp_path / "images", batch_size=4)
    with pytest.raises(Crash):
        run(act_at(build(config), 1, crash), 0, tmp_path / "run")
    (tmp_path / "images" / "train" / "china" / "007.JPEG").unlink()
    with pytest.raises(UserError, match="data.json: train_examples was 48 when this run began and is 47 now"):
        study.train(config, tmp_path / "run")


def test_subsets_of_streamed_images(photographs):
    data = load(f"folder:{photographs}", train_examples=10, validation_examples=20, image_size=16)
    assert data.test["image"].shape == (20, 16, 16, 3) and np.bincount(data.train["label"]).tolist() == [5, 5]
    names = [{part["image"].records[int(row)].name for row in part["image"].rows} for part in (data.train, data.test)]
    assert not names[0] & names[1] and all("/train/" in name for name in names[0] | names[1])


def test_tfds_examples_are_streamed_undecoded(tmp_path, tiny_images, monkeypatch):
    monkeypatch.setattr(tiny_images, "SIZES", (4, 9))
    prepare_tfds(tiny_images, tmp_path)
    data = load("tfds:tiny_images", str(tmp_path), image_size=6)
    assert data.train["image"].shape == (8, 6, 6, 3) and len(data.train["label"]) == 8 and data.num_classes == 2
    batch = next(streaming.batches(data.train["image"], np.arange(8)[None], None))
    assert sorted(batch["image"][:, 0, 0, 0]) == list(range(8)), "each image has one value, its number"
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0] % 2, batch["label"])
    np.testing.assert_array_equal(np.asarray(data.train["label"]), batch["label"])
    half = load("tfds:tiny_images", str(tmp_path), train_examples=4, image_size=6)
    assert half.train["label"].tolist().count(1) == 2
    if "tensorflow" not in sys.modules:
        monkeypatch.setattr("distill_jax.data.tensorflow_sets.is_array_record", lambda builder: False)
        with pytest.raises(UserError, match="only images prepared as array_record can be streamed; prepare them with `tfds build tiny"):
            load("tfds:tiny_images", str(tmp_path), image_size=6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__crop_padding": 4}, "data.crop_padding is 4, but streamed images are random crops already"),
        ({"data__name": "digits"}, "data.image_size is 16, but digits is not streamed; only folder:PATH and tfds:NAME are"),
        ({"data__damaged": "ignore"}, "data.damaged is 'ignore'; known: refuse, skip"),
        ({"data__image_size": -1}, "data.image_size is -1"),
    ],
)
def test_bad_fields_are_named(photographs, fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        study.train(streaming_config(photographs, **fields), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_random_crop_is_no_clean_view(photographs):
    config = streaming_config(photographs)
    config.method.long_short_term.view = "clean"
    with pytest.raises(UserError, match="method.view is 'clean', which needs images in memory"):
        build(config)
