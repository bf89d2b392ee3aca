"""Comparisons: what is tuned, chosen, trained and shown."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from comparison_helpers import ARMS, RATES, tiny
from helpers import ROOT, Crash, act_at, crash

from configs import comparison_cifar100, comparison_digits, comparison_teachers_cifar100, comparison_text
from distill_jax import (
    archive,
    checks,
    collect,
    command_line,
    compare,
    comparison,
    comparison_checks,
    comparison_tables,
    loop,
    methods,
    processes,
    report,
    stages,
    study,
)
from distill_jax.comparison import Arm, Comparison
from distill_jax.errors import UserError
from distill_jax.files import read_json
from examples import my_comparison

FAMILY = Arm({"stages": {"name": "generations", "generations": 1}}, RATES)


def whole(root):
    """With as many seeds as have been trained."""
    return Comparison(tiny(seeds=len(read_json(root / "born_again" / "final" / "summary.json")["runs"])), ARMS, root)


def joined(path):
    return path.read_text().replace("\\\n", " ")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    compare.compare(tiny(), ARMS, root)
    return root


@pytest.fixture
def trained(monkeypatch):
    """The folders that are trained from here on."""
    folders, train = [], loop.train
    monkeypatch.setattr(loop, "train", lambda exp, seed, folder, *rest: folders.append(folder) or train(exp, seed, folder, *rest))
    return folders


def test_tries_see_validation_and_finals_the_test_set(compared):
    for name in ARMS:
        tries = [read_json(compared / name / f"try_{attempt}" / "summary.json") for attempt in (0, 1)]
        assert [run["seed"] for run in tries] == [0, 0] and all(run["evaluated_on"] == "validation" for run in tries)
        accuracies = [run["validation_accuracy"] for run in tries]
        final = read_json(compared / name / "final" / "config.json")
        assert final["optimizer"]["learning_rate"] == (1e-4, 0.05)[int(np.argmax(accuracies))]
        summary = read_json(compared / name / "final" / "summary.json")
        assert summary["seeds"] == [1, 2] and summary["evaluated_on"] == "test" and final["data"]["validation_examples"] == 0


def test_a_taught_try_has_a_teacher_that_has_not_seen_the_validation_set(compared):
    best = comparison.best_try(Comparison(tiny(), ARMS, compared), "cosine")
    teacher_of_tries = read_json(compared / "born_again" / "try_0" / "config.json")["teachers"]
    teacher_of_finals = read_json(compared / "born_again" / "final" / "config.json")["teachers"]
    assert teacher_of_tries == [str(compared / "cosine" / f"try_{best}")]
    assert teacher_of_finals == [str(compared / "cosine" / "final" / "seed_{seed}")]
    for seed in (1, 2):
        recorded = read_json(compared / "born_again" / "final" / f"seed_{seed}" / "teachers.json")
        teacher = compared / "cosine" / "final" / f"seed_{seed}"
        assert recorded == {str(teacher): read_json(teacher / "summary.json")["weights_sha256"]}


def test_the_teachers_of_all_seeds_are_of_one_kind(compared, tmp_path):
    for seed in (1, 2):
        shutil.copytree(compared / "cosine" / "final" / f"seed_{seed}", tmp_path / str(seed))
    taught = tiny(seed=1, teachers=(str(tmp_path / "{seed}"),), method={"name": "distillation"}, data__validation_examples=0)
    study.prepare(taught, tmp_path / "run")
    network = tmp_path / "2" / "network.json"
    network.write_text(network.read_text().replace('"plain2_cifar10"', '"plain4_cifar10"'))
    with pytest.raises(UserError, match=f"^teacher {tmp_path}/2 is another network than that of the first seed; the teachers of all se"):
        study.prepare(taught, tmp_path / "run")
    with pytest.raises(UserError, match=f"^teachers names {tmp_path}/1 more than once$"):
        study.prepare(tiny(seed=1, seeds=1, teachers=(str(tmp_path / "{seed}"), str(tmp_path / "1"))), tmp_path / "run")


def test_the_table_has_paired_differences_and_the_whole_cost(compared):
    ours, theirs = (
        np.array([run["test_accuracy"] for run in read_json(compared / name / "final" / "summary.json")["runs"]])
        for name in ("born_again", "cosine")
    )
    difference = 100 * (ours - theirs)
    (shown, computed), (_, tries) = report.study_tables(compared / "study")
    assert shown == computed
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in computed.splitlines()}
    header = cells.pop("arm")
    row = dict(zip(header, cells["born_again"], strict=True))
    assert row["difference to cosine"] == f"{difference.mean():.2f} ± {difference.std(ddof=1) / 2**0.5:.2f}"
    assert row["test accuracy, %"] == f"{100 * ours.mean():.2f} ± {100 * ours.std(ddof=1):.2f}"
    assert (row["seeds"], row["steps"], row["forward passes"]) == ("2", "10", "300"), "with the teacher's 5 and 100"
    assert (cells["cosine"][4], cells["cosine"][-2:]) == ("-", ["5", "100"])
    best = max((0, 1), key=lambda attempt: read_json(compared / "cosine" / f"try_{attempt}" / "summary.json")["validation_accuracy"])
    header, _, cosine, _ = (line.strip("| ").split(" | ") for line in tries.splitlines())
    assert header[1:] == ["optimizer.learning_rate=0.0001", "optimizer.learning_rate=0.05"]
    assert cosine[0] == f"cosine: {header[1 + best]}" and cosine[1 + best] == max(cosine[1:], key=float)


@pytest.mark.parametrize(
    ("task", "classes", "further"),
    [
        ("classification", 2, ["test NLL, nats", "ECE, %", "Matthews correlation"]),
        ("classification", 3, ["test NLL, nats", "ECE, %"]),
        ("segmentation", 2, []),
        ("detection", 2, ["test AP, %"]),
    ],
)
def test_what_else_the_table_shows_depends_on_the_task(task, classes, further):
    done = {"cosine": {"num_classes": classes, "runs": [{}]}}
    columns = list(comparison_tables.results_table(Comparison(tiny(data__task=task), ARMS, ROOT), done)["columns"])
    assert columns[3:] == [*further, "steps", "forward passes"]


def test_an_arm_that_teaches_twice_is_paid_once():
    """DGKD's teacher also taught its assistant."""
    arms = {name: Arm(*arm) for name, arm in comparison_teachers_cifar100.get_arms().items()}
    assert comparison.with_teachers(arms, "dgkd") == {"dgkd", "assistant", "teacher"}
    assert comparison.with_teachers(arms, "takd") == {"takd", "assistant", "teacher"}
    arms["takd"] = Arm({}, [{"teachers": ("arm:assistant",)}])
    assert comparison.with_teachers(arms, "takd") == {"takd", "assistant", "teacher"}, "named in the try"


