"""What is checked of a comparison before anything is trained."""

import pytest
from comparison_helpers import ARMS, RATES, tiny
from helpers import ROOT

from distill_jax import compare, comparison_checks
from distill_jax.comparison import Arm, Comparison
from distill_jax.errors import UserError


@pytest.mark.parametrize(
    ("arms", "fields", "message"),
    [
        ({"a": Arm({"epoch": 3}, RATES)}, {}, "arm a: epoch is not a config field; did you mean 'epochs'?"),
        ({"a": Arm({}, [*RATES, {"method": {"name": "snapshot"}}])}, {}, "arm a: schedule.cycles: cycle_ends"),
        ({"a": Arm({"method": {"name": "cs_kd", "wieght": 1.0}}, RATES)}, {}, "arm a: method.wieght is not an option of method 'cs_kd'"),
        ({"a": Arm({"teachers": ("arm:b",)}, RATES)}, {}, "arm a: arm:b is not an earlier arm; earlier arms: none"),
        ({"a": Arm({}, [{}, {"teachers": ("arm:b",)}])}, {}, "arm a: arm:b is not an earlier arm; earlier arms: none"),
        ({"a": Arm({"model": {"name": "resnet21"}}, RATES)}, {}, "arm a: model.name is 'resnet21'; known: "),
        ({"a": Arm({"model": {"name": "wrn10_1", "wdith": 3}}, RATES)}, {}, "arm a: model.wdith is not an option of network wrn10_1"),
        ({"a": Arm({"optimizer.momentum": 0.5}, RATES)}, {}, "arm a: 'optimizer.momentum' is no field; a group of fields is a dict, as"),
        ({"a": Arm({"optimizer": {1: 0.5}}, RATES)}, {}, "arm a: optimizer.1 is no field"),
        ({"a": Arm({"method": "snapshot"}, RATES)}, {}, "arm a: method is 'snapshot'; it must be a dict of fields"),
        ({"a": Arm({"seeds": 3}, RATES)}, {}, "arm a: seeds is the same for all arms; set it in get_config()"),
        ({"a": Arm({"data": {"validation_examples": 0}}, RATES)}, {}, "arm a: data.validation_examples is the same for all arms"),
        (ARMS | {"b": Arm({"teachers": ("arm:cosine")}, RATES)}, {}, "arm b: teachers is 'arm:cosine'; it must be a tuple of names, as in"),
        (ARMS, {"teachers": ("arm:cosine",)}, "teachers is ('arm:cosine',); arm:NAME belongs to the changes of an arm"),
        (ARMS, {"seeds": 1}, "seeds is 1; a comparison needs two or more"),
        (ARMS, {"data__validation_examples": 0}, "data.validation_examples is 0; choosing among tries needs a validation set"),
    ],
)
def test_bad_arms_are_refused_before_anything_is_trained(arms, fields, message, tmp_path):
    with pytest.raises(UserError) as raised:
        compare.compare(tiny(**fields), arms, tmp_path)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_of_an_arm_that_is_not_wanted_only_the_form_is_checked(tmp_path):
    arms = {"a": Arm({}, RATES), "bad": Arm({"epochs": -1}, RATES)}
    comparison_checks.check(Comparison(tiny(), arms, tmp_path), ["a"])
    for teacher in ("bad", "nobody"):
        arms["bad"] = Arm({"teachers": (f"arm:{teacher}",)}, RATES)
        with pytest.raises(UserError, match=f"^arm bad: arm:{teacher} is not an earlier arm; earlier arms: a$"):
            comparison_checks.check(Comparison(tiny(), arms, tmp_path), ["a"])


def test_networks_of_the_tries_are_looked_for_too(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        comparison_checks, "check_networks", lambda config, *_: asked.append(range(config.seed, config.seed + config.seeds))
    )
    comparison_checks.check(Comparison(tiny(), {"loaded": Arm({"initial": f"{tmp_path}/seed_{{seed}}"}, RATES)}, tmp_path), [])
    assert asked == [range(1, 3), range(1)] * 2


def test_networks_of_others_are_looked_for_before_anything_is_trained(tmp_path):
    arms = {"random": Arm({}, [{}]), "loaded": Arm({"initial": f"{tmp_path}/none/seed_{{seed}}"}, [{}])}
    with pytest.raises(UserError, match="^arm loaded: initial: .*/none/seed_1/config.json does not exist"):
        compare.compare(tiny(), arms, tmp_path / "study")
    taught = {"teachers": (f"{tmp_path}/nobody",), "method": {"name": "distillation"}}
    in_a_stage = {"stages": {"name": "list", "list": {"one": taught | {"teachers": ("arm:random",)}}}}
    for changes, message in ((taught, "teachers: .*/nobody/config.json"), (in_a_stage, "stage one: teachers: arm:random/config.json")):
        with pytest.raises(UserError, match=f"^arm taught: {message} does not exist"):
            compare.compare(tiny(), arms | {"loaded": Arm({}, [{}]), "taught": Arm(changes, [{}])}, tmp_path / "study")
    assert not (tmp_path / "study").exists()
    with pytest.raises(UserError, match="ValueError in .*: name the workdir of the pre-training after a colon"):
        compare.read_arms(str(ROOT / "configs" / "comparison_transfer_bccd.py"))
