"""Statistics over seeds, studies made from workdirs, and the tables of the committed studies."""

import errno
import gzip
import json
import math
import pathlib
import shutil
import threading

import numpy as np
import pytest
from helpers import AWKWARD, refused, write, write_run

from distill_jax import archive, collect, fields, report, results, stages
from distill_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
STUDIES = sorted(path.parent for path in (ROOT / "results").glob("*/runs.csv"))


def write_family(folder, seed=0):
    stages = []
    for m in range(3):
        name = f"generation_{m}"
        stages.append({"stage": name} | write_run(folder / name, seed + 1000 * m))
        if m:
            write(folder / name / "teachers.json", {f"stage:generation_{m - 1}": "0f"})
    write(folder / "generation_2" / "linear_probe.json", {"dataset": "digits", "test_accuracy": AWKWARD[0]})
    write(folder / "generation_2" / "linear_probe_cifar10.json", {"dataset": "cifar10", "test_accuracy": AWKWARD[1]})
    write(folder / "ensemble.json", {"test_accuracy": 0.75, "members": [{"member": "a", "test_nll": AWKWARD[1]}]})
    write(folder / "config.json", {"seed": seed, "seeds": 1, "stages": {"name": "generations"}})
    summary = stages[-1] | {"stages": stages}
    write(folder / "summary.json", summary)
    return summary


def write_seeds(folder, make, seeds=(0, 1)):
    summaries = [make(folder / f"seed_{seed}", seed) for seed in seeds]
    write(folder / "config.json", {"seed": seeds[0], "seeds": len(seeds)})
    write(folder / "summary.json", results.summarise_seeds(summaries))


# Statistics


def test_paired_difference():
    values, baseline = {3: 1.0, 1: 5.0, 2: 2.5}, {1: 4.0, 2: 2.0, 3: 3.0}
    differences = np.array([1.0, 0.5, -2.0])
    mean, error = results.paired_difference(values, baseline)
    assert mean == pytest.approx(differences.mean())
    assert error == pytest.approx(differences.std(ddof=1) / math.sqrt(3))
    assert results.paired_difference({0: 3.0}, {0: 1.0}) == (2.0, None)
    with pytest.raises(ValueError, match=r"seeds \[0\] cannot be paired with seeds \[1\]"):
        results.paired_difference({0: 1.0}, {1: 1.0})


def test_seeds_of_a_family_are_the_studys(tmp_path):
    families = [write_family(tmp_path / str(seed), seed) for seed in (0, 1)]
    summary = results.summarise_seeds(families)
    assert summary["seeds"] == [0, 1]
    assert [stage["seeds"] for stage in summary["stages"]] == [[0, 1], [1000, 1001], [2000, 2001]]


def test_summary_of_seeds(tmp_path):
    runs = [write_run(tmp_path / str(seed), seed, device="cpu", commit=f"c{seed}") for seed in (0, 1, 2)]
    summary = results.summarise_seeds(runs)
    assert summary["test_accuracy"] == pytest.approx(np.mean([run["test_accuracy"] for run in runs]))
    assert summary["test_accuracy_std"] == pytest.approx(np.std([run["test_accuracy"] for run in runs], ddof=1))
    assert summary["device"] == "cpu" and "commit" not in summary  # the seeds were run at different commits
    assert summary["runs"] == runs and summary["seeds"] == [0, 1, 2]


def test_a_result_on_validation_data_is_found():
    assert results.percents({"validation_accuracy": 0.5, "validation_accuracy_std": 0.01}, "test_accuracy") == ["50.00 ± 1.00"]
    assert results.percents({"best_validation_accuracy": 0.5}, "best_test_accuracy", "test_ece") == ["50.00", "-"]


@pytest.mark.parametrize("family", ["generations", "list"])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_familys_table_names_the_split(family, split):
    summary = {"stage": "generation_0", "model": "a", "method": "b", "evaluated_on": split, "metric": "miou", f"{split}_miou": 0.5}
    header, _, row = (line.strip("| ").split(" | ") for line in stages.FAMILIES[family].table([summary]).splitlines())
    assert row[header.index(f"{split} mIoU, %")] == "50.00"


