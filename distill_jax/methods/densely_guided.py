"""Densely guided knowledge distillation: the teacher and all larger assistants guide each smaller network, down to the student.

Son, Na, Choi, Hwang, "Densely Guided Knowledge Distillation Using Multiple Teacher Assistants", ICCV 2021 (arXiv 2009.08825).

    KD_i = T^2 * KL( softmax(z_i / T) || softmax(z_S / T) )
    paper:   L_S = (n + 1) (1 - lambda) CE + lambda * sum_{i=0..n} b_i KD_i        guide 0 is the teacher, 1..n the assistants
    code:    L_S =         (1 - lambda) CE + lambda * sum_{i=0..n} b_i KD_i / C    github.com/wonchulSon/DGKD, train.py

b_i = 1 in plain DGKD. Stochastic teaching draws b_i anew for each minibatch: from Bernoulli(p) (the paper), or so that exactly `drop`
guides are 0 (the code). The code's KL is a mean over the classes as well, C of them. With one guide, form "paper" is the distillation
of Hinton et al. (arXiv 1503.02531) with weight_ce = 1 - lambda. Its baselines are settings of it: the teacher as only guide (KD), or
the next larger network as only guide (TAKD, Mirzadeh et al., AAAI 2020, arXiv 1902.03393).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax import losses, models
from distill_jax.errors import UserError
from distill_jax.methods.base import Losses, Method, Setting, frozen_logits, unchanged

FORMS = ("paper", "code")
VARIANTS = ("supervised", "kd", "takd", "dgkd", "stochastic")
OF_THE_STUDENT = ("kd", "stochastic")  # variants that train the last network of a path alone


class Guidance(NamedTuple):
    """What the guides say of one batch."""

    logits_GxBxC: jax.Array  # float32, the largest guide first
    weights_G: jax.Array  # b: float32, 1 for a guide that teaches this batch, 0 for a dropped one


def densely_guided(
    setting: Setting,
    form: str = "paper",
    weight_teacher: float = 1.0,
    temperature: float = 5.0,
    survival: float = 1.0,
    drop: int = 0,
    teacher_may_drop: bool = True,
    guide_logits: str = "forward",
) -> Method:
    """A student of several frozen guides, of any architectures, the largest first.

    The forward of a dropped guide is left out. Measured on a CPU, four plain8 guides of a plain2 on 32x32 images: a step takes 0.80
    times as long as with the forwards computed and weighted by 0 at p = 0.75, 0.53 at p = 0.25, and no longer at p = 1.

    Args:
      setting: the run, with one teacher or more.
      form: "paper" or "code": which of the losses above. (n + 1) counts the guides of the run; dropped ones too, as the formula reads.
      weight_teacher: lambda, in 0..1; the code's default is 1, which leaves the labels out.
      temperature: T > 0, softens guides and student; 5 is the code's default.
      survival: p, in 0..1: the probability that a guide teaches a minibatch; the paper's best is 0.75. 1 for no such draw.
      drop: number of guides that are dropped from each minibatch, instead of `survival`; the code's default is 1. 0 for none.
      teacher_may_drop: whether guide 0 is in the draw. True as in the abstract and the code; the paper's formula has it always teach.
      guide_logits: "forward" runs the guides on each batch; "table" runs them once on the training set, where augmentation is off.

    Returns:
      A Method whose teacher is the tuple of guides that `init` is given. Where all guides are dropped, the cross-entropy is left, with
      its weight: nothing if lambda = 1, so that such a minibatch moves the student by momentum and weight decay alone. On unseen
      inputs its teacher is guide 0.

    Raises:
      UserError: a field is out of range, or there is no guide.
    """
    guides = setting.teachers
    if not guides:
        raise UserError("method densely_guided needs a guide or more; `teachers` names none")
    check_fields("method", len(guides), form, weight_teacher, temperature, survival, drop, teacher_may_drop, guide_logits)

    skips_forwards = guide_logits == "forward" and (drop or survival < 1)

    def signal(teacher, inputs, ids_B, key):
        weights_G = draw_survivors(key, len(guides), survival, drop, teacher_may_drop)

        def logits_BxC(model, guide, weight):
            def speak():
                return frozen_logits(model, guide, inputs, ids_B)

            def be_silent():
                return jnp.zeros((len(ids_B), setting.num_classes))

            return jax.lax.cond(weight > 0, speak, be_silent) if skips_forwards else speak()

        return Guidance(jnp.stack([logits_BxC(*each) for each in zip(guides, teacher, weights_G, strict=True)]), weights_G)

    def loss(logits_BxC, labels_B, guidance):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        kl_GxB = losses.kl_divergence(guidance.logits_GxBxC, logits_BxC, temperature, temperature)
        kd_G = temperature**2 * kl_GxB.mean(axis=1)
        if form == "code":
            kd_G /= logits_BxC.shape[-1]
        weight_ce = (1 - weight_teacher) * (len(guides) if form == "paper" else 1)
        taught = weight_teacher * (guidance.weights_G * kd_G).sum()
        return Losses(loss=weight_ce * ce + taught, ce=ce, teacher=taught)

    def predict(teacher, inputs):
        return frozen_logits(guides[0], teacher[0], inputs, jnp.zeros(0, jnp.int32))

    return Method(
        init=lambda state, given: given,
        signal=signal,
        loss=loss,
        end_epoch=unchanged,
        wants_logits=guide_logits == "table",
        predict=predict if guide_logits == "forward" else None,
    )


def draw_survivors(key: jax.Array, guides: int, survival: float, drop: int, teacher_may_drop: bool) -> jax.Array:
    """Which guides teach a minibatch: b, float32 [G] of 0 and 1, a function of the key alone. See `densely_guided` for the fields."""
    drawn = guides if teacher_may_drop else guides - 1
    if drop:
        survives = jax.random.permutation(key, drawn) >= drop
    else:
        survives = jax.random.bernoulli(key, survival, (drawn,))
    return jnp.concatenate([jnp.ones(guides - drawn), survives])


def check_fields(
    where: str,
    guides: int,
    form: str,
    weight_teacher: float,
    temperature: float,
    survival: float,
    drop: int,
    teacher_may_drop: bool,
    guide_logits: str,
) -> None:
    """Raises UserError for a field of `densely_guided` that is out of range; `where` is the config's part that it stands in."""
    if form not in FORMS:
        raise UserError(f"{where}.form is {form!r}; known: {', '.join(FORMS)}")
    for name, value in {"weight_teacher": weight_teacher, "survival": survival}.items():
        if not 0 <= value <= 1:
            raise UserError(f"{where}.{name} is {value}; it must lie in 0..1")
    if not temperature > 0:
        raise UserError(f"{where}.temperature is {temperature}; it must be positive")
    drawn = guides if teacher_may_drop else guides - 1
    if not 0 <= drop <= drawn:
        raise UserError(f"{where}.drop is {drop}; it must lie in 0..{drawn}, the number of guides that may be dropped")
    if drop and survival < 1:
        raise UserError(f"{where}.drop is {drop} and {where}.survival {survival}; choose one: drop=0 or survival=1")
    if guide_logits not in ("forward", "table"):
        raise UserError(f"{where}.guide_logits is {guide_logits!r}; known: forward, table")


