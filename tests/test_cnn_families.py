"""The plain CNNs, wide ResNets, VGGs and ImageNet ResNets: published sizes, PyTorch twins, and what holds for all networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from distill_jax import models
from distill_jax.models import plain_cnn, resnet_imagenet

PLAIN = {
    "plain2": "C32 M C32 M F100",
    "plain4": "C32 C32 M C64 C64 M F100",
    "plain6": "C32 C32 M C64 C64 M C128 C128 F100",
    "plain8": "C32 C32 M C64 C64 M C128 C128 M C256 C256 M F64 F100",
    "plain10": "C32 C32 M C64 C64 M C128 C128 M C256 C256 C256 C256 M F512 F100",
    "plain2_cifar10": "C16 M C16 M F10",
    "plain4_cifar10": "C16 C16 M C32 C32 M F10",
    "plain6_cifar10": "C16 C16 M C32 C32 M C64 C64 M F10",
    "plain8_cifar10": "C16 C16 M C32 C32 M C64 C64 M C128 C128 M F64 F10",
    "plain10_cifar10": "C32 C32 M C64 C64 M C128 C128 M C256 C256 C256 C256 M F128 F10",
}
SMALL = ["plain8_cifar10", "wrn10_1", "vgg8", "resnet18"]


@pytest.fixture
def one_block_a_stage(monkeypatch):
    for depth in (18, 50):
        monkeypatch.setitem(resnet_imagenet.BLOCKS, depth, (1, 1, 1, 1))


def init_shapes(model, image_shape):
    return jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, *image_shape))), jax.random.key(0))


def number_of_parameters(name, num_classes, image_shape):
    params = init_shapes(models.create(name, num_classes), image_shape)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def random_variables(model, image_shape):
    """Weights of the usual size; scales, biases and statistics away from their initial values."""
    random = np.random.default_rng(0)

    def fill(path, leaf):
        if leaf.ndim > 1:
            value = random.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif path[-1].key in ("scale", "var"):
            value = random.uniform(0.5, 1.5, leaf.shape)
        else:
            value = 0.1 * random.standard_normal(leaf.shape)
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, init_shapes(model, image_shape))


@pytest.mark.parametrize(
    ("name", "num_classes", "side", "published"),
    [
        # torchvision.models, num_params of the weights
        ("resnet18", 1000, 224, 11_689_512),
        ("resnet34", 1000, 224, 21_797_672),
        ("resnet50", 1000, 224, 25_557_032),
        ("resnet101", 1000, 224, 44_549_160),
        ("resnet152", 1000, 224, 60_192_808),
    ],
)
def test_number_of_parameters(name, num_classes, side, published):
    assert number_of_parameters(name, num_classes, (side, side, 3)) == published


@pytest.mark.parametrize(
    ("name", "num_classes", "millions", "decimals"),
    [
        # Zagoruyko & Komodakis, table 4
        ("wrn40_1", 10, 0.6, 1),
        ("wrn40_2", 10, 2.2, 1),
        ("wrn40_4", 10, 8.9, 1),
        ("wrn16_8", 10, 11.0, 1),
        ("wrn28_10", 10, 36.5, 1),
        # the distillation literature on CIFAR-100
        ("wrn40_2", 100, 2.26, 2),
        ("wrn16_2", 100, 0.70, 2),
        ("vgg13", 100, 9.46, 2),
        ("vgg8", 100, 3.97, 2),
    ],
)
def test_number_of_parameters_in_millions(name, num_classes, millions, decimals):
    assert round(number_of_parameters(name, num_classes, (32, 32, 3)) / 1e6, decimals) == millions


@pytest.mark.parametrize("name", PLAIN)
def test_plain_number_of_parameters(name):
    side, channels, inputs, total = 32, 3, None, 0
    for layer in PLAIN[name].split():
        if layer == "M":
            side //= 2
            continue
        outputs = int(layer[1:])
        if layer.startswith("C"):
            total += 9 * channels * outputs + outputs + 2 * outputs
            channels = outputs
        else:
            inputs = inputs or side * side * channels
            total += inputs * outputs + outputs
            inputs = outputs
    assert number_of_parameters(name, outputs, (32, 32, 3)) == total
    assert set(plain_cnn.LAYERS) == set(PLAIN)


class TorchLayers:
    """Layers of torch.nn.functional with our weights, found by their names; in training, `norm` moves the running statistics in place."""

    def __init__(self, variables, train, torch):
        self.torch, self.train = torch, train
        self.weights = {path: torch.tensor(value) for path, value in flatten_dict(variables, sep="/").items()}

    def conv(self, x, name, stride=1):
        weight = self.weights[f"params/{name}/kernel"].permute(3, 2, 0, 1)
        bias = self.weights.get(f"params/{name}/bias")
        return self.torch.nn.functional.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    def norm(self, x, name):
        mean, variance = (self.weights[f"batch_stats/{name}/{leaf}"] for leaf in ("mean", "var"))
        scale, bias = (self.weights[f"params/{name}/{leaf}"] for leaf in ("scale", "bias"))
        return self.torch.nn.functional.batch_norm(x, mean, variance, scale, bias, self.train, momentum=0.1, eps=1e-5)

    def dense(self, x, name):
        return x @ self.weights[f"params/{name}/kernel"] + self.weights[f"params/{name}/bias"]

    def pool(self, x):
        return self.torch.nn.functional.max_pool2d(x, 2)


def torch_plain(layers, x, name):
    convolutions = dense = 0
    *body, _ = PLAIN[name].split()
    for layer in body:
        if layer == "M":
            x = layers.pool(x)
        elif layer.startswith("C"):
            convolutions += 1
            x = layers.norm(layers.conv(x, f"conv{convolutions}"), f"norm{convolutions}").relu()
        else:
            dense += 1
            x = layers.dense(x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x, f"dense{dense}").relu()
    return layers.dense(x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x, "head")


def torch_vgg8(layers, x, name):
    for stage in (1, 2, 3, 4, 5):
        x = layers.norm(layers.conv(x, f"conv{stage}_1"), f"norm{stage}_1").relu()
        x = layers.pool(x) if stage <= 3 else x
    return layers.dense(x.mean(dim=(2, 3)), "head")


def torch_wrn10(layers, x, name):
    x = layers.conv(x, "stem_conv")
    for stage in (1, 2, 3):
        scope, stride = f"stage{stage}_block1", 1 if stage == 1 else 2
        activated = layers.norm(x, f"{scope}/norm1").relu()
        y = layers.norm(layers.conv(activated, f"{scope}/conv1", stride), f"{scope}/norm2").relu()
        y = layers.conv(y, f"{scope}/conv2")
        widens = (name, stage) != ("wrn10_1", 1)  # its first stage has the 16 channels of the stem
        x = y + (layers.conv(activated, f"{scope}/shortcut_conv", stride) if widens else x)
    return layers.dense(layers.norm(x, "final_norm").relu().mean(dim=(2, 3)), "head")


def torch_imagenet(layers, x, name, version="v1.5"):
    x = layers.norm(layers.conv(x, "stem_conv", 2), "stem_norm").relu()
    x = layers.torch.nn.functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        scope, stride = f"stage{stage}_block1", 1 if stage == 1 else 2
        strides = {"resnet18": (stride, 1), "v1": (stride, 1, 1), "v1.5": (1, stride, 1)}[version if name == "resnet50" else name]
        y = x
        for layer, stride_of_layer in enumerate(strides, start=1):
            y = layers.norm(layers.conv(y.relu() if layer > 1 else y, f"{scope}/conv{layer}", stride_of_layer), f"{scope}/norm{layer}")
        if name == "resnet50" or stage > 1:
            x = layers.norm(layers.conv(x, f"{scope}/shortcut_conv", stride), f"{scope}/shortcut_norm")
        x = (x + y).relu()
    return layers.dense(x.mean(dim=(2, 3)), "head")


@pytest.mark.parametrize(
    ("name", "image_shape", "options", "torch_forward"),
    [
        ("plain2_cifar10", (12, 8, 3), {}, torch_plain),
        ("plain8", (16, 16, 3), {}, torch_plain),
        ("vgg8", (16, 16, 3), {}, torch_vgg8),
        ("wrn10_1", (16, 16, 3), {}, torch_wrn10),
        ("wrn10_2", (16, 16, 3), {}, torch_wrn10),
        ("resnet18", (40, 33, 3), {}, torch_imagenet),
        ("resnet50", (40, 33, 3), {"version": "v1"}, torch_imagenet),
        ("resnet50", (40, 33, 3), {"version": "v1.5"}, torch_imagenet),
    ],
)
def test_agrees_with_pytorch(name, image_shape, options, torch_forward, one_block_a_stage):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = models.create(name, 10, **options)
    images = np.random.default_rng(1).standard_normal((4, *image_shape)).astype(np.float32)
    variables = random_variables(model, image_shape)
    inputs = torch.tensor(images).permute(0, 3, 1, 2)

    theirs = torch_forward(TorchLayers(variables, False, torch), inputs, name, **options)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), theirs, rtol=1e-3, atol=1e-3)

    layers = TorchLayers(variables, True, torch)
    theirs = torch_forward(layers, inputs, name, **options)
    ours, updates = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))(variables, images)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    for path, value in flatten_dict(updates, sep="/").items():
        if path.endswith("/mean"):  # PyTorch's running variance has Bessel's correction, flax's does not
            np.testing.assert_allclose(value, layers.weights[path], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_statistics_move_in_training_only(name, one_block_a_stage):
    model = models.create(name, 5)
    images = np.random.default_rng(1).standard_normal((4, 8, 8, 1)).astype(np.float32)
    variables = random_variables(model, (8, 8, 1))
    for train in (False, True):
        _, updates = jax.jit(functools.partial(model.apply, train=train, mutable=["batch_stats"]))(variables, images)
        moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), variables["batch_stats"], updates["batch_stats"])
        assert set(jax.tree.leaves(moved)) == {train}


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_computes_and_float32_stays(name, one_block_a_stage):
    images = np.random.default_rng(1).standard_normal((4, 8, 8, 1)).astype(np.float32)
    low, high = (models.create(name, 5, dtype) for dtype in ("bfloat16", "float32"))
    assert {leaf.dtype for leaf in jax.tree.leaves(init_shapes(low, (8, 8, 1)))} == {jnp.dtype("float32")}
    variables = random_variables(low, (8, 8, 1))
    logits = [jax.jit(model.apply)(variables, images) for model in (low, high)]
    assert logits[0].dtype == logits[1].dtype == jnp.float32
    assert not np.array_equal(*logits)
    np.testing.assert_allclose(*logits, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", [*PLAIN, "wrn16_2", "vgg8", "vgg13", "resnet18", "resnet50"])
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (28, 28, 1)])
def test_images_of_other_sizes(name, image_shape, one_block_a_stage):
    model = models.create(name, 7)
    variables = init_shapes(model, image_shape)
    assert all(leaf.size > 0 for leaf in jax.tree.leaves(variables))
    assert variables["params"]["head"]["kernel"].shape[-1] == 7
    logits = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((3, *image_shape), jnp.float32))
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("plain6_cifar10", 64),
        ("plain8", 64),
        ("plain10_cifar10", 128),
        ("wrn16_2", 128),
        ("vgg8", 512),
        ("resnet18", 512),
        ("resnet50", 2048),
    ],
)
def test_features_before_the_head(name, features, one_block_a_stage):
    assert init_shapes(models.create(name, 10), (8, 8, 1))["params"]["head"]["kernel"].shape == (features, 10)


def test_a_pool_of_one_pixel_is_left_out():
    """Four pools reduce 8x8 to one pixel, as with 16x16, and the same weights give the same result as the network without its last pool."""
    model = models.create("plain8", 5)
    shapes = [init_shapes(model, (side, side, 1))["params"] for side in (8, 16, 32)]
    assert [shape["dense1"]["kernel"].shape for shape in shapes] == [(256, 64), (256, 64), (1024, 64)]
    variables = random_variables(model, (8, 8, 1))
    images = np.random.default_rng(1).standard_normal((4, 8, 8, 1)).astype(np.float32)
    assert np.std(jax.jit(model.apply)(variables, images), axis=0).min() > 0.01  # the image still matters


@pytest.mark.parametrize(
    ("name", "layer", "fan_out"),
    [
        ("plain4", "conv3", 9 * 64),
        ("wrn10_4", "stage2_block1/conv1", 9 * 128),
        ("vgg8", "conv3_1", 9 * 256),
        ("resnet18", "stage2_block1/conv1", 9 * 128),
    ],
)
def test_initialisation(name, layer, fan_out, one_block_a_stage):
    """He-normal with fan-out; BatchNorm scales of 1, but 0 at the end of an ImageNet block."""
    model = models.create(name, 10)

    @jax.jit  # unreturned values are not computed
    def init(key):
        params = flatten_dict(model.init(key, jnp.zeros((1, 8, 8, 1)))["params"], sep="/")
        return params[f"{layer}/kernel"], {path: value for path, value in params.items() if path.endswith("/scale")}

    kernel, scales = init(jax.random.key(0))
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_out), rtol=0.03)
    for path, scale in scales.items():
        np.testing.assert_array_equal(scale, 0 if name == "resnet18" and path.endswith("/norm2/scale") else 1)


@pytest.mark.parametrize("name", PLAIN)
def test_activations_of_the_plain_networks_start_near_one(name):
    """The standard deviation of the head's input, for standardised images; BatchNorm uses the batch, as in training."""
    model, inputs = models.create(name, 10), []

    def record(call, arguments, keywords, context):
        if context.module.name == "head":
            inputs.append(arguments[0])
        return call(*arguments, **keywords)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})  # compiles in a third of the time
    def inputs_of_head(images):
        with nn.intercept_methods(record):
            model.init_with_output(jax.random.key(0), images, train=True)
        return inputs[-1]

    images = np.random.default_rng(1).standard_normal((8, 32, 32, 3)).astype(np.float32)
    assert 0.5 < np.std(inputs_of_head(images)) < 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plain3", {}, "^name is 'plain3'; known: .*plain10, .*plain2_cifar10.*resnet152.*vgg13.*wrn<d>_<k>"),
        ("vgg12", {}, "^name is 'vgg12'; known: .*vgg13"),
        ("resnet36", {}, "^name is 'resnet36'; known: .*resnet34.*did you mean 'resnet"),
        ("wrn15_2", {}, "^name is 'wrn15_2'; known: .*wrn16_2"),
        ("wrn4_2", {}, "^name is 'wrn4_2'"),
        ("wrn16_0", {}, "^name is 'wrn16_0'"),
        ("resnet50", {"version": "v2"}, "^version is 'v2'; known: v1, v1.5$"),
        ("resnet50", {"shortcut": "pad"}, "^shortcut is not an option of network resnet50, which has: version, width, norm$"),
        ("resnet20", {"version": "v1"}, "^version is not an option of network resnet20, which has: shortcut$"),
        ("vgg8", {"version": "v1"}, "^version is not an option of network vgg8, which has: none$"),
    ],
)
def test_bad_names(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, 10, **options)
