"""The networks: published sizes, and an independent PyTorch twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax import models
from distill_jax.errors import UserError


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
    """A function of images [B, 3, H, W] with the weights of ours, written with torch.nn.functional alone."""
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
    variables = jax.jit(models.create(name, 5).init)(jax.random.key(0), images)
    logits = [jax.jit(models.create(name, 5, dtype).apply)(variables, images) for dtype in ("bfloat16", "float32")]
    assert not np.array_equal(*logits)
    np.testing.assert_allclose(*logits, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet21", 10), {}, "model.name is 'resnet21'; known: .*resnet32.*small_cnn.*densenet"),
        (("densenet11_4", 10), {}, "model.name is 'densenet11_4'"),
        (("densenet10_4", 10), {"shortcut": "pad"}, "model.shortcut is no field of densenet10_4"),
        (("resnet20", 10), {"shortcut": "none"}, "model.shortcut is 'none'; known: pad, projection"),
        (("resnet20", 10, "float64"), {}, "dtype is 'float64'; known: float32, bfloat16"),
    ],
)
def test_bad_names(arguments, options, message):
    with pytest.raises(UserError, match=message):
        models.create(*arguments, **options)
