"""Encoders that others have trained: read from local folders, and held against independent implementations."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_helpers import TOKENS, WORDS, change_config, fine_tuning, tokenizer, write_bert
from helpers import random_network
from safetensors.numpy import load_file, save_file
from scipy.special import erf
from tokenizers import Tokenizer, models

import distill_jax
from distill_jax import pretrained, tensor_names, trained
from distill_jax.data import load_config, text, tokenization
from distill_jax.errors import UserError
from distill_jax.models import bert


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


def test_a_pretrained_tokenizer_of_whole_words_is_not_a_fitted_one():
    words = tokenization.fit([("the old cat",)], 10, 8)
    assert tokenization.is_fitted(words.to_str())
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    theirs = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    assert not tokenization.is_fitted(theirs.to_str())
    words.add_special_tokens(["[PAD]"])
    assert not tokenization.is_fitted(words.to_str())


# Hidden states, against a forward pass in numpy and against transformers


def numpy_bert(tensors, tokens_L, heads=2):
    """BERT's hidden states of one row without padding, in float64, from Hugging Face's names; and the pooler's output."""

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T.astype(float) + tensors[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    segments = (np.cumsum(tokens_L == 3) - (tokens_L == 3) > 0).astype(int)
    parts = {"word": tokens_L, "position": np.arange(len(tokens_L)), "token_type": segments}
    x = sum(tensors[f"embeddings.{part}_embeddings.weight"][ids].astype(float) for part, ids in parts.items())
    x, states = norm(x, "embeddings.LayerNorm"), []
    for number in range(3):
        layer = f"encoder.layer.{number}"
        query, key, value = (dense(x, f"{layer}.attention.self.{name}").reshape(len(x), heads, -1) for name in ("query", "key", "value"))
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(query.shape[-1])
        weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
        attended = np.einsum("hqk,khd->qhd", weights, value).reshape(len(x), -1)
        x = norm(x + dense(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        states.append(x)
    return states, np.tanh(dense(x[0], "pooler.dense"))


def hidden_states(module, network, tokens):
    """The output of every layer, and the input of the head."""
    _, caught = module.apply({"params": network["params"]}, tokens, capture_intermediates=True)
    states = [caught["intermediates"][f"layer{number}"]["__call__"][0] for number in range(module.layers)]
    return states, trained.penultimate(module, network, tokens)


def test_hidden_states_by_hand(folder):
    spec = pretrained.spec_of(f"hf:{folder}")
    loaded = pretrained.load(f"hf:{folder}", spec)
    assert loaded.missing == ("head",) and loaded.unused == ("bert.embeddings.position_ids",) and spec.num_classes == 0
    module = spec._replace(num_classes=3).module()
    network = {"params": loaded.network["params"] | {"head": {"kernel": np.zeros((8, 3)), "bias": np.zeros(3)}}}
    states, features = hidden_states(module, network, TOKENS)
    for row, tokens_L in enumerate(TOKENS):
        words_L = tokens_L[tokens_L > 0]
        expected, pooled = numpy_bert(load_file(folder / "model.safetensors"), words_L)
        for state, layer in zip(states, expected, strict=True):
            np.testing.assert_allclose(state[row, : len(words_L)], layer, atol=1e-5)
        np.testing.assert_allclose(features[row], pooled, atol=1e-5)


@pytest.mark.parametrize("kind", bert.KINDS)
def test_hidden_states_of_transformers(kind, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    roberta = ("<s>", "<pad>", "</s>", "<unk>")
    words = tokenizer(("<pad>", "<unk>", "<s>", "</s>"), segment=0) if kind == "roberta" else tokenizer()
    if kind == "roberta":  # where the padding is token 1
        content = json.loads(words.to_str())
        content["model"]["vocab"] |= {token: number for number, token in enumerate(roberta)}
        for token in content["added_tokens"]:
            token["id"] = roberta.index(token["content"])
        for name, each in content["post_processor"]["special_tokens"].items():
            each["ids"] = [roberta.index(name)]
        words = Tokenizer.from_str(json.dumps(content))
    words.save(str(tmp_path / "tokenizer.json"))
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 12}
    if kind == "distilbert":
        sizes = {"dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 12, "seq_classif_dropout": 0.0}
    if kind == "roberta":
        sizes |= {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-5}
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=words.get_vocab_size(), max_position_embeddings=20, num_labels=5, initializer_range=0.5, **sizes
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    model.save_pretrained(tmp_path)

    words.enable_padding(pad_id=words.token_to_id("<pad>" if kind == "roberta" else "[PAD]"))
    encodings = words.encode_batch([("the old cats", "is here b"), ("a dog", "b")])
    ids, types, mask = (np.array([getattr(each, name) for each in encodings]) for name in ("ids", "type_ids", "attention_mask"))
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "output_hidden_states": True}
    if kind == "bert":
        inputs["token_type_ids"] = torch.tensor(types)
    with torch.no_grad():
        theirs = model(**inputs)
    network = distill_jax.load(f"hf:{tmp_path}")
    assert network.spec.num_classes == 5 and network.spec.classes == ()
    np.testing.assert_allclose(network.logits([("the old cats", "is here b"), ("a dog", "b")]), theirs.logits, atol=1e-4)
    states, _ = hidden_states(network.module, network.variables, ids.astype(np.int32))
    for ours, expected in zip(states, theirs.hidden_states[1:], strict=True):
        np.testing.assert_allclose(np.where(mask[..., None], ours, 0), np.where(mask[..., None], expected, 0), atol=1e-4)
    exported = tensor_names.to_theirs(kind, network.variables)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items() if not name.endswith("_ids")}
    assert exported.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(exported[name], tensor)


def test_padding_and_dropout(folder):
    module = pretrained.spec_of(f"hf:{folder}")._replace(num_classes=3).module().clone(layers=1)
    module = module.clone(pooling="mean")
    variables = {"params": random_network(module, TOKENS)["params"]}
    apply, train = (
        jax.jit(module.apply),
        jax.jit(lambda seed: module.apply(variables, TOKENS, True, rngs={"dropout": jax.random.key(seed)})),
    )
    logits = apply(variables, TOKENS)
    np.testing.assert_allclose(apply(variables, np.pad(TOKENS, ((0, 0), (0, 5)))), logits, atol=1e-5)
    np.testing.assert_array_equal(train(0), train(0))
    assert not np.allclose(train(0), train(1))
    low = jax.jit(module.clone(dtype=jnp.bfloat16).apply)(variables, TOKENS)
    assert low.dtype == logits.dtype == np.float32 and not np.array_equal(low, logits)
    np.testing.assert_allclose(low, logits, atol=0.1)
    with pytest.raises(ValueError, match="^positions is 20, enough for 20 tokens, but the rows have 21"):
        jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 21), np.int32))