# Studies


@pytest.fixture
def workdirs(tmp_path):
    """One workdir of each kind, below runs/."""
    root = tmp_path / "runs"
    write_run(root / "plain")
    write_seeds(root / "deep" / "seeds", write_run)
    write_family(root / "family")
    write_seeds(root / "families", write_family)
    for seed in (0, 1):
        write_run(root / "apart" / f"seed_{seed}", seed)  # seeds that were run one by one
    return root


def test_a_study_holds_every_run(workdirs, tmp_path):
    study = tmp_path / "study"
    collect.collect(study, [workdirs])
    runs = {run[:3]: run for run in archive.read_runs(study)}
    leaves = [("apart", "", 0), ("apart", "", 1), ("deep/seeds", "", 0), ("deep/seeds", "", 1), ("plain", "", 0)]
    leaves += [("families", f"generation_{m}", seed) for seed in (0, 1) for m in range(3)] + [
        ("family", f"generation_{m}", 0) for m in range(3)
    ]
    above = [("deep/seeds", "", None), ("families", "", None), ("families", "", 0), ("families", "", 1), ("family", "", 0)]
    assert runs.keys() == {*leaves, *above}
    assert {key for key, run in runs.items() if "train_accuracy" in run.results} == set(leaves)
    assert archive.read_curves(study).keys() == set(leaves)
    assert sorted(path.name for path in study.iterdir()) == ["config.json", "curves.csv.gz", "lock", "runs.csv"]


def test_a_study_keeps_every_digit(workdirs, tmp_path):
    study = tmp_path / "study"
    collect.collect(study, [workdirs])
    curves = archive.read_curves(study)
    for run in archive.read_runs(study):
        folder = workdirs / run.variant
        folder = folder / f"seed_{run.seed}" if run.seed is not None and (folder / f"seed_{run.seed}").exists() else folder
        folder = folder / run.stage
        assert repr(sorted(fields.flatten(json.loads((folder / "config.json").read_text())).items())) == repr(sorted(run.config.items()))
        if run[:3] in curves:
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            assert [json.dumps(line) for line in curves[run[:3]]] == lines
            summary = json.loads((folder / "summary.json").read_text())
            assert summary.pop("seed") == run.config["seed"]
            assert {name: repr(value) for name, value in fields.flatten(summary).items()}.items() <= {
                name: repr(value) for name, value in run.results.items()
            }.items()


def test_what_was_measured_beside_the_training_comes_along(workdirs, tmp_path):
    write(workdirs / "plain" / "data.json", {"train_examples": 1000, "test": {"sha256": "ab"}, "classes": ["cat"]})
    collect.collect(tmp_path / "study", [workdirs])
    runs = {run.path: run.results for run in archive.read_runs(tmp_path / "study") if run.seed == 0}
    assert runs["family/generation_2"]["linear_probe.test_accuracy"] == AWKWARD[0]
    assert runs["family/generation_2"]["linear_probe_cifar10.test_accuracy"] == AWKWARD[1]
    assert runs["family/generation_2"]["teachers"] == {"stage:generation_1": "0f"}
    assert runs["family"]["ensemble.members"] == [{"member": "a", "test_nll": AWKWARD[1]}]
    assert "data.classes" not in runs["plain"]
    assert runs["plain"]["data.train_examples"] == 1000 and runs["plain"]["data.test.sha256"] == "ab"


def test_exports_beside_workdirs_are_no_runs(workdirs):
    before = [run for run, *_ in collect.read_workdirs(workdirs)]
    write(workdirs / "exported" / "config.json", {"model_type": "bert"})
    assert [run for run, *_ in collect.read_workdirs(workdirs)] == before


def test_where_a_run_was_made(tmp_path):
    versions = {"jax": "0.10.2", "numpy": "2.4.6"}
    write_run(tmp_path / "new", commit="1234567", versions=versions, device="NVIDIA H200", classes=["cat", "dog"])
    collect.collect(tmp_path / "study", [tmp_path / "new"])
    (run,) = archive.read_runs(tmp_path / "study")
    assert run.results["commit"] == "1234567"  # text, though it looks like a number
    assert run.results["versions"] == versions and run.results["device"] == "NVIDIA H200"
    assert "classes" not in run.results


