"""Paths of networks from a teacher through assistants to a student: see distill_jax/methods/densely_guided.py."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from distill_jax import methods, models
from distill_jax.fields import check_choice
from distill_jax.models import bert
from distill_jax.results import main_result, markdown, percents

VARIANTS = {"supervised": "supervised", "kd": "KD", "takd": "TAKD", "dgkd": "DGKD", "stochastic": "stochastic DGKD"}  # name -> title
OF_THE_STUDENT = ("kd", "stochastic")  # variants that train only the last network of a path


def stages(
    config: ConfigDict,
    path: Sequence[str] = ("plain10", "plain8", "plain6", "plain4", "plain2"),
    assistants: int = -1,
    compare: Sequence[str] = tuple(VARIANTS),
    form: str = "code",
    weight_teacher: float = 1.0,
    temperature: float = 5.0,
    survival: float = 0.75,
    drop: int = 0,
    teacher_may_drop: bool = True,
    guide_logits: str = "forward",
    loss: str = "kl",
    loss_weights: Sequence[float] = (),
    standardize: bool = False,
    inherit: bool = False,
) -> dict[str, dict[str, Any]]:
    """The runs of a path from the teacher down to the student: the overrides of each, by name.

    All have the config's seed (our choice): the runs of one network start from the same weights and see the same batches, so that only
    their guides differ. Identical runs are trained once: the teacher, and the first assistant, whose only guide in KD, TAKD and DGKD is
    the teacher (`kd_<network>`).

    Args:
      config: of the family.
      path: names of the networks: the teacher, its assistants by decreasing size, the student.
      assistants: how many of the path's assistants to use, evenly spaced; -1 for all.
      compare: the variants to train, from `VARIANTS`; kd and stochastic train only the student.
      form: this and the remaining arguments are as in `methods.densely_guided`. survival, drop and teacher_may_drop apply only to the
        variant "stochastic", whose assistants are those of DGKD, as in the paper.
      guide_logits: "forward", or "table": see methods.options.
      loss: between guides and student; this, loss_weights and standardize are as in `methods.densely_guided`.
      inherit: for a path of encoders of decreasing depth, such as bert6 to bert2: start each network from the teacher's layers, chosen by
        `bert.evenly`. All variants start a network from the same weights, so the variant "supervised" shows what these are worth without
        guides (our choice).

    Raises:
      ValueError: an option is out of range.
    """
    path = choose_path(path, assistants)
    check_networks(config.model, path)
    if not compare:
        raise ValueError(f"compare is (); choose from {', '.join(VARIANTS)}")
    for variant in compare:
        check_choice("compare", variant, VARIANTS)
    other = {"loss": loss, "loss_weights": tuple(loss_weights), "standardize": standardize}
    taught = {"form": form, "weight_teacher": weight_teacher, "temperature": temperature} | other
    draw = {"survival": survival, "drop": drop, "teacher_may_drop": teacher_may_drop}
    methods.densely_guided(len(path) - 1, **taught, **draw)  # checks them before anything is trained
    check_choice("guide_logits", guide_logits, methods.GUIDE_LOGITS)

    runs = {path[0]: {"model": {"name": path[0]}, "method": {"name": "supervised"}}}
    for k in range(1, len(path)):
        for variant in VARIANTS:
            if not is_needed(variant, compare, is_student=k == len(path) - 1):
                continue
            guides = guides_of(variant, path, k)
            guided = {"name": "densely_guided", "guide_logits": guide_logits} | taught | (draw if variant == "stochastic" else {})
            runs[stage_name(variant, path, k)] = {
                "model": {"name": path[k]},
                "method": guided if guides else {"name": "supervised"},
                "teachers": tuple(f"stage:{guide}" for guide in guides),
            } | ({"initial": f"stage:{path[0]}"} if inherit else {})
    return runs


def choose_path(path: Sequence[str], assistants: int) -> tuple[str, ...]:
    """The first and last network of `path`, and `assistants` of those between, evenly spaced; all of them for -1.

    Raises:
      ValueError: the path is too short, names a network twice, or has too few assistants.
    """
    if len(path) < 2:
        raise ValueError(f"path is {tuple(path)}; it must have the teacher, any number of assistants, and the student")
    for network in path:
        if tuple(path).count(network) > 1:
            raise ValueError(f"path names {network} more than once")
    if not -1 <= assistants <= len(path) - 2:
        raise ValueError(f"assistants is {assistants}; stages.path has {len(path) - 2}, and -1 means all of them")
    gaps = (len(path) if assistants == -1 else assistants + 2) - 1
    return tuple(path[round(i * (len(path) - 1) / gaps)] for i in range(gaps + 1))


def check_networks(model: ConfigDict, path: Sequence[str]) -> None:
    """Raises ValueError if a network of the path is unknown, or lacks the options of config.model."""
    for network in path:
        options = {name: value for name, value in model.items() if name != "name"}
        try:
            if models.is_encoder(network):  # of the sizes that are 0, the initial weights will decide
                options |= {size: options.get(size) or 1 for size in bert.SIZES if size in models.options(network)}
            models.create(network, num_classes=2, vocabulary_size=4 if models.is_text(network) else 0, **options)
        except ValueError as error:
            raise ValueError(f"path names {network!r}: {error}") from error


def is_needed(variant: str, compare: Sequence[str], is_student: bool) -> bool:
    """Whether a variant needs to train a network: the student, or an assistant."""
    if is_student:
        return variant in compare
    return variant not in OF_THE_STUDENT and (variant in compare or (variant == "dgkd" and "stochastic" in compare))


def guides_of(variant: str, path: Sequence[str], k: int) -> list[str]:
    """The stages that guide network k >= 1 of a path, the largest first."""
    first = {"supervised": k, "kd": 0, "takd": k - 1, "dgkd": 0, "stochastic": 0}[variant]
    end = 1 if variant == "kd" else k
    assistants = "dgkd" if variant == "stochastic" else variant
    return [stage_name(assistants, path, i) for i in range(first, end)]


def stage_name(variant: str, path: Sequence[str], k: int) -> str:
    """The name of the run of network k. All variants share the teacher; KD, TAKD and DGKD share the first assistant."""
    if k == 0:
        return path[0]
    return f"{'kd' if k == 1 and variant in ('takd', 'dgkd') else variant}_{path[k]}"


def table_rows(summaries: list[dict[str, Any]]) -> tuple[list[str], list[tuple[str, int, list[dict[str, Any]]]]]:
    """A family's results in order.

    Returns:
      The variants that were trained; and for each network of the path its name, its number of parameters, and its summary in each of
      these variants, {} if there is none. The teacher's is under "supervised".
    """
    runs = {summary["stage"]: summary for summary in summaries}
    sizes = {summary["model"]: summary["num_params"] for summary in summaries}
    path = list(sizes)
    names = {variant: [stage_name(variant, path, k) for k in range(len(path))] for variant in VARIANTS}
    asked_for = {name.split("_")[0] for name in runs} | {variant for variant in VARIANTS if names[variant][-1] in runs} | {"supervised"}
    variants = [variant for variant in VARIANTS if variant in asked_for]

    def run_of(variant, k):
        return runs.get(names[variant][k], {}) if k > 0 or variant == "supervised" else {}

    return variants, [(network, sizes[network], [run_of(variant, k) for variant in variants]) for k, network in enumerate(path)]


def table(summaries: list[dict[str, Any]]) -> str:
    """A Markdown table of the result that counts, with one row per network of the path and one column per variant."""
    variants, rows = table_rows(summaries)
    header = ["network", "parameters", *(f"{VARIANTS[variant]}, %" for variant in variants)]
    cells = [[network, f"{size:,}", *(percents(run, main_result(run))[0] for run in runs)] for network, size, runs in rows]
    return markdown(header, cells)