def test_another_method_has_its_own_defaults(tmp_path):
    """DLB must not be given the temperature of the snapshot; a try adds to its arm's method."""
    config = tiny(method={"name": "snapshot", "temperature": 4.0})
    arms = {
        "dlb": Arm({"method": {"name": "dlb"}}, [{}, {"method": {"weight": 2.0}}]),
        "sd": Arm({"method": {"symmetric": True}}, [{}, {}]),
    }
    made = [comparison.tuning_config(Comparison(config, arms, tmp_path), *each).method for each in (("dlb", 0), ("dlb", 1), ("sd", 0))]
    assert [method.to_dict() for method in made] == [
        {"name": "dlb"},
        {"name": "dlb", "weight": 2.0},
        {"name": "snapshot", "temperature": 4.0, "symmetric": True},
    ]


def test_an_arm_comes_after_its_teacher(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="^arm born_again: arm:cosine is not finished with this config; add cosine to --arms$"):
        compare.compare(tiny(), ARMS, tmp_path, ["born_again"])
    order = []
    monkeypatch.setattr(compare, "train", lambda config, folder: order.append(folder.parent.name))
    monkeypatch.setattr(compare, "write_tables", lambda _: "")
    compare.compare(tiny(), ARMS, tmp_path, ["born_again", "cosine"])
    assert order == ["cosine"] * 3 + ["born_again"] * 3


