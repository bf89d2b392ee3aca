"""--mode=export: what others load from it gives the same answers, and there is nothing else in it."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util
from helpers import ROOT, make_config, torch_resnet, write
from ml_collections import ConfigDict
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import distill_jax
from distill_jax import checkpoints, export, huggingface, sharding, specs, study, trained
from distill_jax.data import tokenization
from distill_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
SENTENCES = ["the old cat is here", "a new bus", "the red oak is here is here"]
RUN = """
import json, sys
import jax.export
import numpy as np

for folder, batch in json.loads(sys.argv[1]):
    program = jax.export.deserialize(bytearray(open(f"{folder}/model.stablehlo", "rb").read()))
    inputs = np.load(batch)
    logits = [np.asarray(program.call(part)) for part in (inputs, inputs[:1])]
    np.testing.assert_allclose(logits[0][:1], logits[1], rtol=1e-5, atol=1e-5)
    np.save(batch, logits[0])
    print(*program.platforms)
assert not any(name.split(".")[0] in ("distill_jax", "flax") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def finished_lstsd(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("lstsd")
    study.train(make_config(method=ConfigDict({"name": "long_short_term", "generation_epochs": 1, "weight_long": 0.3})), workdir)
    return workdir


def arrays_in(tree):
    return {"/".join(path): leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}


@pytest.mark.parametrize("run", ["snapshot", "long_short_term"])
def test_an_export_holds_the_student_and_nothing_else(run, finished, finished_lstsd, request):
    workdir = finished[0] if run == "snapshot" else finished_lstsd
    network, folder = distill_jax.load(workdir), export.export(workdir)
    assert folder == workdir / "export" / "safetensors"
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "network.json"]
    tensors = load_file(folder / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == arrays_in(network.spec.abstract_network())
    count = sum(tensor.size for tensor in tensors.values())
    assert (folder / "model.safetensors").stat().st_size < 4 * count + 4096
    variables, facts = traverse_util.unflatten_dict(tensors, sep="/"), json.loads((folder / "network.json").read_text())
    assert network.summary["method"] == facts["method"] == run
    assert checkpoints.sha256(variables["params"]) == network.summary["params_sha256"] == facts["params_sha256"]
    inputs = (IMAGES / 255 - facts["input_mean"]) / facts["input_std"]
    logits = network.module.apply(variables, inputs.astype(np.float32))
    np.testing.assert_allclose(logits, network.logits(IMAGES), rtol=1e-5, atol=1e-5)
    assert facts["names"] == "distill_jax" and facts["classes"] == list("0123456789")
    assert facts["takes"] == "images, float32 [batch, 8, 8, 1], (pixels / 255 - input_mean) / input_std"


def test_programs_run_without_this_package(finished, finished_text, tmp_path):
    images, text = distill_jax.load(finished[0]), distill_jax.load(finished_text[0])
    folders = [export.export(workdir, "stablehlo", tmp_path / name) for workdir, name in ((finished[0], "a"), (finished_text[0], "b"))]
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [
        ["model.stablehlo", "network.json"],
        ["model.stablehlo", "network.json", "tokenizer.json"],
    ]
    import tokenizers

    words = tokenizers.Tokenizer.from_file(str(folders[1] / "tokenizer.json"))
    tokens = np.array([encoding.ids for encoding in words.encode_batch(SENTENCES)], np.int32)
    for folder, batch in zip(folders, (IMAGES, tokens), strict=True):
        np.save(folder / "batch.npy", batch)
    asked = json.dumps([(str(folder), str(folder / "batch.npy")) for folder in folders])
    done = subprocess.run([sys.executable, "-c", RUN, asked], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.stdout, done.returncode) == ("cpu cuda tpu\n" * 2, 0), done.stderr
    np.testing.assert_allclose(np.load(folders[0] / "batch.npy"), images.logits(IMAGES), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.load(folders[1] / "batch.npy"), text.logits(SENTENCES), rtol=1e-5, atol=1e-5)
    size = (folders[0] / "model.stablehlo").stat().st_size
    assert size < 4 * images.summary["num_params"] + 30_000, "weights once, and no teacher's"


def random_network(model, **fields):
    """Normal weights; scales and variances around 1."""
    spec, rng = specs.Spec(model, 3, **fields), np.random.default_rng(0)

    def draw(path, leaf):
        return rng.normal(path[-1].key in ("scale", "var"), 0.1, leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, spec.abstract_network())
    return trained.Network(spec, spec.module(), variables, {}, sharding.make_mesh())


RESNET = {"input_shape": (32, 32, 3), "input_mean": (0.5,) * 3, "input_std": (0.25,) * 3}
ENCODER = {"layers": 2, "width": 32, "heads": 4, "mlp_width": 64, "positions": 40, "separator": 3}


def test_a_resnet_goes_to_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import load_file

    network = random_network({"name": "resnet50"}, **RESNET)
    written = export.write_safetensors(network, tmp_path)
    assert written.names == "torchvision" and "[batch, 3, 32, 32]" in written.takes
    theirs, forward = torch_resnet(torch, 50, 3)
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    inputs = torch.tensor((images / 255 - 0.5) / 0.25, dtype=torch.float32).permute(0, 3, 1, 2)
    logits = network.logits(images)
    np.testing.assert_allclose(forward(inputs).detach(), logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max())


def test_how_images_are_prepared_is_said():
    network = random_network({"name": "small_cnn"}, **RESNET | {"downsample": 2})
    described = export.describe(network)
    assert described["prepare"].endswith("(bilinear); one of 64x64 pixels is averaged over blocks of 2x2 instead")
    assert described["params_sha256"] == checkpoints.sha256(network.variables["params"]), "also without a summary"


def test_a_resnet_has_the_names_of_torchvision(tmp_path):
    """Also without PyTorch; the file comes in again as any other of torchvision's."""
    network = random_network({"name": "resnet18"}, **RESNET | {"input_shape": (224, 224, 3)})
    export.write_safetensors(network, tmp_path)
    shapes = {name: tensor.shape for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert len(shapes) == 20 * 5 + 2
    for name, shape in {
        "conv1.weight": (64, 3, 7, 7),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer4.1.bn2.running_var": (512,),
        "fc.weight": (3, 512),
    }.items():
        assert shapes[name] == shape
    source = f"torchvision:{tmp_path / 'model.safetensors'}"
    again = distill_jax.load(source)
    jax.tree.map(np.testing.assert_array_equal, again.variables, network.variables)
    assert again.spec.image_size == 224 and again.spec.input_mean == pytest.approx((0.485, 0.456, 0.406))
    write(tmp_path / "network.json", {"names": "torchvision"} | specs.facts(network.spec))
    assert distill_jax.load(source).spec == network.spec
    write(tmp_path / "network.json", {"names": "torchvision"})
    with pytest.raises(UserError, match="network.json is damaged .*'model'.*; export the network again"):
        distill_jax.load(source)


WORDS = "the The old cat dog is here".split()


def cased_tokenizer(kind):
    """For rows of 16 tokens, with the template of an encoder; "The" is not "the"."""
    names = ("<s>", "<pad>", "</s>", "<unk>") if kind == "roberta" else ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    cls, padding, separator, unknown = names if kind == "roberta" else (names[number] for number in (2, 0, 3, 1))
    words = Tokenizer(models.WordPiece({word: number for number, word in enumerate([*names, *WORDS])}, unk_token=unknown))
    words.add_special_tokens(list(names))
    words.pre_tokenizer, segment = pre_tokenizers.BertPreTokenizer(), int(kind != "roberta")
    words.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {separator}",
        pair=f"{cls} $A {separator} $B:{segment} {separator}:{segment}",
        special_tokens=[(token, words.token_to_id(token)) for token in (cls, separator)],
    )
    words.enable_truncation(16)
    words.enable_padding(pad_id=words.token_to_id(padding), pad_token=padding, length=16)
    return words.to_str()


def random_encoder(kind):
    padding, separator = tokenization.special_ids(cased_tokenizer(kind))
    options = {"name": kind, **ENCODER, "padding": padding, "separator": separator}
    classes = ("no", "maybe", "yes")
    return random_network(options, input_shape=(16,), vocabulary_size=11, tokenizer=cased_tokenizer(kind), classes=classes)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_an_encoder_goes_to_transformers(kind, tmp_path):
    """Weights, classes and tokens: cased words, pairs, padding, truncation."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    network = random_encoder(kind)
    assert export.write_safetensors(network, tmp_path).names == "huggingface"
    (tmp_path / "tokenizer.json").write_text(network.spec.tokenizer)
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    theirs, report = load(tmp_path, output_loading_info=True)
    assert not any(report.values()) and theirs.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    pairs = [("The old cat", "the dog is here"), ("cat", "The"), ("The cat " * 10, "the dog")]
    tokens = words(*zip(*pairs, strict=True), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs.eval()(**tokens).logits
    np.testing.assert_allclose(logits, network.logits(pairs), rtol=1e-4, atol=1e-5)
    assert words("The")["input_ids"] != words("the")["input_ids"]


def test_the_tokenizers_config_names_what_the_encoder_takes():
    content = huggingface.tokenizer_config_of(random_encoder("bert").spec)
    assert content["model_max_length"] == 16 and content["pad_token"] == "[PAD]" and "token_type_ids" in content["model_input_names"]
    content = huggingface.tokenizer_config_of(random_encoder("roberta").spec)
    assert content["pad_token"] == "<pad>" and content["model_input_names"] == ["input_ids", "attention_mask"]


def test_networks_that_others_do_not_have_keep_our_names():
    assert export.whose_names(specs.Spec({"name": "resnet50", "version": "v1"}, 3, **RESNET)) == "distill_jax"
    assert export.whose_names(specs.Spec({"name": "resnet34", "version": "v1"}, 3, **RESNET)) == "torchvision"
    for other in ({"name": "resnet20"}, {"name": "resnet18", "width": 32}, {"name": "resnet18", "norm": "group"}):
        assert export.whose_names(specs.Spec(other, 3, **RESNET)) == "distill_jax"
    assert export.whose_names(specs.Spec({"name": "resnet18"}, 3, (32, 32, 1), (0.5,), (0.25,))) == "distill_jax"
    pooled = {"name": "bert", "pooling": "mean", **ENCODER}
    assert export.whose_names(specs.Spec(pooled, 3, (16,), vocabulary_size=50)) == "distill_jax"


def test_an_export_is_written_whole_or_not_at_all(finished, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    export.export(finished[0], output=folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fill_the_disk(network, unfinished):
        (unfinished / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setitem(export.WRITERS, "safetensors", fill_the_disk)
        with pytest.raises(UserError, match="out cannot be written: No space left on device; choose another with --output"):
            export.export(finished[0], output=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and list(tmp_path.iterdir()) == [folder]
    export.export(finished[0], "stablehlo", folder)  # replaces it
    assert sorted(path.name for path in folder.iterdir()) == ["model.stablehlo", "network.json"]


def test_no_other_files_are_replaced(finished, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "out.tmp").mkdir()
    export.export(finished[0], output=tmp_path / "out")
    assert (tmp_path / "out.tmp").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="^. is the current folder, or one above it, and an export replaces its folder; choose another"):
        export.export(finished[0], output=".")
    for name in ("of_others/thesis.pdf", "pretrained/config.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for name, message in (
        ("file", "file is a file; choose another --output"),
        ("of_others", "of_others holds something else, such as thesis.pdf"),
        ("pretrained", "pretrained holds something else, such as config.json"),
        ("file/below", "below cannot be written: Not a directory"),
    ):
        with pytest.raises(UserError, match=message):
            export.export(finished[0], output=tmp_path / name)
    assert (tmp_path / "of_others" / "thesis.pdf").exists()
    with pytest.raises(UserError, match=str(finished[0])):
        export.export(finished[0], output=finished[0])


def test_the_command(finished, tmp_path):
    command = [sys.executable, str(ROOT / "run.py"), f"--workdir={finished[0]}", "--mode=export", "--format=stablehlo", "--output=out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("out: stablehlo of small_cnn, 24,058 parameters, 0.1 MB")
    assert (tmp_path / "out" / "model.stablehlo").exists()
