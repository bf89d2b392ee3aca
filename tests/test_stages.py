"""Families of runs: their stages as data, their order, their seeds, and crashes."""

import json
import shutil

import numpy as np
import pytest
from helpers import crash_in, family_config, with_fields
from ml_collections import ConfigDict

from distill_jax import configuration, jobs, programs, stages, study, trained, transfer, workdir
from distill_jax.errors import UserError


def listed(**runs):
    """A family of the given stages."""
    return with_fields(family_config(), stages=ConfigDict({"name": "list", "list": runs}))


def test_stages_as_data():
    config = listed(big={"model": {"name": "resnet8"}}, small={"teachers": ("stage:big",)})
    config.stages.list.small.method = {"name": "distillation", "weight_ce": 0.2}
    big, small = stages.expand(config).values()
    assert (big.model.name, big.method.name, big.teachers) == ("resnet8", "supervised", ())
    assert (small.model.name, small.method.weight_ce, small.teachers) == ("small_cnn", 0.2, ("stage:big",))
    config.stages.list.a_third = {"initial": "stage:small"}
    assert list(stages.expand(config)) == ["big", "small", "a_third"], "each after what it needs"


def test_stages_of_several_seeds(tmp_path):
    """If the last stage had a seed of its own, all seeds would have one result."""
    with pytest.raises(UserError, match="^stages: a, the last, sets its own seed, which would make the results of all seeds one; leave it"):
        study.train(with_fields(listed(a={"seed": 5}), seeds=2), tmp_path)
    made = jobs.make_jobs(with_fields(listed(a={"initial": "runs/{seed}"}), seeds=2), tmp_path)
    assert [job.config.initial for job in made] == ["runs/0", "runs/1"]
    family = with_fields(family_config(), initial="runs/{seed}", seeds=2, stages__generations=1)
    made = jobs.make_jobs(family, tmp_path)
    assert [(job.config.seed, job.config.initial) for job in made] == [(0, "runs/0"), (1, "runs/1"), (1000, "runs/0"), (1001, "runs/1")]
    assert [job.template.initial for job in made] == ["runs/{seed}", "runs/{seed}", "runs/0", "runs/1"], "{seed} is none of a stage's own"
    assert not any(configuration.differences(job.template.to_dict(), job.config) for job in made)


@pytest.mark.parametrize("use", [study.train, study.evaluate])
def test_a_config_made_in_python_is_checked_first(use, tmp_path):
    with pytest.raises(UserError, match="^initial is None"):
        use(family_config(initial=None), tmp_path)


def bad_lists():
    a = {"method": {"name": "distillation"}}
    cycle = {"a": a | {"teachers": ("stage:b",)}, "b": a | {"teachers": ("stage:c",)}, "c": {"initial": "stage:a"}}
    return [
        (cycle, "stages.list has stages that depend on each other: (?=.*a)(?=.*b)(?=.*c)"),
        ({"big": a | {"teachers": ("stage:none",)}}, "stage big: stage:none is not an earlier stage; earlier stages: none"),
        ({"one": {"batchsize": 3}}, "stage one.*batchsize"),
        ({"one": {"batch_size": "many"}}, "stage one.*batch_size"),
        ({}, "stages.list has no stage"),
    ]


