"""Sentences from small files of every format, the published sets, and the errors for bad ones."""

import os
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from text_helpers import SENTENCES, TEST, fields, read_glue, read_text, sentences, write

from distill_jax.data import load, text
from distill_jax.errors import UserError

# Most files here are small enough to trigger these warnings.
pytestmark = pytest.mark.filterwarnings("ignore:.*have a single row", "ignore:.*no test examples")
REAL = Path(os.environ.get("DISTILL_JAX_DATA_DIR", "")) / "nlp"


@pytest.fixture
def small(tmp_path):
    return write(tmp_path, train="\n".join(SENTENCES), test=TEST)


# Formats


def test_defaults(tmp_path):
    write(tmp_path, train="\n".join(f"{label}\tword{label}" for label in ["x", "y"] * 10))
    data = load(f"text:{tmp_path}/train")
    assert len(data.train["label"]) == 18 and data.vocabulary_size == 5
    np.testing.assert_equal(data, load(f"text:{tmp_path}/train", text_fields=ConfigDict({"max_length": 64})))


def test_where_the_test_file_is(tmp_path, monkeypatch):
    """Where the training file's path is relative to, or in data.dir; a namesake in the current folder is not taken."""
    there = write(tmp_path / "there", train="a one\nb two\n", test="a one\n")
    here = write(tmp_path / "here", test="a one\nb two\nb three\n")
    monkeypatch.chdir(here)
    for name in ("train", there / "train"):
        assert len(load(f"text:{name}", str(there), text_fields=fields()).test["label"]) == 1
    write(here, train="a one\nb two\n")
    assert len(load("text:train", str(there), text_fields=fields()).test["label"]) == 3


def test_class_names(tmp_path):
    assert read_text(write(tmp_path, train="NUM:dist How far ?\nDESC:manner How ?\n", test="DESC:def What ?\n")).classes == ("DESC", "NUM")
    assert read_text(write(tmp_path, train="10 a\n2 a\n" + "".join(f"{n} a\n" for n in (1, 3, 4, 5, 6, 7, 8, 9)), test="1 a")).classes[
        8:
    ] == (
        "9",
        "10",
    )


@pytest.mark.parametrize(
    "format, header, row",
    [
        ("tsv", "category\ttext", "{}\tit rains"),
        ("tsv", "Text\tCategory", "{0} rains\t{0}"),
        ("tsv", "class\treview_text", "{}\tit rains"),
        ("tsv", "Klasse\tSatz", "{}\tit rains"),
        ("trec", "label text", "{} it rains"),
        ("trec", "target: sentence", "{} it rains"),
    ],
)
def test_a_header_does_not_become_a_class(tmp_path, format, header, row):
    rows = [row.format(label) for label in (0, 1) * 10]
    write(tmp_path, train="\n".join([header, *rows]), test="")
    with pytest.raises(UserError, match="train:1: looks like a header; name the columns `label` and `sentence`"):
        read_text(tmp_path, format=format, test="")
    write(tmp_path, train="\n".join(rows))
    assert read_text(tmp_path, format=format, test="").num_classes == 2


def test_headers_in_capitals_are_read(tmp_path):
    data = read_text(write(tmp_path, train="Text\tLABEL\na b\tpos\nc\tneg\n", test="label\tTEXT \nneg\ta\n"), format="tsv")
    assert data.classes == ("neg", "pos") and sentences(data, "train") == ["a b", "c"]


def test_rows_that_only_look_like_headers(tmp_path):
    data = read_text(write(tmp_path, train="text class\ntext x\nname b\nname c\n", test="text a\nname b"))
    assert data.classes == ("name", "text") and len(data.train["label"]) == 4
    data = read_text(write(tmp_path, train="0 sentence\n1 a\n1 b\n", test="0 a\n1 b"))
    assert data.classes == ("0", "1")


def test_a_label_with_a_single_row_is_pointed_out(tmp_path):
    write(tmp_path, train="etiket metin\npos a\nneg b\npos c\nneg d\npso e\n", test="pos a\nneg b")
    with pytest.warns(UserWarning, match="train: 2 of 4 labels have a single row: line 1 'etiket', line 6 'pso'"):
        read_text(tmp_path)


