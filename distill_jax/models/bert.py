"""Encoders of the BERT family: post-norm Transformers with pre-trained weights.

Devlin et al., "BERT", 2019, arXiv 1810.04805; Liu et al., "RoBERTa", 2019, arXiv 1907.11692; Sanh et al., "DistilBERT", 2019, arXiv
1910.01108; Wang et al., "MiniLM", 2020, arXiv 2002.10957, which has BERT's architecture. The hidden states are those of the `transformers`
library. With initial=hf:DIR the sizes are those of DIR: see distill_jax/pretrained.py.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.transformer import mean_of_words


class Kind(NamedTuple):
    """What distinguishes the members of the family."""

    segments: int  # rows of the table of segment embeddings; 0 for none
    pooler: Any  # activation of the dense layer between the first token's hidden state and the head


KINDS = {"bert": Kind(2, jnp.tanh), "roberta": Kind(1, jnp.tanh), "distilbert": Kind(0, nn.relu)}
SIZES = ("layers", "width", "heads", "mlp_width", "positions", "epsilon")  # options that, at 0, are those of the weights to start from
IDS = ("padding", "separator")  # options that, at 0, are those of the tokenizer
normal = nn.initializers.normal(0.02)


class Layer(nn.Module):
    """Self-attention and an MLP with GELU, each followed by dropout, the residual sum and LayerNorm."""

    heads: int
    mlp_width: int
    epsilon: float
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, mask_Bx1x1xL: jax.Array, train: bool) -> jax.Array:
        x, (batch, length, width) = x_BxLxD, x_BxLxD.shape

        def dense(features, name, inputs):
            return nn.Dense(features, dtype=self.dtype, kernel_init=normal, name=name)(inputs)

        def add(name, y):
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            return nn.LayerNorm(self.epsilon, dtype=self.dtype, use_fast_variance=False, name=name)(x + y)

        projected = (dense(width, name, x) for name in ("query", "key", "value"))
        query, key, value = (each.reshape(batch, length, self.heads, width // self.heads) for each in projected)
        attended = nn.dot_product_attention(
            query,
            key,
            value,
            mask=mask_Bx1x1xL,
            broadcast_dropout=False,
            dropout_rng=self.make_rng("dropout") if train and self.dropout else None,
            dropout_rate=self.dropout,
            deterministic=not train,
            dtype=self.dtype,
            force_fp32_for_softmax=True,
        )
        x = add("attention_norm", dense(width, "attention_out", attended.reshape(batch, length, width)))
        return add("mlp_norm", dense(width, "mlp_out", nn.gelu(dense(self.mlp_width, "mlp_in", x), approximate=False)))


class Encoder(nn.Module):
    """Embeddings of tokens, positions and segments, LayerNorm, layers, pooling, a dense layer.

    Padding at the end of a row is neither attended to nor pooled, so it never changes the row's logits. The tokens of a pair after its
    first separator are its second segment.

    Attributes:
      kind: a key of `KINDS`.
      num_classes: number of classes, C.
      vocabulary_size: number of token ids.
      layers: number of layers; if the weights that it starts from have more, `evenly` chooses among them.
      width: size of the hidden states.
      heads: number of attention heads; must divide `width`.
      mlp_width: hidden units of a layer's MLP.
      positions: rows of the table of positions; in RoBERTa the first ones, up to that of the padding, are unused.
      epsilon: of LayerNorm; 0 for BERT's 1e-12.
      padding: id of the padding token.
      separator: id of the token between the sentences of a pair; 0 if the tokenizer marks no segments.
      pooling: "cls", the pooler: a dense layer with an activation on the first token's hidden state; or "mean" over the tokens.
      dropout: fraction of the embeddings, the attention weights, each sublayer's output and the head's input dropped in training, as in
        BERT. For all kinds alike (our choice): in `transformers`, RoBERTa's head also drops its pooler's input, and DistilBERT drops no
        output of attention and 0.2 of its head's input.
      dtype: computation dtype; parameters, pooling and logits stay float32.

    Raises:
      ValueError: a size is 0, `heads` does not divide `width`, or a row has more tokens than there are positions.
    """

    kind: str
    num_classes: int
    vocabulary_size: int
    layers: int = 0
    width: int = 0
    heads: int = 0
    mlp_width: int = 0
    positions: int = 0
    epsilon: float = 0.0
    padding: int = 0
    separator: int = 0
    pooling: str = "cls"
    dropout: float = 0.1
    dtype: Any = jnp.float32

    def __post_init__(self):
        for size in ("layers", "width", "heads", "mlp_width", "positions"):
            if not getattr(self, size):
                raise ValueError(f"{size} is 0; set it to at least 1, or start from pre-trained weights, whose sizes are known")
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}; it must divide width, {self.width}")
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens_BxL: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, dropout draws from the rng "dropout"."""
        kind, epsilon = KINDS[self.kind], self.epsilon or 1e-12
        is_word_BxL = tokens_BxL != self.padding
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = nn.LayerNorm(epsilon, dtype=self.dtype, use_fast_variance=False, name="embeddings_norm")(self.embedded(tokens_BxL, kind))
        x = drop(x)
        for number in range(self.layers):
            layer = Layer(self.heads, self.mlp_width, epsilon, self.dropout, self.dtype, name=f"layer{number}")
            x = layer(x, is_word_BxL[:, None, None, :], train)
        x = x.astype(jnp.float32)
        if self.pooling == "cls":
            features_BxD = kind.pooler(nn.Dense(self.width, kernel_init=normal, name="pooler")(x[:, 0]))
        else:
            features_BxD = mean_of_words(x, is_word_BxL)
        return nn.Dense(self.num_classes, kernel_init=normal, name="head")(drop(features_BxD))

    def embedded(self, tokens_BxL: jax.Array, kind: Kind) -> jax.Array:
        """The sum of the embeddings, [B, L, D]."""
        length, first = tokens_BxL.shape[1], self.padding + 1 if self.kind == "roberta" else 0
        if first + length > self.positions:
            raise ValueError(f"positions is {self.positions}, enough for {self.positions - first} tokens, but the rows have {length}")

        def embed(rows, name, ids):
            return nn.Embed(rows, self.width, dtype=self.dtype, embedding_init=normal, name=name)(ids)

        x = embed(self.vocabulary_size, "word_embeddings", tokens_BxL)
        x += embed(self.positions, "position_embeddings", first + jnp.arange(length))
        if kind.segments:
            is_separator_BxL = (tokens_BxL == self.separator) & (self.separator > 0)
            is_second_BxL = jnp.cumsum(is_separator_BxL, axis=1) > is_separator_BxL
            x += embed(kind.segments, "segment_embeddings", is_second_BxL * (kind.segments - 1))
        return x


def evenly(layers: int, of: int) -> tuple[int, ...]:
    """Which layers of a deeper encoder a shallower one starts from: evenly spaced, the first and the last among them.

    Our choice of formula; 6 of 12 are 0, 2, 4, 7, 9, 11, as in DistilBERT's published initialisation.
    """
    return tuple(round(n * (of - 1) / max(layers - 1, 1)) for n in range(layers))