@pytest.mark.parametrize(("runs", "message"), bad_lists())
def test_a_bad_list_is_told(runs, message, tmp_path):
    with pytest.raises(UserError, match=message):
        study.train(listed(**runs), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"method": {"name": "distillation", "temperature": 0.0}, "teachers": ("stage:a",)}, "method.temperature is 0.0"),
        ({"method": {"name": "distillation"}, "teachers": ("stage:a",), "model": {"name": "text_cnn"}}, "model.name is 'text_cnn'"),
        ({"method": {"name": "distillation", "guide_logits": "table"}, "teachers": ("stage:a",)}, "method.guide_logits is 'table'"),
        ({"method": {"name": "distillation"}}, "teachers: num_teachers is 0; distillation takes one"),
        ({"initial": "stage:a", "model": {"name": "resnet8"}}, "initial: stage:a holds a different network from resnet8"),
        ({"data": {"validation_examples": 2000}}, "data.validation_examples is 2000"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_every_stage_is_checked_before_the_first_is_trained(last, message, tmp_path):
    with pytest.raises(UserError, match=message):
        study.train(listed(a={}, b=last), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_of_family_is_told(tmp_path):
    with pytest.raises(UserError, match="stages.name is 'dynasty'; known: densely_guided, generations, list"):
        study.train(family_config(stages__name="dynasty"), tmp_path)


def test_a_method_beside_a_family_that_sets_it_is_refused(tmp_path):
    with pytest.raises(UserError, match="method.name is 'snapshot', but stages 'generations' sets each stage's method; remove one"):
        study.train(family_config(method__name="snapshot"), tmp_path)


@pytest.mark.parametrize(("generation", "step"), [(0, 7), (2, 0), (2, 8)])
def test_a_crash_in_a_generation_changes_nothing_in_the_end(finished_family, tmp_path, capsys, generation, step):
    """In the last generation, before and after its first checkpoint, and in the first generation."""
    with crash_in(f"generation_{generation}", step):
        study.train(family_config(), tmp_path)
    assert [(tmp_path / f"generation_{m}" / "summary.json").exists() for m in range(3)] == [m < generation for m in range(3)]
    capsys.readouterr()
    hashes = [stage["weights_sha256"] for stage in study.train(family_config(), tmp_path)["stages"]]
    assert hashes == [stage["weights_sha256"] for stage in finished_family[1]["stages"]]
    said = capsys.readouterr().out
    assert said.count("already finished") == generation
    assert [f"[{m + 1}/3] generation_{m}\n" in said for m in range(3)] == [True] * 3


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    config, folder = family_config(stages__generations=1, seeds=2, epochs=1), tmp_path_factory.mktemp("two_seeds")
    return config, folder, study.train(config, folder)


def test_seeds_of_a_family(two_seeds):
    _, folder, summary = two_seeds
    assert [stage["stage"] for stage in summary["stages"]] == ["generation_0", "generation_1"]
    runs = [workdir.load_summary(folder / f"seed_{seed}" / "generation_1") for seed in (0, 1)]
    assert [run["seed"] for run in runs] == [1000, 1001]
    assert summary["seeds"] == [0, 1] and summary["stages"][1]["seeds"] == [1000, 1001]
    assert summary["test_accuracy"] == pytest.approx(np.mean([run["test_accuracy"] for run in runs]))
    assert summary["stages"][1]["test_accuracy"] == summary["test_accuracy"]
    assert "±" in (folder / "table.md").read_text()


def test_the_mean_over_seeds_is_of_the_last_stage(two_seeds):
    """The patriarch is not a student."""
    config, folder, summary = two_seeds
    result = study.evaluate(config, folder)
    assert result == json.loads((folder / "eval.json").read_text())
    assert [(run["stage"], run["seed"]) for run in result["runs"]] == [
        ("generation_0", 0), ("generation_0", 1), ("generation_1", 1000), ("generation_1", 1001),
    ]  # fmt: skip
    assert result["test_accuracy"] == pytest.approx(summary["test_accuracy"])
    assert result["test_accuracy"] != pytest.approx(np.mean([run["test_accuracy"] for run in result["runs"]]))


def test_the_mean_is_not_that_of_an_earlier_stage(two_seeds, tmp_path, capsys):
    folder = shutil.copytree(two_seeds[1], tmp_path / "family")
    for checkpoint in folder.glob("seed_*/generation_1/checkpoints"):
        shutil.rmtree(checkpoint)
    result = study.evaluate(two_seeds[0], folder)
    assert [run["stage"] for run in result["runs"]] == ["generation_0"] * 2 and "test_accuracy" not in result
    assert capsys.readouterr().out.endswith(f"{folder / 'eval.json'}\n")


def test_each_seed_of_a_family_has_an_ensemble_of_its_own(two_seeds):
    config, folder, summary = two_seeds
    result = transfer.ensemble(config, folder)
    assert result == json.loads((folder / "ensemble.json").read_text())
    for seed, run in enumerate(result["runs"]):
        stages_of_seed = summary["runs"][seed]["stages"]
        assert [member["member"] for member in run["members"]] == [str(folder / f"seed_{seed}" / f"generation_{m}") for m in (0, 1)]
        assert [member["test_accuracy"] for member in run["members"]] == [stage["test_accuracy"] for stage in stages_of_seed]
        assert run == json.loads((folder / f"seed_{seed}" / "ensemble.json").read_text())


def test_seeds_are_the_studys_whatever_a_stage_has(finished_family, tmp_path):
    config = with_fields(listed(a={"seed": 7}, b={}), seeds=2, epochs=1, seed=3)
    prepared = study.prepare(config, tmp_path)
    jobs.claim(prepared.config, prepared.root, prepared.jobs)
    summary = workdir.load_summary(finished_family[0] / "generation_0")
    assert study.conclude(prepared, [summary | {"seed": job.config.seed} for job in prepared.jobs])["seeds"] == [3, 4]
    assert trained.below(tmp_path) == [tmp_path / "seed_3", tmp_path / "seed_4"]
    (tmp_path / "seed_3" / "summary.json").unlink()
    with pytest.raises(UserError, match="seed_3 is missing or not finished; restore it, or name the other seeds with --members"):
        trained.below(tmp_path)


def test_stages_that_compute_the_same_share_their_programs(tmp_path):
    """They keep their own teachers. Other numbers are other programs."""
    config = family_config(stages__generations=3, stages__weight_ce=(0.5, 0.5, 0.7))
    patriarch, first, second, third = study.prepare(config, tmp_path).experiments.values()
    assert first.train_step is second.train_step and first.init is second.init
    assert len({exp.train_step for exp in (patriarch, first, third)}) == 3
    assert [exp.config.teachers for exp in (first, second)] == [("stage:generation_0",), ("stage:generation_1",)]
    assert second.config.seed == 2000
    assert programs.inference(first.spec.module()) is programs.inference(third.spec.module())


@pytest.mark.parametrize("source", ["table", "forward"])
def test_guides_from_a_table_are_one_program_whatever_their_networks(tmp_path, source):
    taught = {"method": {"name": "distillation", "guide_logits": source}}
    config = listed(
        big={},
        small={"model": {"name": "plain2_cifar10"}},
        c=taught | {"teachers": ("stage:big",)},
        d=taught | {"teachers": ("stage:small",)},
    )
    config.data.crop_padding = 0
    experiments = study.prepare(config, tmp_path).experiments
    assert (experiments["c"].train_step is experiments["d"].train_step) == (source == "table")
    assert [experiments[stage].teachers[0].model["name"] for stage in "cd"] == ["small_cnn", "plain2_cifar10"]


@pytest.mark.parametrize("family", [{"name": "generations"}, {"name": "densely_guided", "path": ("plain4", "plain2"), "compare": ("kd",)}])
def test_families_pass_the_loss_on_to_their_students(family):
    other = {"loss": "dkd", "loss_weights": (1.0, 2.0), "standardize": True}
    first, *students = stages.expand(with_fields(family_config(), stages=ConfigDict(family | other))).values()
    assert "loss" not in first.method and students
    assert all(dict(student.method.items()).items() >= other.items() for student in students)
    with pytest.raises(ValueError, match="^loss is 'dkt'; known: kl, dkd, dist"):
        stages.expand(with_fields(family_config(), stages=ConfigDict(family | {"loss": "dkt"})))
