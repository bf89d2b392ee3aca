"""A convolution that is faster on CPUs; accelerators get `lax.conv_general_dilated`."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

MIN_PIXELS, MAX_WINDOW = 256, 3  # of the outputs of a convolution, and of its kernel, for filter gradients image by image


def conv(x: jax.Array, kernel: jax.Array, strides: tuple, padding: Any, **options) -> jax.Array:
    """`lax.conv_general_dilated` as flax calls it, with two faster ways for plain 2-D convolutions on a CPU; see benchmarks/README.md.

    Filter gradients in float32 are computed image by image. XLA computes them from transposed copies of the whole batch, which also
    recompute BatchNorm, ReLU and earlier shortcuts; a loop can only read stored activations and stays in the cache. Where the inputs or
    outputs have fewer pixels than the window, such as 2x2 under 3x3, the convolution is one dot. XLA swaps image and kernel there, and has
    no fast code for the result. Other backends, and options such as groups and dilation, get `lax.conv_general_dilated` unchanged.
    """
    is_plain = x.ndim == 4 and x.dtype == kernel.dtype and options.get("feature_group_count", 1) == 1 and options.get("precision") is None
    is_dilated = any(step != 1 for name in ("lhs_dilation", "rhs_dilation") for step in options.get(name) or ())
    if jax.default_backend() != "cpu" or not is_plain or is_dilated:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple(map(tuple, padding))
    size = [(n + sum(pad) - w) // stride + 1 for n, pad, w, stride in zip(x.shape[1:3], padding, kernel.shape[:2], strides, strict=True)]
    if min(math.prod(size), x.shape[1] * x.shape[2]) < kernel.shape[0] * kernel.shape[1]:
        return _one_dot(x, kernel, strides, padding, size)
    convolution = _conv if x.dtype == jnp.float32 else _plain_conv
    return convolution(x, kernel, tuple(strides), padding)


def _one_dot(x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple, size: Sequence[int]) -> jax.Array:
    """Lays out the window of each of `size` outputs as a row (im2col)."""
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = ((n - 1) * stride + 1 for n, stride in zip(size, strides, strict=True))
    shifts = itertools.product(range(kernel.shape[0]), range(kernel.shape[1]))
    windows = [padded[:, i : i + rows : strides[0], j : j + columns : strides[1]] for i, j in shifts]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _plain_conv(x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _conv_and_inputs(x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple) -> tuple[jax.Array, tuple]:
    return _plain_conv(x, kernel, strides, padding), (x, kernel)


def _gradients(strides: tuple, padding: tuple, inputs: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    if dy.shape[1] * dy.shape[2] < MIN_PIXELS or max(kernel.shape[:2]) > MAX_WINDOW:
        return jax.vjp(lambda x, kernel: _plain_conv(x, kernel, strides, padding), x, kernel)[1](dy)
    (dx,) = jax.vjp(lambda x: _plain_conv(x, kernel, strides, padding), x)[1](dy)
    return dx, _filter_gradient(x, dy, kernel, strides, padding)


def _filter_gradient(x: jax.Array, dy: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple) -> jax.Array:
    """Returns the gradient, like the kernel [I, J, C, F], by one dot per image: [I * C, pixels] x [pixels, J * F].

    Its left side holds the image [H, W, C] shifted by each row of the window, its right side dy [P, Q, F] shifted by each column. The
    images of one device stay on it: the batch is split into a group per device, and groups are summed only at the end.
    """
    (window_h, window_w, channels, filters), (batch, rows, columns, _) = kernel.shape, dy.shape
    groups = math.gcd(batch, jax.device_count())
    x, dy = x.reshape(groups, -1, *x.shape[1:]), dy.reshape(groups, -1, *dy.shape[1:])
    width = x.shape[3] + sum(padding[1])
    rest = width - (columns - 1) * strides[1] - 1

    def of_image(image, dy):
        padded = jnp.pad(image, (*padding, (0, 0)))
        by_row = [padded[i : i + (rows - 1) * strides[0] + 1 : strides[0]] for i in range(window_h)]
        zero = jnp.zeros((), dy.dtype)
        by_column = [lax.pad(dy, zero, ((0, 0, 0), (j, rest - j, strides[1] - 1), (0, 0, 0))) for j in range(window_w)]
        left, right = jnp.concatenate(by_row, axis=-1), jnp.concatenate(by_column, axis=-1)
        return jnp.einsum("hwc,hwf->cf", left, right)

    def add_image(n, total):
        return total + jax.vmap(of_image)(x[:, n], dy[:, n])

    total = jnp.zeros((groups, window_h * channels, window_w * filters))
    total = lax.fori_loop(0, x.shape[1], add_image, total).sum(axis=0)
    return total.reshape(window_h, channels, window_w, filters).transpose(0, 2, 1, 3)


_conv = jax.custom_vjp(_plain_conv, nondiff_argnums=(2, 3))
_conv.defvjp(_conv_and_inputs, _gradients)
