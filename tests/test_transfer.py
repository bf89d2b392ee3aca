"""Uses of trained networks: ensembles, features, and linear probes."""

import errno
import json
import shutil

import jax
import numpy as np
import pytest
from helpers import bits, build, colours_config, family_config, make_config, run, write_npz
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import distill_jax
from distill_jax import archive, collect, command_line, configuration, files, stages, study, trained, transfer, workdir
from distill_jax.data.images import average_blocks
from distill_jax.errors import UserError

METRICS = ("test_accuracy", "test_top5", "test_nll", "test_ece")


def test_an_ensemble_of_one_is_its_member(finished_family, tmp_path):
    folder, summary = finished_family
    result = transfer.ensemble(family_config(), tmp_path, [str(folder / "generation_1")])
    assert [result[name] for name in METRICS] == pytest.approx([summary["stages"][1][name] for name in METRICS], rel=1e-5)
    assert result["test_accuracy"] == summary["stages"][1]["test_accuracy"]


def test_an_ensemble_of_generations(finished_family):
    folder, summary = finished_family
    result = transfer.ensemble(family_config(), folder)
    assert result == json.loads((folder / "ensemble.json").read_text())
    assert [member["test_accuracy"] for member in result["members"]] == [stage["test_accuracy"] for stage in summary["stages"]]
    exp = build(stages.expand(family_config())["generation_0"])
    logits = [exp.predict(distill_jax.load(folder / f"generation_{m}").variables) for m in range(3)]
    mean, labels = softmax(np.array(logits, float), axis=2).mean(axis=0), exp.data.dataset.test["label"]
    assert result["test_accuracy"] == (mean.argmax(axis=1) == labels).mean()
    assert result["test_nll"] == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), rel=1e-5)


def test_an_ensemble_on_validation_data_is_called_so(finished_family, tmp_path):
    config, member = family_config(data__validation_examples=50), finished_family[0] / "generation_0"
    with pytest.raises(UserError, match="was trained on validation samples: its data.validation_examples is 0; for the"):
        transfer.ensemble(config, tmp_path, [str(member)])
    tuned = shutil.copytree(member, tmp_path / "tuned")
    recorded = files.read_json(tuned / "config.json")
    recorded["data"]["validation_examples"] = 50
    workdir.write_json(tuned / "config.json", recorded)
    (tuned / "data.json").unlink()
    result = transfer.ensemble(config, tmp_path, [str(tuned)])
    assert "validation_accuracy" in result and "validation_accuracy" in result["members"][0]
    assert not any(name.startswith("test_") for name in result)
    probe = transfer.linear_probe(config, tuned)
    assert {"train_accuracy", "validation_accuracy"} <= probe.keys() and "test_accuracy" not in probe
    with pytest.raises(UserError, match="was trained on validation samples"):
        transfer.linear_probe(config, member)


def test_members_that_do_not_fit_are_told(finished_family, finished_colours, tmp_path):
    with pytest.raises(UserError, match="holds no finished run of several stages or seeds; name the workdirs with --members"):
        transfer.ensemble(family_config(), finished_family[0] / "generation_0")
    with pytest.raises(UserError, match=f"member {finished_colours[0]} has 3 classes; digits has 10"):
        transfer.ensemble(family_config(), tmp_path / "new", [str(finished_colours[0])])
    digits = np.zeros((20, 9, 9), np.uint8), np.arange(20) % 10
    config = family_config(data__name=write_npz(tmp_path / "large.npz", *digits), data__train_examples=0)
    with pytest.raises(UserError, match=r"member .*generation_0 takes inputs of shape \(8, 8, 1\); those of npz:.* are \(9, 9, 1\)"):
        transfer.ensemble(config, tmp_path / "new", [str(finished_family[0] / "generation_0")])
    renamed = colours_config(tmp_path / "renamed.npz", names=("green", "red", "blue"))
    with pytest.raises(UserError, match="member .* has different classes from npz:.*: class 0 is 'red' there and 'green' here"):
        transfer.ensemble(renamed, tmp_path / "new", [str(finished_colours[0])])
    assert not (tmp_path / "new").exists()


def test_an_ensemble_of_seeds(tmp_path):
    config = colours_config(tmp_path / "colours.npz", seeds=2, seed=5)
    summary = study.train(config, tmp_path / "run")
    result = transfer.ensemble(config, tmp_path / "run")
    assert [member["member"] for member in result["members"]] == [str(tmp_path / "run" / f"seed_{seed}") for seed in (5, 6)]
    assert [member["test_accuracy"] for member in result["members"]] == [each["test_accuracy"] for each in summary["runs"]]
    collect.collect(tmp_path / "study", [tmp_path / "run"])
    workdir.write_json(tmp_path / "run" / "ensemble.json", result | {"members": result["members"][:1]})  # as before a seed was added
    with pytest.raises(UserError, match="ensemble.json: is not of all 2 seeds; repeat --mode=ensemble, or remove it"):
        collect.collect(tmp_path / "other", [tmp_path / "run"])