def test_again_nothing_is_trained_and_a_new_arm_or_seed_alone(compared, trained):
    compare.compare(tiny(), ARMS, compared)
    assert not trained
    arms = ARMS | {"generations": FAMILY}
    compare.compare(tiny(), arms, compared, ["generations"])
    assert {folder.relative_to(compared).parts[0] for folder in trained} == {"generations"} and len(trained) == 2 * (2 + 2)
    assert "| generations | 2 |" in (compared / "study" / "README.md").read_text().replace(" ± ", "±")
    trained.clear()
    compare.compare(tiny(seeds=3), ARMS, compared)
    assert [folder.relative_to(compared).as_posix() for folder in trained] == ["cosine/final/seed_3", "born_again/final/seed_3"]


def test_final_runs_of_another_try_are_not_taken_for_those_of_the_best(compared, trained, monkeypatch):
    other = 1 - comparison.best_try(Comparison(tiny(), ARMS, compared), "cosine")
    monkeypatch.setattr(compare, "best_try", lambda *_: other)
    message = f"^arm cosine: its final runs are not of its best try, try_{other}; remove {compared}/cosine/final to retrain them$"
    with pytest.raises(UserError, match=message):
        compare.compare(whole(compared).config, ARMS, compared, ["cosine"])
    assert not trained


def test_final_runs_of_another_config_or_teacher(compared, trained):
    with pytest.raises(
        UserError, match="cosine/try_0 has runs of another config: batch_size is 20 there and 10 here. Restore it, or remove"
    ):
        compare.compare(tiny(batch_size=10), ARMS, compared)
    best = comparison.best_try(whole(compared), "born_again")
    arms = ARMS | {"born_again": ARMS["born_again"]._replace(tries=[RATES[best]])}
    with pytest.raises(UserError, match="final has runs of another config: epochs is 1 there and 2 here. Restore it, or remove the folder"):
        compare.check_final(Comparison(tiny(epochs=2, seeds=3), arms, compared), "born_again")
    recorded = compared / "born_again" / "final" / "seed_2" / "teachers.json"
    text = recorded.read_text()
    recorded.write_text(re.sub('": ".*"', '": "0f"', text))
    with pytest.raises(
        UserError, match=f"^arm born_again: {compared}/cosine/final/seed_2, the teacher of its final runs, has been retrained"
    ):
        compare.compare(whole(compared).config, ARMS, compared)
    recorded.write_text(text)
    (started := recorded.with_name("initial.json")).write_text(json.dumps({str(compared / "cosine" / "final" / "seed_1"): "0f"}))
    with pytest.raises(UserError, match=f"{compared}/cosine/final/seed_1, from which its final runs started, has been retrained since"):
        compare.compare(whole(compared).config, ARMS, compared)
    started.unlink()
    (stage := started.parent / "generation_0").mkdir()
    (stage / "initial.json").write_text(json.dumps({str(compared / "cosine" / "final" / "seed_1"): "0f"}))
    with pytest.raises(UserError, match=f"{compared}/cosine/final/seed_1, from which its final runs started, has been retrained since"):
        compare.compare(whole(compared).config, ARMS, compared)
    shutil.rmtree(stage)
    compare.compare(whole(compared).config, ARMS, compared)
    assert not trained