def test_trec_coarse_classes(tmp_path):
    write(tmp_path, train="NUM:dist How far ?\nDESC:manner How ?\nNUM:date When ?\n", test="DESC:def What ?\n")
    data = read_text(tmp_path)
    assert data.num_classes == 2 and data.train["label"].tolist() == [1, 0, 1] and data.test["label"].tolist() == [0]
    assert sentences(data, "train")[0] == "how far ?"


@pytest.mark.parametrize(
    "train, test, expected",
    [
        ("sentence\tlabel\na b\tpos\nc\tneg\n", "label\tsentence\nneg\ta\n", ["a b", "c"]),
        ("id\ttext\tlabel\n7\ta b\tpos\n8\tc\tneg", "text\tlabel\na\tneg", ["a b", "c"]),
        ("text\tsentence2\tlabel\na b\tx\tpos\nc\ty\tneg", "text\tsentence2\tlabel\na\tx\tneg", ["a b [SEP] x", "c [SEP] y"]),
        ("pos\ta b\nneg\tc\n", "neg\ta\n", ["a b", "c"]),
        ('pos\t"a b\nneg\tc\n', "neg\ta\n", ['" a b', "c"]),
    ],
)
def test_tsv(tmp_path, train, test, expected):
    data = read_text(write(tmp_path, train=train, test=test), format="tsv")
    assert sentences(data, "train") == expected
    assert data.train["label"].tolist() == [1, 0] and data.test["label"].tolist() == [0]


def test_tsv_columns_that_are_not_read_are_named(tmp_path):
    write(tmp_path, train="text\ttext_pair\tlabel\t\na b\tx\tpos\t0\nc\ty\tneg\t1", test="text\tlabel\na\tneg")
    with pytest.warns(UserWarning, match="train: not read: text_pair; the second sentence of a pair must be named sentence2"):
        read_text(tmp_path, format="tsv")


@pytest.mark.parametrize(
    "header, row, labels, expected",
    [
        ("", "gj04\t{}\t*\tit rains .", (1, 0), "it rains ."),  # CoLA
        ("sentence\tlabel\n", "it rains \t{}", (1, 0), "it rains"),  # SST-2
        ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n", '{}\t1\t2\tit rains\t" it', (1, 0), 'it rains [SEP] " it'),  # MRPC
        ("index\tsentence1\tsentence2\tlabel\n", "0\tit rains\tit\t{}", ("not_entailment", "entailment"), "it rains [SEP] it"),  # RTE
        ("index\tsentence1\tsentence2\tlabel\n", "0\tit rains\tit\t{}", (1, 0), "it rains [SEP] it"),  # WNLI
        ("index\tquestion\tsentence\tlabel\n", "0\tit rains\tit\t{}", ("not_entailment", "entailment"), "it rains [SEP] it"),  # QNLI
        ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n", "0\t1\t2\tit rains\tit\t{}", (1, 0), "it rains [SEP] it"),  # QQP
        (
            "index\tgenre\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label\n",
            "0\tx\t( y )\tit rains\tit\tneutral\t{}",
            ("neutral", "contradiction"),
            "it rains [SEP] it",
        ),  # MNLI
    ],
)
def test_glue(tmp_path, header, row, labels, expected):
    train = header + "\n".join(row.format(label) for label in labels) + "\n"
    write(tmp_path, train_tsv=train, dev_tsv=(header + row.format(labels[1])), test_tsv="index\tsentence\n0\tno label\n")
    data = read_glue(tmp_path)
    assert sentences(data, "train") == [expected] * 2 and sentences(data, "test") == [expected]
    assert data.num_classes == 2 and data.train["label"].tolist() == [1, 0] and data.test["label"].tolist() == [0]


def test_mnli_has_two_dev_sets(tmp_path):
    header = "sentence1\tsentence2\tgold_label\n"
    write(tmp_path, train_tsv=f"{header}a\tb\tx\nc\td\ty\n", dev_matched_tsv=f"{header}a\tb\tx\n", dev_mismatched_tsv=f"{header}c\td\ty\n")
    assert sentences(read_glue(tmp_path), "test") == ["a [SEP] b"]
    assert sentences(read_glue(tmp_path, test="dev_mismatched.tsv"), "test") == ["c [SEP] d"]


