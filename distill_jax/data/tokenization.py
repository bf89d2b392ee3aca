"""Tokenizers, fitted to a data set or from a pre-trained network; both are JSON of the library `tokenizers`."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distill_jax.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[SEP]")  # ids 0, 1, 2: padding, an unknown word, the separator between a pair's sentences
STEP = 32  # tokens
CHUNK = 1024  # sentences at once: the library's objects take thirty times the memory of their tokens
PADDING = ("[PAD]", "<pad>")  # as pre-trained tokenizers spell it


def fit(sentences: Iterable[Sequence[str]], size: int, max_length: int) -> Any:
    """A tokenizer of lower-case words and runs of punctuation for single sentences or pairs. Ties in frequency are broken alphabetically.

    Args:
      sentences: the sentences of each training row.
      size: data.text.vocabulary_size.
      max_length: data.text.max_length.

    Raises:
      UserError: one of the numbers is too small.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    if max_length < 3:
        raise UserError(f"data.text.max_length is {max_length}; it must be at least 3: a word, the separator, a word")
    if size <= len(SPECIAL):
        raise UserError(f"data.text.vocabulary_size is {size}; it must be greater than {len(SPECIAL)}, the number of special ids")

    def build(words):
        tokenizer = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[1]))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return tokenizer

    trained = build({})
    trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
    trained.train_from_iterator(itertools.chain.from_iterable(sentences), trainer)
    tokenizer = build(trained.get_vocab())  # reads "[PAD]" in a text as three words, not as the special token
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=f"$A {SPECIAL[2]} $B", special_tokens=[(SPECIAL[2], SPECIAL.index(SPECIAL[2]))]
    )
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding()
    return tokenizer


def adopted(tokenizer: str, max_length: int) -> str:
    """The tokenizer of a pre-trained network for a new data set: rows of up to `max_length` tokens, padded at their ends.

    Args:
      tokenizer: the content of its tokenizer.json, as the library `tokenizers` writes it.
      max_length: data.text.max_length.

    Raises:
      UserError: it is damaged, or has no token for padding.
    """
    words = parse(tokenizer)
    padding = next((token for token in PADDING if words.token_to_id(token) is not None), None)
    if padding is None:
        raise UserError(f"tokenizer.json: has no token for padding, {' or '.join(PADDING)}")
    words.enable_truncation(max_length)
    words.enable_padding(pad_id=words.token_to_id(padding), pad_token=padding)
    return words.to_str()


def is_fitted(tokenizer: str) -> bool:
    """Whether `fit` made a tokenizer for a data set; otherwise it belongs to a pre-trained network."""
    content = json.loads(tokenizer)
    model, own = content["model"], dict(zip(SPECIAL, range(3), strict=True))
    return model["type"] == "WordLevel" and not content["added_tokens"] and own.items() <= model["vocab"].items()


def check_length(words: Any, sentences: int) -> None:
    """Raises UserError if rows have no room for a token of each of their 1 or 2 sentences, besides the special tokens."""
    needed = words.num_special_tokens_to_add(sentences == 2) + sentences
    if words.truncation["max_length"] < needed:
        what = f"{needed - sentences} special tokens and a token of {'each sentence' if sentences == 2 else 'the sentence'}"
        raise UserError(f"data.text.max_length is {words.truncation['max_length']}; it must be at least {needed}: {what}")


def same_words(one: str, other: str) -> bool:
    """Whether two tokenizers, or "" for images, give the same ids. Those of pre-trained networks may give rows of different lengths."""
    return one == other or words_of(one) == words_of(other)


def words_of(tokenizer: str) -> str:
    """The tokenizer of a pre-trained network without the length of its rows; a fitted one, or "", as it is."""
    if not tokenizer or is_fitted(tokenizer):
        return tokenizer
    return json.dumps(json.loads(tokenizer) | {"truncation": None, "padding": None})


def largest_id(tokenizer: str) -> int:
    return max(parse(tokenizer).get_vocab().values())