def test_config_json_has_what_all_runs_share(workdirs, tmp_path):
    collect.collect(tmp_path / "study", [workdirs / "plain", workdirs / "apart"])
    assert json.loads((tmp_path / "study" / "config.json").read_text()) == {
        "seeds": 1,
        "data": {"name": "digits", "empty": {}},
        "boundaries": [0.5, AWKWARD[4]],
    }
    header, first, *_ = (tmp_path / "study" / "runs.csv").read_text().splitlines()
    assert header.startswith("variant,stage,seed,overrides,commit,versions,device,inferred,method,")
    assert first.startswith('plain,,0,"{""seed"": 0}",,,,,snapshot,')


def test_runs_are_added_to_a_study(workdirs, tmp_path):
    together, apart = tmp_path / "together", tmp_path / "apart"
    collect.collect(together, [workdirs / "plain", workdirs / "families"])
    collect.collect(apart, [workdirs / "plain"])
    collect.main([str(apart), str(workdirs / "families")])
    for name in ("config.json", "runs.csv", "curves.csv.gz"):
        assert (apart / name).read_bytes() == (together / name).read_bytes()


def test_a_full_disk_leaves_a_study_as_it_is(workdirs, tmp_path, monkeypatch):
    study, write_bytes = tmp_path / "study", pathlib.Path.write_bytes
    collect.collect(study, [workdirs / "plain"])
    before = {path.name: path.read_bytes() for path in study.iterdir()}

    def full(path, content):
        if "curves" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    refused(lambda: collect.main([str(study), str(workdirs / "families")]), "study cannot be written: No space left on device")
    assert {name: (study / name).read_bytes() for name in before} == before


def test_a_seeds_folder_alone_is_a_run_of_its_variant(workdirs, tmp_path):
    collect.collect(tmp_path / "study", [workdirs / "apart" / "seed_1"])
    assert [run[:3] for run in archive.read_runs(tmp_path / "study")] == [("apart", "", 1)]


def test_a_name_with_a_space_is_one_row(workdirs, tmp_path):
    (workdirs / "plain").rename(workdirs / "my run")
    collect.collect(tmp_path / "study", [workdirs / "my run"])
    ((_, table),) = report.study_tables(tmp_path / "study")
    assert table.splitlines()[-1].startswith("| my run | 1 | ")


def test_two_that_collect_into_one_study_wait_for_each_other(workdirs, tmp_path):
    study, theirs = tmp_path / "study", workdirs / "families"
    mine = [run for run, _, _ in collect.read_workdirs(workdirs / "plain")]
    with archive.in_turn(study):
        (other := threading.Thread(target=collect.collect, args=[study, [theirs]])).start()
        other.join(0.3)
        assert other.is_alive()
        archive.write_study(study, mine, {})
    other.join()
    assert archive.read_runs(study)[: len(mine)] == mine and any(run.variant == "families" for run in archive.read_runs(study))


