"""Sentences, or pairs of sentences, to classify: files of labels and text, and the GLUE tasks as published."""

import collections
import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.data import tokenization
from distill_jax.data.dataset import Dataset, held_out_rows, locate, shown
from distill_jax.errors import UserError
from distill_jax.files import decoded

# The columns of each known layout: label first, then sentences.
TSV = (("label", "sentence", "sentence2"), ("label", "text", "sentence2"), ("label", "sentence"), ("label", "text"))
GLUE = {
    "MNLI": ("gold_label", "sentence1", "sentence2"),
    "RTE, WNLI": ("label", "sentence1", "sentence2"),
    "QNLI": ("label", "question", "sentence"),
    "QQP": ("is_duplicate", "question1", "question2"),
    "MRPC": ("Quality", "#1 String", "#2 String"),
    "SST-2": ("label", "sentence"),
}
# Words found in headers. A line of only such words, whose label no other line has, is taken to be a header.
HEADER_WORDS = set(
    "label labels class classes category categories target y tag topic intent emotion sentiment rating score gold output "
    "text texts sentence sentences question questions premise hypothesis title description review comment message tweet "
    "document content body input x id index idx name".split()
)
IDS = ("id", "idx", "index")  # columns that number the rows
COLUMNS = "name the columns `label` and `sentence` (and `sentence2` for pairs) in the first line"


class Settings(NamedTuple):
    """How to read a text data set (data.text); see `read`."""

    format: str = "tsv"
    test: str = ""
    max_length: int = 64
    vocabulary_size: int = 20000


class Row(NamedTuple):
    """A sentence or a pair, its label as written, and its line number, from 1."""

    line: int
    label: str
    sentences: tuple[str, ...]


Split = tuple[list[Row], np.ndarray]  # rows; their classes, int [N]


def read(path: str, directory: str, fields: Any = None, tokenizer: str = "") -> Dataset:
    """Reads labelled sentences from a file, or from the folder of a GLUE task.

    The formats (fields.format):
      trec: lines of `label sentence`, split at the first blank. For TREC's own labels, such as `DESC:manner`, only the coarse class (DESC)
        is used.
      tsv: columns split at tabs, without quoting. If a cell of the first line is `label`, that line is a header, whose other columns
        must include `sentence` or `text` and, for pairs, `sentence2`; case does not matter. A warning names other columns, except row
        numbers. Without a header, each line is `label<TAB>sentence`.
      glue: PATH is a task's folder with train.tsv and dev.tsv (MNLI: dev_matched.tsv). The dev set is the test set, since GLUE's
        test.tsv has no labels. CoLA, SST-2, MRPC, RTE, WNLI, QNLI, QQP and MNLI are recognised by their columns.

    Lines are UTF-8, or Latin-1 if they are not valid UTF-8. If the first training label is an integer, all labels must be integers and
    use all of 0..C-1 or of 1..C; otherwise labels are names, and the classes are sorted by name. A row with a label but no sentence is
    left out, with a warning that gives its line: published data sets (MPQA, CR, QQP) have a few. So are rows of QQP that lack columns. A
    label with a single training row is kept, also with a warning: it is often a header or a typo.

    Args:
      path: of the training file or the task's folder (data.name text:PATH). A relative path that does not exist here is resolved against
        `directory`.
      directory: data.dir, or "".
      fields: data.text, or None for the defaults:
        format: trec, tsv or glue.
        test: the test file. A relative path is resolved like that of the training file, against `directory` if that one is absolute;
          for glue, against the task's folder. "": GLUE's dev set or, for the other formats, a tenth of every class in the training file,
          the same in every run.
        max_length: in tokens; longer rows are truncated, the longer sentence of a pair first.
        vocabulary_size: maximum number of token ids: three special ones and the most frequent words of the training split.
      tokenizer: the JSON of a trained run's tokenizer, which then determines the ids and the length of the rows; or that of a pre-trained
        network, as returned by `adopted`, which determines the ids, what encloses a sentence, and the separator; "" to fit a new one.

    Returns:
      A data set whose splits hold "tokens" (int32 [N, L]) and "label" (int32 [N]). L is the length of the longest training row, at most
      max_length. In a new vocabulary, token 0 is padding, 1 an unknown word, and 2 separates the sentences of a pair.

    Raises:
      UserError: a file is missing, the layout is unknown, there is a blank line, a row has no label, a label not in train, or too few or
        too many columns, or a field is out of range.
    """
    settings = _settings(fields)
    if settings.format not in PARSERS:
        raise UserError(f"data.text.format is {settings.format!r}; known: {', '.join(PARSERS)}")
    train_file, test_file = _files(path, directory, settings)
    rows = _rows(train_file, settings.format)
    _check_labels(train_file, rows)
    classes = _classes(train_file, rows)
    train = rows, _labels(train_file, rows, classes)
    if test_file:
        test = _test_split(test_file, settings.format, classes, train_file, rows)
    else:
        train, test = _hold_out(train_file, *train)
    return tokenized(f"text:{path}", len(classes), train, test, settings, tokenizer)._replace(classes=tuple(classes))