def test_an_ensemble_of_members_may_be_repeated(finished, tmp_path):
    workdir.write_json(tmp_path / "ensemble.json", {})
    config, folder = command_line.read_config([], "ensemble", str(tmp_path), [str(finished[0])])
    assert folder == tmp_path and config.data.name == "digits"


def test_what_each_seed_starts_from_is_checked_before_the_first(finished_colours, tmp_path):
    (tmp_path / "5").symlink_to(finished_colours[0])
    config = colours_config(tmp_path / "colours.npz", initial=str(tmp_path / "{seed}"), seeds=2, seed=5)
    with pytest.raises(UserError, match="^initial: .*6/config.json does not exist"):
        study.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_seed_starts_from_its_own_network(tmp_path):
    """With a frozen trunk, each ends with the weights that it started from. The second seed is added later."""
    own = {"seed": 5, "epochs": 1, "model__name": "plain2_cifar10"}
    study.train(colours_config(tmp_path / "colours.npz", seeds=2, **own), tmp_path / "first")
    given = {"initial": str(tmp_path / "first" / "seed_{seed}"), "optimizer__trunk_rate": 0.0}
    for seeds in (1, 2):
        study.train(colours_config(tmp_path / "colours.npz", seeds=seeds, **own, **given), tmp_path / "tuned")
        recorded = configuration.of_workdir(tmp_path / "tuned")
        assert recorded.initial == given["initial"], "--workdir and --config.seeds are enough to add seeds"
    for seed in (5, 6):
        theirs, ours = (dict(distill_jax.load(tmp_path / each / f"seed_{seed}").variables["params"]) for each in ("first", "tuned"))
        source = tmp_path / "first" / f"seed_{seed}"
        recorded = json.loads((tmp_path / "tuned" / f"seed_{seed}" / "initial.json").read_text())
        assert recorded == {str(source): json.loads((source / "summary.json").read_text())["weights_sha256"]}
        assert bits(theirs.pop("head")) != bits(ours.pop("head")) and bits(theirs) == bits(ours)


