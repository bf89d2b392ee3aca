"""Sentences: their tokens, and the tokenizer that a run keeps."""

import collections
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from text_helpers import SENTENCES, TEST, fields, read_text, sentences, write
from tokenizers import Tokenizer

from distill_jax.data import load, text, tokenization
from distill_jax.errors import UserError

# Most files here are small enough to trigger these warnings.
pytestmark = pytest.mark.filterwarnings("ignore:.*have a single row", "ignore:.*no test examples")


@pytest.fixture
def small(tmp_path):
    return write(tmp_path, train="\n".join(SENTENCES), test=TEST)


# Tokens


def test_tokens_by_hand(small):
    data = read_text(small)
    words = [re.findall(r"\w+|[^\w\s]+", row[2:].lower()) for row in SENTENCES]
    counts = collections.Counter(word for row in words for word in row)
    ids = {word: number for number, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word)), 3)}
    expected = np.zeros((4, 6), np.int32)
    for row, tokens in enumerate(words):
        expected[row, : len(tokens)] = [ids[word] for word in tokens]
    np.testing.assert_array_equal(data.train["tokens"], expected)
    assert data.train["tokens"].dtype == data.train["label"].dtype == np.int32
    assert data.train["label"].tolist() == [0, 1, 0, 1] and data.test["label"].tolist() == [1, 0]
    assert data.name == "text:train" and data.num_classes == 2 and data.vocabulary_size == 3 + len(ids)


def test_vocabulary_is_of_train_only(small):
    data = read_text(small)
    assert sentences(data, "test") == ["the dog", "a [UNK] sat"]
    assert data.test["tokens"][1].tolist()[1] == 1
    assert "bird" not in data.tokenizer


def test_vocabulary_size_keeps_the_most_frequent(small):
    data = read_text(small, vocabulary_size=6)
    assert data.vocabulary_size == 6
    assert sentences(data, "train") == ["[UNK] cat [UNK] [UNK]", "a dog [UNK] a dog [UNK]", "[UNK] cat", "dog"]


def test_long_sentences_are_cut(small):
    data = read_text(small, max_length=3)
    assert data.train["tokens"].shape == (4, 3)
    assert sentences(data, "train") == ["the cat sat", "a dog ,", "the cat", "dog"]
    write(small, test="1 the dog a dog a dog a dog a dog\n")
    assert read_text(small).test["tokens"].shape == (1, 6)


def test_pairs(tmp_path):
    write(tmp_path, train="sentence\tsentence2\tlabel\na b c d e f\tx y\tyes\na\tb\tno\n", test="label\tsentence2\tsentence\nyes\tx\ta\n")
    data = read_text(tmp_path, format="tsv")
    assert sentences(data, "train") == ["a b c d e f [SEP] x y", "a [SEP] b"] and sentences(data, "test") == ["a [SEP] x"]
    assert data.train["tokens"][1].tolist()[1] == 2
    assert sentences(read_text(tmp_path, format="tsv", max_length=6), "train")[0] == "a b c [SEP] x y"
    assert sentences(read_text(tmp_path, format="tsv", max_length=3), "train")[0] == "a [SEP] x"


def test_special_tokens_cannot_be_spelled(tmp_path):
    write(tmp_path, train="0 a [PAD] [SEP] [UNK]\n1 b", test="0 [PAD] b\n")
    data = read_text(tmp_path)
    assert (data.train["tokens"][0] > 2).all() and sentences(data, "test") == ["[ pad ] b"]


def test_the_saved_tokenizer_gives_the_same_tokens(small):
    data = read_text(small)
    tokenizer = Tokenizer.from_str(data.tokenizer)
    np.testing.assert_array_equal([tokenizer.encode(row[2:]).ids for row in SENTENCES], data.train["tokens"])