@pytest.mark.parametrize(
    ("removed", "left"),
    [("cosine/final", set()), ("cosine/try_*", set()), ("born_again/try_*", {"cosine"}), ("*/try_0", set(ARMS))],
)
def test_the_tables_are_of_arms_that_are_complete(compared, removed, left, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(compared, copy, ignore=shutil.ignore_patterns("checkpoints", "snapshots"))
    for path in copy.rglob("config.json"):  # which names teachers
        path.write_text(path.read_text().replace(str(compared), str(copy)))
    for folder in copy.glob(removed):
        shutil.rmtree(folder)
    assert {name for name in ARMS if comparison_tables.is_done(whole(copy), name)} == left
    assert {name for name in ARMS if f"\n| {name} |" in comparison_tables.write_tables(whole(copy))} == left
    if left:
        assert len(collect.read_workdirs(copy)) > 3, "the study inside is not taken for a run"


@pytest.mark.parametrize("fields", [{"epochs": 2}, {"seed": 10}, {"seeds": 4}])
def test_arms_of_another_config_are_left_out(compared, fields):
    """Otherwise the table would compare runs of different lengths, or pair different seeds."""
    ours = whole(compared)
    changed = ours.config.copy_and_resolve_references()
    changed.update(fields)
    assert not any(comparison_tables.is_done(ours._replace(config=changed), name) for name in ARMS)
    with pytest.raises(UserError, match="^arm born_again: arm:cosine is not finished with this config; add cosine to --arms$"):
        comparison_checks.check(ours._replace(config=changed), ["born_again"])
    arms = ARMS | {"born_again": ARMS["born_again"]._replace(tries=[rate | {"epochs": 3} for rate in RATES])}
    left = comparison_tables.write_tables(ours._replace(arms=arms)).splitlines()[-1]
    assert left == "not in this table, since not finished with this config: born_again"


def test_teachers_are_found_from_another_folder(compared, trained, monkeypatch):
    monkeypatch.chdir(compared.parent)
    compare.compare(whole(compared).config, ARMS, pathlib.Path(compared.name))
    (compared / "elsewhere").mkdir(exist_ok=True)
    monkeypatch.chdir(compared / "elsewhere")
    compare.compare(whole(compared).config, ARMS, pathlib.Path(".."))
    assert not trained


def test_two_processes_write_the_tables_one_after_the_other(compared):
    with archive.in_turn(compared / "study"):
        (other := threading.Thread(target=comparison_tables.write_tables, args=[whole(compared)])).start()
        (compared / "study" / "runs.csv").write_text("of this process, which has not seen all runs")
        other.join(0.3)
        assert other.is_alive()
    other.join()
    assert {run.variant for run in archive.read_runs(compared / "study")} >= set(ARMS)


def test_a_family_as_baseline_and_as_teacher(tmp_path):
    arms = {"family": FAMILY, "student": ARMS["born_again"]._replace(changes={"teachers": ("arm:family",)})}
    family = {"runs": [{"stages": [{"stage": "generation_0"}, {"stage": "generation_1"}]}]}
    columns = comparison_tables.results_table(Comparison(tiny(), arms, tmp_path), {"family": family, "student": {"runs": [{}]}})["columns"]
    assert columns["difference to family"] == "test_accuracy minus family/generation_1"
    made = Comparison(tiny(), arms, tmp_path)
    assert comparison.tuning_config(made, "student", 0).teachers == (str(tmp_path / "family" / "try_0" / "generation_1"),)
    assert comparison.final_config(made, "student", 0).teachers == (str(tmp_path / "family" / "final" / "seed_{seed}" / "generation_1"),)


def test_a_try_that_diverges_is_out(tmp_path, trained):
    arms = {"cosine": Arm({}, [RATES[0], {"optimizer": {"learning_rate": 1e6, "weight_decay": 1e6}}])}
    for _ in range(2):
        compare.compare(tiny(), arms, tmp_path)
    assert [folder.name for folder in trained] == ["try_0", "try_1", "seed_1", "seed_2"], "none is repeated"
    assert "the loss is not finite" in read_json(tmp_path / "cosine" / "try_1" / "diverged.json")["error"]
    (_, results), (_, tries) = report.study_tables(tmp_path / "study")
    assert "| cosine | 2 |" in results and "weight_decay" not in tries
    with pytest.raises(UserError, match="^arm bad: all its tries diverged; remove .*bad and lower their optimizer.learning_rate$"):
        compare.compare(tiny(), {"bad": Arm({}, arms["cosine"].tries[1:] * 2)}, tmp_path)
    assert {run.variant for run, *_ in collect.read_workdirs(tmp_path)} == {"cosine/try_0", "cosine/final"}
    with pytest.raises(UserError, match=r"try_1 has runs of another config: optimizer.learning_rate is 1000000.0 there and 0.05"):
        compare.compare(tiny(), {"cosine": Arm({}, RATES)}, tmp_path)


def test_a_crash_changes_nothing_in_the_end(compared, tmp_path):
    run, seen = study.run, []

    def crash_in_the_fourth(exp, job, *rest):
        seen.append(job)
        return run(act_at(exp, 3, crash) if len(seen) == 4 else exp, job, *rest)

    arms = {"cosine": ARMS["cosine"]}
    with pytest.raises(Crash), pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "run", crash_in_the_fourth)
        compare.compare(tiny(), arms, tmp_path)
    assert not (tmp_path / "study").exists()
    compare.compare(tiny(), arms, tmp_path)
    runs = [read_json(root / "cosine" / "final" / "summary.json")["runs"][:2] for root in (tmp_path, compared)]
    assert [run["params_sha256"] for run in runs[0]] == [run["params_sha256"] for run in runs[1]]


