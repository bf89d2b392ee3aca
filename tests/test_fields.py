"""Named options: read from a signature, cast to the types of their defaults, rejected with a message that begins with their name."""

import math

import pytest

from distill_jax import fields


def example(num_classes, rate=0.1, steps=3, name="a", flip=True, sizes=(1, 2), rates=(0.5,)):
    pass


KNOWN = fields.defaults(example)


def test_options_are_the_arguments_with_a_default():
    assert KNOWN == {"rate": 0.1, "steps": 3, "name": "a", "flip": True, "sizes": (1, 2), "rates": (0.5,)}
    assert list(fields.defaults(example, without=("rate", "name"))) == ["steps", "flip", "sizes", "rates"]


def test_options_take_the_types_of_their_defaults():
    given = fields.check("example", KNOWN, {"rate": 2, "sizes": [3, 4, 5], "rates": (1, 0.25)})
    assert given == {"rate": 2.0, "sizes": (3, 4, 5), "rates": (1.0, 0.25)}
    assert type(given["rate"]) is float and [type(rate) for rate in given["rates"]] == [float, float]
    assert fields.check("example", KNOWN, {}) == {}


def test_a_default_that_no_config_can_hold_is_no_option():
    def function(rate=0.1, act=len, table={}, pair=(1, len), word=None):  # noqa: B006
        pass

    assert fields.defaults(function) == {"rate": 0.1, "word": None}


@pytest.mark.parametrize("value", [None, {"a": 1}, len])
def test_a_default_of_no_plain_type_takes_anything(value):
    assert fields.cast("x", value, None) is value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rat": 1.0}, "rat is not an option of example, which has: rate, steps, name, flip, sizes, rates; did you mean 'rate'?"),
        ({"zzz": 1.0}, "zzz is not an option of example, which has: rate, steps, name, flip, sizes, rates"),
        ({"rate": "0.1"}, "rate is '0.1'; it must be of type float, such as 0.1"),
        ({"rate": True}, "rate is True; it must be of type float, such as 0.1"),
        ({"rate": math.nan}, "rate is nan; it must be a finite number"),
        ({"rate": -math.inf}, "rate is -inf; it must be a finite number"),
        ({"steps": 3.0}, "steps is 3.0; it must be of type int, such as 3"),
        ({"steps": True}, "steps is True; it must be of type int, such as 3"),
        ({"steps": math.inf}, "steps is inf; it must be a finite number"),
        ({"name": 1}, "name is 1; it must be of type str, such as 'a'"),
        ({"flip": 1}, "flip is 1; it must be of type bool, such as True"),
        ({"sizes": 3}, "sizes is 3; it must be of type tuple, such as (1, 2)"),
        ({"sizes": (1, 2, 3.5)}, "sizes[2] is 3.5; it must be of type int, such as 2"),
        ({"rates": ("x",)}, "rates[0] is 'x'; it must be of type float, such as 0.5"),
        ({"rates": (0.1, math.nan)}, "rates[1] is nan; it must be a finite number"),
    ],
)
def test_what_is_no_option_or_of_another_type_is_refused(given, message):
    with pytest.raises(ValueError) as caught:
        fields.check("example", KNOWN, given)
    assert str(caught.value) == message


def test_who_has_no_options_says_so():
    with pytest.raises(ValueError, match="^rate is not an option of plain, which has: none$"):
        fields.check("plain", {}, {"rate": 1})


@pytest.mark.parametrize(
    ("value", "interval", "message"),
    [
        (0, {"low": 0, "open_low": True}, "x is 0; it must be positive"),
        (-0.5, {"low": 0}, "x is -0.5; it must be at least 0"),
        (0, {"low": 0, "high": 1, "open_low": True}, "x is 0; it must lie in (0, 1]"),
        (1, {"low": 0, "high": 1, "open_high": True}, "x is 1; it must lie in [0, 1)"),
        (3, {"low": 0, "high": 2}, "x is 3; it must lie in [0, 2]"),
        (1, {"low": 1, "open_low": True}, "x is 1; it must be greater than 1"),
        (math.nan, {"low": 0}, "x is nan; it must be at least 0"),
    ],
)
def test_values_out_of_range(value, interval, message):
    with pytest.raises(ValueError) as caught:
        fields.check_range("x", value, **interval)
    assert str(caught.value) == message


def test_values_within_range():
    fields.check_range("x", 0, 0)
    fields.check_range("x", 1, 0, 1)
    fields.check_range("x", 1e-9, 0, 1, open_low=True, open_high=True)


def test_choices():
    fields.check_choice("x", "mean", ("mean", "cls"))
    with pytest.raises(ValueError, match="^x is 'maen'; known: mean, cls; did you mean 'mean'[?]$"):
        fields.check_choice("x", "maen", ("mean", "cls"))
    with pytest.raises(ValueError, match="^x is 7; known: mean, cls$"):
        fields.check_choice("x", 7, ("mean", "cls"))
