"""The distillation methods, one per file, and the registry.

Each is a function that takes options and returns a `Method` (see base.py). The run fills in arguments named like a field of `Setting`.
Your own method needs no change here:

    # my_methods.py, in the folder where you start run.py:
    #   def label_noise(num_classes, rate=0.1):
    #       ...
    #       return Method(signal, loss)
    python run.py --config.method.name=my_methods:label_noise --config.method.rate=0.2
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from distill_jax import fields, imports
from distill_jax.methods.attention_transfer import attention_transfer
from distill_jax.methods.base import Batch, Losses, Method, Setting, abstract_teachers, no_forwards
from distill_jax.methods.combined import combine
from distill_jax.methods.cs_kd import cs_kd
from distill_jax.methods.densely_guided import densely_guided
from distill_jax.methods.dlb import dlb
from distill_jax.methods.ema_teacher import ema_teacher
from distill_jax.methods.generations import distillation, patriarch
from distill_jax.methods.long_short_term import long_short_term
from distill_jax.methods.ps_kd import ps_kd
from distill_jax.methods.snapshot import snapshot_distillation
from distill_jax.methods.supervised import supervised
from distill_jax.methods.tf_kd import tf_kd

__all__ = [
    "METHODS", "Batch", "Losses", "Method", "Setting", "attention_transfer", "combine", "create", "cs_kd", "densely_guided", "distillation",
    "dlb", "ema_teacher", "is_guided", "long_short_term", "options", "patriarch", "ps_kd", "snapshot_distillation", "supervised", "tf_kd",
    "wants_table",
]  # fmt: skip

GUIDE_LOGITS = ("forward", "table")  # how the run gets the logits of frozen teachers: see `options`
METHODS = {
    "attention_transfer": attention_transfer,
    "cs_kd": cs_kd,
    "densely_guided": densely_guided,
    "distillation": distillation,
    "dlb": dlb,
    "ema_teacher": ema_teacher,
    "long_short_term": long_short_term,
    "patriarch": patriarch,
    "ps_kd": ps_kd,
    "snapshot": snapshot_distillation,
    "supervised": supervised,
    "tf_kd": tf_kd,
}


def create(name: str, setting: Setting, **given: Any) -> Method:
    """Creates the method `name` for a run.

    Args:
      name: one of `METHODS`, an import path "module:function", or several of these joined by +, whose teacher terms add up (`combine`).
      setting: the run.
      **given: the method's options; for several methods, a dict for each, by its name or, for an import path, its function's.

    Raises:
      ValueError: the method, or one of its options, is unknown or out of range. The message begins with the option's name.
    """
    if setting.num_teachers and not is_guided(name):
        guided = ", ".join(method for method in METHODS if is_guided(method))
        raise ValueError(f"num_teachers is {setting.num_teachers}, but {name!r} takes no teachers; these do: {guided}")
    given = fields.check(f"method {name!r}", options(name), given)
    guide_logits = given.pop("guide_logits", "forward")
    fields.check_choice("guide_logits", guide_logits, GUIDE_LOGITS)
    if "+" in name:
        members = {member: _create_member(key, member, setting, given.get(key, {})) for key, member in _members(name).items()}
        if wants_table(name, **given):  # that of one member holds for the whole run
            members = {each: method._replace(forwards=no_forwards) if is_guided(each) else method for each, method in members.items()}
        return combine(list(members.values()))._replace(forwards=partial(_forwards, members))
    function = find(name)
    needed = [argument for argument in _arguments(function) if argument in Setting._fields]
    arguments = {argument: getattr(setting, argument) for argument in needed} | given
    method = _own(name, function, arguments) if ":" in name else function(**arguments)
    return method._replace(forwards=no_forwards) if guide_logits == "table" else method


def options(name: str) -> dict[str, Any]:
    """The options of a method and their defaults; for several methods, a dict for each, by its name or, for an import path, its function's.

    Every method taught by frozen networks of other runs has the option guide_logits, which the run implements: "forward" runs these
    networks on each batch; "table" runs them once on the training set, before training, and requires augmentation off;
    attention_transfer takes only "forward".

    Raises:
      ValueError: there is no such method, or one is named twice.
    """
    if "+" in name:
        return {key: options(member) for key, member in _members(name).items()}
    guided = {"guide_logits": "forward"} if is_guided(name) else {}
    return fields.defaults(find(name), without=Setting._fields) | guided


def wants_table(name: str, **given: Any) -> bool:
    """Whether the option guide_logits asks for a table."""
    members = [given.get(key, {}) for key in _members(name)] if "+" in name else [given]
    return any(member.get("guide_logits") == "table" for member in members)


def is_guided(name: str) -> bool:
    """Whether a method, or any one of several, is taught by frozen networks of other runs."""
    return any("num_teachers" in _arguments(find(member)) for member in name.split("+"))


def find(name: str) -> Callable[..., Method]:
    """The function with the given name.

    Raises:
      ValueError: there is no such method.
    """
    if ":" in name:
        try:
            function = imports.load(name)
        except ValueError as error:
            raise ValueError(f"name is {name!r}; {error}") from error
        if not inspect.isfunction(function):
            raise ValueError(f"name is {name!r}; it must be a function that returns a Method")
        return function
    fields.check_choice("name", name, METHODS)
    return METHODS[name]


def _members(name: str) -> dict[str, str]:
    """Several methods by the names of their options' groups. ValueError if two have the same."""
    members = name.split("+")
    by_key = {member.rpartition(":")[2]: member for member in members}  # a path with its dots could be no field of a config
    if len(by_key) < len(members):
        raise ValueError(f"name is {name!r}, which names a method twice")
    return by_key


