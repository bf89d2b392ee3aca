"""Workdirs that are foreign, damaged, of another version or interrupted: a one-line error in every mode, and nothing is lost."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from helpers import Crash, act_at, build, crash, make_config, run

from distill_jax import command_line, configuration, default_config, jobs, report, study, trained, transfer, workdir
from distill_jax.data import sources
from distill_jax.errors import UserError

MODES = {"eval": study.evaluate, "ensemble": transfer.ensemble, "features": transfer.features, "linear_probe": transfer.linear_probe}


def do(mode, folder, *arguments):
    """Does what run.py does with --mode and --workdir."""
    config, root = command_line.read_config(list(arguments), mode, str(folder))
    return MODES[mode](config, root)


def test_another_data_set_is_read_whole(finished):
    """The subset and the scale of the run's own data say nothing about it."""
    own, _ = command_line.read_config([], "features", str(finished[0]))
    other, _ = command_line.read_config(["--config.data.name=cifar10"], "features", str(finished[0]))
    some, _ = command_line.read_config(["--config.data.train_examples=7", "--config.data.name=cifar10"], "features", str(finished[0]))
    assert own.data.train_examples > 0 == other.data.train_examples and some.data.train_examples == 7
    assert other.data.to_dict() == own.data.to_dict() | {"name": "cifar10", "train_examples": 0}


def again(folder, **fields):
    """Repeats the command that began the run."""
    return study.train(make_config(**fields), folder)