@pytest.mark.parametrize("name", ["generations_strict", "generations_tolerant"])
def test_generations_of_sentences_may_have_two_classes(name):
    arms = compare.read_arms(comparison_text.__file__)
    config = comparison.changed(Comparison(comparison_text.get_config(), arms, ROOT), name, 0, {}, "final")
    options = stages.expand(config)["generation_0"].method.to_dict()
    methods.patriarch(2, **{option: value for option, value in options.items() if option != "name"})


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("{}", "has no function get_arms"),
        ("{'a': 1 / 0}", "arms.py: ZeroDivisionError in .*arms.py:2: division by zero"),
        ("{'a': {}}", "arm a must be a pair"),
        ("{'study': ({}, [{}])}", "'study' cannot be an arm's folder"),
        ("{'a': ({}, 3)}", "arm a must be a pair"),
        ("{'a/b': ({}, [{}])}", "'a/b' cannot be an arm's folder"),
        ("{'a': ({}, [{}]), 'b': ({}, [])}", r"must have the same number of tries, at least one; they have {'a': 1, 'b': 0}"),
    ],
)
def test_bad_files_are_refused(arms, message, tmp_path):
    (tmp_path / "arms.py").write_text(f"def get_arms():\n    return {arms}\n")
    with pytest.raises(UserError, match=message):
        compare.read_arms(str(tmp_path / "arms.py"))


@pytest.mark.parametrize("source", [comparison_cifar100, comparison_digits, comparison_teachers_cifar100, comparison_text, my_comparison])
def test_the_configs_arms_fit_their_config(source, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))  # has the method of my_comparison
    arms = compare.read_arms(source.__file__)
    for name in arms:
        config = comparison.changed(Comparison(source.get_config(), arms, ROOT), name, 0, {"seeds": 1}, "tuning")
        checks.check(config)
        assert stages.expand(config)


PATHS = [*(ROOT / name for name in ("README.md", "configs/README.md", "examples/my_comparison.py", "distill_jax/compare.py"))]
PATHS += sorted((ROOT / "configs").glob("*.py"))
COMMANDS = [
    found for path in PATHS for found in re.findall(r"python -m distill_jax.compare (\S+\.py.*?)(?:  +#|$)", joined(path), re.MULTILINE)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT / "examples" if command.startswith("my_") else ROOT)
    options, overrides = compare.parse(shlex.split(command))
    config, _ = command_line.read_config([f"--config={options.config}", *overrides], "train", options.workdir)
    checks.check(config)
    assert set(options.arms.split(",")) - {""} <= set(compare.read_arms(options.config))


def test_there_are_commands():
    assert len(COMMANDS) >= 8


def test_on_the_command_line(tmp_path):
    command = [sys.executable, "-m", "distill_jax.compare", "configs/comparison_digits.py", f"--workdir={tmp_path}/run"]
    done = subprocess.run([*command, "--config.seeds=2", "--arms=cosine,cosin"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (
        1,
        "error: --arms: there is no arm 'cosin'; there are cosine, sd, born_again; did you mean 'cosine'?\n",
    )
    assert not list(tmp_path.iterdir())


def test_a_comparison_takes_a_single_process(monkeypatch):
    monkeypatch.setattr(processes, "is_cluster", lambda: True)
    with pytest.raises(UserError, match="^a comparison takes a single process on one host; start it once, without srun"):
        compare.check_devices()