def test_paths(small, monkeypatch):
    monkeypatch.setenv("HOME", str(small.parent))
    for path, directory, test in [
        ("train", f"~/{small.name}", "test"),
        (f"~/{small.name}/train", "", f"~/{small.name}/test"),
        (f"{small}/train", "/nowhere", f"{small}/test"),
    ]:
        assert load(f"text:{path}", directory, text_fields=fields(test=test)).train["label"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf0 caf\xc3\xa9 x\r\n1 b\r\n\r\n\n", b"0 caf\xe9 x\n1 b", b"0 caf\xe9\x85x\n1 b\n"])
def test_encodings_and_line_ends(tmp_path, content):
    data = read_text(write(tmp_path, train=content, test="0 b\n"))
    assert sentences(data, "train") == ["café x", "b"]


def test_a_line_that_is_not_utf8_leaves_the_others_alone(tmp_path):
    data = read_text(write(tmp_path, train="0 caf\u00e9\n".encode() + "1 ol\u00e9\n".encode("latin-1"), test="0 b\n"))
    assert sentences(data, "train") == ["caf\u00e9", "ol\u00e9"]


def test_a_tenth_is_held_out(tmp_path):
    rows = [f"{label} word{label}{number}" for label, count in (("x", 30), ("y", 15), ("z", 4)) for number in range(count)]
    write(tmp_path, train="\n".join(rows))
    data = read_text(tmp_path, test="")
    assert np.bincount(data.train["label"]).tolist() == [27, 14, 4] and np.bincount(data.test["label"], minlength=3).tolist() == [3, 1, 0]
    assert sentences(data, "test") == ["[UNK]"] * 4 and data.vocabulary_size == 3 + 45
    np.testing.assert_equal(data, read_text(tmp_path, test=""))


# Labels and bad rows


def test_integer_labels(tmp_path):
    write(tmp_path, train="\n".join(f"{label} a" for label in range(12, 0, -1)), test="10 a\n2 a\n")
    data = read_text(tmp_path)
    assert data.num_classes == 12 and data.train["label"].tolist() == list(range(11, -1, -1)) and data.test["label"].tolist() == [9, 1]


def test_rows_without_a_sentence_are_left_out(tmp_path):
    write(tmp_path, train="0 a\n1 \n0\n1 b\n", test="0 a\n")
    with pytest.warns(UserWarning, match="train: 2 of 4 rows have no sentence and are left out: line 2, 3"):
        data = read_text(tmp_path)
    assert sentences(data, "train") == ["a", "b"] and data.train["label"].tolist() == [0, 1]


def test_short_rows_of_qqp_are_left_out(tmp_path):
    header, row = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n", "0\t1\t2\ta\tb\t{}\n"
    write(tmp_path, train_tsv=header + row.format(1) + "0\t1\t2\ta broken\n" + row.format(0), dev_tsv=header + row.format(0))
    with pytest.warns(UserWarning, match="train.tsv: 1 of 3 rows .*: line 3"):
        assert read_glue(tmp_path).train["label"].tolist() == [1, 0]


@pytest.mark.parametrize(
    "format, train, message",
    [
        ("trec", "0 a\n\n1 b\n", "train:2: blank line; remove it"),
        ("trec", "0 a\n  \t\n1 b\n", "train:2: blank line"),
        ("trec", "0 a\n b\n", "train:2: no label"),
        ("trec", "0 a\n:x b\n", "train:2: no label"),
        ("trec", "0 a\n1 b\nDESC c\n", "train:3: label 'DESC' is not an integer, but the first row's is"),
        ("trec", "0 a\n2 b\n", r"train: integer labels must be all of 0\.\.C-1 or 1\.\.C; found 0, 2"),
        ("trec", "-1 a\n1 b\n", r"train: integer labels must be .*; found -1, 1"),
        ("trec", "0\n1\n", "train: no row has a sentence"),
        ("trec", "", "train: the file is empty"),
        ("trec", "\n\n", "train: the file is empty"),
        ("trec", "0 a\0\n", "train: not a UTF-8 or Latin-1 text file"),
        ("trec", "0 a\n2 b\n1 c", "test:2: label '3' is not in the training file, which has 0, 1, 2"),
        ("tsv", "sentence\tlabel\na\t0\nb\t1\tx\n", "train:3: has 3 tab-separated columns instead of 2"),
        ("tsv", "sentence\tlabel\na\t0\nb\n", "train:3: has 1 tab-separated columns instead of 2"),
        ("tsv", "sentence\tlabel\na\t0\nb\t\n", "train:3: no label"),
        ("tsv", "0\ta\n1 b\n", "train:2: has 1 tab-separated columns"),
        ("tsv", "0,a\n1,b\n", "train:1: has 1 tab-separated columns; write label<TAB>sentence, or name the columns `label` and `sentence`"),
        ("tsv", "id\ttext\tcategory\n1\ta\tb", "train:1: has 3 tab-separated columns; write label<TAB>sentence, or name the columns"),
        ("tsv", "x\tlabel\na\t0\n", "train:1: the header must have the columns label, sentence, sentence2; .*; it has x, label"),
        ("tsv", "sentence\tsentence2\tlabel\na\tb\tp\na\tb\tn\n", "test: 1 sentences per row; .*train has 2"),
        ("csv", "", "data.text.format is 'csv'; known: trec, tsv, glue"),
    ],
)
def test_bad_files(tmp_path, format, train, message):
    test = "p\ta\n" if "\tp\n" in train else "0 a\n3 b\n"
    write(tmp_path, train=train, test=test)
    with pytest.raises(UserError, match=message) as caught:
        read_text(tmp_path, format=format)
    assert "\n" not in str(caught.value) and (format == "csv" or str(caught.value).startswith(str(tmp_path)))


def test_a_csv_is_told(tmp_path):
    (tmp_path / "train.csv").write_text("label,text\n0,a\n1,b\n")
    with pytest.raises(UserError, match="train.csv: its columns are separated by commas; save it with tabs instead"):
        text.read("train.csv", str(tmp_path))


@pytest.mark.parametrize(
    "train, message",
    [
        ("index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.2\n", "train.tsv: has scores, not classes .STS-B is regression."),
        ("index\tsentence\n0\ta\n", "train.tsv:1: the header must have the columns gold_label, .*; it has index, sentence"),
        ("sentence\tlabel\na\t0\nb\n", "train.tsv:3: has 1 tab-separated columns"),
    ],
)
def test_bad_glue(tmp_path, train, message):
    write(tmp_path, train_tsv=train)
    with pytest.raises(UserError, match=message):
        read_glue(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_length": 2}, "data.text.max_length is 2; it must be at least 3"),
        ({"vocabulary_size": 3}, "data.text.vocabulary_size is 3; it must be greater than 3"),
        ({"test": "nowhere"}, "nowhere: No such file"),
        ({"test": ""}, "train: no class has the 10 rows needed to hold out one; set data.text.test"),
    ],
)
def test_bad_fields(small, changes, message):
    with pytest.raises(UserError, match=message):
        read_text(small, **changes)