def test_another_process_makes_the_same_tokens(tmp_path):
    rows = [f"{row % 2} w{row} w{row // 3} x{row % 7}" for row in range(300)]
    write(tmp_path, train="\n".join(rows), test=TEST)
    program = (
        "import sys; from types import SimpleNamespace as S; from distill_jax.data import load\n"
        "d = load('text:train', sys.argv[1], text_fields=S(format='trec', test='', max_length=32, vocabulary_size=200))\n"
        "sys.stdout.write(d.tokenizer + str(d.train['tokens'].tolist()) + str(d.test['label'].tolist()))"
    )
    here = read_text(tmp_path, test="", vocabulary_size=200)
    environment = os.environ | {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3", "PYTHONPATH": str(Path(text.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == here.tokenizer + str(here.train["tokens"].tolist()) + str(here.test["label"].tolist())


def test_images_import_no_tokenizers():
    program = "import sys, distill_jax.data.tensorflow_sets; print('tokenizers' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(text.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment).stdout == "False\n"


# The tokenizer of a trained run


def test_another_set_with_the_tokenizer_of_a_run(small, tmp_path):
    trained = read_text(small)
    write(tmp_path / "other", train="1 dog , the bird\n0 a cat a cat a cat a cat\n1 a\n0 the", test="0 the mat\n1 a dog")
    other = load("text:train", str(tmp_path / "other"), text_fields=fields(max_length=3), tokenizer=trained.tokenizer)
    assert sentences(other, "train") == ["dog , the [UNK]", "a cat a cat a cat", "a", "the"] and sentences(other, "test") == [
        "the [UNK]",
        "a dog",
    ]
    assert other.train["tokens"].shape == (4, 6) and other.test["tokens"].shape == (2, 6)
    assert other.tokenizer == trained.tokenizer and other.vocabulary_size == trained.vocabulary_size
    again = load("text:train", str(small), text_fields=fields(), tokenizer=trained.tokenizer)
    np.testing.assert_equal(again, trained)


def test_sentences_are_encoded_as_in_training(small):
    data = read_text(small)
    tokens = tokenization.encode_sentences(data.tokenizer, [row[2:] for row in SENTENCES])
    np.testing.assert_array_equal(tokens, data.train["tokens"])
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokenization.encode_sentences(data.tokenizer, ["a dog " * 9]), [[*data.train["tokens"][1, :2]] * 3])
    assert tokenization.encode_sentences(data.tokenizer, []).shape == (0, 6)


def test_pairs_are_encoded_as_in_training(tmp_path):
    write(tmp_path, train="sentence\tsentence2\tlabel\na b c d e f\tx y\tyes\na\tb\tno\n", test="label\tsentence2\tsentence\nyes\tx\ta\n")
    data = read_text(tmp_path, format="tsv", max_length=6)
    for pairs in (
        [("a b c d e f", "x y"), ("a", "b")],
        [["a b c d e f", "x y"], ["a", "b"]],
        np.array([["a b c d e f", "x y"], ["a", "b"]]),
    ):
        np.testing.assert_array_equal(tokenization.encode_sentences(data.tokenizer, pairs), data.train["tokens"])


def test_bad_sentences(small):
    tokenizer = read_text(small).tokenizer
    for bad, message in [
        ("a dog", "sentences must be a list of strings, not one string"),
        (["a", " \n"], r"sentences\[1\] is empty"),
        ([("a", "")], r"sentences\[0\] is empty"),
        (["a", 3.0], r"sentences\[1\] must be a string or a pair of strings, not float"),
        ([("a", "b", "c")], r"sentences\[0\] must be a string or a pair of strings, not tuple"),
    ]:
        with pytest.raises(UserError, match=message):
            tokenization.encode_sentences(tokenizer, bad)
    unpadded = Tokenizer.from_str(tokenizer)
    unpadded.no_padding()
    for bad, message in [
        ("{", "not a readable tokenizer"),
        ("", "not a readable tokenizer"),
        (unpadded.to_str(), "has no fixed row length"),
    ]:
        with pytest.raises(UserError, match=f"tokenizer.json: {message}"):
            tokenization.encode_sentences(bad, ["a"])
