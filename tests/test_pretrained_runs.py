"""Encoders that others have trained: fine-tuned, teaching, predicting and exported."""

import csv
import io
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from encoder_helpers import SIZES, fine_tuning, tokenizer, with_head, write_bert
from helpers import Crash, act_at, colours_config, crash, crash_in, text_config, with_fields
from ml_collections import ConfigDict
from tokenizers import Tokenizer

import distill_jax
from distill_jax import command_line, export, huggingface, initial, jobs, predict, pretrained, specs, study, tensor_names, trained, workdir
from distill_jax.data import load_config, tokenization
from distill_jax.errors import UserError


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def headed(folder, tmp_path_factory):
    """The same with a head of three named classes, those of the fixture `sentences`."""
    return with_head(folder, tmp_path_factory.mktemp("headed") / "bert", ("0", "1", "2"))


def test_other_networks_need_their_own_padding():
    words = tokenization.adopted(tokenizer(("<pad>", "<unk>", "<s>", "</s>"), segment=0).to_str(), 9)
    student = specs.Spec({"name": "text_cnn"}, 3, (9,), vocabulary_size=9, tokenizer=words)
    assert specs.completed(student) == student
    content = json.loads(words)
    content["model"]["vocab"] |= {"<pad>": 1, "<unk>": 0}
    for token in content["added_tokens"]:
        token["id"] = content["model"]["vocab"][token["content"]]
    content["padding"]["pad_id"] = 1
    with pytest.raises(UserError, match="^model.name 'text_cnn' pads with token 0, which is another token"):
        specs.completed(student._replace(tokenizer=json.dumps(content)))


