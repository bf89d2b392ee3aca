"""What trained networks are good for: ensembles of them, their features, and a linear probe on those."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from distill_jax import evaluate, logs, networks, sharding
from distill_jax.data import Dataset, batches, load_config
from distill_jax.errors import UserError
from distill_jax.methods.base import variables
from distill_jax.networks import Trained
from distill_jax.tables import markdown, number, percents


def ensemble(config: ConfigDict, workdir: pathlib.Path, members: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluates finished runs one by one, and the mean of their probabilities, on the test set of `config`.

    Args:
      config: config.data says what to evaluate on; the rest does not matter.
      workdir: where ensemble.json goes.
      members: workdirs; none for the stages of `workdir`, or, without stages, its seeds.

    Returns:
      The content of ensemble.json: the metrics of the ensemble, and under "members" each member's.

    Raises:
      UserError: a member is missing, unfinished, or knows other classes or inputs than this data.
    """
    runs = [networks.find(pathlib.Path(member).expanduser()) for member in members] or networks.find_below(workdir)
    dataset = load_config(config.data)
    logits = [test_logits(run, dataset, config.batch_size) for run in runs]
    results = [
        {"member": str(run.workdir)} | evaluate.classification_metrics(member, dataset.test["label"])
        for run, member in zip(runs, logits, strict=True)
    ]
    workdir.mkdir(parents=True, exist_ok=True)
    result = evaluate.classification_metrics(evaluate.ensemble(logits), dataset.test["label"]) | {"members": results}
    logs.write_json(workdir / "ensemble.json", result)
    names = ("test_accuracy", "test_top5", "test_ece")
    rows = [[run["member"], *percents(run, *names), number(run, "test_nll", 3)] for run in [*results, {"member": "ensemble"} | result]]
    logs.say(markdown(["member", "accuracy, %", "top-5, %", "ECE, %", "NLL, nats"], rows))
    logs.say(f"{workdir / 'ensemble.json'}: accuracy {result['test_accuracy']:.2%}")
    return result


def test_logits(run: Trained, dataset: Dataset, batch_size: int) -> np.ndarray:
    """A member on the test set, float32 [N, C]."""
    networks.check_fits(run, dataset, next(iter(dataset.test.values())).shape[1:])
    return make_apply(run, functools.partial(run.model.apply, train=False), batch_size)(dataset.test)


def features(config: ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Writes the features of a data set, the inputs of a network's last dense layer, as workdir/features.npz.

    Args:
      config: config.data says of what data set. Images of another size are resized (bilinear) and grey ones repeated over the channels,
        as the network needs them; they are normalised as in its training.
      workdir: of a finished run.

    Returns:
      The path of the npz: train_features and test_features, float32 [N, F], train_labels and test_labels, int32 [N].

    Raises:
      UserError: the run is not finished, or the data set is of another kind than the network's.
    """
    run = networks.find(workdir)
    dataset = load_config(config.data)
    extract = make_apply(run, functools.partial(penultimate, run.model), config.batch_size)
    arrays = {}
    for split, rows in (("train", dataset.train), ("test", dataset.test)):
        arrays[f"{split}_features"] = extract(rows)
        arrays[f"{split}_labels"] = np.asarray(rows["label"])
    path = workdir / "features.npz"
    np.savez(path, **arrays)
    logs.say(f"{path}: features {arrays['train_features'].shape} and {arrays['test_features'].shape} of {dataset.name}")
    return path


def linear_probe(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Fits a logistic regression on a network's features of a training set, and evaluates it on the test set.

    scikit-learn's, on features of zero mean and unit variance, with its default L2 penalty (our choice).

    Args:
      config: config.data, as for `features`.
      workdir: of a finished run.

    Returns:
      The content of workdir/linear_probe.json.
    """
    from sklearn.linear_model import LogisticRegression  # here, since scikit-learn takes seconds to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    arrays = np.load(features(config, workdir))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(arrays["train_features"], arrays["train_labels"])
    result = {
        "dataset": config.data.name,
        "train_examples": len(arrays["train_labels"]),
        "num_features": arrays["train_features"].shape[1],
        "train_accuracy": probe.score(arrays["train_features"], arrays["train_labels"]),
        "test_accuracy": probe.score(arrays["test_features"], arrays["test_labels"]),
    }
    logs.write_json(workdir / "linear_probe.json", result)
    logs.say(f"{workdir / 'linear_probe.json'}: test accuracy {result['test_accuracy']:.2%} on {config.data.name}")
    return result


def penultimate(model: nn.Module, variables: dict[str, Any], inputs: jax.Array) -> jax.Array:
    """The input of the layer "head", float32 [B, F], in inference mode."""
    caught = []

    def catch(next_function, args, kwargs, context):
        if context.module.name == "head":
            caught.append(args[0])
        return next_function(*args, **kwargs)

    with nn.intercept_methods(catch):
        model.apply(variables, inputs, train=False)
    return caught[0]


def make_apply(run: Trained, function: Callable[..., jax.Array], batch_size: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Builds a function of a whole split: function(variables, inputs), jitted, batch by batch."""
    mesh = sharding.make_mesh()
    sharding.check_batch_size(batch_size, mesh)
    predict = jax.jit(
        evaluate.make_predict(function, lambda batch, key: network_inputs(run, batch)), out_shardings=sharding.replicated(mesh)
    )
    network = variables(networks.load(run, mesh))

    def apply(rows):
        check_kind(run, rows)
        predict_batch = functools.partial(predict, network, batches.source(rows, mesh))
        return evaluate.predict_all(predict_batch, batches.evaluation_batches(rows, batch_size, mesh), len(rows["label"]))

    return apply


def check_kind(run: Trained, rows: dict[str, np.ndarray]) -> None:
    """Raises UserError unless a network can be given this data, resized if need be."""
    kind = "tokens" if run.summary["vocabulary_size"] else "image"
    if kind not in rows:
        raise UserError(f"{run.workdir}: its network takes {kind}; this data set has {', '.join(name for name in rows if name != 'label')}")
    channels = run.summary["input_shape"][-1]
    if kind == "image" and rows["image"].shape[3] not in (1, channels):
        raise UserError(f"{run.workdir}: its network takes images of {channels} channels; this data set has {rows['image'].shape[3]}")


def network_inputs(run: Trained, batch: dict[str, jax.Array]) -> jax.Array:
    """A batch as a run's network takes it: images resized, their one channel repeated, and normalised as in its training."""
    if "tokens" in batch:
        return batch["tokens"]
    shape = (len(batch["image"]), *run.summary["input_shape"])
    images = batch["image"].astype(jnp.float32) / 255
    if images.shape[1:3] != shape[1:3]:
        images = jax.image.resize(images, (*shape[:3], images.shape[3]), "bilinear")
    return (jnp.broadcast_to(images, shape) - jnp.array(run.summary["input_mean"])) / jnp.array(run.summary["input_std"])
