"""Frozen networks of finished runs as teachers and as initial weights."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from helpers import (
    COLOURS,
    Crash,
    act_at,
    batch_of,
    bits,
    build,
    colours_config,
    crash,
    family_config,
    make_config,
    run,
    start_in,
    step,
    student_config,
    with_fields,
)
from ml_collections import ConfigDict
from scipy.special import softmax
from scipy.stats import entropy

import distill_jax
from distill_jax import checkpoints, evaluate, files, stages, study, trained, workdir
from distill_jax.errors import UserError
from distill_jax.start import load_given
from distill_jax.state import empty_metrics
from distill_jax.state import saved as in_checkpoint


@pytest.fixture(scope="module")
def generation(finished_family):
    """The folder of the family's first student, that of its teacher, and the student's experiment."""
    folder = finished_family[0] / "generation_1"
    return folder, folder.with_name("generation_0"), build(stages.expand(family_config())["generation_1"], folder)


def test_the_teacher_is_the_one_that_was_saved_and_is_in_no_checkpoint(generation, finished_family):
    folder, _, exp = generation
    saved = [stage["weights_sha256"] for stage in finished_family[1]["stages"]]
    assert [checkpoints.sha256(network) for network in load_given(exp, folder)] == saved[:1]
    state = start_in(exp, folder)
    assert int(state.step) == 10
    assert checkpoints.sha256(state.given[0]) == saved[0] and checkpoints.sha256(state.network) == saved[1]
    content = in_checkpoint(state, None)["state"]
    assert content["teacher"] is None and "given" not in content
    names = (folder / "checkpoints" / "10" / "default" / "_METADATA").read_text()
    assert "opt_state" in names and "given" not in names and "'teacher', 'params'" not in names
    assert json.loads((folder / "teachers.json").read_text()) == {"stage:generation_0": saved[0]}


def test_a_step_moves_the_student_and_not_its_teacher(generation, tmp_path):
    _, teacher, exp = generation
    fresh = exp.init(jax.random.key(0)).replace(given=(distill_jax.load(teacher).variables,))
    before = jax.tree.map(np.array, fresh)
    state, _ = step(exp, fresh, jax.random.key(1), np.arange(40))
    assert bits(state.given) == bits(before.given)
    assert bits(state.params) != bits(before.params)


def test_no_weight_of_the_teacher_is_lost_in_the_run(finished_family):
    """The networks of a finished family still match their summaries after students were trained on them."""
    for stage in finished_family[1]["stages"]:
        assert checkpoints.sha256(distill_jax.load(finished_family[0] / stage["stage"]).variables) == stage["weights_sha256"]


def test_each_teacher_sees_its_own_normalisation(finished_colours, tmp_path):
    """A student of brighter images: the loss uses the teacher's logits, computed with the teacher's own normalisation."""
    teacher = finished_colours[0]
    method = {"name": "distillation", "weight_ce": 0.25, "temperature": 1.0}
    config = colours_config(tmp_path / "bright.npz", brightness=100, teachers=(str(teacher),), method=method)
    exp = build(config)
    assert max(abs(a - b) for a, b in zip(exp.teachers[0].input_mean, exp.spec.input_mean, strict=True)) > 0.2
    ids, source = np.arange(20), exp.data.train
    state, epoch_metrics = start_in(exp, tmp_path), empty_metrics(exp.data.mesh)
    rows = {"image": exp.data.dataset.train["image"][ids]}
    logits, _ = exp.spec.module().apply(state.network, exp.spec.to_inputs(rows), train=True, mutable=["batch_stats"])
    state, epoch_metrics, observed = exp.train_step(state, epoch_metrics, source, batch_of(exp, ids), jax.random.key(1))
    assert observed is None, "no output of a step that nobody reads"
    network = distill_jax.load(teacher)
    said = network.logits(rows["image"])
    assert epoch_metrics.compute()["loss_teacher"] == pytest.approx(_distillation(said, logits), rel=1e-4)

    wrong = network.apply(exp.spec.to_inputs(rows))
    assert abs(_distillation(np.asarray(wrong), logits) / _distillation(said, logits) - 1) > 0.1, "the test could tell"
    np.testing.assert_allclose(exp.predict_teacher(state), network.logits(exp.data.dataset.test["image"]), rtol=1e-4, atol=1e-5)


def _distillation(teacher, student):
    probabilities = [softmax(np.asarray(logits, float), axis=1) for logits in (teacher, student)]
    return 0.75 * entropy(*probabilities, axis=1).mean()


def test_a_table_holds_what_the_teacher_says_with_its_own_normalisation(finished_colours, tmp_path):
    method = {"name": "distillation", "guide_logits": "table"}
    config = colours_config(tmp_path / "bright.npz", brightness=100, teachers=(str(finished_colours[0]),), method=method)
    exp = build(config)
    (table,) = load_given(exp, tmp_path)
    network = distill_jax.load(finished_colours[0])
    np.testing.assert_allclose(table, network.logits(exp.data.dataset.train["image"]), rtol=1e-4, atol=1e-5)


def test_logits_from_the_table_are_those_of_the_forward(finished_family, tmp_path):
    """Without augmentation both see the same; the curves agree up to the order of summation."""
    forward = student_config(finished_family[0] / "generation_0", data__crop_padding=0)
    table = forward.copy_and_resolve_references()
    table.method.guide_logits = "table"
    for name, config in (("forward", forward), ("table", table)):
        study.train(config, tmp_path / name)
    curves = [[line["loss_teacher"] for line in files.read_jsonl(tmp_path / name / "metrics.jsonl")] for name in ("forward", "table")]
    assert min(curves[0]) > 0
    np.testing.assert_allclose(*curves, rtol=1e-3)
    table.data.crop_padding = 1
    with pytest.raises(UserError, match="method.guide_logits is 'table', which needs data.crop_padding=0, data.flip=False, and images"):
        build(table)


def test_a_student_may_inherit_its_weights(finished_family, tmp_path):
    folder = finished_family[0] / "generation_0"
    config = student_config(folder, initial=str(folder))
    state = start_in(build(config), tmp_path)
    assert int(state.step) == 0
    assert checkpoints.sha256(state.network) == finished_family[1]["stages"][0]["weights_sha256"]
    config.model.name = "resnet8"
    with pytest.raises(UserError, match="^initial: .*generation_0 holds a different network from resnet8, which this run trains"):
        study.train(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_images_are_normalised_as_those_that_the_initial_weights_saw(finished_colours, tmp_path):
    config = colours_config(tmp_path / "bright.npz", brightness=100, initial=str(finished_colours[0]))
    theirs, started = trained.find(finished_colours[0]).spec, study.prepare(config, tmp_path / "run").experiments[""].spec
    assert started.input_mean == theirs.input_mean and started.input_std == theirs.input_std
    assert min(build(with_fields(config, initial="")).spec.input_mean) > max(theirs.input_mean)


def test_a_teacher_of_several_seeds_is_read_once(finished_family, tmp_path, monkeypatch):
    read, find = [], trained.find
    monkeypatch.setattr(trained, "find", lambda folder: read.append(folder) or find(folder))
    folder = finished_family[0] / "generation_0"
    study.prepare(student_config(folder, seeds=3), tmp_path)
    assert read == [folder]


@pytest.mark.parametrize("method", [{"name": "distillation", "warmup_epochs": 2}, {"name": "cs_kd+distillation"}])
def test_a_frozen_teacher_predicts_the_test_set_once(finished, tmp_path, method):
    exp = build(student_config(finished[0], epochs=3, eval_every=1, method=ConfigDict(method)))
    asked = []
    run(exp._replace(predict_teacher=lambda state: asked.append(state) or exp.predict_teacher(state)), 0, tmp_path)
    assert len(asked) == 1


def test_an_averaged_teacher_starts_from_the_initial_weights_and_is_judged_as_it_is_now(finished, tmp_path):
    exp = build(make_config(initial=str(finished[0]), epochs=2, schedule__cycles=1, method=ConfigDict({"name": "ema_teacher"})))
    state = start_in(exp, tmp_path / "start")
    assert bits(state.teacher.network) == bits(state.network)
    run(exp, 0, tmp_path / "run")
    teacher = exp.predict_teacher(start_in(exp, tmp_path / "run"))
    assert files.read_jsonl(tmp_path / "run" / "metrics.jsonl")[-1]["teacher_entropy"] == evaluate.mean_entropy(teacher)


def test_a_finished_student_is_evaluated_without_its_teacher(finished_family, tmp_path):
    teacher = pathlib.Path(shutil.copytree(finished_family[0] / "generation_0", tmp_path / "teacher"))
    config = student_config(teacher, initial=str(teacher))
    summary = study.train(config, tmp_path / "student")
    shutil.rmtree(teacher)
    assert study.evaluate(config, tmp_path / "student")["test_accuracy"] == summary["test_accuracy"]
    assert study.train(config, tmp_path / "student") == summary, "finished"


def test_what_a_run_starts_from_is_checked_before_anything_is_written(finished_family, tmp_path):
    with pytest.raises(UserError, match="nowhere/config.json does not exist"):
        study.train(make_config(initial=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def bad_teachers(finished_family, finished_colours, folder):
    good = finished_family[0] / "generation_0"
    unfinished = shutil.copytree(good, folder / "unfinished")
    (unfinished / "summary.json").unlink()
    return {
        folder / "nowhere": "nowhere/config.json does not exist",
        finished_family[0]: "holds several runs; name one of them: .*generation_0",
        unfinished: "unfinished: the run is not finished",
        with_facts(good, folder / "nine", num_classes=9, classes=[]): "has 9 classes; digits has 10",
        with_facts(good, folder / "large", input_shape=[9, 8, 1]): r"inputs of shape \(9, 8, 1\); those of digits are \(8, 8, 1\)",
        finished_colours[0]: "teacher .* has 3 classes; digits has 10",
    }


def with_facts(folder, copy, **facts):
    """A copy of a workdir with a changed network.json."""
    shutil.copytree(folder, copy)
    workdir.write_json(copy / "network.json", files.read_json(copy / "network.json") | facts)
    return copy


def test_teachers_that_will_not_do(finished_family, finished_colours, tmp_path):
    for teacher, message in bad_teachers(finished_family, finished_colours, tmp_path).items():
        with pytest.raises(UserError, match=message) as caught:
            study.train(student_config(teacher), tmp_path / "student")
        assert "\n" not in str(caught.value) and str(teacher) in str(caught.value)
    assert not (tmp_path / "student").exists()


def test_a_teacher_with_the_weights_of_another_is_refused(finished_family, tmp_path):
    exchanged = shutil.copytree(finished_family[0] / "generation_0", tmp_path / "exchanged")
    shutil.rmtree(exchanged / "snapshots")
    shutil.copytree(finished_family[0] / "generation_1" / "snapshots", exchanged / "snapshots")
    with pytest.raises(UserError, match="not the weights recorded in the run's summary.json"):
        study.train(student_config(exchanged), tmp_path / "student")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("green", "red", "blue"), "class 0 is 'red' there and 'green' here"),
        (("red", "green", "cyan"), "class 2 is 'blue' there and 'cyan' here"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(finished_colours, tmp_path, names, said):
    """Equally many classes, but different ones or in a different order: a folder was renamed."""
    teacher = finished_colours[0]
    config = colours_config(tmp_path / "renamed.npz", names=names, teachers=(str(teacher),), method={"name": "distillation"})
    with pytest.raises(UserError, match=f"teacher {teacher} has different classes from npz:.*renamed.npz: {said}"):
        study.train(config, tmp_path / "student")


def test_the_teachers_of_all_seeds_have_the_runs_classes(finished_colours, tmp_path):
    (tmp_path / "0").symlink_to(finished_colours[0])
    with_facts(finished_colours[0], tmp_path / "1", classes=["green", "red", "blue"])
    own = {"seeds": 2, "teachers": (str(tmp_path / "{seed}"),), "method": {"name": "distillation"}}
    with pytest.raises(UserError, match="teacher .*1 has different classes from npz:.*: class 0 is 'green' there and 'red' here"):
        study.train(colours_config(tmp_path / "colours.npz", **own), tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_a_teacher_whose_classes_have_no_names_is_taken(finished_colours, tmp_path):
    nameless = with_facts(finished_colours[0], tmp_path / "nameless", classes=[])
    assert build(colours_config(tmp_path / "again.npz", teachers=(str(nameless),), method={"name": "distillation"})).spec.classes == COLOURS


def test_a_teacher_that_was_trained_anew_is_noticed(finished_family, tmp_path):
    """Even if only its running statistics differ."""
    teacher = shutil.copytree(finished_family[0] / "generation_0", tmp_path / "teacher")
    exp = build(student_config(teacher))
    with pytest.raises(Crash):
        run(act_at(exp, 2, crash), 0, tmp_path / "student")
    network = distill_jax.load(teacher)
    weights = network.variables | {"batch_stats": jax.tree.map(lambda leaf: leaf + 1, network.variables["batch_stats"])}
    checkpoints.save_weights(teacher / "snapshots" / "epoch_2", weights)
    summary = workdir.load_summary(teacher)
    workdir.write_json(teacher / "summary.json", summary | {"weights_sha256": checkpoints.sha256(weights)})
    with pytest.raises(UserError, match="teachers.json: .*teacher was .* when this run began and is .* now; restore what"):
        run(exp, 0, tmp_path / "student")


def test_what_a_run_is_built_on_is_remembered(tmp_path):
    path = tmp_path / "teachers.json"
    workdir.remember(path, {"/a": "one", "/b": "two"})
    workdir.remember(path, {"/a": "one", "/b": "two"})
    with pytest.raises(UserError, match="teachers.json: /b was two when this run began and is three now; restore what"):
        workdir.remember(path, {"/a": "one", "/b": "three"})


def test_a_record_of_parameters_alone_is_still_good(finished_family, tmp_path):
    """Schema-1 workdirs record the params_sha256 of their teachers."""
    teacher = finished_family[0] / "generation_0"
    exp, path = build(student_config(teacher)), tmp_path / "teachers.json"
    workdir.write_json(path, {str(teacher): finished_family[1]["stages"][0]["params_sha256"]})
    assert len(load_given(exp, tmp_path)) == 1
    workdir.write_json(path, {str(teacher): finished_family[1]["stages"][1]["params_sha256"]})
    with pytest.raises(UserError, match="teachers.json: .*generation_0 was .* when this run began"):
        load_given(exp, tmp_path)


def test_a_run_without_teachers_takes_none(finished_family):
    config = make_config(teachers=(str(finished_family[0] / "generation_0"),))
    with pytest.raises(
        UserError,
        match="teachers: num_teachers is 1, but 'snapshot' takes no teachers; these do: attention_transfer, densely_guided, distill",
    ):
        build(config)
