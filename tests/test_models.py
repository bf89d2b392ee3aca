"""The networks: published sizes, an independent PyTorch twin, their options, and a user's own."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax import models


def init_shapes(model):
    return jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 32, 32, 3))), jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # with 10 classes; ResNets with the shortcut of option A, as counted by github.com/akamaster/pytorch_resnet_cifar10
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
        # DenseNet-BC: 0.8M and 25.6M in the paper's table 2
        ("densenet100_12", 769_162),
        ("densenet190_40", 25_624_430),
    ],
)
def test_number_of_parameters(name, published):
    params = init_shapes(models.create(name, 10))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published


def torch_resnet(params, batch_stats, shortcut, torch):
    """A function of images [B, 3, H, W] with our weights, written only with torch.nn.functional."""
    F = torch.nn.functional

    def tensor(array):
        return torch.tensor(np.asarray(array))

    def conv(x, kernel, stride=1):
        weight = tensor(kernel["kernel"]).permute(3, 2, 0, 1)
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(x, scope, name, train):
        p, s = scope[0][name], scope[1][name]
        mean, variance = tensor(s["mean"]), tensor(s["var"])
        return F.batch_norm(x, mean, variance, tensor(p["scale"]), tensor(p["bias"]), training=train, eps=1e-5)

    def forward(x, train):
        x = F.relu(norm(conv(x, params["stem_conv"]), (params, batch_stats), "stem_norm", train))
        for stage in (1, 2, 3):
            scope = params[f"stage{stage}_block1"], batch_stats[f"stage{stage}_block1"]
            stride = 1 if stage == 1 else 2
            y = F.relu(norm(conv(x, scope[0]["Conv_0"], stride), scope, "BatchNorm_0", train))
            y = norm(conv(y, scope[0]["Conv_1"]), scope, "BatchNorm_1", train)
            if stage > 1 and shortcut == "pad":
                extra = y.shape[1] - x.shape[1]
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra // 2, extra // 2))
            elif stage > 1:
                x = norm(conv(x, scope[0]["shortcut_conv"], stride), scope, "shortcut_norm", train)
            x = F.relu(x + y)
        return F.linear(x.mean(dim=(2, 3)), tensor(params["head"]["kernel"]).T, tensor(params["head"]["bias"]))

    return forward


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_resnet_agrees_with_pytorch(shortcut):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = models.create("resnet8", 10, shortcut=shortcut)
    images = np.random.default_rng(0).standard_normal((8, 16, 16, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    random = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf + 0.1 * random.random(leaf.shape, np.float32)), variables)
    twin = torch_resnet(variables["params"], variables["batch_stats"], shortcut, torch)
    inputs = torch.tensor(images).permute(0, 3, 1, 2)
    np.testing.assert_allclose(model.apply(variables, images), twin(inputs, train=False).numpy(), rtol=1e-4, atol=1e-4)
    ours, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(ours, twin(inputs, train=True).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["small_cnn", "resnet8", "densenet10_4"])
def test_bfloat16_computes_and_float32_stays(name):
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype(np.float32)
    shapes = init_shapes(models.create(name, 5, "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    variables = jax.eval_shape(models.create(name, 5).init, jax.random.key(0), images)
    low, high = (jax.eval_shape(models.create(name, 5, dtype).apply, variables, images) for dtype in ("bfloat16", "float32"))
    assert low.dtype == high.dtype == jnp.float32 and low.shape == (2, 5)
    fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})  # compiles in a third of the time
    variables = fast(models.create(name, 5).init)(jax.random.key(0), images)
    logits = [fast(models.create(name, 5, dtype).apply)(variables, images) for dtype in ("bfloat16", "float32")]
    assert not np.array_equal(*logits)
    np.testing.assert_allclose(*logits, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet21", 10), {}, "^name is 'resnet21'; known: .*resnet32.*small_cnn.*densenet"),
        (("densenet11_4", 10), {}, "^name is 'densenet11_4'"),
        (("densenet10_4", 10), {"shortcut": "pad"}, "^shortcut is not an option of network densenet10_4, which has: none$"),
        (("resnet20", 10), {"shortcut": "none"}, "^shortcut is 'none'; known: pad, projection$"),
        (("bert", 10, "float32", 9), {"width": 8}, "^layers is 0; set it to at least 1, or start from pre-trained weights"),
        (("resnet20", 10, "float64"), {}, "^dtype is 'float64'; known: float32, bfloat16"),
    ],
)
def test_bad_names(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(*arguments, **options)


NETWORKS = [*(name for name in models.MODELS if not name.startswith(("deeplab", "fcos"))), "densenet10_4", "wrn10_1"]
SOME_OTHER_VALUE = {
    "shortcut": "projection",
    "version": "v1",
    "pooling": "cls",
    "filters": (8, 8, 8),
    "dropout": 0.25,
    "max_length": 48,
    "width": 32,
    "norm": "frozen",
    "feature_maps": 5,
    "layers": 1,
    "heads": 2,
    "mlp_width": 48,
    "positions": 40,
    "epsilon": 1e-5,
    "padding": 1,
    "separator": 3,
}
SIZES = {"layers": 2, "width": 16, "heads": 4, "mlp_width": 64, "positions": 34, "epsilon": 1e-12}  # of encoders, which have no defaults


def create(name, **options):
    """A network with five classes, and with a vocabulary if it is for text."""
    sizes = SIZES if models.is_encoder(name) else {}
    return models.create(name, 5, vocabulary_size=9 * models.is_text(name), **sizes | options)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_a_head_and_takes_its_own_options(name):
    inputs = jnp.zeros((1, 32), jnp.int32) if models.is_text(name) else jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(create(name).init, jax.random.key(0), inputs)
    assert variables["params"]["head"]["kernel"].shape[-1] == 5
    defaults, other = models.options(name), SOME_OTHER_VALUE
    if models.is_encoder(name):
        defaults, other = defaults | SIZES, other | {"pooling": "mean"}
    assert create(name, **defaults) == create(name)
    for option in defaults:
        assert getattr(create(name, **{option: other[option]}), option) == other[option] != defaults[option]


def test_options_and_their_defaults():
    assert models.options("resnet20") == {"shortcut": "pad"}
    assert models.options("resnet50") == {"version": "v1.5", "width": 64, "norm": "batch"}
    assert models.options("small_cnn") == {"filters": (16, 32, 64)}
    assert models.options("text_cnn") == {"width": 128, "feature_maps": 100, "dropout": 0.5}
    assert set(models.options("transformer")) == {"max_length", "layers", "width", "heads", "pooling", "dropout"}
    for name in ("densenet10_4", "wrn10_1", "vgg8", "plain2"):  # their names determine everything
        assert models.options(name) == {}
    assert [name for name in NETWORKS if models.is_text(name)] == ["bert", "roberta", "distilbert", "text_cnn", "transformer"]
    assert set(models.options("bert")) == set(models.options("bert4")) | {"layers"} and "width" in models.options("bert4")


def test_an_option_takes_its_defaults_type():
    dropout = create("text_cnn", dropout=0).dropout
    assert (dropout, type(dropout)) == (0.0, float)
    assert create("small_cnn", filters=[8, 16, 32]).filters == (8, 16, 32)  # lists, as in JSON; a module's fields must be hashable


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transformer", {"width": 64.0}, "width is 64.0; it must be of type int, such as 128"),
        ("transformer", {"width": True}, "width is True; it must be of type int"),
        ("transformer", {"width": 0}, r"width is 0; it must lie in \[1, 65535\]"),
        ("transformer", {"pooling": ""}, "pooling is ''; known: mean, cls"),
        ("transformer", {"pooling": 1}, "pooling is 1; it must be of type str, such as 'mean'"),
        ("transformer", {"max_length": -1}, r"max_length is -1; it must lie in \[0, 65535\]"),
        ("transformer", {"heads": 5}, "heads is 5; it must divide width, 128"),
        ("transformer", {"heads": 4, "width": 18}, "heads is 4; it must divide width, 18"),
        ("transformer", {"head": 2}, "head is not an option of network transformer, which has: .*; did you mean 'heads'[?]"),
        ("text_cnn", {"dropout": 1}, r"dropout is 1.0; it must lie in \[0, 1\)"),
        ("text_cnn", {"dropout": float("nan")}, "dropout is nan; it must be a finite number"),
        ("text_cnn", {"dropout": "0.5"}, "dropout is '0.5'; it must be of type float"),
        ("small_cnn", {"filters": 16}, "filters is 16; it must be of type tuple"),
        ("small_cnn", {"filters": (16, 32)}, r"filters is \(16, 32\); it must be three numbers"),
        ("small_cnn", {"filters": (16, 32, 0)}, r"filters\[2\] is 0; it must lie in \[1, 65535\]"),
        ("small_cnn", {"filters": (16, 32, 6.4)}, r"filters\[2\] is 6.4; it must be of type int"),
        ("resnet8", {"depth": 14}, "depth is not an option of network resnet8, which has: shortcut$"),
        ("plain2", {"layout": "plain4"}, "layout is not an option of network plain2, which has: none$"),
        ("fcos_resnet18", {"channels": 12}, "channels is 12; it must be a multiple of 8, for the groups of GroupNorm"),
        ("deeplab_resnet18", {"channels": 12, "norm": "group"}, "channels is 12; it must be a multiple of 8"),
        ("resnet18", {"width": 16, "norm": "group"}, "width is 16; it must be a multiple of 32"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        create(name, **options)


def test_channels_of_batch_norm_are_free():
    assert create("deeplab_resnet18", channels=12, width=12).channels == 12


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet8", {"num_classes": 0}, "num_classes is 0; it must be at least 1"),
        ("resnet8", {"vocabulary_size": -1}, "vocabulary_size is -1; it must be the number of token ids"),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        models.create(name, **({"num_classes": 5} | arguments))


MY_NETS = """
import flax.linen as nn
import jax.numpy as jnp