def test_other_images_of_the_size_before_downsampling_are_averaged(finished_colours, tmp_path):
    folder = shutil.copytree(finished_colours[0], tmp_path / "run")
    facts = files.read_json(folder / "network.json")
    workdir.write_json(folder / "network.json", facts | {"downsample": 2})  # the 8x8 images of the run, once 16x16
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    config = colours_config(tmp_path / "own.npz")
    config.data.name = write_npz(tmp_path / "large.npz", images, np.arange(12) % 3)
    found = np.load(transfer.features(config, folder))["train_features"]
    expected = distill_jax.load(finished_colours[0]).features(average_blocks(images, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_linear_probe_is_scikit_learns_on_the_written_features(finished_family):
    folder = finished_family[0] / "generation_1"
    result = transfer.linear_probe(family_config(), folder)
    assert result == json.loads((folder / "linear_probe_digits.json").read_text())
    arrays = np.load(folder / "features_digits.npz")
    assert arrays["train_features"].shape == (200, 64)
    scaler = StandardScaler().fit(arrays["train_features"])
    probe = LogisticRegression(max_iter=2000).fit(scaler.transform(arrays["train_features"]), arrays["train_labels"])
    correct = probe.predict(scaler.transform(arrays["test_features"])) == arrays["test_labels"]
    assert result["test_accuracy"] == correct.mean()
    head = jax.device_get(distill_jax.load(folder).variables["params"]["head"])
    logits = arrays["test_features"] @ head["kernel"] + head["bias"]
    accuracy = (logits.argmax(axis=1) == arrays["test_labels"]).mean()
    assert accuracy == workdir.load_summary(folder)["test_accuracy"]


def test_what_was_made_of_networks_is_collected_with_their_results(finished_family, tmp_path):
    folder, config = finished_family[0], family_config()
    probe, together = transfer.linear_probe(config, folder / "generation_2"), transfer.ensemble(config, folder)
    collect.collect(tmp_path / "study", [folder])
    runs = {run.stage: run.results for run in archive.read_runs(tmp_path / "study")}
    assert runs["generation_2"]["linear_probe_digits.test_accuracy"] == probe["test_accuracy"]
    assert runs["generation_2"]["weights_sha256"] == finished_family[1]["stages"][2]["weights_sha256"]
    assert runs[""]["ensemble.test_nll"] == together["test_nll"]


def test_features_of_images_of_another_size_stand_beside_the_others(finished_family, tmp_path):
    folder, rng = finished_family[0] / "generation_0", np.random.default_rng(0)
    of_digits = transfer.features(family_config(), folder)
    before = of_digits.read_bytes()
    images, labels = rng.integers(0, 256, (12, 5, 9), np.uint8), np.arange(12) % 3
    data = write_npz(tmp_path / "other-set.npz", images, labels, (images[:6], labels[:6]))
    path = transfer.features(family_config(data__name=data, data__train_examples=0, batch_size=4), folder)
    arrays = np.load(path)
    assert arrays["train_features"].shape == (12, 64) and arrays["test_features"].shape == (6, 64)
    np.testing.assert_allclose(arrays["train_features"][:6], arrays["test_features"], rtol=1e-5)
    network = distill_jax.load(folder)
    np.testing.assert_allclose(arrays["train_features"], network.features(images[..., None]), rtol=1e-4, atol=1e-6)
    assert path.name.endswith("_other_set_npz.npz") and path.parent == of_digits.parent
    assert of_digits.name == "features_digits.npz" and of_digits.read_bytes() == before


def test_sets_whose_files_have_the_same_name_have_features_of_their_own():
    assert transfer.file_name("text:MRPC/train.tsv") != transfer.file_name("text:QQP/train.tsv")
    assert transfer.file_name("folder:/data/my birds/") == "folder_data_my_birds"


def test_a_full_disk_leaves_no_features(finished_family, monkeypatch, tmp_path):
    folder = shutil.copytree(finished_family[0] / "generation_0", tmp_path / "run")
    before = set(folder.iterdir())

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="features_digits.npz cannot be written: No space left on device"):
        transfer.features(family_config(), folder)
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("part", ["train", "test"])
def test_changed_data_are_noticed(finished_colours, tmp_path, part):
    """Wherever the run is used: on changed images, a network would wrongly look bad."""
    folder = shutil.copytree(finished_colours[0], tmp_path / "run")
    config = colours_config(tmp_path / "colours.npz")
    recorded = files.read_json(folder / "config.json")
    recorded["data"]["name"] = config.data.name
    workdir.write_json(folder / "config.json", recorded)
    arrays = dict(np.load(tmp_path / "colours.npz"))
    study.evaluate(config, folder)
    transfer.features(config, folder)
    arrays[f"{part}_images"] = 255 - arrays[f"{part}_images"]
    np.savez(tmp_path / "colours.npz", **arrays)
    uses = {
        "train": lambda: study.train(config, folder),
        "eval": lambda: study.evaluate(config, folder),
        "features": lambda: transfer.features(config, folder),
        "linear_probe": lambda: transfer.linear_probe(config, folder),
        "ensemble": lambda: transfer.ensemble(config, tmp_path / "ensemble", [str(folder)]),
    }
    for use in uses.values():
        with pytest.raises(UserError, match=f"data.json: {part}_sha256 was .* when this run began and is .* now; restore what has changed"):
            use()


def test_other_data_are_seen_with_the_networks_own_normalisation(finished_colours, tmp_path):
    """An npz with a different name and brighter images: only its pixels reach the network."""
    folder = finished_colours[0]
    config = colours_config(tmp_path / "bright.npz", brightness=100)
    arrays, data = np.load(transfer.features(config, folder)), np.load(tmp_path / "bright.npz")
    np.testing.assert_allclose(arrays["test_features"], distill_jax.load(folder).features(data["test_images"]), rtol=1e-4, atol=1e-6)
    result = transfer.ensemble(config, tmp_path, [str(folder)])
    predicted = distill_jax.load(folder).predict(data["test_images"]).argmax(axis=1)
    assert result["test_accuracy"] == (predicted == data["test_labels"]).mean()


def test_streamed_images(photographs, tmp_path):
    """A network of streamed images is evaluated in an ensemble as in its run; its features are those of the central crops."""
    streamed = {"data__name": f"folder:{photographs}", "data__image_size": 16, "data__crop_padding": 0, "data__train_examples": 0}
    config = make_config(epochs=1, schedule__cycles=1, method={"name": "supervised"}, **streamed)
    exp = build(config)
    summary = run(exp, 0, tmp_path / "run")
    result = transfer.ensemble(config, tmp_path, [str(tmp_path / "run")])
    assert [result[name] for name in METRICS] == pytest.approx([summary[name] for name in METRICS], rel=1e-4)
    arrays = np.load(transfer.features(config, tmp_path / "run"))
    assert arrays["train_features"].shape == (123, 64) and arrays["test_labels"].shape == (34,)
    network = distill_jax.load(tmp_path / "run")
    head = network.variables["params"]["head"]
    logits = exp.predict(network.variables)
    np.testing.assert_allclose(arrays["test_features"] @ head["kernel"] + head["bias"], logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(network.map(trained.forward, exp.data.dataset.test, 64), logits, rtol=1e-3, atol=1e-4)