def refusal(act, *arguments, **options):
    with pytest.raises((UserError, SystemExit)) as raised:
        act(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def facts(folder):
    """The content of each file of a run, except the lock and files that contain timestamps."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock" and "events" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of a finished run that may be damaged."""
    return pathlib.Path(shutil.copytree(finished[0], tmp_path / "copy"))


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """A finished run of two seeds, and its summary."""
    folder = tmp_path_factory.mktemp("two_seeds")
    return folder, again(folder, seeds=2)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A finished family of a patriarch and a student."""
    folder = tmp_path_factory.mktemp("family")
    return folder, again(folder, **FAMILY)


FAMILY = {
    "schedule__cycles": 1,
    "epochs": 2,
    "method": {"name": "supervised"},
    "stages": {"name": "generations", "generations": 1},
}

# Damage


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_types(path):
    path.write_text(json.dumps({name: "x" if isinstance(value, int) else 3 for name, value in json.loads(path.read_text()).items()}))


DAMAGES = {
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(128, 256))),
    "a list": lambda path: path.write_text("[1, 2]"),
    "an object": lambda path: path.write_text('{"a": 1}'),
    "of other types": change_types,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
READERS = {
    "config.json": ("again", "eval", "features", "load"),
    "data.json": ("again", "eval", "features"),
    "network.json": ("again", "eval", "features", "load"),
    "summary.json": ("again", "features", "load", "report"),
}


def use(how, folder):
    acts = {"again": again, "load": trained.load, "report": lambda folder: report.main([str(folder)])}
    return acts[how](folder) if how in acts else do(how, folder)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_by_all_that_read_it(copy, name, damage):
    DAMAGES[damage](copy / name)
    before = facts(copy)
    for how in READERS[name]:
        assert f"{copy / name}" in refusal(use, how, copy)
    assert facts(copy) == before


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage != "a folder"])
def test_a_damaged_summary_of_seeds_is_written_again(two_seeds, tmp_path, damage):
    folder = pathlib.Path(shutil.copytree(two_seeds[0], tmp_path / "copy"))
    DAMAGES[damage](folder / "summary.json")
    message = refusal(do, "ensemble", folder)
    assert message.startswith(f"{folder}/summary.json") and "delete it and repeat the run's command" in message
    assert again(folder, seeds=2)["runs"] == two_seeds[1]["runs"]


def test_what_is_missing_is_told_or_made_again(copy, finished, capsys):
    (copy / "network.json").rename(copy / "gone")
    assert f"{copy}/network.json is missing; restore it" in refusal(do, "features", copy)
    (copy / "gone").rename(copy / "network.json")

    (copy / "summary.json").unlink()
    assert f"{copy}: the run is not finished; repeat its command" in refusal(do, "features", copy)
    assert again(copy)["params_sha256"] == finished[1]["params_sha256"]

    shutil.rmtree(copy / "snapshots")
    assert "snapshots/epoch_4 is missing; repeat that run's command" in refusal(do, "features", copy)
    capsys.readouterr()
    assert again(copy)["params_sha256"] == finished[1]["params_sha256"]
    assert "no ensemble of snapshots" in capsys.readouterr().out
    assert do("features", copy).exists()


def test_a_flipped_byte_of_the_weights_is_noticed(copy, finished, capsys):
    for epoch in (2, 4):
        largest = max((copy / "snapshots" / f"epoch_{epoch}").rglob("*"), key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[200] ^= 1
        largest.write_bytes(content)
    assert "snapshots/epoch_4 is damaged; delete it and repeat that run's command" in refusal(do, "features", copy)
    shutil.rmtree(copy / "snapshots" / "epoch_4")
    summary = again(copy)
    assert "no ensemble of snapshots" in capsys.readouterr().out and "snapshot_ensemble" not in summary
    assert summary["weights_sha256"] == finished[1]["weights_sha256"]


@pytest.mark.parametrize(("kept", "lost"), [(0, 1), (5, 2)])
def test_an_earlier_epoch_is_not_reported_as_the_last(copy, kept, lost):
    (copy / "summary.json").unlink()
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:kept]))
    assert f"metrics.jsonl lacks the line of epoch {lost}" in refusal(again, copy)
    assert not (copy / "summary.json").exists()


# Other people's folders


def test_a_folder_with_files_of_ones_own_is_not_taken(tmp_path):
    for name in ("metrics.jsonl", "network.json", "events.out.tfevents.1.mine", "seed_0"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text("mine\n")
        assert f"workdir {folder} has files of a run but no config.json" in refusal(again, folder)
        assert [path.read_text() for path in folder.iterdir()] == ["mine\n"]
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(again, tmp_path / "file")


def test_a_workdir_without_its_config_is_not_taken_over(copy):
    (copy / "config.json").unlink()
    before = facts(copy)
    assert "restore it, or choose another --workdir" in refusal(again, copy, epochs=2)
    assert facts(copy) == before
    assert "restore it, or choose another --workdir" in refusal(do, "eval", copy)


def test_another_config_is_refused_with_the_fields_that_differ(copy):
    assert f"workdir {copy} belongs to another config: epochs is 4 there and 2 here" in refusal(again, copy, epochs=2)
    assert "method.temperature is 2.0 there and 3.0 here" in refusal(again, copy, method__temperature=3.0)
    assert again(copy, log_every=7), "fields that change no result may differ"


# Other modes read the workdir's config


def test_other_modes_need_no_config(finished, two_seeds, copy):
    assert do("eval", finished[0])["test_accuracy"] == finished[1]["test_accuracy"]
    both = do("eval", two_seeds[0])
    assert [run["test_accuracy"] for run in both["runs"]] == [run["test_accuracy"] for run in two_seeds[1]["runs"]]
    config, root = command_line.read_config([], "ensemble", str(copy / "together"), [str(copy)])
    assert transfer.ensemble(config, root, [str(copy)])["test_accuracy"] == finished[1]["test_accuracy"]
    assert f"{two_seeds[0]} holds several runs; name one of them: " in refusal(do, "features", two_seeds[0])
    assert "nowhere/config.json does not exist; is nowhere the workdir of a run?" == refusal(do, "eval", "nowhere")
    assert f"{copy} holds no finished run of several stages or seeds; name the workdirs with --members" in refusal(do, "ensemble", copy)


def test_a_run_goes_on_with_its_own_config(copy, two_seeds):
    """Without --config; in a new workdir the config is the quickstart's."""
    config, root = command_line.read_config(["--config.seeds=2"], "train", str(copy))
    assert params(study.train(config, root)) == params(two_seeds[1])
    assert command_line.read_config([], "train", str(copy / "new"))[0].epochs == 60


def test_an_ensemble_of_members_has_a_folder_of_its_own(copy):
    message = refusal(command_line.read_config, [], "ensemble", None, [str(copy)])
    assert message == "--members also needs --workdir, the folder for ensemble.json"


def test_features_of_two_sets_have_files_of_their_own(copy):
    np.savez(copy / "mine.npz", **{f"{part}_{what}": array for part in ("train", "test") for what, array in small_set().items()})
    own, other = do("features", copy), do("features", copy, f"--config.data.name=npz:{copy / 'mine.npz'}", "--config.data.train_examples=0")
    assert own.name == "features_digits.npz" and other.name.endswith("_mine_npz.npz")
    assert len(np.load(own)["train_labels"]) == 200 and len(np.load(other)["train_labels"]) == 20


def small_set():
    return {"images": np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8), "labels": np.arange(20) % 2}


