"""A small Transformer encoder for sentences (Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762), pre-norm."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

POOLINGS = ("mean", "cls")
MLP_RATIO = 4  # hidden units of a block's MLP, in multiples of the width


class Transformer(nn.Module):
    """Embeddings with learned positions, pre-norm blocks of self-attention and MLP, LayerNorm, pooling, a dense layer.

    LayerNorm comes before each sublayer (Xiong et al., 2020, arXiv 2002.04745); the MLP uses GELU. Padding (token 0) at the end of a row
    is neither attended to nor pooled, so it never changes the row's logits.

    Attributes:
      num_classes: number of classes, C.
      vocabulary_size: number of token ids.
      max_length: number of positions, i.e. the maximum number of tokens in a row; 0 for the length of the rows at initialisation.
      layers: number of blocks.
      width: size of the embeddings and the blocks.
      heads: number of attention heads; must divide `width`.
      pooling: "mean" over the tokens, or "cls", the output at a learned vector prepended to them.
      dropout: fraction of the embeddings and of each sublayer's output dropped in training.
      dtype: computation dtype; parameters, softmax, pooling and logits stay float32.

    Raises:
      ValueError: `heads` does not divide `width`, or a row has more tokens than `max_length`.
    """

    num_classes: int
    vocabulary_size: int
    max_length: int = 0
    layers: int = 2
    width: int = 128
    heads: int = 4
    pooling: str = "mean"
    dropout: float = 0.1
    dtype: Any = jnp.float32

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}; it must divide width, {self.width}")
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens_BxL: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, dropout draws from the rng "dropout"."""
        batch, length = tokens_BxL.shape
        if 0 < self.max_length < length:
            raise ValueError(f"max_length is {self.max_length}, but the rows have {length} tokens")
        is_word_BxL = tokens_BxL != 0

        def drop(x):
            return nn.Dropout(self.dropout, deterministic=not train)(x)

        def norm(name, dtype=self.dtype):
            return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name=name)

        initializer = nn.initializers.normal(0.02)
        positions = self.param("positions", initializer, (self.max_length or length, self.width))
        x = nn.Embed(self.vocabulary_size, self.width, dtype=self.dtype, name="embedding")(tokens_BxL)
        x = x + positions[:length].astype(self.dtype)
        if self.pooling == "cls":
            cls = self.param("cls", initializer, (self.width,)).astype(self.dtype)
            x = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.width)), x], axis=1)
            is_word_BxL = jnp.pad(is_word_BxL, ((0, 0), (1, 0)), constant_values=True)
        x = drop(x)
        mask = is_word_BxL[:, None, None, :]
        for block in range(1, self.layers + 1):
            attention = nn.MultiHeadDotProductAttention(
                self.heads, dtype=self.dtype, force_fp32_for_softmax=True, name=f"block{block}_attention"
            )
            x = x + drop(attention(norm(f"block{block}_norm1")(x), mask=mask))
            y = nn.Dense(MLP_RATIO * self.width, dtype=self.dtype, name=f"block{block}_mlp1")(norm(f"block{block}_norm2")(x))
            x = x + drop(nn.Dense(self.width, dtype=self.dtype, name=f"block{block}_mlp2")(nn.gelu(y)))
        x = norm("final_norm", jnp.float32)(x)
        features_BxD = x[:, 0] if self.pooling == "cls" else mean_of_words(x, is_word_BxL)
        return nn.Dense(self.num_classes, name="head")(features_BxD)


def mean_of_words(x_BxLxD: jax.Array, is_word_BxL: jax.Array) -> jax.Array:
    """Mean over the words; 0 for a row without words."""
    total_BxD = jnp.where(is_word_BxL[..., None], x_BxLxD, 0).sum(axis=1)
    return total_BxD / jnp.maximum(is_word_BxL.sum(axis=1, keepdims=True), 1)