def test_what_cannot_be_collected(workdirs, tmp_path):
    study = tmp_path / "study"

    def add(folder):
        collect.main([str(study), str(folder)])

    add(workdirs / "plain")
    before = (study / "runs.csv").read_bytes()
    refused(lambda: add(workdirs / "plain"), "already has a run plain with seed 0")
    (workdirs / "family" / "generation_1" / "summary.json").unlink()
    refused(lambda: add(workdirs / "family"), "generation_1: not finished")
    refused(lambda: add(tmp_path / "nothing"), "nothing: no finished run")
    shutil.rmtree(workdirs / "deep" / "seeds" / "seed_1")
    refused(lambda: add(workdirs / "deep"), "has 2 seeds, but only 1 have a folder")
    (workdirs / "families" / "seed_0" / "summary.json").write_text('{"stages": [1]}')
    refused(lambda: add(workdirs / "families"), "seed_0/summary.json: its stages have no names")
    (workdirs / "families" / "summary.json").write_text('{"runs": 1}')
    refused(lambda: add(workdirs / "families"), "families/summary.json: not the summary of a run")
    (workdirs / "apart" / "seed_0" / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    refused(lambda: add(workdirs / "apart"), "seed_0/metrics.jsonl is damaged: line 2")
    (workdirs / "apart" / "seed_0" / "metrics.jsonl").unlink()
    (workdirs / "apart" / "seed_0" / "metrics.jsonl").mkdir()
    refused(lambda: add(workdirs / "apart"), f"Is a directory: '{workdirs}/apart/seed_0/metrics.jsonl'")
    assert (study / "runs.csv").read_bytes() == before


# The report


def printed(capsys, *folders):
    report.main([str(folder) for folder in folders])
    return capsys.readouterr().out


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_a_studys_readme_has_the_tables_of_its_runs(study, capsys):
    stand = report.TABLE.findall((study / "README.md").read_text())
    assert stand and printed(capsys, study) == "\n\n".join(text.strip() for _, text in stand) + "\n"


def test_results_are_few_files():
    assert len(STUDIES) >= 7
    assert sum(path.is_file() for path in (ROOT / "results").rglob("*")) < 60
    for study in STUDIES:
        assert {path.name for path in study.iterdir()} >= {"README.md", "runs.csv", "curves.csv.gz", "config.json"}


def test_a_wrong_number_in_a_readme_is_noticed(tmp_path, capsys):
    study = shutil.copytree(ROOT / "results" / "sd_cifar100_cpu", tmp_path / "study")
    text = (study / "README.md").read_text()
    assert "-0.12 ± 0.14" in text
    (study / "README.md").write_text(text.replace("-0.12 ± 0.14", "-0.12 ± 0.15"))
    assert "-0.12 ± 0.14" in printed(capsys, study)


def test_a_studys_table(workdirs, tmp_path, capsys):
    study = tmp_path / "study"
    collect.collect(study, [workdirs])
    assert "| families/generation_1 | 2 |" in printed(capsys, study)  # without a README: every run
    declared = {
        "rows": {"one": "families generation_1", "other": "family generation_2"},
        "columns": {
            "n": "seeds of {0}/{1}",
            "size": "num_params of {0}/{1}",
            "accuracy": "test_accuracy:1 of {0}/{1}",
            "difference": "test_accuracy of {0}/{1} minus nowhere or {0}/generation_0",
            "probe": "linear_probe.test_accuracy of {0}/{1}",
        },
    }
    write(study / "README.md", f"# Study\n<!-- table\n{json.dumps(declared)}\n-->\nold\n<!-- end -->\n")
    first, second = [0.3 + seed / 7 for seed in (1000, 1001)]
    spread = abs(first - second) / math.sqrt(2)
    difference = sum((first - 0.3, second - 0.3 - 1 / 7)) / 2
    one, other = printed(capsys, study).splitlines()[2:]
    mean = 100 * (first + second) / 2
    assert one == f"| one | 2 | 1,234 | {mean:.1f} ± {100 * spread:.1f} | {100 * difference:.2f} ± 0.00 | - |"
    assert other.startswith("| other | 1 | 1,234 | ") and other.endswith(" | 30.00 |")


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"a": "test_acuracy"}, "table 1: no run has a value for 'one'"),
        ({"a": "seeds", "b": "test_acuracy"}, "table 1: no run has a value for 'b'"),
        ({"a": "test_accuracy off plain"}, "does not have the form METRIC"),
        ({"a": "test_accuracy minus nowhere"}, "no run to subtract"),
        ({"a": "test_accuracy minus apart"}, "seeds [0] cannot be paired with seeds [0, 1]"),
        ({"a": "params_sha256 of apart"}, "params_sha256 is 0e1234 for one seed"),
        ({"a": "test_accuracy of {3}"}, "table 1"),
        ({"a": "test_accuracy minus tuned"}, "one is evaluated on validation data, the other on test data"),
        ({"a": "params_sha256 minus seeds"}, "table 1"),
        ({"a": 3}, "table 1"),
        ([], "table 1"),
    ],
)
def test_a_table_that_cannot_be_made(columns, message, workdirs, tmp_path):
    write_run(tmp_path / "tuned", on="validation")
    collect.collect(tmp_path / "study", [workdirs, tmp_path / "tuned"])
    write(tmp_path / "study" / "README.md", f"<!-- table\n{json.dumps({'rows': {'one': 'plain'}, 'columns': columns})}\n-->\n<!-- end -->")
    refused(lambda: report.main([str(tmp_path / "study")]), message)