def test_a_full_disk_leaves_no_half_of_the_features(copy, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert "features_digits.npz cannot be written: No space left on device" in refusal(do, "features", copy)
    assert not list(copy.glob("features*"))


def test_validation_data_that_the_network_was_trained_on_are_refused(copy):
    said = refusal(do, "linear_probe", copy, "--config.data.validation_examples=50")
    assert "was trained on validation samples: its data.validation_examples is 0" in said


# Changed data


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("column", ["image", "label"])
def test_changed_data_are_noticed_wherever_the_run_is_used(copy, monkeypatch, part, column):
    digits = sources._digits()
    rows = getattr(digits, part)
    monkeypatch.setattr(sources, "_digits", lambda: digits._replace(**{part: rows | {column: rows[column][::-1]}}))
    for how in ("again", "eval", "features"):
        assert f"data.json: {part}_sha256 was" in refusal(use, how, copy)
    (copy / "summary.json").unlink()
    assert "restore what has changed, or choose another --workdir" in refusal(again, copy)


# More seeds


def params(summary):
    return [run["params_sha256"] for run in summary["runs"]]


def test_one_seed_becomes_two_and_three(copy, two_seeds):
    before = facts(copy)
    assert params(again(copy, seeds=2)) == params(two_seeds[1])
    assert {name: content for name, content in facts(copy / "seed_0").items() if name in before} == before
    three = again(copy, seeds=3)
    assert three["seeds"] == [0, 1, 2] and params(three)[:2] == params(two_seeds[1])
    assert "seeds is 3 there and 2 here" in refusal(again, copy, seeds=2)
    assert "seeds is 3 there and 1 here" in refusal(again, copy)
    assert "seed is 0 there and 1 here" in refusal(again, copy, seeds=4, seed=1)


def test_files_of_ones_own_stay_where_they_are(copy, two_seeds):
    (copy / "notes.txt").write_text("mine")
    (copy / "plots").mkdir()
    assert params(again(copy, seeds=2)) == params(two_seeds[1])
    assert (copy / "notes.txt").read_text() == "mine" and (copy / "plots").exists()


def test_a_seed_that_is_unfinished_is_left_out(two_seeds, tmp_path, capsys):
    folder = pathlib.Path(shutil.copytree(two_seeds[0], tmp_path / "copy"))
    config, _ = command_line.read_config([], "eval", str(folder))
    config.seeds = 3
    workdir.write_json(folder / "config.json", {"schema": 2} | configuration.recorded(config))
    assert [run["seed"] for run in do("eval", folder)["runs"]] == [0, 1]
    assert f"{folder}/seed_2 has no checkpoint; left out" in capsys.readouterr().out
    assert len(do("ensemble", folder)["members"]) == 2


def test_an_unfinished_run_becomes_the_first_of_two(tmp_path, two_seeds):
    with pytest.raises(Crash):
        run(act_at(build(make_config()), 13, crash), 0, tmp_path)
    assert params(again(tmp_path, seeds=2)) == params(two_seeds[1])


@pytest.mark.parametrize("kind", ["run", "family"])
def test_a_move_that_is_killed_at_any_file_loses_nothing(request, finished, family, two_seeds, tmp_path, monkeypatch, kind):
    """Other commands reject the workdir, and the same command finishes the move."""
    source, fields = (finished[0], {}) if kind == "run" else (family[0], FAMILY)
    files, rename, moves = facts(source), pathlib.Path.rename, 0
    while True:
        folder, done = tmp_path / str(moves), []

        def rename_some(path, target, done=done, most=moves):
            if len(done) == most:
                raise Crash
            done.append(path)
            return rename(path, target)

        shutil.copytree(source, folder)
        config = make_config(**fields, seeds=2)
        with monkeypatch.context() as patch:
            patch.setattr(pathlib.Path, "rename", rename_some)
            try:
                jobs.move_first_seed(config, folder)
                break
            except Crash:
                pass
        assert "adding seeds was interrupted" in refusal(again, folder, **fields)
        assert "adding seeds was interrupted" in refusal(do, "eval", folder)
        assert "belongs to another config" in refusal(again, folder, **fields, seeds=2, batch_size=20)
        jobs.finish_moving(config, folder)
        assert facts(folder / "seed_0") == files
        assert {path.name for path in folder.iterdir()} == {"config.json", "lock", "seed_0"}
        moves += 1
    assert moves >= 5
    assert facts(folder / "seed_0") == files
    if kind == "run":
        assert params(again(folder, seeds=2)) == params(two_seeds[1])


@pytest.mark.parametrize("stage", ["", "generation_1"])
def test_no_run_moves_while_it_is_training(finished, family, tmp_path, stage):
    folder = pathlib.Path(shutil.copytree(family[0] if stage else finished[0], tmp_path / "busy"))
    before = facts(folder)
    with workdir.exclusive(folder / stage):
        assert "is in use by another run" in refusal(again, folder, **(FAMILY if stage else {}), seeds=2)
    assert facts(folder) == before


def test_a_family_with_seeds_is_of_those_seeds(family, tmp_path, capsys):
    folder = pathlib.Path(shutil.copytree(family[0], tmp_path / "family"))
    summary = again(folder, **FAMILY, seeds=2)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("digits: 200 train, 360 test, 10 classes: 0, 1, 2")
    assert [line for line in said if line.startswith("[")] == [
        "[1/4] generation_0 seed 0", "[2/4] generation_0 seed 1", "[3/4] generation_1 seed 0", "[4/4] generation_1 seed 1"
    ]  # fmt: skip
    assert summary["seeds"] == [0, 1] and [len(seed["stages"]) for seed in summary["runs"]] == [2, 2]
    assert len(do("ensemble", folder)["runs"]) == 2
    result = do("eval", folder)
    assert [(run["stage"], run["seed"]) for run in result["runs"]] == [
        ("generation_0", 0), ("generation_0", 1), ("generation_1", 1000), ("generation_1", 1001)
    ]  # fmt: skip
    assert result["test_accuracy"] == pytest.approx(np.mean([run["test_accuracy"] for run in result["runs"][2:]]))
    assert summary["test_accuracy"] == pytest.approx(result["test_accuracy"]), "of the students, without the patriarch"


# Other versions


def test_a_field_that_is_new_leaves_older_workdirs_theirs(copy, finished, monkeypatch):
    former = default_config.get_config

    def get_config():
        config = former()
        config.data.new_field = 3
        config.new_part = {"name": "x"}
        return config

    monkeypatch.setattr(default_config, "get_config", get_config)
    config = make_config()
    config.data.new_field, config.new_part = 3, {"name": "x"}
    assert study.train(config, copy)["params_sha256"] == finished[1]["params_sha256"]
    assert do("eval", copy)["test_accuracy"] == finished[1]["test_accuracy"]
    config.data.new_field = 4
    assert "data.new_field is 3 there and 4 here" in refusal(study.train, config, copy)


def test_a_str_does_for_a_folder(finished):
    assert study.train(make_config(), str(finished[0])) == finished[1]


def test_a_folder_may_be_written_in_several_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = make_config(teachers=("runs/kd", "stage:a"), initial="hf:encoder")
    ours = make_config(teachers=(f"{tmp_path}/runs/../runs/kd", "stage:a"), initial="hf:encoder")
    assert not configuration.differences(theirs, ours)
    assert configuration.differences(theirs, make_config(teachers=("runs/kd", "stage:b"), initial="hf:encoder"))
