"""Generations, each taught by the one before: see distill_jax/methods/generations.py."""

from typing import Any

from ml_collections import ConfigDict

from distill_jax.errors import UserError
from distill_jax.tables import markdown, number, percents


def stages(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """The runs of a family of generations, by name: what each changes in the config.

    Args:
      config: of the family. config.stages has generations (students after generation 0), regularizer, eta, k, weight_ce (one for all
        students, or one each), temperature, inherit (a student starts from its teacher's weights instead of fresh ones). Generation m
        has the seed config.seed + 1000 * m, so that each one starts and shuffles anew (our choice).

    Raises:
      UserError: a field is out of range.
    """
    fields = config.stages
    if fields.generations < 0:
        raise UserError(f"stages.generations is {fields.generations}; it must not be negative")
    weights = tuple(fields.weight_ce) * (fields.generations if len(fields.weight_ce) == 1 else 1)
    if len(weights) != fields.generations:
        raise UserError(f"stages.weight_ce has {len(weights)} entries; stages.generations is {fields.generations}")
    first = {"name": "patriarch", "regularizer": fields.regularizer, "eta": fields.eta, "k": fields.k}
    runs = {"generation_0": {"method": first}}
    for m, weight_ce in enumerate(weights, start=1):
        teacher = f"stage:generation_{m - 1}"
        runs[f"generation_{m}"] = {
            "seed": config.seed + 1000 * m,
            "method": {"name": "distillation", "weight_ce": weight_ce, "temperature": fields.temperature},
            "teachers": (teacher,),
            "initial": teacher if fields.inherit else "",
        }
    return runs


def table(summaries: list[dict[str, Any]]) -> str:
    """A row a generation."""
    header = [
        "generation",
        "test accuracy, %",
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
            *percents(stage, "test_accuracy"),
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
