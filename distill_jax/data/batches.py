"""The order of the samples."""

import numpy as np


def epoch_order(seed: int, epoch: int, num_examples: int, batch_size: int) -> np.ndarray:
    """The sample ids of every training batch of an epoch, a function of (seed, epoch) alone.

    Returns:
      int32 [num_examples // batch_size, batch_size]; no id occurs twice. The rest of the permutation sits this epoch out.
    """
    order = np.random.default_rng((seed, epoch)).permutation(num_examples).astype(np.int32)
    steps = num_examples // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def evaluation_order(num_examples: int, batch_size: int) -> np.ndarray:
    """All ids in order, int32 [ceil(num_examples / batch_size), batch_size]; id 0 fills the last row, to be cut off afterwards."""
    steps = -(-num_examples // batch_size)
    order = np.zeros(steps * batch_size, np.int32)
    order[:num_examples] = np.arange(num_examples)
    return order.reshape(steps, batch_size)
