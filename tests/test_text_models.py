"""Networks that read sentences: padding, dropout, and agreement with PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax import models
from distill_jax.models.text_cnn import TextCNN
from distill_jax.models.transformer import Transformer

TOKENS = np.array([[5, 3, 7, 4, 9, 8, 6], [2, 9, 1, 0, 0, 0, 0], [8, 0, 0, 0, 0, 0, 0], [3, 3, 9, 9, 4, 0, 0]], np.int32)
NETWORKS = {
    "text_cnn": TextCNN(5, 10, width=8, feature_maps=6),
    "transformer mean": Transformer(5, 10, max_length=16, layers=1, width=8, heads=2),
    "transformer cls": Transformer(5, 10, max_length=16, layers=1, width=8, heads=2, pooling="cls"),
}


def random_variables(model):
    """Normal random values instead of the initial ones, so that no bias is zero."""
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    return jax.tree.map(lambda leaf: 0.5 * random.standard_normal(leaf.shape, np.float32), shapes)


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_never_changes_a_logit(name):
    model = NETWORKS[name]
    apply = jax.jit(model.apply)
    variables = random_variables(model)
    logits = apply(variables, TOKENS)
    assert logits.shape == (4, 5) and logits.dtype == jnp.float32
    padded = apply(variables, np.pad(TOKENS, ((0, 0), (0, 9))))
    np.testing.assert_allclose(padded, logits, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(apply(variables, TOKENS[1:3, :3]), logits[1:3], rtol=1e-6, atol=1e-6)
    variables["params"]["embedding"]["embedding"][0] += 1.0
    np.testing.assert_array_equal(apply(variables, TOKENS), logits)
    assert np.isfinite(apply(variables, np.zeros_like(TOKENS))).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_in_training_only(name):
    model = NETWORKS[name]
    variables = random_variables(model)
    train = jax.jit(lambda seed: model.apply(variables, TOKENS, train=True, rngs={"dropout": jax.random.key(seed)}))
    np.testing.assert_array_equal(train(0), train(0))
    assert not np.allclose(train(0), train(1))


def test_text_cnn_agrees_with_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = NETWORKS["text_cnn"]
    variables = random_variables(model)
    params = jax.tree.map(lambda leaf: torch.tensor(leaf), variables["params"])
    expected = []
    for row in TOKENS:
        words = params["embedding"]["embedding"][torch.tensor(row[row > 0]).long()]
        features = []
        for window in (3, 4, 5):
            inputs = torch.nn.functional.pad(words.T, (0, max(window - len(words), 0)))
            conv = params[f"conv{window}"]
            features.append(torch.nn.functional.conv1d(inputs[None], conv["kernel"].permute(2, 1, 0), conv["bias"]).relu().amax(dim=2)[0])
        expected.append(torch.cat(features) @ params["head"]["kernel"] + params["head"]["bias"])
    np.testing.assert_allclose(jax.jit(model.apply)(variables, TOKENS), torch.stack(expected), rtol=1e-5, atol=1e-5)


def torch_block(params, torch):
    """A pre-norm TransformerEncoderLayer with the weights of our block."""
    block = torch.nn.TransformerEncoderLayer(
        8, 2, 32, activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"), batch_first=True, norm_first=True
    )
    attention = params["attention"]
    projections = [attention[name] for name in ("query", "key", "value")]
    weights = {
        "self_attn.in_proj_weight": np.concatenate([each["kernel"].reshape(8, 8).T for each in projections]),
        "self_attn.in_proj_bias": np.concatenate([each["bias"].reshape(8) for each in projections]),
        "self_attn.out_proj.weight": attention["out"]["kernel"].reshape(8, 8).T,
        "self_attn.out_proj.bias": attention["out"]["bias"],
    }
    for theirs, ours in (("linear1", "mlp1"), ("linear2", "mlp2")):
        weights |= {f"{theirs}.weight": params[ours]["kernel"].T, f"{theirs}.bias": params[ours]["bias"]}
    for name in ("norm1", "norm2"):
        weights |= {f"{name}.weight": params[name]["scale"], f"{name}.bias": params[name]["bias"]}
    block.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})
    return block.eval()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_transformer_agrees_with_pytorch(pooling):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = NETWORKS[f"transformer {pooling}"].clone(layers=2)
    variables = random_variables(model)
    params = variables["params"]
    x = params["embedding"]["embedding"][TOKENS] + params["positions"][:7]
    is_word = TOKENS > 0
    if pooling == "cls":
        x = np.concatenate([np.broadcast_to(params["cls"], (4, 1, 8)), x], axis=1)
        is_word = np.concatenate([np.ones((4, 1), bool), is_word], axis=1)
    x = torch.tensor(x)
    with torch.no_grad():
        for block in ("block1", "block2"):
            parts = {part: params[f"{block}_{part}"] for part in ("attention", "norm1", "norm2", "mlp1", "mlp2")}
            x = torch_block(parts, torch)(x, src_key_padding_mask=torch.tensor(~is_word))
        norm = [torch.tensor(params["final_norm"][name]) for name in ("scale", "bias")]
        x = torch.nn.functional.layer_norm(x, (8,), *norm).numpy()
    features = x[:, 0] if pooling == "cls" else np.stack([row[words].mean(axis=0) for row, words in zip(x, is_word, strict=True)])
    expected = features @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, TOKENS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["text_cnn", "transformer"])
def test_created_by_name(name):
    high, low = (models.create(name, 5, dtype, vocabulary_size=10, width=16) for dtype in ("float32", "bfloat16"))
    shapes = jax.eval_shape(low.init, jax.random.key(0), TOKENS)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert shapes["params"]["embedding"]["embedding"].shape == (10, 16)
    assert shapes["params"]["head"]["kernel"].shape == ({"text_cnn": 300, "transformer": 16}[name], 5)
    variables = jax.tree.map(lambda leaf: 0.2 * leaf, random_variables(high))
    logits = jax.jit(lambda: [model.apply(variables, TOKENS) for model in (high, low)])()
    assert {leaf.dtype for leaf in logits} == {jnp.dtype("float32")} and not np.array_equal(*logits)
    np.testing.assert_allclose(*logits, atol=0.05)


def test_default_sizes():
    shapes = jax.eval_shape(models.create("transformer", 6, vocabulary_size=100, layers=2, pooling="mean").init, jax.random.key(0), TOKENS)
    block = 4 * (128 * 128 + 128) + (128 * 512 + 512) + (512 * 128 + 128) + 4 * 128
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == (100 + 7) * 128 + 2 * block + 2 * 128 + 128 * 6 + 6
    shapes = jax.eval_shape(models.create("text_cnn", 6, vocabulary_size=100).init, jax.random.key(0), TOKENS)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 100 * 128 + 100 * (3 + 4 + 5) * 128 + 300 + 300 * 6 + 6


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("text_cnn", {}, "^name is 'text_cnn', a network for text, but the inputs are images"),
        (
            "resnet8",
            {"vocabulary_size": 9},
            "^name is 'resnet8', a network for images, but the inputs are text .*text_cnn, transformer$",
        ),
        (
            "text_cnn",
            {"vocabulary_size": 9, "pooling": "cls"},
            "^pooling is not an option of network text_cnn, which has: width, feature_maps, dropout$",
        ),
        ("transformer", {"vocabulary_size": 9, "pooling": "max"}, "^pooling is 'max'; known: mean, cls$"),
        ("transformer", {"vocabulary_size": 9, "layers": -1}, r"^layers is -1; it must lie in \[1, 65535\]$"),
        ("transformer", {"vocabulary_size": 9, "heads": 3}, "^heads is 3; it must divide width, 128$"),
    ],
)
def test_bad_networks(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, 5, **options)


@pytest.mark.parametrize("max_length", [1, 6])
def test_rows_longer_than_the_positions_are_refused(max_length):
    """One position would be broadcast to every token."""
    with pytest.raises(ValueError, match=f"^max_length is {max_length}, but the rows have 7 tokens"):
        jax.eval_shape(NETWORKS["transformer mean"].clone(max_length=max_length).init, jax.random.key(0), TOKENS)
