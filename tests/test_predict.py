"""--mode=predict: files in, classes out, as the network was evaluated; nothing else on standard output."""

import csv
import io
import itertools
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import ROOT, build, make_config
from PIL import Image

import distill_jax
from distill_jax import configuration, inputs, predict, sharding, specs, trained, workdir
from distill_jax.data import folder as folders
from distill_jax.data.images import average_blocks
from distill_jax.errors import UserError

HEADER = ["input", "class", "probability", *(f"{name}_{rank}" for rank in (2, 3, 4, 5) for name in ("class", "probability"))]


@pytest.fixture(scope="module")
def pictures(exp, tmp_path_factory):
    """Eleven digits in folders, with files that are none of them."""
    root = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(["b/5.png", "b/10.png", "a.png", "c/d/1.PNG", "z.tif", "c/2.bmp", "a,b.png", 'say "7".png', *"xyz"]):
        path = root / (name if "." in name else f"b/{name}.gif")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(exp.data.dataset.test["image"][number, ..., 0]).save(path)
    for name in ("notes.txt", ".hidden.png", ".folder/1.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("not an image")
    return root


def rows(text):
    header, *answers = csv.reader(io.StringIO(text))
    assert all(len(answer) == len(header) for answer in answers)
    return header, answers


def classify(capsys, config, workdir, source):
    predict.predict(config, workdir, str(source))
    return rows(capsys.readouterr().out)


def grey(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))[..., None]


def test_a_folder(finished, pictures, capsys):
    header, answers = classify(capsys, make_config(batch_size=4), finished[0], pictures)
    assert header == HEADER
    paths = [pathlib.Path(answer[0]) for answer in answers]
    names = ["a,b.png", "a.png", 'say "7".png', "z.tif", "b/10.png", "b/5.png", "b/x.gif", "b/y.gif", "b/z.gif", "c/2.bmp", "c/d/1.PNG"]
    assert [path.relative_to(pictures).as_posix() for path in paths] == names
    pixels = np.stack([grey(path) for path in paths])
    probabilities = distill_jax.load(finished[0]).predict(pixels)
    for answer, probs in zip(answers, probabilities, strict=True):
        top = np.argsort(-probs)[:5]
        assert answer[1::2] == [str(label) for label in top]
        np.testing.assert_allclose(np.array(answer[2::2], float), probs[top], rtol=1e-5, atol=1e-6)


def test_images_that_pillow_may_not_read_are_not_passed_over(tmp_path):
    names = ["a.png", "b.HEIC", "c.jp2"]
    for name in (*names, "d.txt", "._b.HEIC"):
        (tmp_path / name).touch()
    assert [pathlib.Path(path).name for path in inputs.images_below(tmp_path)] == names


def test_batches_are_compiled_once(finished, pictures, capsys):
    trained._compiled.cache_clear()
    for source, size in ((pictures, 4), (pictures / "a.png", 1)):  # three batches, the last one short; a lone image
        classify(capsys, make_config(batch_size=4), finished[0], source)
        network = distill_jax.load(finished[0])
        compiled = trained._compiled(trained.forward, network.module, network.spec._replace(model=()), network.mesh)
        assert compiled._cache_size() == (1 if size == 4 else 2)


