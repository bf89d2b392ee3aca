"""Sentences, or pairs of sentences, to classify: files of labels and text, and the tasks of GLUE as published."""

import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.data.dataset import Dataset, held_out_rows
from distill_jax.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[SEP]")  # ids 0, 1, 2: padding, an unknown word, the separator between a pair's sentences
# The columns of a known layout: the label's, then the sentences'.
TSV = (("label", "sentence", "sentence2"), ("label", "text", "sentence2"), ("label", "sentence"), ("label", "text"))
GLUE = {
    "MNLI": ("gold_label", "sentence1", "sentence2"),
    "RTE, WNLI": ("label", "sentence1", "sentence2"),
    "QNLI": ("label", "question", "sentence"),
    "QQP": ("is_duplicate", "question1", "question2"),
    "MRPC": ("Quality", "#1 String", "#2 String"),
    "SST-2": ("label", "sentence"),
}


class Row(NamedTuple):
    """A sentence or a pair, its label as written, and its line in the file, from 1."""

    line: int
    label: str
    sentences: tuple[str, ...]


def read(path: str, directory: str, fields: Any) -> Dataset:
    """Reads a file, or the folder of a GLUE task, of labelled sentences.

    The formats (fields.format):
      trec: `label sentence` a line, split at the first blank. TREC's own `DESC:manner` stands for its coarse class, DESC.
      tsv: columns split at tabs, without quoting. A first line with a cell `label` is a header, whose other columns must hold
        `sentence` or `text`, and `sentence2` in a set of pairs; without a header each line is `label<TAB>sentence`.
      glue: PATH is a task's folder with train.tsv and dev.tsv (MNLI: dev_matched.tsv), which is the test set, since GLUE's
        test.tsv has no labels. CoLA, SST-2, MRPC, RTE, WNLI, QNLI, QQP and MNLI are told by their columns.

    Files are UTF-8 or, if they do not decode so, Latin-1. If the first training label is an integer, all must be, and must use
    all of 0..C-1 or of 1..C; else labels are names, and the classes are sorted by name. A row with a label and no sentence is left
    out with a warning that names its line: published sets (MPQA, CR, QQP) have a few. So are QQP's rows that lack columns.

    Args:
      path: of the training file or the task's folder (data.name text:PATH), relative to `directory` if that is set.
      directory: data.dir, or "".
      fields: data.text:
        format: trec, tsv or glue.
        test: the test file, relative to `directory`, for glue to the task's folder. "": GLUE's dev set; for the other formats the
          same tenth of every class in every run, taken from the training file.
        max_length: tokens; longer rows are cut, of a pair the longer sentence first.
        vocabulary_size: the most token ids: the three special ones and the most frequent words of the training split.

    Returns:
      The splits hold "tokens" (int32 [N, L]: 0 fills up, 1 is a word not in the vocabulary, 2 stands between the sentences of a
      pair) and "label" (int32 [N]). L is the length of the longest training row, at most max_length.

    Raises:
      UserError: a missing file, an unknown layout, a blank line, a row without a label, with one that train lacks or with too
        few or too many columns, or a field out of range.
    """
    if fields.format not in PARSERS:
        raise UserError(f"data.text.format is {fields.format!r}; known: {', '.join(PARSERS)}")
    train_file, test_file = _files(path, directory, fields)
    train = _rows(train_file, fields.format)
    classes = _classes(train_file, train)
    train_labels = _labels(train_file, train, classes)
    if test_file:
        test = _rows(test_file, fields.format)
        test_labels = _labels(test_file, test, classes)
        if len(test[0].sentences) != len(train[0].sentences):
            raise UserError(f"{test_file}: rows of {len(test[0].sentences)} sentences; {train_file} has {len(train[0].sentences)}")
    else:
        is_test = held_out_rows(train_labels, 10)
        if not is_test.any():
            raise UserError(f"{train_file}: no class has the 10 rows that it takes to hold out one; set data.text.test")
        test, test_labels = list(itertools.compress(train, is_test)), train_labels[is_test]
        train, train_labels = list(itertools.compress(train, ~is_test)), train_labels[~is_test]
    return encode(f"text:{path}", len(classes), (train, train_labels), (test, test_labels), fields)


def encode(name: str, num_classes: int, train: tuple, test: tuple, fields: Any) -> Dataset:
    """The data set of two splits, each a pair (rows, whose sentences are not empty; integer labels [N]). See `read`.

    The vocabulary is fitted on `train` alone.
    """
    if fields.max_length < 3:
        raise UserError(f"data.text.max_length is {fields.max_length}; must be at least 3: a word, the separator, a word")
    tokenizer = _fit(train[0], fields.vocabulary_size)
    tokenizer.enable_truncation(fields.max_length)
    tokenizer.enable_padding()
    train_tokens = _tokens(tokenizer, train[0])
    length = train_tokens.shape[1]
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    train_split = {"tokens": train_tokens, "label": np.asarray(train[1], np.int32)}
    test_split = {"tokens": _tokens(tokenizer, test[0]), "label": np.asarray(test[1], np.int32)}
    return Dataset(name, num_classes, train_split, test_split, tokenizer.to_str())


def drop_empty(where: str, rows: list[Row]) -> list[Row]:
    """The rows whose every sentence has text. Warns of the others by their lines; raises UserError if none is left."""
    kept = [row for row in rows if all(row.sentences)]
    if not kept:
        raise UserError(f"{where}: no row has a sentence")
    if len(kept) < len(rows):
        lines = [str(row.line) for row in rows if not all(row.sentences)]
        warnings.warn(f"{where}: {len(lines)} of {len(rows)} rows have no sentence and are left out: line {_shown(lines)}", stacklevel=2)
    return kept