def path_stages(config) -> dict[str, dict]:
    """The runs of a path from the teacher down to the student, by name: what each changes in the config.

    All have the config's seed (our choice): the runs of one network start from the same weights and see the same batches, so that they
    differ in their guides alone. Runs that would be one and the same are trained once: the teacher, and the first assistant, whose only
    guide in KD, TAKD and DGKD is the teacher (`kd_<network>`).

    Args:
      config: of the family. config.stages has the path, its variants to compare, and the fields of `densely_guided`; survival, drop and
        teacher_may_drop are for the variant "stochastic" alone, whose assistants are those of DGKD, as in the paper.

    Raises:
      UserError: a field is out of range.
    """
    fields = config.stages
    path = choose_path(fields.path, fields.assistants)
    check_networks(config.model, path)
    for variant in fields.compare:
        if variant not in VARIANTS:
            raise UserError(f"stages.compare names {variant!r}; known: {', '.join(VARIANTS)}")
    draw = {name: fields[name] for name in ("survival", "drop", "teacher_may_drop")}
    taught = {name: fields[name] for name in ("form", "weight_teacher", "temperature", "guide_logits")}
    check_fields("stages", len(path) - 1, **taught, **draw)

    runs = {path[0]: {"model": {"name": path[0]}, "method": {"name": "supervised"}}}
    for k in range(1, len(path)):
        for variant in VARIANTS:
            if not is_needed(variant, fields.compare, is_student=k == len(path) - 1):
                continue
            guides = guides_of(variant, path, k)
            method = {"name": "densely_guided"} | taught | (draw if variant == "stochastic" else {})
            runs[stage_name(variant, path, k)] = {
                "model": {"name": path[k]},
                "method": method if guides else {"name": "supervised"},
                "teachers": tuple(f"stage:{guide}" for guide in guides),
            }
    return runs


def choose_path(path: Sequence[str], assistants: int) -> tuple[str, ...]:
    """The first and the last network of `path`, and `assistants` of those between, spread evenly; all of them for -1.

    Raises:
      UserError: the path is too short or names a network twice, or has not so many assistants.
    """
    if len(path) < 2:
        raise UserError(f"stages.path is {tuple(path)}; it must have the teacher, any number of assistants, and the student")
    for network in path:
        if tuple(path).count(network) > 1:
            raise UserError(f"stages.path names {network} more than once")
    if not -1 <= assistants <= len(path) - 2:
        raise UserError(f"stages.assistants is {assistants}; stages.path has {len(path) - 2}, and -1 stands for all of them")
    gaps = (len(path) if assistants == -1 else assistants + 2) - 1
    return tuple(path[round(i * (len(path) - 1) / gaps)] for i in range(gaps + 1))


def check_networks(model, path: Sequence[str]) -> None:
    """Raises UserError for a network of the path that is not known, or has not the options config.model: before the first is trained."""
    for network in path:
        models.create(num_classes=2, vocabulary_size=int(network in models.TEXT_MODELS), **(model.to_dict() | {"name": network}))


def is_needed(variant: str, compare: Sequence[str], is_student: bool) -> bool:
    """Whether a variant's run of a network is asked for: of the student, or of an assistant."""
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
    """The run of network k of a path. The teacher is the same for all variants; the first assistant is for those that teach it."""
    if k == 0:
        return path[0]
    return f"{'kd' if k == 1 and variant in ('takd', 'dgkd') else variant}_{path[k]}"


def table_rows(summaries: list[dict[str, Any]]) -> tuple[list[str], list[tuple[str, int, list[dict[str, Any]]]]]:
    """A family's results, ordered.

    Returns:
      The variants that were trained; and for each network of the path its name, its number of parameters, and its summary in each of
      these variants, {} where it has none. The teacher's stands under "supervised".
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