def test_fine_tuning_stands_alone_and_resumes(folder, sentences, tmp_path, capsys):
    """After training, nothing needs the folder any more."""
    copy = shutil.copytree(folder, tmp_path / "bert")
    config = fine_tuning(sentences, copy)
    summary = study.train(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert re.search(f"initial: [0-9,]+ parameters of hf:{copy}; not used: bert.embeddings.position_ids; new: head\n", said)
    assert {"test_matthews", "test_accuracy"} <= summary.keys()
    recorded = json.loads((tmp_path / "run" / "network.json").read_text())
    assert SIZES.items() <= recorded["model"].items() and recorded["model"]["separator"] == 3

    with pytest.raises(Crash), pytest.MonkeyPatch.context() as patch:
        train_run = study.run
        patch.setattr(study, "run", lambda exp, job, *rest: train_run(act_at(exp, 3, crash), job, *rest))
        study.train(config, tmp_path / "broken")
    assert study.train(config, tmp_path / "broken")["params_sha256"] == summary["params_sha256"]

    shutil.rmtree(copy)
    assert study.evaluate(config, tmp_path / "run")["test_accuracy"] == summary["test_accuracy"]
    network = distill_jax.load(tmp_path / "run")
    assert network.predict(["the old cat", "a tram is here"]).shape == (2, 3)
    assert study.train(config, tmp_path / "run")["params_sha256"] == summary["params_sha256"]


def test_it_starts_from_the_weights_of_the_folder(headed, folder, sentences, tmp_path):
    for source, has_head in ((headed, True), (folder, False)):
        config = fine_tuning(sentences, source, model={"name": "bert2"})
        study_of = study.prepare(config, tmp_path / "run")
        exp = study_of.experiments[""]
        fresh = exp.init(jax.random.key(0)).network
        started = initial.load(config.initial, trained.find(config.initial), fresh, exp.data.mesh)
        whole = pretrained.load(f"hf:{source}", trained.find(f"hf:{source}").spec).network
        for number, theirs in enumerate((0, 2)):
            jax.tree.map(np.testing.assert_array_equal, started["params"][f"layer{number}"], whole["params"][f"layer{theirs}"])
        head = whole["params"]["head"] if has_head else fresh["params"]["head"]
        jax.tree.map(np.testing.assert_array_equal, started["params"]["head"], head)
        assert jax.tree.structure(started) == jax.tree.structure(fresh)


def test_a_head_of_other_classes_is_new(folder, sentences, tmp_path, capsys):
    """Or of the same classes in another order: teachers like that are refused."""
    source = with_head(folder, tmp_path / "named", ("no", "perhaps", "yes"))
    exp = study.prepare(fine_tuning(sentences, source), tmp_path / "run").experiments[""]
    fresh = exp.init(jax.random.key(0)).network
    for classes, is_new in ((("no", "perhaps", "yes"), False), (("yes", "perhaps", "no"), True), (("0", "1", "2"), False), ((), False)):
        started = initial.load(f"hf:{source}", trained.find(f"hf:{source}"), fresh, exp.data.mesh, classes)
        assert np.array_equal(started["params"]["head"]["kernel"], fresh["params"]["head"]["kernel"]) == is_new
        assert ("new: head" in capsys.readouterr().out) == is_new


def test_a_run_without_a_checkpoint_checks_its_initial_weights_again(folder, sentences, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "bert")
    config = fine_tuning(sentences, copy)
    with crash_in("", 0):
        study.train(config, tmp_path / "run")
    words = json.loads((copy / "tokenizer.json").read_text())
    words["model"]["vocab"] |= {"cat": words["model"]["vocab"]["dog"], "dog": words["model"]["vocab"]["cat"]}
    (copy / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(UserError, match="^initial: hf:.* has a different vocabulary from text:train"):
        study.train(config, tmp_path / "run")


def test_a_pretrained_teacher_and_a_student_that_reads_its_words(headed, sentences, tmp_path):
    student = text_config(sentences, epochs=1, teachers=(f"hf:{headed}",), method=ConfigDict({"name": "distillation"}))
    summary = study.train(student, tmp_path / "student")
    assert "teacher_agreement" in summary and summary["model"] == "text_cnn"
    assert json.loads((tmp_path / "student" / "teachers.json").read_text()) == {f"hf:{headed}": pretrained.sha256(f"hf:{headed}")}
    words = (tmp_path / "student" / "tokenizer.json").read_text()
    assert tokenization.same_words(words, (headed / "tokenizer.json").read_text())
    network = distill_jax.load(f"hf:{headed}")
    dataset = load_config(student.data, words)
    expected = network.map(trained.forward, dataset.test, 40).argmax(axis=1)
    ours = distill_jax.load(tmp_path / "student").map(trained.forward, dataset.test, 40).argmax(axis=1)
    assert summary["teacher_agreement"] == pytest.approx((ours == expected).mean())


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"teachers": ("hf:{folder}",), "method": {"name": "distillation"}},
            "teacher hf:.* has no classification head; fine-tune it first",
        ),
        ({"teachers": ("hf:{other}",), "method": {"name": "distillation"}}, "teacher hf:.* has different classes .* class 0 is 'x' there"),
        ({"initial": ""}, "^model.layers is 0, which means as in the initial weights; set it, or set initial"),
        ({"model": {"name": "roberta"}}, "^initial: hf:.* holds a different network from roberta, which this run trains: bert"),
        ({"model": {"name": "bert4"}}, "^model.layers is 4, but 3 in the initial weights; it cannot be more"),
        ({"model": {"name": "bert", "width": 16}}, "^model.width is 16, but 8 in the initial weights or the tokenizer; leave it at 0"),
        ({"model": {"name": "text_cnn"}}, "^initial: hf:.* holds a different network from text_cnn"),
        ({"initial": "hf:nowhere"}, "^initial: hf:nowhere: no such folder"),
        (
            {"data__text__max_length": 21},
            "^initial: the encoder takes at most 20 tokens, and text:train has more in a row; set data.text.max_length=20",
        ),
    ],
)
def test_what_does_not_fit_is_told(folder, sentences, tmp_path, fields, message):
    other = with_head(folder, tmp_path / "other", ("x", "y", "z"))
    if "21" in str(fields):
        (tmp_path / "long").mkdir()
        for name in ("train", "test"):
            (tmp_path / "long" / name).write_text(f"pos {'the ' * 30}\nneg a\n" * 10)
        sentences = tmp_path / "long"
    if "teachers" in fields:
        fields = fields | {"teachers": tuple(name.format(folder=folder, other=other) for name in fields["teachers"])}
        named = tmp_path / "named"
        named.mkdir()
        for name in ("train", "test"):
            lines = (sentences / name).read_text().splitlines()
            (named / name).write_text("\n".join("abc"[int(line[0])] + line[1:] for line in lines))
        sentences = named
    fields = {name: ConfigDict(value) if isinstance(value, dict) else value for name, value in fields.items()}
    with pytest.raises(UserError, match=message) as caught:
        study.prepare(fine_tuning(sentences, folder, batch_size=20, **fields), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_densely_guided_in_depth(folder, sentences, tmp_path, capsys):
    """3 -> 1 layers, with all variants; the student starts from the teacher's layers."""
    family = {"name": "densely_guided", "path": ("bert3", "bert2", "bert1"), "inherit": True}
    config = fine_tuning(sentences, folder, stages=ConfigDict(family))
    by_stage = {job.stage: job.config for job in jobs.make_jobs(config, tmp_path)}
    assert by_stage.pop("bert3").initial == f"hf:{folder}" and {job.initial for job in by_stage.values()} == {"stage:bert3"}
    assert by_stage["dgkd_bert1"].teachers == ("stage:bert3", "stage:kd_bert2") and by_stage["takd_bert1"].teachers == ("stage:kd_bert2",)

    family |= {"path": ("bert3", "bert1"), "compare": ("stochastic",), "guide_logits": "table"}
    summary = study.train(with_fields(config, stages=ConfigDict(family)), tmp_path)
    assert [stage["stage"] for stage in summary["stages"]] == ["bert3", "stochastic_bert1"]
    assert re.search("initial: [0-9,]+ parameters of stage:bert3; layers 0 of 3\n", capsys.readouterr().out)
    student = json.loads((tmp_path / "stochastic_bert1" / "network.json").read_text())
    assert student["model"]["name"] == "bert1" and student["model"]["width"] == 8 and "layers" not in student["model"]


def test_what_a_folder_predicts_without_a_run(headed, tmp_path, capsys):
    """Rows have few lengths, so that few are compiled; the longest is that of the network's positions."""
    sentences = ["the old cat", "a tram is here " * 9]
    (tmp_path / "lines.txt").write_text("\n".join(sentences))
    config, root = command_line.read_config(["--config.batch_size=1"], "predict", f"hf:{headed}")
    assert predict.predict(config, root, str(tmp_path / "lines.txt")) == 2
    header, *answers = csv.reader(io.StringIO(capsys.readouterr().out))
    probabilities = distill_jax.load(f"hf:{headed}").predict(sentences)
    assert [float(answer[2]) for answer in answers] == pytest.approx(list(probabilities.max(axis=1)), rel=1e-5)
    words = json.loads(distill_jax.load(f"hf:{headed}").spec.tokenizer)
    words["truncation"]["max_length"] = 40
    for sentence, length in ((sentences[0], 32), (sentences[1], 40)):
        tokens = tokenization.encode_sentences(json.dumps(words), [sentence])
        assert tokens.shape == (1, length) and (tokens != 0).sum() == len(tokenizer().encode(sentence).ids)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"0": "no", "1": "yes"}, ("no", "yes")),
        ({"1": "2", "0": "1"}, ("1", "2")),
        ({"0": "LABEL_0", "1": "yes"}, ("LABEL_0", "yes")),
        ({"0": "LABEL_0", "1": "LABEL_1"}, ()),
        ({"0": 0, "1": 1}, ()),
        ({"0": "no"}, ()),
    ],
)
def test_class_names(names, expected):
    """Stars from 1 to 2 are names: the classes' own numbers begin with 0."""
    assert huggingface.classes_of({"id2label": names}, pathlib.Path("config.json"), 2) == expected