# Published sets


def test_real_trec():
    if not os.environ.get("DISTILL_JAX_DATA_DIR") or not REAL.is_dir():
        pytest.skip("set DISTILL_JAX_DATA_DIR to the directory that holds nlp/sentence/TREC.train.all")
    settings = fields(test="sentence/TREC.test.all", max_length=64, vocabulary_size=20000)
    data = load("text:sentence/TREC.train.all", str(REAL), text_fields=settings)
    assert data.num_classes == 6 and data.train["tokens"].shape == (5452, 37) and data.test["tokens"].shape == (500, 37)
    assert np.bincount(data.test["label"]).tolist() == [138, 94, 9, 65, 81, 113]
    assert sentences(data, "train")[0] == "how did serfdom develop in and then leave russia ?"


@pytest.mark.parametrize(
    "task, classes, train, test", [("CoLA", 2, 8551, 1043), ("MRPC", 2, 3667, 408), ("RTE", 2, 2490, 277), ("WNLI", 2, 635, 71)]
)
def test_real_glue(task, classes, train, test):
    if not os.environ.get("DISTILL_JAX_DATA_DIR") or not (REAL / "glue" / task).is_dir():
        pytest.skip(f"set DISTILL_JAX_DATA_DIR to the directory that holds nlp/glue/{task}")
    data = load(f"text:{task}", str(REAL / "glue"), text_fields=fields("glue", test=""))
    assert (data.num_classes, len(data.train["label"]), len(data.test["label"])) == (classes, train, test)