def tokenized(name: str, num_classes: int, train: Split, test: Split, fields: Any = None, tokenizer: str = "") -> Dataset:
    """The data set of two splits of non-empty sentences; see `read`. A new vocabulary is fitted on `train` alone."""
    sentences = len(train[0][0].sentences)
    if tokenizer:
        words = tokenization.parse(tokenizer)
    else:
        settings = _settings(fields)
        words = tokenization.fit((row.sentences for row in train[0]), settings.vocabulary_size, settings.max_length)
    is_new = not tokenization.has_length(words)  # only a trained run's tokenizer has
    if is_new:
        tokenization.check_length(words, sentences)
    train_tokens = tokenization.encode(words, _sentences(train[0]))
    if is_new:
        tokenization.fix_length(words, train_tokens.shape[1])
        tokenizer = words.to_str()
    train_split = {"tokens": train_tokens, "label": np.asarray(train[1], np.int32)}
    test_split = {"tokens": tokenization.encode(words, _sentences(test[0])), "label": np.asarray(test[1], np.int32)}
    return Dataset(name, num_classes, train_split, test_split, tokenizer, sentences=sentences)


def _sentences(rows: list[Row]) -> list[str | tuple[str, ...]]:
    return [row.sentences[0] if len(row.sentences) == 1 else row.sentences for row in rows]


def _settings(fields: Any) -> Settings:
    return Settings(*(getattr(fields, field, default) for field, default in Settings()._asdict().items()))


def drop_empty(where: str, rows: list[Row]) -> list[Row]:
    """The rows without empty sentences. Warns of the others, giving their lines; raises UserError if no row is left."""
    kept = [row for row in rows if all(row.sentences)]
    if not kept:
        raise UserError(f"{where}: no row has a sentence")
    if len(kept) < len(rows):
        lines = [str(row.line) for row in rows if not all(row.sentences)]
        warnings.warn(f"{where}: {len(lines)} of {len(rows)} rows have no sentence and are left out: line {shown(lines)}", stacklevel=2)
    return kept


# Files


def _files(path: str, directory: str, fields: Any) -> tuple[Path, Path | None]:
    place = locate(path, directory)
    if fields.format != "glue":
        given = Path(path).expanduser()
        folder = Path("" if place == given and not given.is_absolute() else directory).expanduser()
        return place, folder / Path(fields.test).expanduser() if fields.test else None
    dev = "dev_matched.tsv" if (place / "dev_matched.tsv").exists() else "dev.tsv"
    return place / "train.tsv", place / Path(fields.test or dev).expanduser()


def _test_split(file: Path, format: str, classes: dict[str, int], train_file: Path, train: list[Row]) -> Split:
    rows = _rows(file, format)
    labels = _labels(file, rows, classes)
    if len(rows[0].sentences) != len(train[0].sentences):
        raise UserError(f"{file}: {len(rows[0].sentences)} sentences per row; {train_file} has {len(train[0].sentences)}")
    return rows, labels