@pytest.mark.parametrize("names", [["no", "yes"], {"no": 0, "yes": 1}])
def test_class_names_without_numbers_are_refused(names):
    with pytest.raises(UserError, match="^config.json: id2label must map class numbers to names, as in "):
        huggingface.classes_of({"id2label": names}, pathlib.Path("config.json"), 2)


def test_a_regressions_head_is_no_classifier(folder, sentences, tmp_path):
    source = with_head(folder, tmp_path / "regression", ("LABEL_0",))
    with pytest.raises(UserError, match="^hf:.* has no classification head; fine-tune it first"):
        distill_jax.load(f"hf:{source}")
    exp = study.prepare(fine_tuning(sentences, source), tmp_path / "run").experiments[""]
    fresh = exp.init(jax.random.key(0)).network
    started = initial.load(f"hf:{source}", trained.find(f"hf:{source}"), fresh, exp.data.mesh)
    jax.tree.map(np.testing.assert_array_equal, started["params"]["head"], fresh["params"]["head"])


def test_a_folder_is_exported(headed, tmp_path):
    with pytest.raises(UserError, match="^hf:.* is not a workdir; name the folder to write with --output"):
        export.export(f"hf:{headed}")
    folder = export.export(f"hf:{headed}", output=tmp_path / "out")
    again = distill_jax.load(f"hf:{folder}")
    jax.tree.map(np.testing.assert_array_equal, again.variables, distill_jax.load(f"hf:{headed}").variables)
    facts = json.loads((folder / "network.json").read_text())
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert facts["takes"] == "tokens, int32 [batch, 20]" and len(words.encode("the cat").ids) == 20

    workdir.write_json(folder / "network.json", facts | {"input_shape": [4], "sentences": 1})  # as after training on short rows
    spec = distill_jax.load(f"hf:{folder}").spec
    assert Tokenizer.from_str(spec.tokenizer).encode("the old red cat").ids == words.encode("the old").ids[:4]
    assert spec.sentences == 1 and spec.input_shape == (20,), "its positions still allow longer rows, to start from it"


def test_a_folder_taken_for_a_workdir(folder):
    with pytest.raises(UserError, match="is not a workdir but a network in Hugging Face's layout; name it hf:"):
        distill_jax.load(folder)


def test_images_are_not_read_by_an_encoder(folder, tmp_path):
    config = colours_config(tmp_path / "colours.npz", initial=f"hf:{folder}")
    with pytest.raises(UserError, match="^data.name npz:.* has no sentences, but the given network reads sentences"):
        study.prepare(config, tmp_path / "run")


def test_networks_without_other_names():
    assert tensor_names.format_of("resnet20") == "" and tensor_names.format_of("bert4") == "bert"
    with pytest.raises(ValueError, match="^name is 'text_cnn', a network that other libraries do not have"):
        tensor_names.table("text_cnn", {"params": {}})
