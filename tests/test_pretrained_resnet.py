"""ResNets that torchvision or timm have trained: read from safetensors files, held against PyTorch, started from, and teaching."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers import colours_config, random_network, text_config, torch_resnet
from safetensors.numpy import load_file, save_file

from distill_jax import initial, models, pretrained, study, tensor_names, trained
from distill_jax.errors import UserError


@pytest.mark.parametrize("depth", [18, 50])
def test_logits_of_a_resnet_in_pytorch(depth, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    model, forward = torch_resnet(torch, depth, 7)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand(buffer.shape) + (0.5 if name.endswith("var") else -0.5))
        images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
        mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
        inputs = torch.tensor((images / 255 - mean) / std).float().permute(0, 3, 1, 2)
        expected = forward(inputs).numpy()
    save_file({name: tensor.numpy() for name, tensor in model.state_dict().items()}, tmp_path / "resnet.safetensors")
    source = f"torchvision:{tmp_path / 'resnet.safetensors'}"
    spec = pretrained.spec_of(source)
    assert spec.model == {"name": f"resnet{depth}"} and spec.num_classes == 7
    spec = spec._replace(input_shape=(64, 64, 3))
    network = pretrained.complete(source, spec)
    logits = spec.module().apply(network, spec.to_inputs({"image": images}), train=False)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.fixture(scope="session")
def resnet18(tmp_path_factory):
    """A torchvision file of a ResNet-18 with three classes."""
    path = tmp_path_factory.mktemp("torchvision") / "resnet18.safetensors"
    module = models.create("resnet18", 3)
    tensors = tensor_names.to_theirs("resnet18", random_network(module, np.zeros((1, 8, 8, 3), np.float32)))
    save_file(tensors | {"bn1.num_batches_tracked": np.array(3)}, path)
    return path


def test_a_resnet_starts_from_torchvision(resnet18, tmp_path):
    config = colours_config(tmp_path / "colours.npz", model={"name": "resnet18"}, initial=f"torchvision:{resnet18}")
    exp = study.prepare(config, tmp_path / "run").experiments[""]
    assert exp.spec.input_mean == pytest.approx((0.485, 0.456, 0.406)) and exp.spec.input_shape == (8, 8, 3)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), exp.spec.abstract_network())
    started = initial.load(config.initial, trained.find(config.initial), fresh, exp.data.mesh)
    tensors = load_file(resnet18)
    block, statistics = started["params"]["stage2_block1"], started["batch_stats"]["stage2_block1"]
    np.testing.assert_array_equal(block["shortcut_conv"]["kernel"][0, 0], tensors["layer2.0.downsample.0.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(block["conv2"]["kernel"][2, 1], tensors["layer2.0.conv2.weight"][:, :, 2, 1].T)
    np.testing.assert_array_equal(statistics["shortcut_norm"]["var"], tensors["layer2.0.downsample.1.running_var"])
    np.testing.assert_array_equal(statistics["norm1"]["mean"], tensors["layer2.0.bn1.running_mean"])
    np.testing.assert_array_equal(started["params"]["head"]["kernel"], tensors["fc.weight"].T)
    other = fresh["params"] | {"head": {"kernel": np.ones((512, 5)), "bias": np.ones(5)}}
    started = initial.load(config.initial, trained.find(config.initial), fresh | {"params": other}, exp.data.mesh)
    assert (np.asarray(started["params"]["head"]["kernel"]) == 1).all() and started["params"]["head"]["bias"].shape == (5,)


def test_a_resnets_images_are_cropped_as_in_its_evaluation(resnet18):
    """Torchvision resizes the shorter side to 256 and takes the central 224 pixels."""
    images = np.random.default_rng(0).integers(0, 256, (1, 256, 320, 3), np.uint8)
    np.testing.assert_array_equal(pretrained.spec_of(f"torchvision:{resnet18}").as_evaluated(images), images[:, 16:240, 48:272])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model": {"name": "resnet34"}}, "^initial: torchvision:.* holds a different network from resnet34, .*: resnet18"),
        ({"initial": "torchvision:nowhere.safetensors"}, "^initial: nowhere.safetensors: no such file"),
        ({"initial": "torchvision:resnet18.pth"}, "^initial: resnet18.pth is a pickle"),
    ],
)
def test_a_resnet_that_does_not_fit_is_told(resnet18, tmp_path, fields, message):
    own = {"model": {"name": "resnet18"}, "initial": f"torchvision:{resnet18}"}
    config = colours_config(tmp_path / "colours.npz", **own | fields)
    with pytest.raises(UserError, match=message):
        study.prepare(config, tmp_path / "run")


def test_a_resnet_teaches(resnet18, tmp_path):
    config = colours_config(
        tmp_path / "colours.npz", model={"name": "resnet18"}, method={"name": "distillation"}, teachers=(f"torchvision:{resnet18}",)
    )
    (teacher,) = study.prepare(config, tmp_path / "run").experiments[""].teachers
    assert teacher.input_shape == (8, 8, 3) and teacher.input_mean == pytest.approx((0.485, 0.456, 0.406))


def test_sentences_are_not_read_by_a_resnet(resnet18, sentences, tmp_path):
    config = text_config(sentences, initial=f"torchvision:{resnet18}")
    with pytest.raises(UserError, match="^initial: torchvision:.* takes images, but text:train has sentences"):
        study.prepare(config, tmp_path / "run")


def test_an_export_says_how_images_are_prepared(resnet18, tmp_path):
    copy = shutil.copy(resnet18, tmp_path / "mine.safetensors")
    facts = {"names": "torchvision", "model": {"name": "resnet18"}, "num_classes": 3, "input_shape": [32, 32, 3], "image_size": 0}
    facts |= {"input_mean": [0.1] * 3, "input_std": [0.2] * 3, "classes": list("abc")}
    for own, downsample in (({}, 1), ({"downsample": 2}, 2)):
        (tmp_path / "network.json").write_text(json.dumps(facts | own))
        spec = pretrained.spec_of(f"torchvision:{copy}")
        assert (spec.input_shape, spec.input_mean, spec.classes, spec.downsample) == ((32, 32, 3), (0.1,) * 3, tuple("abc"), downsample)


def test_an_export_that_describes_another_network(resnet18, tmp_path):
    copy = shutil.copy(resnet18, tmp_path / "mine.safetensors")
    facts = {"names": "torchvision", "model": {"name": "resnet34"}, "num_classes": 5, "input_shape": [32, 32, 3]}
    (tmp_path / "network.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="network.json describes another network than mine.safetensors; move that to a folder of its own"):
        pretrained.spec_of(f"torchvision:{copy}")


def test_another_resnet_is_named(resnet18, tmp_path):
    tensors = load_file(resnet18)
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("layer3.1")}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"holds no ResNet of torchvision or timm, .*: its stages have \(2, 2, 1, 2\) blocks"):
        pretrained.spec_of(f"torchvision:{tmp_path / 'x.safetensors'}")
    save_file(tensors | {"layer1.0.conv1.weight": np.zeros((64, 32, 3, 3), np.float32)}, tmp_path / "x.safetensors")
    source = f"torchvision:{tmp_path / 'x.safetensors'}"
    with pytest.raises(
        UserError, match=r"tensor layer1.0.conv1.weight is \[64, 32, 3, 3\]; in a resnet18 of this size it is \[64, 64, 3, 3\]"
    ):
        pretrained.load(source, pretrained.spec_of(source))