def _hold_out(file: Path, rows: list[Row], labels: np.ndarray) -> tuple[Split, Split]:
    """The training and the test split of a single file."""
    is_test = held_out_rows(labels, 10)
    if not is_test.any():
        raise UserError(f"{file}: no class has the 10 rows needed to hold out one; set data.text.test")
    train, test = ((list(itertools.compress(rows, chosen)), labels[chosen]) for chosen in (~is_test, is_test))
    return train, test


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
    """Splits at line feeds only: Latin-1's 0x85, an ellipsis in some of these data sets, is a line break to str.splitlines."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    if b"\0" in raw:
        raise UserError(f"{file}: not a UTF-8 or Latin-1 text file (it has zero bytes)")
    lines = [decoded(line).removesuffix("\r") for line in raw.split(b"\n")]
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
    header = [cell.strip().lower() for cell in lines[0].split("\t")]
    if "label" in header:
        columns = _columns(file, header, TSV)
        if unread := [name for number, name in enumerate(header) if name and number not in columns and name not in IDS]:
            warnings.warn(f"{file}: not read: {', '.join(unread)}; the second sentence of a pair must be named sentence2", stacklevel=2)
        return _parse_columns(file, lines, 1, len(header), columns)
    if len(header) == 1 and "," in lines[0] and file.suffix == ".csv":
        raise UserError(f"{file}: its columns are separated by commas; save it with tabs instead")
    if len(header) != 2:
        raise UserError(f"{file}:1: has {len(header)} tab-separated columns; write label<TAB>sentence, or {COLUMNS}")
    return _parse_columns(file, lines, 0, 2, (0, 1))


def _parse_glue(file: Path, lines: list[str]) -> Iterator[Row]:
    header = lines[0].split("\t")
    if "score" in header:
        raise UserError(f"{file}: has scores, not classes (STS-B is regression); use one of the classification tasks")
    if len(header) == 4 and header[1] in ("0", "1"):  # CoLA: source, label, the author's mark, sentence
        return _parse_columns(file, lines, 0, 4, (1, 3))
    is_qqp = set(GLUE["QQP"]) <= set(header)
    return _parse_columns(file, lines, 1, len(header), _columns(file, header, tuple(GLUE.values())), short_is_empty=is_qqp)


def _columns(file: Path, header: list[str], layouts: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    for layout in layouts:
        if set(layout) <= set(header):
            return tuple(header.index(column) for column in layout)
    known = "; ".join(", ".join(layout) for layout in layouts)
    raise UserError(f"{file}:1: the header must have the columns {known}; it has {', '.join(header)}")


def _parse_columns(
    file: Path, lines: list[str], skip: int, width: int, columns: tuple[int, ...], short_is_empty: bool = False
) -> Iterator[Row]:
    for number, line in enumerate(lines[skip:], skip + 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) < width and short_is_empty:
            yield Row(number, "?", ("",) * (len(columns) - 1))
        elif len(cells) != width:
            raise UserError(f"{file}:{number}: has {len(cells)} tab-separated columns instead of {width}")
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
                raise UserError(f"{file}:{row.line}: label {row.label!r} is not an integer, but the first row's is")
        labels = sorted(labels, key=int)
        if [int(label) for label in labels] not in (list(range(len(labels))), list(range(1, len(labels) + 1))):
            raise UserError(f"{file}: integer labels must be all of 0..C-1 or 1..C; found {shown(labels)}")
    return {label: number for number, label in enumerate(labels)}


def _labels(file: Path, rows: list[Row], classes: dict[str, int]) -> np.ndarray:
    for row in rows:
        if row.label not in classes:
            raise UserError(f"{file}:{row.line}: label {row.label!r} is not in the training file, which has {shown(list(classes))}")
    return np.array([classes[row.label] for row in rows], np.int32)


def _check_labels(file: Path, rows: list[Row]) -> None:
    """Rejects a header that would become a class, and warns of labels with a single row, which reveals any other header."""
    counts = collections.Counter(row.label for row in rows)
    single = [row for row in rows if counts[row.label] == 1]
    if single and single[0].line == 1 and _is_header(rows):
        raise UserError(f"{file}:1: looks like a header; {COLUMNS} (data.text.format=tsv), or remove this line")
    if single:
        lines = [f"line {row.line} {row.label!r}" for row in single]
        warnings.warn(f"{file}: {len(single)} of {len(counts)} labels have a single row: {shown(lines)}", stacklevel=2)


def _is_header(rows: list[Row]) -> bool:
    """Whether the first row's label is not an integer, and either all other labels are or the row consists of header words."""
    if _is_integer(rows[0].label):
        return False
    words = re.findall(r"[^\W\d_]+", " ".join((rows[0].label, *rows[0].sentences)).lower())
    return all(_is_integer(row.label) for row in rows[1:]) or (bool(words) and HEADER_WORDS.issuperset(words))


def _is_integer(label: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", label) is not None
