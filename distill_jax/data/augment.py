"""Augmentation of images on the device: pure functions, traced into the jitted step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def random_crop(images_BxHxWxC: jax.Array, key: jax.Array, padding: int) -> jax.Array:
    """Zero-pads by `padding` pixels on each side, then crops each image to its original size at a random position."""
    batch, height, width, channels = images_BxHxWxC.shape
    padded = jnp.pad(images_BxHxWxC, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners_Bx2 = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded, corners_Bx2)


def random_flip(images_BxHxWxC: jax.Array, key: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability 1/2."""
    flip_B = jax.random.bernoulli(key, shape=images_BxHxWxC.shape[:1])
    return jnp.where(flip_B[:, None, None, None], images_BxHxWxC[:, :, ::-1], images_BxHxWxC)


def channel_statistics(images_NxHxWxC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over a data set of uint8 images, scaled to [0, 1]: two float32 [C]."""
    values = np.arange(256) / 255
    parts = np.array_split(images_NxHxWxC, -(-len(images_NxHxWxC) // 1024))  # bincount takes eight bytes a pixel
    counts_Cx256 = sum(np.stack([np.bincount(each.ravel(), minlength=256) for each in np.moveaxis(part, -1, 0)]) for part in parts)
    weights_Cx256 = counts_Cx256 / counts_Cx256.sum(axis=1, keepdims=True)
    mean_C = weights_Cx256 @ values
    variance_C = weights_Cx256 @ values**2 - mean_C**2
    return mean_C.astype(np.float32), np.sqrt(np.maximum(variance_C, 1e-12)).astype(np.float32)


def make_augment(crop_padding: int, flip: bool) -> Callable[[dict, jax.Array], dict]:
    """Builds the pure function augment(batch, key) -> batch.

    Args:
      crop_padding: pixels of zero padding for the random crop; 0 for no crop.
      flip: mirror left to right at random.

    Returns:
      A function that augments `batch["image"]`, uint8 [B, H, W, C], and leaves other data unchanged. The padding is black (pixel value 0),
      as in the usual recipe.
    """

    def augment(batch, key):
        if "image" not in batch:
            return batch
        crop_key, flip_key = jax.random.split(key)
        images = batch["image"]
        images = random_crop(images, crop_key, crop_padding) if crop_padding else images
        images = random_flip(images, flip_key) if flip else images
        return batch | {"image": images}

    return augment
