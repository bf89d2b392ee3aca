"""Which feature maps the networks mark."""

import jax
import numpy as np
import pytest

from distill_jax import models
from distill_jax.models.maps import with_maps


@pytest.mark.parametrize(
    ("name", "size", "maps", "ends"),
    [
        ("resnet8", 16, [(16, 16), (8, 32), (4, 64)], {0: "stage1_block1", 2: "stage3_block1"}),
        ("wrn10_1", 16, [(16, 16), (8, 32), (4, 64)], {0: "stage1_block1", 2: "stage3_block1"}),
        ("densenet10_4", 16, [(16, 12), (8, 10), (4, 9)], {}),
        ("vgg8", 16, [(16, 64), (8, 128), (4, 256), (2, 512), (2, 512)], {}),
        ("plain6", 8, [(8, 32), (4, 64), (2, 128)], {}),
        ("small_cnn", 8, [(8, 16), (4, 32), (2, 64)], {}),
        ("resnet18", 64, [(16, 8), (8, 16), (4, 32), (2, 64)], {0: "stage1_block2", 3: "stage4_block2"}),
    ],
)
def test_maps_are_the_ends_of_the_stages(name, size, maps, ends):
    """After the sum of a residual block, or after the ReLU before a pooling; not inside, nor in the next stage."""
    model = models.create(name, 5, **({"width": 8} if name == "resnet18" else {}))
    images = jax.random.normal(jax.random.key(1), (2, size, size, 3))

    @jax.jit
    def both(images):
        variables = model.init(jax.random.key(0), images)
        return with_maps(model.apply, variables, images), model.apply(variables, images, capture_intermediates=True)

    (logits, marked), (expected, caught) = both(images)
    assert [each.shape for each in marked] == [(2, side, side, channels) for side, channels in maps]
    assert np.array_equal(logits, expected)
    for number, block in ends.items():
        assert np.array_equal(marked[number], caught["intermediates"][block]["__call__"][0])
    if name in ("vgg8", "plain6", "small_cnn"):
        assert all(each.min() == 0 for each in marked)
    if name == "densenet10_4":
        assert np.array_equal(marked[0][..., :8], caught["intermediates"]["stem_conv"]["__call__"][0]), "all inputs of the transition"