def test_the_command(finished, pictures, tmp_path):
    """Standard output is clean, damaged images are named, and the command says that it failed."""
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name in ("1.png", "3.png"):
        (mixed / name).write_bytes((pictures / "a.png").read_bytes())
    (mixed / "2.png").write_bytes((pictures / "a.png").read_bytes()[:-30])
    (mixed / "4.jpg").write_text("no")
    command = [sys.executable, str(ROOT / "run.py"), f"--workdir={finished[0]}", "--mode=predict", "--inputs=mixed"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert [answer[0] for answer in rows(done.stdout)[1]] == ["mixed/1.png", "mixed/3.png"]
    *said, last = done.stderr.splitlines()
    assert said[:2] == [f"not read: mixed/{name}: not a readable image; replace or remove it" for name in ("2.png", "4.jpg")]
    assert said[2].startswith("2 predicted in ") and len(said) == 3
    assert last == "error: 2 of 4 inputs could not be read (see above) and are missing from the output"
    assert done.returncode == 1


def test_a_reader_that_stops_early(finished, pictures, monkeypatch):
    end, start = os.pipe()
    os.close(end)
    with os.fdopen(start, "w") as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        predict.predict(make_config(batch_size=4), finished[0], str(pictures))


def test_paths_from_standard_input(finished, pictures, capsys, monkeypatch, tmp_path):
    (tmp_path / "paths").write_text(f"{pictures / 'z.tif'}\n\n{pictures / 'a.png'}")
    with (tmp_path / "paths").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert [answer[0] for answer in classify(capsys, make_config(), finished[0], "-")[1]] == [
            str(pictures / "z.tif"),
            str(pictures / "a.png"),
        ]


def test_few_batches_are_in_memory():
    read = []
    samples = (inputs.Sample(str(number), lambda number=number: read.append(number) or number) for number in itertools.count())
    batches = inputs.in_batches(samples, 10)
    assert next(batches) == [(str(number), number) for number in range(10)]
    assert next(batches)[0] == ("10", 10)
    batches.close()
    assert len(read) <= (inputs.BATCHES_AHEAD + 2) * 10


def random_network(**fields):
    spec = specs.Spec({"name": "small_cnn"}, 3, (16, 16, 3), (0.5,) * 3, (0.2,) * 3, classes=("red", "grün", "a b"))._replace(**fields)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32) - 0.5, spec.abstract_network())
    variables["batch_stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 1, variables["batch_stats"])
    return trained.Network(spec, spec.module(), variables, {}, sharding.make_mesh())


def test_images_of_any_size_are_cropped_as_in_evaluation(photographs, capsys, monkeypatch):
    network = random_network(image_size=16)
    monkeypatch.setattr(trained, "load", lambda *_: network)
    header, answers = classify(capsys, make_config(), "anywhere", photographs / "val")
    assert header == HEADER[:7]
    dataset = folders.read(str(photographs), image_size=16)
    logits = network.map(trained.forward, dataset.test, 32)
    assert [answer[0] for answer in answers] == dataset.test["image"].records.files
    assert [answer[1] for answer in answers] == [network.classes[label] for label in logits.argmax(axis=1)]


def test_images_from_before_downsampling_are_averaged_and_others_resized():
    network, noise = random_network(downsample=2), np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    averaged = average_blocks(noise, 2)
    np.testing.assert_array_equal(network.logits(noise), network.logits(averaged))
    np.testing.assert_array_equal(network.features(noise), random_network().features(averaged))
    assert np.abs(random_network().logits(noise) - network.logits(noise)).max() > 1e-3
    np.testing.assert_array_equal(network.logits(noise[:, :31]), random_network().logits(noise[:, :31]))


def test_a_run_records_its_downsampling(tmp_path):
    """Older ones have it in the config alone."""
    downsampling = build(make_config(data__downsample=2))
    facts = specs.facts(downsampling.spec)
    assert facts["downsample"] == 2 and downsampling.spec.full_size == (8, 8)
    workdir.claim(tmp_path, configuration.recorded(downsampling.config))
    for recorded in (facts, {name: value for name, value in facts.items() if name != "downsample"}):
        workdir.write_json(tmp_path / "network.json", recorded)
        assert specs.read(tmp_path).downsample == 2


@pytest.mark.parametrize("fields", [{}, {"image_size": 16}])
def test_transparent_images_are_refused(fields):
    with pytest.raises(UserError, match="takes images of 3 channels; these have 4"):
        random_network(**fields).logits(np.zeros((1, 20, 20, 4), np.uint8))


def test_whole_images(tmp_path):
    """Resized as by Network.predict, up to rounding; averaged as by data.downsample; grey for a network of grey images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(pixels).resize((37, 23), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "smooth.png")
    spec = random_network().spec
    resized = jax.image.resize(smooth.astype(np.float32), (16, 16, 3), "bilinear")
    np.testing.assert_allclose(inputs.read_image(str(tmp_path / "smooth.png"), spec), resized, atol=1.01)
    for factor in (2, 3):  # Pillow's own rounds differently at 3
        noise = rng.integers(0, 256, (16 * factor, 16 * factor, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "noise.png")
        averaged = inputs.read_image(str(tmp_path / "noise.png"), spec._replace(downsample=factor))
        np.testing.assert_array_equal(averaged, average_blocks(noise[None], factor)[0])
    grey = rng.integers(0, 256, (16, 16), np.uint8)
    Image.fromarray(grey).convert("RGB").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(inputs.read_image(str(tmp_path / "grey.png"), spec._replace(input_shape=(16, 16, 1)))[..., 0], grey)


def test_sentences(finished_text, capsys, tmp_path, monkeypatch):
    lines = ["the old cat is here", 'a "new" bus, is here', "", "  ", "the caf\xe9 oak"]
    (tmp_path / "lines.txt").write_bytes("\r\n".join(lines).encode("latin-1"))
    header, answers = classify(capsys, make_config(), finished_text[0], tmp_path / "lines.txt")
    sentences = [lines[0], lines[1], lines[4]]
    assert header == HEADER[:7] and [answer[0] for answer in answers] == sentences
    probabilities = distill_jax.load(finished_text[0]).predict(sentences)
    np.testing.assert_allclose([float(answer[2]) for answer in answers], probabilities.max(axis=1), rtol=1e-5)
    with (tmp_path / "lines.txt").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert classify(capsys, make_config(), finished_text[0], "-")[1] == answers


def test_a_network_knows_whether_it_takes_pairs(finished_text, capsys, tmp_path):
    network = distill_jax.load(finished_text[0])
    assert network.spec.sentences == 1
    with pytest.raises(UserError, match=r"sentences\[1\] is a pair, but this network takes single sentences"):
        network.predict(["a cat", ("a cat", "a dog")])
    (tmp_path / "labelled.tsv").write_text("1\tthe old cat\nthe old bus\n")
    with pytest.raises(UserError, match="1 of 2 inputs could not be read"):
        predict.predict(make_config(), finished_text[0], str(tmp_path / "labelled.tsv"))
    said = capsys.readouterr()
    assert "labelled.tsv:1: has 2 tab-separated columns; this network takes one, without labels\n" in said.err
    assert [answer[0] for answer in rows(said.out)[1]] == ["the old bus"]


@pytest.mark.parametrize(
    ("line", "takes", "expected"),
    [
        ("one", 1, "one"),
        (" one\ttwo ", 2, ("one", "two")),
        ("one\ttwo", 0, ("one", "two")),
        ("one", 2, "f:7: has 1 tab-separated columns; this network takes two, without labels"),
        ("1\t2\t3", 0, "f:7: has 3 tab-separated columns; this network takes one or two, without labels"),
        ("one\t ", 2, "f:7: a sentence is empty"),
    ],
)
def test_lines_of_sentences(line, takes, expected):
    try:
        assert inputs.sentence("f:7", line, takes) == expected
    except UserError as error:
        assert str(error) == expected


def test_mistakes(finished, finished_text, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\0\1")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "table.csv").write_text("id,text\n1,the cat\n")
    for folder, source, message in (
        (finished[0], None, "--mode=predict needs --inputs"),
        (finished[0], "nowhere.png", "--inputs=nowhere.png: no such file or folder"),
        (finished[0], tmp_path / "empty", "empty: has no images .*.png, .*.tif"),
        (finished_text[0], tmp_path / "empty", "is a folder, but this network takes sentences; give a text file"),
        (finished_text[0], tmp_path / "binary", "binary:1: not UTF-8 or Latin-1 text"),
        (finished_text[0], tmp_path / "blank.txt", "blank.txt: has only blank lines"),
        (finished_text[0], tmp_path / "table.csv", "a .csv file is not read as sentences; give a text file"),
        (tmp_path, "a.png", "config.json does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            predict.predict(make_config(), folder, source and str(source))


def test_networks_of_other_channels(monkeypatch):
    monkeypatch.setattr(trained, "load", lambda *_: random_network(input_shape=(16, 16, 2), input_mean=(0.5,) * 2, input_std=(0.2,) * 2))
    with pytest.raises(UserError, match="takes images of 2 channels, which no image file has"):
        predict.predict(make_config(), "anywhere", "a.png")


def test_flags_of_other_modes_are_refused(tmp_path):
    command = [sys.executable, str(ROOT / "run.py"), f"--workdir={tmp_path}/run", "--inputs=photos"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == "error: --inputs belongs to --mode=predict; the mode here is train\n"


def test_photographs_are_turned_as_their_exif_data_says(tmp_path):
    """For segmentation and detection, whose answers are drawn over them; damaged EXIF data turns nothing."""
    spec = specs.Spec({"name": "fcos_resnet18"}, 3, (64, 64, 3), image_size=64, task="detection")
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # what is on the left belongs on top
    for name, given, shape in (("turned", exif, (40, 20, 3)), ("damaged", b"Exif\0\0nothing", (20, 40, 3)), ("plain", b"", (20, 40, 3))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", exif=given)
        found = inputs.read_image(str(tmp_path / f"{name}.jpg"), spec)
        assert found.shape == shape and found[:10, :10].min() > 200 and found[-5:, -5:].max() < 50