from my_layers import flatten


class Tiny(nn.Module):
    num_classes: int
    width: int = 8
    rates: tuple[float, ...] = (0.1, 0.2)
    activation: object = nn.relu

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.num_classes, name="head")(self.activation(nn.Dense(self.width)(flatten(images))))


class Words(Tiny):
    vocabulary_size: int = 0
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, tokens, train=False):
        x = nn.Embed(self.vocabulary_size, self.width, dtype=self.dtype)(tokens).mean(axis=1)
        return nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))


class NeverTrains(Tiny):
    def __call__(self, images):
        return images


class Fixed(nn.Module):
    def __call__(self, images, train=False):
        return images


class Deep(nn.Module):
    depth: int
    num_classes: int

    def __call__(self, images, train=False):
        return images


class Odd(Tiny):
    def __post_init__(self):
        if self.width % 2:
            raise RuntimeError("width must\\nbe even")
        super().__post_init__()


def tiny(num_classes):
    return Tiny(num_classes)
"""


@pytest.fixture
def my_nets(tmp_path, monkeypatch):
    """A user's modules in the current directory, outside the repository and off sys.path."""
    files = {
        "my_nets": MY_NETS,
        "my_layers": "def flatten(images):\n    return images.reshape(len(images), -1)\n",
        "my_syntax": "x = (\n",
        "my_missing": "import no_such_module\n",
        "my_failure": "x = 1\ny = x / 0\n",
        "my_script": "import sys\nsys.exit('usage: ...')\n",
    }
    for name, source in files.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in files:
        sys.modules.pop(name, None)


