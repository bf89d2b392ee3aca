"""The PASCAL VOC devkit: images, XML files with boxes, masks with a palette, and lists of images.

    PATH/[VOC2012/]JPEGImages/<id>.jpg    Annotations/<id>.xml    SegmentationClass/<id>.png    ImageSets/{Main,Segmentation}/<set>.txt
    PATH/classes.txt (optional, for segmentation: one name per line, that of class 0 first)

PATH is the devkit, with a folder for each year, or one year's folder, or any folder with this layout, such as another data set that was
labelled with VOC's tools. Boxes in the XML files count pixels from 1 and include the last one; here they are edges, from 0. An image is
turned to its EXIF orientation; its boxes and mask must be those of the turned image.

data.voc.masks names the folder of the masks. With another name that begins with SegmentationClass, such as SegmentationClassAug for
the masks of Hariharan et al. (ICCV 2011), the test set is still evaluated on SegmentationClass if that has all of its masks.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax import logs
from distill_jax.data import scenes
from distill_jax.data.dataset import Dataset, locate
from distill_jax.data.images import SUFFIXES
from distill_jax.data.masks import class_names
from distill_jax.data.scenes import Scene
from distill_jax.errors import UserError
from distill_jax.files import read_text

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike",
    "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SETS = {"segmentation": "Segmentation", "detection": "Main"}  # task -> folder of its image sets
OWN_MASKS = "SegmentationClass"
DIFFICULT = {"0": False, "1": True, "false": False, "true": True, "unspecified": False}
TEST = ("test", "val")  # the first of these that is annotated is the default test set


class Parsed(NamedTuple):
    """What an XML file says."""

    scene: Scene
    names: list[str]  # of the classes of its objects
    stated_size: tuple[str, ...]  # width and height; "0" if it does not say


def read(path: str, directory: str, task: str, fields: Any, damaged: str, size: int, **training: Any) -> Dataset:
    """Reads a devkit.

    Args:
      path: of the devkit (data.name voc:PATH). A relative path that does not exist here is resolved against `directory`.
      directory: data.dir, or "".
      task: "segmentation" or "detection".
      fields: config.data.voc.
      damaged: "refuse"; or "skip", to leave out images that are missing or damaged, or whose mask or XML file is.
      size: side of the canvas (data.image_size).
      **training: see `scenes.StreamedScenes`.

    Returns:
      VOC's 20 classes, or for detection those that the XML files name if they name others. For segmentation, the background before VOC's,
      or the classes of classes.txt.

    Raises:
      UserError: a file is missing or damaged, an image set is empty, or a class of the test set is not in the training set.
    """
    root, name = locate(path, directory), f"voc:{path}"
    if not root.is_dir():
        raise UserError(f"data.name {name}: {root} is not a directory")
    chosen = tuple(fields.train) or ("train",), tuple(fields.test) or _default_test(root, task, fields.masks)
    found = [_without_repetitions(name, [each for one in sets for each in _listed(root, one, task)]) for sets in chosen]
    if task == "segmentation":
        classes = class_names(root) or ("background", *CLASSES)
        folders = fields.masks, _test_masks(found[1], fields.masks)
        pairs = zip(found, folders, strict=True)
        splits = [scenes.read_all(lambda each, masks=masks: _with_mask(*each, masks), part, damaged) for part, masks in pairs]
    else:
        parsed = [scenes.read_all(lambda each: _parse(*each), part, damaged) for part in found]
        _say_which_sizes_differ(parsed)
        classes = _classes(parsed)
        splits = [[_with_boxes(each, classes) for each in part] for part in parsed]
    _say_what_is_shared(name, *splits)
    options = {"size": size, "num_classes": len(classes)}
    train, test = scenes.columns(splits[0], **options, **training), scenes.columns(splits[1], **options)
    return Dataset(name, len(classes), train, test, classes=classes, task=task)


def _years(root: Path) -> list[Path]:
    if (root / "ImageSets").is_dir():
        return [root]
    years = sorted(folder for folder in root.glob("VOC*") if (folder / "ImageSets").is_dir())
    if not years:
        raise UserError(f"{root}: has no ImageSets, and no folder such as VOC2012 that has; it must be a devkit or one year of it")
    return years


def _default_test(root: Path, task: str, masks: str) -> tuple[str, ...]:
    """The first of `TEST` that is annotated in a year, of every year in which it is: VOC2012's own test set is not."""
    annotations = ("Annotations/{}.xml",) if task == "detection" else (f"{masks}/{{}}.png", f"{OWN_MASKS}/{{}}.png")
    years = {one: [year for year in _years(root) if _list(year, one, task).exists()] for one in TEST}

    def is_annotated(year, one):
        return any((year / each.format(name)).exists() for _, name in _listed(year, one, task) for each in annotations)

    for one in TEST:
        if annotated := [year for year in years[one] if is_annotated(year, one)]:
            return tuple(one if year == root else f"{year.name}/{one}" for year in annotated)
    return (next((one for one in TEST if years[one]), TEST[-1]),)