def special_ids(tokenizer: str) -> tuple[int, int]:
    """The ids of the padding, and of the separator at which the first segment of a pair ends; 0 if all tokens are of one segment.

    Raises:
      UserError: the segments are not those of BERT, so the tokens do not determine them.
    """
    words = parse(tokenizer)
    padding = words.padding["pad_id"]
    words.no_padding()
    words.no_truncation()
    pair = words.encode("a", "a")
    if not any(pair.type_ids):
        return padding, 0
    second = pair.type_ids.index(1)
    separator = pair.ids[second - 1]
    is_special = pair.special_tokens_mask[second - 1]  # not without a post-processor: there, "a" ends the first segment
    if not is_special or pair.ids.index(separator) != second - 1 or not all(pair.type_ids[second:]):
        raise UserError("tokenizer.json: a pair must be encoded as in BERT, [CLS] A [SEP] B [SEP], with A and [SEP] as its first segment")
    return padding, separator


def parse(tokenizer: str) -> Any:
    """The library's object. Raises UserError if the JSON is damaged."""
    from tokenizers import Tokenizer

    try:
        words = Tokenizer.from_str(tokenizer)
    except Exception as error:  # the library raises nothing more specific
        raise UserError("tokenizer.json: not a readable tokenizer (damaged, or not saved by a run)") from error
    words.encode_special_tokens = True  # "[SEP]" in a sentence is text
    return words


def fix_length(words: Any, length: int) -> None:
    """Makes all rows `length` tokens long."""
    words.enable_truncation(length)
    words.enable_padding(pad_id=words.padding["pad_id"], pad_token=words.padding["pad_token"], length=length)


def of_length(tokenizer: str, length: int) -> str:
    """The tokenizer, all of whose rows have one length: its own, if it has one."""
    words = parse(tokenizer)
    if has_length(words):
        return tokenizer
    fix_length(words, length)
    return words.to_str()


def has_length(words: Any) -> bool:
    """Whether all its rows have one length, as after training."""
    return bool(words.padding and words.padding["length"] and words.truncation)


def encode(words: Any, sentences: Sequence[str | tuple[str, ...]]) -> np.ndarray:
    """int32 [N, L] for strings or pairs of strings; L is the tokenizer's fixed length, or that of the longest row."""
    chunks = [np.empty((0, words.padding["length"] or 0), np.int32)]
    for start in range(0, len(sentences), CHUNK):
        encodings = words.encode_batch_fast(sentences[start : start + CHUNK])
        chunks.append(np.array([encoding.ids for encoding in encodings], np.int32))
    length = max(chunk.shape[1] for chunk in chunks)
    padded = [np.pad(chunk, ((0, 0), (0, length - chunk.shape[1])), constant_values=words.padding["pad_id"]) for chunk in chunks]
    return np.concatenate(padded)


def encode_sentences(tokenizer: str, sentences: Sequence[str | Sequence[str]], in_row: int = 0) -> np.ndarray:
    """Encodes sentences for a trained network.

    Args:
      tokenizer: the content of the run's tokenizer.json, or that of a pre-trained network, as returned by `adopted`.
      sentences: strings or, for a network trained on pairs, pairs of strings.
      in_row: which of the two: 1 or 2; 0 allows both.

    Returns:
      int32 [N, L], as long as the network's training rows; or for a pre-trained network as the longest sentence, rounded up to a
      multiple of `STEP`, so that few lengths are compiled. Longer sentences are truncated, as in training.

    Raises:
      UserError: a sentence is empty or not what the network takes, or the tokenizer was not saved by a run.
    """
    words = parse(tokenizer)
    if not (words.padding and words.truncation):
        raise UserError("tokenizer.json: has no fixed row length; use one saved by a run")
    if isinstance(sentences, str):
        raise UserError("sentences must be a list of strings, not one string")
    if not has_length(words):
        words.enable_padding(pad_id=words.padding["pad_id"], pad_token=words.padding["pad_token"], pad_to_multiple_of=STEP)
    tokens = encode(words, [_checked(number, sentence, in_row) for number, sentence in enumerate(sentences)])
    return tokens[:, : words.truncation["max_length"]]


def _checked(number: int, sentence: Any, in_row: int) -> str | tuple[str, str]:
    parts = (sentence,) if isinstance(sentence, str) else tuple(sentence) if isinstance(sentence, (tuple, list, np.ndarray)) else ()
    if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"sentences[{number}] must be a string or a pair of strings, not {type(sentence).__name__}")
    if in_row and len(parts) != in_row:
        is_, takes = ("a pair", "single sentences") if len(parts) == 2 else ("a single sentence", "pairs")
        raise UserError(f"sentences[{number}] is {is_}, but this network takes {takes}")
    if not all(part.strip() for part in parts):
        raise UserError(f"sentences[{number}] is empty")
    return parts[0] if len(parts) == 1 else parts