# Files


def _files(path: str, directory: str, fields: Any) -> tuple[Path, Path | None]:
    root = Path(directory).expanduser()
    place = root / Path(path).expanduser()
    if fields.format != "glue":
        return place, root / Path(fields.test).expanduser() if fields.test else None
    dev = "dev_matched.tsv" if (place / "dev_matched.tsv").exists() else "dev.tsv"
    return place / "train.tsv", place / Path(fields.test or dev).expanduser()


def _rows(file: Path, format: str) -> list[Row]:
    lines = _lines(file)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{file}:{number}: blank line; remove it")
    rows = list(PARSERS[format](file, lines))
    for row in rows:
        if not row.label:
            raise UserError(f"{file}:{row.line}: no label")
    return drop_empty(str(file), rows)


def _lines(file: Path) -> list[str]:
    """Split at line feeds only: Latin-1's 0x85, an ellipsis in some of these sets, counts as a line break elsewhere."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    if b"\0" in raw:
        raise UserError(f"{file}: not a text file in UTF-8 or Latin-1 (it has zero bytes)")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{file}: the file is empty")
    return lines


def _parse_trec(file: Path, lines: list[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        label, _, sentence = line.replace("\t", " ").partition(" ")
        yield Row(number, label.partition(":")[0], (sentence.strip(),))


def _parse_tsv(file: Path, lines: list[str]) -> Iterator[Row]:
    header = lines[0].split("\t")
    if "label" not in header:
        return _parse_columns(file, lines, 0, 2, (0, 1))
    return _parse_columns(file, lines, 1, len(header), _columns(file, header, TSV))


def _parse_glue(file: Path, lines: list[str]) -> Iterator[Row]:
    header = lines[0].split("\t")
    if "score" in header:
        raise UserError(f"{file}: scores, not classes (STS-B is regression); use one of the classification tasks")
    if len(header) == 4 and header[1] in ("0", "1"):  # CoLA: source, label, the author's mark, sentence
        return _parse_columns(file, lines, 0, 4, (1, 3))
    is_qqp = set(GLUE["QQP"]) <= set(header)
    return _parse_columns(file, lines, 1, len(header), _columns(file, header, tuple(GLUE.values())), short_is_empty=is_qqp)


def _columns(file: Path, header: list[str], layouts: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    for layout in layouts:
        if set(layout) <= set(header):
            return tuple(header.index(column) for column in layout)
    known = "; ".join(", ".join(layout) for layout in layouts)
    raise UserError(f"{file}:1: the header must have the columns {known}; has {', '.join(header)}")


def _parse_columns(
    file: Path, lines: list[str], skip: int, width: int, columns: tuple[int, ...], short_is_empty: bool = False
) -> Iterator[Row]:
    for number, line in enumerate(lines[skip:], skip + 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) < width and short_is_empty:
            yield Row(number, "?", ("",) * (len(columns) - 1))
        elif len(cells) != width:
            raise UserError(f"{file}:{number}: {len(cells)} columns split at tabs, must be {width}")
        else:
            label, *sentences = (cells[column] for column in columns)
            yield Row(number, label, tuple(sentences))


PARSERS = {"trec": _parse_trec, "tsv": _parse_tsv, "glue": _parse_glue}


# Labels


def _classes(file: Path, rows: list[Row]) -> dict[str, int]:
    """The class, 0..C-1, of each label as written."""
    labels = sorted({row.label for row in rows})
    if _is_integer(rows[0].label):
        for row in rows:
            if not _is_integer(row.label):
                raise UserError(f"{file}:{row.line}: label {row.label!r} is no integer, as the first row's is")
        labels = sorted(labels, key=int)
        if [int(label) for label in labels] not in (list(range(len(labels))), list(range(1, len(labels) + 1))):
            raise UserError(f"{file}: integer labels must be all of 0..C-1 or 1..C, are {_shown(labels)}")
    return {label: number for number, label in enumerate(labels)}


def _labels(file: Path, rows: list[Row], classes: dict[str, int]) -> np.ndarray:
    for row in rows:
        if row.label not in classes:
            raise UserError(f"{file}:{row.line}: label {row.label!r} is not in the training file, which has {_shown(list(classes))}")
    return np.array([classes[row.label] for row in rows], np.int32)


def _is_integer(label: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", label) is not None


def _shown(words: list[str]) -> str:
    return ", ".join(words[:10]) + (", ..." if len(words) > 10 else "")


# Tokens


def _fit(rows: list[Row], size: int) -> Any:
    """A tokenizer of lower-case words and runs of punctuation. Ties in frequency are broken by the alphabet."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    if size <= len(SPECIAL):
        raise UserError(f"data.text.vocabulary_size is {size}; must be more than the {len(SPECIAL)} special ids")

    def build(words):
        tokenizer = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[1]))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return tokenizer

    trained = build({})
    trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
    trained.train_from_iterator(itertools.chain.from_iterable(row.sentences for row in rows), trainer)
    tokenizer = build(trained.get_vocab())  # a text that spells "[PAD]" is three words to it, not the special token
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=f"$A {SPECIAL[2]} $B", special_tokens=[(SPECIAL[2], SPECIAL.index(SPECIAL[2]))]
    )
    return tokenizer


def _tokens(tokenizer: Any, rows: list[Row]) -> np.ndarray:
    sentences = [row.sentences[0] if len(row.sentences) == 1 else row.sentences for row in rows]
    encodings = tokenizer.encode_batch_fast(sentences)
    tokens = np.empty((len(rows), len(encodings[0].ids)), np.int32)
    for row, encoding in enumerate(encodings):
        tokens[row] = encoding.ids
    return tokens
