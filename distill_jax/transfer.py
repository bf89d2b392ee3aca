"""Uses of trained networks: ensembles, features, and linear probes."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from distill_jax import configuration, evaluate, logs, specs, trained, workdir
from distill_jax.data import Dataset, load_config
from distill_jax.data.dataset import fingerprint
from distill_jax.errors import UserError
from distill_jax.results import markdown, number, percents


def ensemble(config: ConfigDict, root: str | os.PathLike, members: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluates finished runs on the test set of `config`, one by one and by the mean of their probabilities.

    Args:
      config: only config.data and batch_size matter.
      root: where to write ensemble.json.
      members: workdirs; by default the stages of `root` or, without stages, its seeds. For a family with several seeds, each seed has
        its own ensemble.

    Returns:
      The content of ensemble.json: the metrics of the ensemble, and each member's under "members"; for a family with several seeds, a
      list of these under "runs".

    Raises:
      UserError: a member is missing or unfinished, or its classes or inputs do not fit the data.
    """
    root = pathlib.Path(root).expanduser()
    folders = [pathlib.Path(member).expanduser() for member in members] or trained.below(root)
    if not members and all("stages" in workdir.load_summary(folder) for folder in folders):
        result = {"runs": [ensemble(config, folder) for folder in folders]}
        workdir.write_json(root / "ensemble.json", result)
        return result
    runs = [trained.find(folder) for folder in folders]
    for run in runs:
        trained.check_classifies(str(run.folder), run.spec)
    logits, datasets = [], {}  # datasets: the same data, encoded for each vocabulary
    for run in runs:
        if run.spec.tokenizer not in datasets:
            datasets[run.spec.tokenizer] = load_config(config.data, tokenizer=run.spec.tokenizer)
        dataset = datasets[run.spec.tokenizer]
        check_unchanged(run, config, dataset)
        check_member(run, config, dataset)
        logits.append(trained.load(run.folder).map(trained.forward, dataset.test, config.batch_size))
    labels, split = np.asarray(dataset.test["label"]), dataset.evaluated_on
    results = [
        {"member": str(run.folder)} | evaluate.classification_metrics(member, labels, split)
        for run, member in zip(runs, logits, strict=True)
    ]
    result = evaluate.classification_metrics(evaluate.ensemble(logits), labels, split) | {"members": results}
    root.mkdir(parents=True, exist_ok=True)
    workdir.write_json(root / "ensemble.json", result)
    names = ("test_accuracy", "test_top5", "test_ece")
    rows = [[run["member"], *percents(run, *names), number(run, "test_nll", 3)] for run in [*results, {"member": "ensemble"} | result]]
    logs.say(markdown(["member", "accuracy, %", "top-5, %", "ECE, %", "NLL, nats"], rows))
    logs.say(f"{root / 'ensemble.json'}: {split} accuracy {result[f'{split}_accuracy']:.2%}")
    return result


def features(config: ConfigDict, root: str | os.PathLike) -> pathlib.Path:
    """Writes the features of a data set, the inputs of a network's last dense layer, to features_<data set>.npz.

    Args:
      config: config.data names the data set. As the network needs, images are resized (bilinear), or averaged over blocks as by
        data.downsample in its training, and grey ones repeated over the channels; they are normalised as in its training, and sentences are
        encoded with its own tokenizer.
      root: workdir of a finished run.

    Returns:
      The path of the npz: train_features and test_features, float32 [N, F], train_labels and test_labels, int32 [N].

    Raises:
      UserError: the run is unfinished, the network cannot take this kind of data, or the file cannot be written.
    """
    run = trained.find(pathlib.Path(root).expanduser())
    trained.check_classifies(str(run.folder), run.spec)
    dataset = load_config(config.data, tokenizer=run.spec.tokenizer)
    check_unchanged(run, config, dataset)
    check_held_out(str(run.folder), run, config)
    network, arrays = trained.load(run.folder), {}
    for split, rows in (("train", dataset.train), ("test", dataset.test)):
        if run.spec.downsample > 1 and isinstance(rows.get("image"), np.ndarray):
            rows = rows | {"image": run.spec.as_evaluated(rows["image"])}
        arrays[f"{split}_features"] = network.map(trained.penultimate, rows, config.batch_size)
        arrays[f"{split}_labels"] = np.asarray(rows["label"])
    path = run.folder / f"features_{file_name(config.data.name)}.npz"
    write_npz(path, arrays)
    logs.say(f"{path}: features {arrays['train_features'].shape} and {arrays['test_features'].shape} of {dataset.name}")
    return path


def linear_probe(config: ConfigDict, root: str | os.PathLike) -> dict[str, Any]:
    """Fits a logistic regression on a network's features of the training set, and evaluates it on the test set.

    The features are standardised; the regression is scikit-learn's, with its default L2 penalty.

    Args:
      config: as for `features`.
      root: as for `features`.

    Returns:
      The content of linear_probe_<data set>.json.
    """
    from sklearn.linear_model import LogisticRegression  # here, since scikit-learn takes seconds to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with np.load(features(config, root)) as file:
        arrays = dict(file)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(arrays["train_features"], arrays["train_labels"])
    split = "validation" if config.data.validation_examples else "test"
    result = {
        "dataset": config.data.name,
        "train_examples": len(arrays["train_labels"]),
        "num_features": arrays["train_features"].shape[1],
        "train_accuracy": probe.score(arrays["train_features"], arrays["train_labels"]),
        f"{split}_accuracy": probe.score(arrays["test_features"], arrays["test_labels"]),
    }
    path = pathlib.Path(root).expanduser() / f"linear_probe_{file_name(config.data.name)}.json"
    workdir.write_json(path, result)
    logs.say(f"{path}: {split} accuracy {result[f'{split}_accuracy']:.2%} on {config.data.name}")
    return result


def check_unchanged(run: trained.Run, config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError if a data set is that of the run, and has changed since."""
    is_own = configuration.of_workdir(run.folder).data.to_dict() == config.data.to_dict()  # another data.dir holds another set
    if is_own and workdir.exists(run.folder / "data.json"):
        workdir.remember(run.folder / "data.json", fingerprint(dataset, workdir.load_config(run.folder)[1]))


def check_member(run: trained.Run, config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError if a network does not have a data set's classes or input size, or was trained on its validation samples."""
    where = f"member {run.folder}"
    specs.check_classes(where, run.spec, run.spec._replace(num_classes=dataset.num_classes, classes=dataset.classes), dataset.name)
    shape = next(column.shape[1:] for name, column in dataset.test.items() if name != "label")
    if tuple(shape) != run.spec.input_shape:
        raise UserError(f"{where} takes inputs of shape {run.spec.input_shape}; those of {dataset.name} are {tuple(shape)}")
    check_held_out(where, run, config)


def check_held_out(where: str, run: trained.Run, config: ConfigDict) -> None:
    """Raises UserError if a network was trained on a data set's validation samples."""
    if config.data.validation_examples:
        theirs = configuration.of_workdir(run.folder).data
        if theirs.name == config.data.name and theirs.validation_examples != config.data.validation_examples:
            said = f"its data.validation_examples is {theirs.validation_examples}"
            raise UserError(f"{where} was trained on validation samples: {said}; for the test set, add --config.data.validation_examples=0")


def file_name(name: str) -> str:
    """A data set's name as part of a file name: the whole path, since many data sets have a train.tsv."""
    return re.sub(r"\W+", "_", name)[-100:].strip("_")


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays completely or not at all.

    Raises:
      UserError: they cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
