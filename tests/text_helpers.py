"""Small files of sentences, read as data sets."""

from pathlib import Path

from ml_collections import ConfigDict
from tokenizers import Tokenizer

from distill_jax.data import load

SENTENCES = ["0 The cat sat .", "1 a dog , a dog !", "0 the Cat", "1 dog"]
TEST = "1 the dog\n0 a bird sat\n"


def fields(format="trec", **changes) -> ConfigDict:
    return ConfigDict({"format": format, "test": "test", "max_length": 32, "vocabulary_size": 1000} | changes)


def write(folder: Path, **files: str | bytes) -> Path:
    """Writes files, with _tsv in the argument names for .tsv, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("_tsv", ".tsv")).write_bytes(raw)
    return folder


def read_text(folder: Path, **changes):
    return load("text:train", str(folder), text_fields=fields(**changes))


def read_glue(folder: Path, **changes):
    return load(f"text:{folder.name}", str(folder.parent), text_fields=fields("glue", **{"test": ""} | changes))


def sentences(data, part: str) -> list[str]:
    """The rows as words, with special tokens spelled out and padding left out."""
    tokenizer = Tokenizer.from_str(data.tokenizer)
    return [" ".join(tokenizer.id_to_token(token) for token in row if token) for row in getattr(data, part)["tokens"].tolist()]
