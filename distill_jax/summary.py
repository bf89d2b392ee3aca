"""What a finished run says of itself."""

import pathlib
import statistics
from typing import Any

import jax

from distill_jax import checkpoints, evaluate, networks
from distill_jax.methods.base import variables
from distill_jax.program import Program, predict_test
from distill_jax.step import TrainState

OF_THE_LAST_EPOCH = (
    "test_accuracy", "test_top5", "test_nll", "test_ece", "test_top_score", "test_secondary_score", "teacher_agreement", "teacher_entropy",
)  # fmt: skip


def summarise(program: Program, seed: int, workdir: pathlib.Path, state: TrainState, history: list[dict]) -> dict[str, Any]:
    """The content of summary.json. The result is that of the last epoch; the best one stands beside it, under its own name."""
    plan, last = program.plan, history[-1]
    mean, std = program.channel_statistics or ((), ())
    epochs = [line for line in history if line["step"] % plan.steps_per_epoch == 0]
    summary = {
        "method": program.config.method.name,
        "model": program.config.model.name,
        "dataset": program.config.data.name,
        "evaluated_on": "validation" if program.config.data.validation_examples else "test",
        "num_classes": program.dataset.num_classes,
        "input_shape": list(program.input_shape),
        "input_mean": [float(value) for value in mean],
        "input_std": [float(value) for value in std],
        "vocabulary_size": program.dataset.vocabulary_size,
        "seed": seed,
        "epochs": plan.epochs,
        "steps": plan.steps,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "train_accuracy": last["train_accuracy"],
        "best_test_accuracy": max(line["test_accuracy"] for line in epochs if "test_accuracy" in line),
        **{name: last[name] for name in OF_THE_LAST_EPOCH if name in last},
        "ece_bins": evaluate.ECE_BINS,
        "images_per_second": statistics.median(line["images_per_second"] for line in epochs),
        "wall_seconds": last["wall_seconds"],
        "params_sha256": checkpoints.params_sha256(state.params),
    }
    if len(plan.cycle_ends) > 1:
        summary["snapshot_ensemble"] = evaluate_snapshots(program, workdir, state)
    return summary


def evaluate_snapshots(program: Program, workdir: pathlib.Path, state: TrainState) -> dict[str, Any]:
    """The networks at the cycles' ends, each alone, and the mean of their probabilities."""
    labels = program.dataset.test["label"]
    members = []
    for epoch in program.plan.cycle_ends:
        network = checkpoints.load_weights(networks.snapshot_path(workdir, epoch), variables(state))
        members.append(predict_test(program, program.predict, network))
    accuracies = [evaluate.classification_metrics(logits, labels)["test_accuracy"] for logits in members]
    return {**evaluate.classification_metrics(evaluate.ensemble(members), labels), "members_test_accuracy": accuracies}


def summarise_seeds(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, the standard deviation (n - 1) of each result as <name>_std, and the summaries themselves under "runs".

    Of a family, "stages" holds the same of each stage.
    """
    first = summaries[0]
    varying = ("seed", "params_sha256", "snapshot_ensemble", "stages")
    measured = [name for name, value in first.items() if isinstance(value, float)]
    summary = {name: value for name, value in first.items() if name not in (*measured, *varying)}
    summary["seeds"] = [run["seed"] for run in summaries]
    for name in measured:
        values = [run[name] for run in summaries]
        summary[name] = statistics.mean(values)
        summary[f"{name}_std"] = statistics.stdev(values)
    if "stages" in first:
        summary["stages"] = [summarise_seeds(list(stage)) for stage in zip(*(run["stages"] for run in summaries), strict=True)]
    return summary | {"runs": summaries}
