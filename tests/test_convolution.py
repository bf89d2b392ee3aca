"""The CPU's own ways to compute a convolution agree with XLA's, on one device and on two."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from distill_jax import models
from distill_jax.models import convolution

DIMENSIONS = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))  # NHWC, HWIO, as flax gives them


def random(*shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape), dtype)


def gradients(conv, x, kernel, strides, padding, **options):
    y, pull_back = jax.vjp(lambda x, kernel: conv(x, kernel, strides, padding, dimension_numbers=DIMENSIONS, **options), x, kernel)
    return y, *pull_back(random(*y.shape, dtype=y.dtype))


def assert_same(got, wanted, tolerance):
    for a, b in zip(got, wanted, strict=True):
        a, b = (np.asarray(leaf, np.float64) for leaf in (a, b))
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


@pytest.fixture
def no_minimum(monkeypatch):
    """Every convolution takes the path of large ones."""
    monkeypatch.setattr(convolution, "MIN_PIXELS", 0)
    monkeypatch.setattr(convolution, "MAX_WINDOW", 99)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 1), (1, 1)), ((0, 2), (1, 0))])
@pytest.mark.parametrize(
    ("window", "strides"),
    [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((3, 3), (1, 2)), ((1, 1), (2, 2)), ((2, 3), (3, 2)), ((5, 5), (2, 2)), ((7, 7), (1, 1))],
)
def test_gradients(no_minimum, window, strides, padding):
    x, kernel = random(4, 13, 10, 3), random(*window, 3, 5)
    run = jax.jit(gradients, static_argnames=("conv", "strides", "padding"))
    assert_same(run(convolution.conv, x, kernel, strides, padding), run(lax.conv_general_dilated, x, kernel, strides, padding), 1e-5)


@pytest.mark.parametrize("padding", ["SAME", ((1, 1), (1, 1)), ((0, 2), (1, 0))])
@pytest.mark.parametrize(
    "size, window, strides", [((2, 2), (3, 3), (1, 1)), ((4, 4), (3, 3), (2, 2)), ((1, 5), (2, 3), (1, 2)), ((3, 2), (4, 2), (2, 1))]
)
def test_windows_larger_than_the_image_are_one_dot(size, window, strides, padding):
    x, kernel = random(4, *size, 3), random(*window, 3, 5)
    run = jax.jit(gradients, static_argnames=("conv", "strides", "padding"))
    assert "stablehlo.convolution" not in run.lower(convolution.conv, x, kernel, strides, padding).as_text()
    assert_same(run(convolution.conv, x, kernel, strides, padding), run(lax.conv_general_dilated, x, kernel, strides, padding), 1e-5)


def test_the_last_stage_at_64_pixels_is_dots():
    model = models.create("resnet18", 10, width=8)
    images = jnp.zeros((2, 64, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    text = jax.jit(model.apply).lower(variables, images).as_text()
    assert text.count("stablehlo.convolution") == 20 - 4  # all but the 3x3 convolutions to 2x2 places


def test_bfloat16_is_unchanged():
    x, kernel = random(4, 18, 18, 4, dtype="bfloat16"), random(3, 3, 4, 6, dtype="bfloat16")
    assert program(convolution.conv, x, kernel) == program(lax.conv_general_dilated, x, kernel)


def test_vmap(no_minimum):
    x, kernels = random(4, 9, 9, 3), random(2, 3, 3, 3, 5)
    run = {
        conv: jax.vmap(lambda kernel, conv=conv: gradients(conv, x, kernel, (1, 1), "SAME"))
        for conv in (convolution.conv, lax.conv_general_dilated)
    }
    assert_same(run[convolution.conv](kernels), run[lax.conv_general_dilated](kernels), 1e-5)


@pytest.mark.parametrize("options", [{"feature_group_count": 2}, {"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 1)}])
def test_other_convolutions_are_unchanged(options):
    x, kernel = random(4, 18, 18, 4), random(3, 3, 4 // options.get("feature_group_count", 1), 6)
    assert program(convolution.conv, x, kernel, **options) == program(lax.conv_general_dilated, x, kernel, **options)


def program(conv, x, kernel, **options):
    return jax.jit(functools.partial(gradients, conv, strides=(1, 1), padding=((1, 1), (1, 1)), **options)).lower(x, kernel).as_text()


def test_small_images_and_large_windows_have_xlas_gradients():
    for x, kernel in ((random(4, 15, 15, 3), random(3, 3, 3, 5)), (random(4, 16, 16, 3), random(5, 5, 3, 5))):
        assert "while" not in program(convolution.conv, x, kernel)
    assert "while" in program(convolution.conv, random(4, 16, 16, 3), random(3, 3, 3, 5))


def test_accelerators_get_the_same_program(monkeypatch):
    x, kernel = random(4, 18, 18, 4), random(3, 3, 4, 6)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert program(convolution.conv, x, kernel) == program(lax.conv_general_dilated, x, kernel)


TWO_DEVICES = """
import re, jax, jax.numpy as jnp, numpy as np
from flax import linen as nn
from distill_jax import sharding
from distill_jax.models.layers import Conv
mesh = sharding.make_mesh()
model = nn.Sequential([Conv(4, (3, 3)), nn.relu, Conv(6, (3, 3), strides=2)])
images = np.random.default_rng(0).standard_normal((8, 32, 32, 3)).astype(np.float32)
variables = model.init(jax.random.key(0), images)
def gradient(params, images):
    return jax.grad(lambda params: (model.apply({"params": params}, images) ** 2).mean())(params)
one = jax.jit(gradient)(variables["params"], images)
split = jax.jit(gradient, out_shardings=sharding.replicated(mesh))
params, images = sharding.put(variables["params"], sharding.replicated(mesh)), sharding.put(images, sharding.rows(mesh))
two = split(params, images)
for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two)):
    assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a), (a, b)
text = split.lower(params, images).compile().as_text()
assert "while(" in text and "all-reduce" in text and "all-gather" not in text and "all-to-all" not in text
body, computations = None, {}
for line in text.splitlines():
    if line.endswith("{"): body = line.split()[0]
    computations.setdefault(body, []).append(line)
for body in re.findall(r"body=(%[^ ,]+)", text):
    assert not any("all-reduce" in line for line in computations[body])
"""


def test_two_devices_exchange_only_sums(monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    subprocess.run([sys.executable, "-c", TWO_DEVICES], check=True)


def test_networks_use_it():
    model = models.create("resnet8", 10)
    images = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    gradient = jax.grad(lambda variables: model.apply(variables, images).sum())
    assert jax.jit(gradient).lower(variables).as_text().count("stablehlo.while") == 5  # those with at least 16x16 outputs
