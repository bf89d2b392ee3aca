"""Scenes from TensorFlow Datasets: their masks and boxes, the split that is evaluated, and the sets that are refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import png, prepare_tfds
from scenes_helpers import read

from distill_jax.data import tensorflow_sets, tfds_scenes
from distill_jax.data.dataset import count
from distill_jax.errors import UserError
from distill_jax.tasks import detection


@pytest.fixture(scope="module")
def tiny_pets():
    """A TFDS builder with masks and boxes that TFDS can prepare without TensorFlow. Its split test has no boxes, as VOC2012's."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyPets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "segmentation_mask": tfds.features.Image(shape=(None, None, 1), use_colormap=True),
                "objects": tfds.features.Sequence(
                    {
                        "label": tfds.features.ClassLabel(names=["cat", "dog", "owl"]),
                        "bbox": tfds.features.BBoxFeature(),
                        "is_crowd": np.bool_,
                    }
                ),
                "species": tfds.features.ClassLabel(names=["Cat", "Dog"]),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            counts = {"train": 5, "test": 3, "validation": 2}
            return {key: self._generate_examples(count, key != "test") for key, count in counts.items()}

        def _generate_examples(self, count, has_boxes):
            for number in range(count):
                mask = np.full((20, 30), 2, np.uint8)
                mask[5:10, 6:12] = 1
                boxes = [(0.25, 0.2, 0.5, 0.4), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.0)]  # the second has no area
                objects = [
                    {"label": row, "bbox": tfds.features.BBox(*box), "is_crowd": row == 2} for row, box in enumerate(boxes * has_boxes)
                ]
                image = png(np.repeat(mask[..., None] * 100, 3, axis=2))
                yield number, {"image": image, "segmentation_mask": png(mask), "objects": objects, "species": 0}

    return TinyPets


def test_tfds(tiny_pets, tmp_path, monkeypatch):
    prepare_tfds(tiny_pets, tmp_path)
    data = read("tfds:tiny_pets", dir=str(tmp_path))
    assert data.classes == ("pet", "background", "border") and (count(data.train), count(data.test)) == (5, 3)
    loaded = data.test["image"].load(1, None)
    assert loaded["label"].shape == (20, 30) and (loaded["label"] == 0).sum() == 30 and set(np.unique(loaded["label"])) == {0, 1}
    boxes = read("tfds:tiny_pets", dir=str(tmp_path), task="detection", scales=(1.0, 1.0))
    scene = boxes.train["image"].scene(0)
    np.testing.assert_allclose(scene.boxes, [[6, 5, 12, 10], [0, 0, 30, 20]], rtol=1e-6)
    assert boxes.num_classes == 3 and count(boxes.test) == 2, "the split test has no boxes"
    assert scene.labels.tolist() == [0, 2] and scene.difficult.tolist() == scene.crowd.tolist() == [False, True]
    assert boxes.train["image"].load(0, (0, 1))["label"].tolist() == [0, -1], "crowds are not learnt"
    crowd_G = detection.truths(boxes).crowd
    assert crowd_G.tolist() == [False, True] * 2
    monkeypatch.setattr(tfds_scenes, "FROM_ONE", ("tiny_pets",))
    counted = read("tfds:tiny_pets", dir=str(tmp_path), task="detection").train["image"].scene(0)
    np.testing.assert_allclose(counted.boxes, [[5, 4, 12, 10], [0, 0, 30, 20]], rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "features", "message"),
    [
        ("segmentation", {"segmentation_mask": None}, "segmentation_mask and species; it has image, segm"),
        ("detection", {"head_bbox": None}, "objects with a class as label, and bbox; it has image, head_bbox"),
        ("detection", {"objects": {"type": None, "bbox": None}}, "objects with a class as label"),  # as in kitti
        ("detection", {"objects": {"bbox": None}}, "objects with a class as label"),  # as in stanford_dogs
        ("detection", {"objects": {"label": None, "bbox": None}}, "objects with a class as label"),  # as in ref_coco: a number
    ],
)
def test_other_sets_of_tfds_are_refused(task, features, message, monkeypatch):
    """Only the classes of oxford_iiit_pet's masks are known; its species tell it apart."""
    form, features = SimpleNamespace(value="array_record"), {"image": None} | features
    if "objects" in features:
        features["objects"] = SimpleNamespace(feature=features["objects"])
    info = SimpleNamespace(file_format=form, features=features, splits={})
    monkeypatch.setattr(tensorflow_sets, "builder_of", lambda *_: SimpleNamespace(is_prepared=lambda: True, info=info))
    with pytest.raises(UserError, match=f"{task} needs the features image, and {message}"):
        read("tfds:cells", task=task)
