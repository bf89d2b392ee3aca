"""The CNN for sentences (Kim, "Convolutional Neural Networks for Sentence Classification", 2014, arXiv 1408.5882)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

WINDOWS = (3, 4, 5)  # tokens


class TextCNN(nn.Module):
    """Embeddings, convolutions over windows of 3, 4 and 5 tokens, ReLU, max pooling over the sentence, dropout, a dense layer.

    The paper's CNN-rand, without the constraint on the norm of the dense layer's weights. Only windows inside the sentence count; a
    sentence shorter than a window is padded with zeros. Padding (token 0) at the end of a row therefore never changes its logits.

    Attributes:
      num_classes: number of classes, C.
      vocabulary_size: number of token ids.
      width: size of the embeddings.
      feature_maps: number of filters for each window size.
      dropout: fraction of the features dropped in training.
      dtype: computation dtype; parameters and logits stay float32.
    """

    num_classes: int
    vocabulary_size: int
    width: int = 128
    feature_maps: int = 100
    dropout: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens_BxL: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, dropout draws from the rng "dropout"."""
        is_word_BxL = tokens_BxL != 0
        length_Bx1 = is_word_BxL.sum(axis=1, keepdims=True)
        embed = nn.Embed(self.vocabulary_size, self.width, dtype=self.dtype, name="embedding")
        x_BxLxD = embed(tokens_BxL) * is_word_BxL[..., None]
        features = []
        for window in WINDOWS:
            conv = nn.Conv(self.feature_maps, (window,), padding=((0, window - 1),), dtype=self.dtype, name=f"conv{window}")
            y_BxLxF = nn.relu(conv(x_BxLxD))
            is_within_BxL = jnp.arange(tokens_BxL.shape[1]) <= jnp.maximum(length_Bx1 - window, 0)
            features.append(jnp.where(is_within_BxL[..., None], y_BxLxF, 0).max(axis=1))
        features_BxF = jnp.concatenate(features, axis=-1, dtype=jnp.float32)
        features_BxF = nn.Dropout(self.dropout, deterministic=not train)(features_BxF)
        return nn.Dense(self.num_classes, name="head")(features_BxF)