def _without_repetitions(name: str, listed: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    once = list(dict.fromkeys(listed))
    if len(once) < len(listed):
        logs.say(f"{name}: {len(listed) - len(once)} of {len(listed)} images are listed twice, in one set or in several, and are used once")
    return once


def _test_masks(listed: Sequence[tuple[Path, str]], masks: str) -> str:
    """The folder of the test set's masks, given that of the training set's."""
    has_own = masks.startswith(OWN_MASKS) and all((year / OWN_MASKS / f"{name}.png").exists() for year, name in listed)
    return OWN_MASKS if has_own else masks


def _list(year: Path, name: str, task: str) -> Path:
    return year / "ImageSets" / SETS[task] / f"{name}.txt"


def _listed(root: Path, one: str, task: str) -> list[tuple[Path, str]]:
    """The folder of the year and the id of each image in a set: "train" of every year that has it, or "VOC2007/trainval" of one."""
    year, _, name = one.rpartition("/")
    years = [root / year] if year else _years(root)
    files = [_list(folder, name, task) for folder in years]
    existing = [file for file in files if file.exists()]
    if not existing:
        others = sorted(path.stem for path in files[0].parent.glob("*.txt") if "_" not in path.stem)  # cat_train is a list of one class
        there = f"; here are {', '.join(others)}" if others else ""
        there = f"; {root} is one year, so leave out {year}/" if year and (root / "ImageSets").is_dir() else there
        raise UserError(f"{files[0]}: no such image set; data.voc.train and data.voc.test name them{there}")
    listed = []
    for file in existing:
        lines = [_id(line.split()[0]) for line in read_text(file).splitlines() if line.strip()]
        if not lines:
            raise UserError(f"{file}: the image set is empty")
        listed += [(file.parent.parent.parent, line) for line in lines]
    return listed


def _id(word: str) -> str:
    """An image's id from its id or its file, as in the trainaug lists in circulation: /JPEGImages/2011_003276.jpg."""
    suffix = Path(word).suffix
    return word.rpartition("JPEGImages/")[2].removesuffix(suffix if suffix.lower() in SUFFIXES else "")


def _image(year: Path, name: str) -> tuple[str, tuple[int, int]]:
    suffixes = (*SUFFIXES, *map(str.upper, SUFFIXES))
    file = next((str(each) for suffix in suffixes if (each := year / "JPEGImages" / f"{name}{suffix}").exists()), "")
    if not file:
        raise UserError(f"{year / 'JPEGImages' / name}.jpg: no such image")
    return file, scenes.image_size(file, file)


def _with_mask(year: Path, name: str, masks: str) -> Scene:
    mask = year / masks / f"{name}.png"
    if not mask.exists():
        raise UserError(f"{mask}: no such mask; data.voc.masks names the folder")
    file, size = _image(year, name)
    return Scene(file, file, size, mask=str(mask))


def _parse(year: Path, name: str) -> Parsed:
    file = year / "Annotations" / f"{name}.xml"
    image, size = _image(year, name)
    boxes, classes, difficult = [], [], []
    try:
        root = ElementTree.parse(file).getroot()
        for number, each in enumerate(root.iter("object"), start=1):
            left, top, right, bottom = (float(each.find("bndbox").find(side).text) for side in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((left - 1, top - 1, right, bottom))
            classes.append(each.findtext("name").strip())
            difficult.append(DIFFICULT[(each.findtext("difficult") or "0").strip().lower()])
            if not classes[-1]:
                raise ValueError
            check_box(f"{file}, object {number}", boxes[-1], size)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from error
    except (ElementTree.ParseError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = "an object lacks its name or a number of its bndbox"
        if isinstance(error, KeyError):
            reason = f"an object's difficult is {error}, not 0 or 1"
        elif isinstance(error, ElementTree.ParseError):
            reason = error
        raise UserError(f"{file}: damaged ({reason}); repair it, or leave out such images with --config.data.damaged=skip") from error
    arrays = np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int32), np.array(difficult, bool)
    stated_size = tuple((root.findtext(f"size/{side}") or "0").strip() for side in ("width", "height"))
    return Parsed(Scene(image, image, size, None, *arrays), classes, stated_size)


def check_box(where: str, box: Sequence[float], size: tuple[int, int]) -> None:
    """Raises UserError unless a box has an area and lies in its image; edges may be one pixel off, since some sets count from 0."""
    low, high = np.array(box, float).reshape(2, 2)
    if not ((low >= -1).all() and (high <= np.add(size, 1)).all() and (np.maximum(low, 0) < np.minimum(high, size)).all()):
        shown = ", ".join(f"{edge:g}" for edge in box)
        raise UserError(
            f"{where}: the box ({shown}) is empty or outside its image of {size[0]}x{size[1]}; repair it, or leave out such images with "
            "--config.data.damaged=skip"
        )


def _say_which_sizes_differ(parsed: Sequence[Sequence[Parsed]]) -> None:
    """Says for which images the XML file gives another size: if they were scaled or turned later, their boxes are wrong."""
    every = [each for part in parsed for each in part]
    differ = [each for each in every if each.stated_size not in (tuple(map(str, each.scene.size)), ("0", "0"))]
    if differ:
        (scene, _, stated), sizes = differ[0], "x".join
        shown = f"{scene.name} is {sizes(map(str, scene.size))}, but its XML file says {sizes(map(str, stated))}"
        turned = " (images are turned to their EXIF orientation)" if stated == tuple(map(str, scene.size[::-1])) else ""
        logs.say(
            f"{len(differ)} of {len(every)} images differ in size from what their XML files say, so boxes may be wrong: {shown}{turned}"
        )


def _say_what_is_shared(name: str, train: Sequence[Scene], test: Sequence[Scene]) -> None:
    shared = {scene.name for scene in train} & {scene.name for scene in test}
    if shared:
        known = f"{len(shared)} of {len(test)} test images are also training images"
        logs.say(f"{name}: {known}; data.voc.train and data.voc.test choose the sets")


def _classes(parsed: Sequence[Sequence[Parsed]]) -> tuple[str, ...]:
    """VOC's classes, or those of the training set if it has others."""
    named = [{name for each in part for name in each.names} for part in parsed]
    if named[0] <= set(CLASSES) and named[1] <= set(CLASSES):
        return CLASSES
    for scene, names, _ in parsed[1]:
        for name in names:
            if name not in named[0]:
                raise UserError(f"{scene.name}: class {name!r} is not in the training set, which has {', '.join(sorted(named[0]))}")
    return tuple(sorted(named[0]))


def _with_boxes(parsed: Parsed, classes: Sequence[str]) -> Scene:
    scene, names, _ = parsed
    width, height = scene.size
    boxes = np.clip(scene.boxes, 0, [width, height, width, height]).astype(np.float32)
    return scene._replace(boxes=boxes, labels=np.array([classes.index(name) for name in names], np.int32))
