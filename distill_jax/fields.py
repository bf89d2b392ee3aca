"""Named options: which ones a function takes, and checks of the values a user gives.

All checks raise ValueError, and the message begins with the option's name.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any


def defaults(function: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Any]:
    """The options of a function and their defaults, in order, except those named in `without`."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if is_plain(each.default) and each.name not in without}


def is_plain(value: Any) -> bool:
    """Whether a value can be an option: None, a number, string or bool, or a tuple of such."""
    return value is None or isinstance(value, bool | int | float | str) or (isinstance(value, tuple) and all(map(is_plain, value)))


def check(owner: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options, each converted to the type of its default.

    Raises:
      ValueError: an option is unknown or of the wrong type.
    """
    for name in given:
        if name not in known:
            raise ValueError(f"{name} is not an option of {owner}, which has: {', '.join(known) or 'none'}{did_you_mean(name, known)}")
    return {name: cast(name, value, known[name]) for name, value in given.items()}


def cast(name: str, value: Any, default: Any) -> Any:
    """A value in the type of its default: converts int to float and list to tuple where needed.

    Raises:
      ValueError: it has the wrong type or is not finite.
    """
    if isinstance(default, tuple) and isinstance(value, tuple | list):
        examples = default + default[-1:] * len(value)  # further elements must be like the default's last
        pairs = enumerate(zip(value, examples, strict=False))
        return tuple(cast(f"{name}[{row}]", *pair) for row, pair in pairs) if default else tuple(value)
    if type(value) is int and type(default) is float:
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; it must be a finite number")
    if isinstance(default, bool | int | float | str | tuple | dict) and type(value) is not type(default):
        raise ValueError(f"{name} is {value!r}; it must be of type {type(default).__name__}, such as {default!r}")
    return value


def check_range(name: str, value: float, low: float, high: float = math.inf, open_low: bool = False, open_high: bool = False) -> None:
    """Raises ValueError unless low <= value <= high (< where that end is open)."""
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (above and below):
        interval = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        above_low = ("be positive" if low == 0 else f"be greater than {low}") if open_low else f"be at least {low}"
        words = f"lie in {interval}" if high < math.inf else above_low
        raise ValueError(f"{name} is {value}; it must {words}")


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}{did_you_mean(value, known)}")


def flatten(groups: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields in groups, dicts or ConfigDicts, as {"data.name": ..., ...}; an empty group stays a value."""
    flat = {}
    for name, value in groups.items():
        is_group = hasattr(value, "items") and len(value) > 0
        flat |= flatten(value, f"{prefix}{name}.") if is_group else {f"{prefix}{name}": value}
    return flat


def near(field: str, known: Collection[str]) -> str:
    """'; ...' with what a field such as "data.nam" may mean: the field of its group with a similar name, or else all of them."""
    inside = [name for name in known if name.startswith(f"{field}.")]
    if inside:
        return f"; it is a group of fields: {', '.join(inside)}"
    group, _, last = field.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in known if group and name.rpartition(".")[0] == group}
    if not beside:
        return did_you_mean(field, known)
    close = difflib.get_close_matches(last, list(beside), n=1)
    return f"; did you mean {beside[close[0]]!r}?" if close else f"; {group} has: {', '.join(beside)}"


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """'; did you mean ...?', or '' if no known name is similar."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