def test_a_users_own_network(my_nets):
    assert models.options("my_nets:Tiny") == {"width": 8, "rates": (0.1, 0.2)}  # a function cannot be given as an option
    assert not models.is_text("my_nets:Tiny")
    model = models.create("my_nets:Tiny", 5, width=6, rates=[0, 1, 2])
    assert model.rates == (0.0, 1.0, 2.0)
    images = jnp.ones((2, 4, 4, 1))
    variables = model.init(jax.random.key(0), images)
    assert variables["params"]["head"]["kernel"].shape == (6, 5)
    assert model.apply(variables, images, train=True).shape == (2, 5)


def test_a_users_own_network_for_text(my_nets):
    assert models.is_text("my_nets:Words")
    assert set(models.options("my_nets:Words")) == {"width", "rates"}
    model = models.create("my_nets:Words", 5, "bfloat16", vocabulary_size=9)
    assert (model.vocabulary_size, model.dtype) == (9, jnp.bfloat16)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("my_nets:Tinny", {}, "name is 'my_nets:Tinny'; module my_nets .*my_nets.py. has no Tinny"),
        ("my_net:Tiny", {}, "name is 'my_net:Tiny'; there is no module my_net in the current directory or on sys.path"),
        ("my_nets.inner:Tiny", {}, "name is 'my_nets.inner:Tiny'; there is no module my_nets.inner"),
        ("my_nets:", {}, "name is 'my_nets:'; an import path has the form module:name"),
        ("my_nets.py:Tiny:2", {}, "name is 'my_nets.py:Tiny:2'; an import path has the form"),
        ("my_syntax:Tiny", {}, "name is 'my_syntax:Tiny'; importing my_syntax failed: SyntaxError: .*my_syntax.py, line 1"),
        ("my_missing:Tiny", {}, "name is .*failed in .*my_missing.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("my_failure:Tiny", {}, "name is .*failed in .*my_failure.py, line 2: ZeroDivisionError: division by zero"),
        ("my_script:Tiny", {}, "name is .*failed in .*my_script.py, line 2: SystemExit: usage"),
        ("my_nets:tiny", {}, "name is 'my_nets:tiny'; it must be a subclass of flax.linen.Module"),
        ("my_nets:NeverTrains", {}, "name is 'my_nets:NeverTrains'; its __call__ must take an argument train"),
        ("my_nets:Fixed", {}, "name is 'my_nets:Fixed'; the class must have a field num_classes"),
        ("my_nets:Deep", {}, "name is 'my_nets:Deep'; its field depth must have a default"),
        ("my_nets:Odd", {"width": 3}, "name is 'my_nets:Odd'; building it failed: RuntimeError: width must be even"),
        ("my_nets:Tiny", {"widht": 3}, "widht is not an option of network my_nets:Tiny, which has: width, rates; did you mean 'width'[?]"),
        ("my_nets:Tiny", {"rates": ("a",)}, r"rates\[0\] is 'a'; it must be of type float, such as 0.1"),
        ("my_nets:Tiny", {"dtype": "bfloat16"}, "dtype is 'bfloat16', but my_nets:Tiny has no field dtype"),
        ("my_nets:Tiny", {"vocabulary_size": 9}, "name is 'my_nets:Tiny', a network for images, but the inputs are text"),
        ("my_nets:Words", {}, "name is 'my_nets:Words', a network for text, but the inputs are images"),
    ],
)
def test_bad_networks_of_a_user(my_nets, name, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        models.create(name, 5, **arguments)
    assert "\n" not in str(caught.value)