def test_which_layers_are_chosen():
    assert bert.evenly(6, 12) == (0, 2, 4, 7, 9, 11)  # as in DistilBERT's published script
    assert [bert.evenly(layers, 6) for layers in (6, 4, 3, 2, 1)] == [(0, 1, 2, 3, 4, 5), (0, 2, 3, 5), (0, 2, 5), (0, 5), (0,)]


# Tokens


def test_tokens_are_those_of_the_networks_own_tokenizer(folder, sentences):
    data = load_config(fine_tuning(sentences, folder).data, tokenization.adopted((folder / "tokenizer.json").read_text(), 12))
    lines = [line.split(" ", 1)[1] for line in (sentences / "train").read_text().splitlines()]
    words = tokenizer()
    longest = max(len(words.encode(line).ids) for line in lines)
    words.enable_padding(length=longest)
    np.testing.assert_array_equal(data.train["tokens"], [words.encode(line).ids for line in lines])
    np.testing.assert_array_equal(tokenization.encode_sentences(data.tokenizer, lines), data.train["tokens"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "CHUNK", 7)
        np.testing.assert_array_equal(tokenization.encode(words, lines), data.train["tokens"])
        words.no_padding()
        words.enable_padding(pad_id=5)  # to the longest of a chunk
        np.testing.assert_array_equal(np.where(data.train["tokens"] == 0, 5, data.train["tokens"]), tokenization.encode(words, lines))
    assert data.train["tokens"].shape[1] <= 12 and data.vocabulary_size == words.get_vocab_size()
    assert tokenization.same_words(data.tokenizer, (folder / "tokenizer.json").read_text())
    short = tokenization.adopted((folder / "tokenizer.json").read_text(), 7)
    pair = tokenization.encode_sentences(short, [("the old red cat", "a dog [SEP] is here")])[0]
    assert len(pair) == 7 and (pair == 3).sum() == 2, "what a sentence spells is no separator, and both sentences are cut"


def test_other_templates_and_paddings_are_refused(tmp_path):
    words = json.loads(tokenizer().to_str())
    words["post_processor"]["pair"].append({"SpecialToken": {"id": "[SEP]", "type_id": 0}})
    with pytest.raises(UserError, match="^tokenizer.json: a pair must be encoded as in BERT"):
        tokenization.special_ids(tokenization.adopted(json.dumps(words), 9))
    words["post_processor"] = None
    with pytest.raises(UserError, match="^tokenizer.json: a pair must be encoded as in BERT"):
        tokenization.special_ids(tokenization.adopted(json.dumps(words), 9))
    with pytest.raises(UserError, match="^tokenizer.json: has no token for padding"):
        tokenization.adopted(tokenizer(("<p>", "<unk>", "<s>", "</s>")).to_str(), 9)
    assert tokenization.special_ids(tokenization.adopted(tokenizer(segment=0).to_str(), 9)) == (0, 0)
    assert tokenization.special_ids(tokenization.adopted(tokenizer().to_str(), 9)) == (0, 3)


@pytest.mark.parametrize(("sentences", "needed"), [(1, 3), (2, 5)])
def test_rows_without_a_place_for_their_sentences_are_refused(sentences, needed):
    rows = [text.Row(number, "0", ("the old cat",) * sentences) for number in range(2)]
    part = rows, np.zeros(2, np.int32)
    short = tokenization.adopted(tokenizer().to_str(), needed - 1)
    message = f"^data.text.max_length is {needed - 1}; it must be at least {needed}: {needed - sentences} special tokens and a token of"
    with pytest.raises(UserError, match=message):
        text.tokenized("x", 2, part, part, None, short)
    enough = text.tokenized("x", 2, part, part, None, tokenization.adopted(tokenizer().to_str(), needed))
    the = tokenizer().token_to_id("the")
    assert enough.train["tokens"].shape == (2, needed) and (enough.train["tokens"] == the).sum(axis=1).tolist() == [sentences] * 2


# What files may be wrong about


def edit(folder, **changes):
    """Changes tensors of model.safetensors: None removes one."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda f: edit(f, **{"encoder.layer.2.output.dense.bias": None}),
            "has no tensor bert.encoder.layer.2.output.dense.bias, which a bert has",
        ),
        (lambda f: edit(f, **{"encoder.layer.3.x": np.zeros(2)}), "has a tensor bert.encoder.layer.3.x, which a bert does not have"),
        (
            lambda f: edit(f, **{"pooler.dense.weight": np.zeros((8, 7), np.float32)}),
            r"tensor bert.pooler.dense.weight is \[8, 7\]; in a bert of this size it is \[8, 8\]",
        ),
        (
            lambda f: change_config(f, intermediate_size=16),
            r"layer.0.intermediate.dense.bias is \[12\]; in a bert of this size it is \[16\]",
        ),
        (lambda f: change_config(f, model_type="gpt2"), "config.json: model_type is 'gpt2'; known: bert, roberta, distilbert"),
        (lambda f: change_config(f, hidden_act="relu"), "config.json: hidden_act is 'relu'; only 'gelu' is supported"),
        (
            lambda f: change_config(f, problem_type="multi_label_classification"),
            "problem_type is 'multi_label_cl.*; only 'single_label",
        ),
        (lambda f: change_config(f, hidden_size=None), "config.json: hidden_size is None; it must be a positive number"),
        (lambda f: change_config(f, vocab_size=5), "tokenizer.json has ids up to 24, but config.json's vocab_size is 5"),
        (lambda f: (f / "config.json").unlink(), "config.json cannot be read: No such file"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json cannot be read: .*; write it with transformers.AutoTokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json: not a readable tokenizer"),
        (lambda f: (f / "model.safetensors").write_bytes(b"PK0000000000"), "model.safetensors cannot be read as safetensors: "),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "pytorch_model.bin is a pickle, .* convert it to safetensors",
        ),
        (lambda f: (f / "model.safetensors").rename(f / "training_args.bin"), "model.safetensors: no such file"),
        (lambda f: (f / "model.safetensors").rename(f / "model.safetensors.index.json"), "holds its weights in several files"),
        (
            lambda f: edit(f, **{"pooler.dense.bias": np.zeros(8, np.int8)}),
            "tensor bert.pooler.dense.bias is I8; save the weights as F64, F32, F16, BF16",
        ),
        (shutil.rmtree, "bert: no such folder"),
    ],
)
def test_what_a_folder_lacks_is_named(folder, tmp_path, change, message):
    copy = shutil.copytree(folder, tmp_path / "bert")
    change(copy)
    with pytest.raises(UserError, match=message) as caught:
        pretrained.load(f"hf:{copy}", pretrained.spec_of(f"hf:{copy}"))
    assert "\n" not in str(caught.value)


def test_older_names_are_understood(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "bert")
    (copy / "model.safetensors.index.json").touch()  # left from when the weights were in several files
    renamed = {"embeddings.LayerNorm.weight": "embeddings.LayerNorm.gamma", "embeddings.LayerNorm.bias": "embeddings.LayerNorm.beta"}
    tensors = load_file(copy / "model.safetensors")
    save_file({f"bert.{renamed.get(name, name)}": tensor for name, tensor in tensors.items()}, copy / "model.safetensors")
    one, other = (pretrained.load(f"hf:{each}", pretrained.spec_of(f"hf:{each}")) for each in (folder, copy))
    jax.tree.map(np.testing.assert_array_equal, one.network, other.network)