def test_finished_workdirs_have_a_row_each(workdirs, tmp_path, capsys):
    write_run(tmp_path / "tuned", on="validation")
    plain, apart, seeds, family, tuned = printed(
        capsys, workdirs / "plain", workdirs / "apart", workdirs / "deep" / "seeds", workdirs / "family", tmp_path / "tuned"
    ).splitlines()[2:]
    assert plain == "| plain | 1 | 50.00 | 30.00 | 40.00 | 1.500 | 30.00 | 25.00 |"
    assert apart == "| apart | 2 | 50.71 ± 1.01 | 37.14 ± 10.10 | 47.14 ± 10.10 | 1.500 ± 0.000 | 30.00 ± 0.00 | 25.00 ± 0.00 |"
    assert seeds == apart.replace("apart", "seeds")
    assert family.startswith("| family | 1 | ")
    assert tuned == plain.replace("plain", "tuned (validation)")


def test_seeds_whose_folders_are_gone_are_read_from_the_summary(workdirs, capsys):
    (with_folders,) = printed(capsys, workdirs / "deep" / "seeds").splitlines()[2:]
    for seed in (0, 1):
        shutil.rmtree(workdirs / "deep" / "seeds" / f"seed_{seed}")
    assert printed(capsys, workdirs / "deep" / "seeds").splitlines()[2:] == [with_folders]


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        report.main(["--help"])
    assert stop.value.code == 0 and "METRIC[:DIGITS]" in capsys.readouterr().out


DAMAGES = {
    "truncated": b'{"test_accuracy": 0.',
    "empty": b"",
    "binary": b"\xff\xfe\x00\x01",
    "a list": b"[1, 2]",
    "nested too deep": b"[" * 100_000,
    "another form": b'{"a": 1}',
    "text for a number": b'{"seed": 0, "test_accuracy": "high"}',
    "a list for a record": b'{"seed": 0, "test_accuracy": 0.5, "snapshot_ensemble": []}',
    "no runs": b'{"seed": 0, "test_accuracy": 0.5, "runs": []}',
    "runs of another form": b'{"runs": [1]}',
    "no seed": b'{"test_accuracy": 0.5}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_summary_is_named(damage, workdirs):
    path = workdirs / "plain" / "summary.json"
    path.write_bytes(DAMAGES[damage])
    refused(lambda: report.main([str(workdirs / "plain")]), str(path))


def test_a_folder_that_is_no_run(tmp_path):
    refused(lambda: report.main([str(tmp_path)]), "no summary.json")


@pytest.mark.parametrize("name", ["runs.csv", "config.json", "curves.csv.gz", "README.md"])
@pytest.mark.parametrize("damage", ["gone", "empty", "binary", "cut"])
def test_a_damaged_study_is_told(name, damage, tmp_path):
    study = shutil.copytree(ROOT / "results" / "streaming_sd_cpu", tmp_path / "study")
    whole = (study / name).read_bytes()
    (study / name).write_bytes({"gone": b"", "empty": b"", "binary": b"\xff\xfe\x00\x01", "cut": whole[: len(whole) * 3 // 4]}[damage])
    if damage == "gone":
        (study / name).unlink()
    if name == "curves.csv.gz":
        with pytest.raises(UserError, match=name):
            archive.read_curves(study)
    elif name == "README.md" and damage != "binary":
        report.main([str(study)])  # a table of all runs or, since the file ends after its only table, that table's error
    else:
        refused(lambda: report.main([str(study)]), name)


def test_the_curves_are_one_gzip_of_text():
    content = gzip.decompress((ROOT / "results" / "streaming_sd_cpu" / "curves.csv.gz").read_bytes()).decode()
    assert content.splitlines()[0].startswith("variant,stage,seed,step,epoch,cycle,learning_rate,loss")