def _create_member(key: str, name: str, setting: Setting, given: dict[str, Any]) -> Method:
    """Creates one of several methods; errors name its options as KEY.OPTION."""
    try:
        return create(name, setting if is_guided(name) else setting._replace(num_teachers=0), **given)
    except ValueError as error:
        raise ValueError(f"{key}.{error}" if _is_about_option(error, name) else str(error)) from error


def _forwards(members: dict[str, Method], epoch: int) -> float:
    """The sum over several methods; those taught by frozen networks share these networks' passes, since XLA computes each only once."""
    shared = max((method.forwards(epoch) for name, method in members.items() if is_guided(name)), default=0.0)
    return shared + sum(method.forwards(epoch) for name, method in members.items() if not is_guided(name))


def _own(name: str, function: Callable[..., Method], arguments: dict[str, Any]) -> Method:
    """Creates a user's own method, whose function may raise anything."""
    try:
        method = function(**arguments)
    except Exception as error:
        if isinstance(error, ValueError) and _is_about_option(error, name):
            raise
        raise ValueError(f"name is {name!r}; building it failed: {imports.one_line(error)}") from error
    if not isinstance(method, Method):
        raise ValueError(f"name is {name!r}; it returns {type(method).__name__}, not a Method")
    return method


def check_resumes(name: str, method: Method, network: Any, epochs: int) -> None:
    """Checks that the runs of a user's own method can resume: the shapes of its teacher must be known before each epoch.

    Args:
      name: of the method.
      method: as created.
      network: the shapes of the student's parameters and statistics.
      epochs: length of the run.

    Raises:
      ValueError: they are not, or `follow` changes them.
    """

    def shapes(tree):
        return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]

    try:
        *teachers, _ = abstract_teachers(method, network, epochs)
        for teacher in teachers if method.follow else ():
            if shapes(jax.eval_shape(method.follow, teacher, network)) != shapes(teacher):
                raise TypeError("follow changes the shapes of the teacher; init must give it the same")
    except Exception as error:
        raise ValueError(f"name is {name!r}; its runs could not resume, since jax.eval_shape fails: {imports.one_line(error)}") from error


def _is_about_option(error: ValueError, name: str) -> bool:
    return str(error).split(" ")[0] in options(name)


def _arguments(function: Callable[..., Method]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)
