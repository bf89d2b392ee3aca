"""Generations, each taught by the previous one: see distill_jax/methods/generations.py."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from distill_jax import methods
from distill_jax.fields import check_range
from distill_jax.results import main_result, markdown, number, percents, title


def stages(
    config: ConfigDict,
    generations: int = 5,
    regularizer: str = "top_score_difference",
    eta: float = 0.6,
    k: int = 5,
    weight_ce: Sequence[float] = (0.6,),
    temperature: float = 1.0,
    inherit: bool = False,
    loss: str = "kl",
    loss_weights: Sequence[float] = (),
    standardize: bool = False,
) -> dict[str, dict[str, Any]]:
    """The runs of a family of generations: the overrides of each, by name.

    Args:
      config: of the family. Generation m has the seed config.seed + 1000 * m, so that each has its own initialisation and shuffling (our
        choice).
      generations: number of students after generation 0.
      regularizer: of generation 0; this, eta and k are as in `methods.patriarch`.
      eta: weight of the cross-entropy in generation 0; 1 for a strict patriarch.
      k: number of classes in the top-score difference.
      weight_ce: weight of the cross-entropy in the students' losses: one for all, or one per student.
      temperature: of teacher and student.
      inherit: start each student from its teacher's weights. Otherwise it starts as generation 0 does: from new weights, or from
        config.initial.
      loss: between teacher and student; this, loss_weights and standardize are as in `methods.distillation`.

    Raises:
      ValueError: an option is out of range.
    """
    check_range("generations", generations, 0)
    weights = tuple(weight_ce) * (generations if len(weight_ce) == 1 else 1)
    if len(weights) != generations:
        raise ValueError(f"weight_ce has {len(weights)} entries; stages.generations is {generations}")
    first = {"regularizer": regularizer, "eta": eta, "k": k}
    check_range("k", k, 2)
    methods.patriarch(num_classes=k, **first)  # checks everything that does not depend on the data
    other = {"loss": loss, "loss_weights": tuple(loss_weights), "standardize": standardize}
    runs = {"generation_0": {"method": {"name": "patriarch"} | first}}
    for m, weight in enumerate(weights, start=1):
        student = {"weight_ce": weight, "temperature": temperature} | other
        methods.distillation(**student)
        teacher = f"stage:generation_{m - 1}"
        runs[f"generation_{m}"] = {
            "seed": config.seed + 1000 * m,
            "method": {"name": "distillation"} | student,
            "teachers": (teacher,),
        } | ({"initial": teacher} if inherit else {})
    return runs


def table(summaries: list[dict[str, Any]]) -> str:
    """A Markdown table with one row per generation."""
    header = [
        "generation",
        title(summaries[0]),
        "NLL, nats",
        "ECE, %",
        "top score",
        "mean of the next 4",
        "teacher's entropy, nats",
        "agreement, %",
    ]
    rows = [
        [
            stage["stage"].removeprefix("generation_"),
            *percents(stage, main_result(stage)),
            number(stage, "test_nll", 3),
            *percents(stage, "test_ece"),
            number(stage, "test_top_score", 3),
            number(stage, "test_secondary_score", 4),
            number(stage, "teacher_entropy", 3),
            *percents(stage, "teacher_agreement"),
        ]
        for stage in summaries
    ]
    return markdown(header, rows)
