"""Densely guided distillation: the loss, the random choice of guides, and a path of stages on digits."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import batch_of, bits, build, crash_in, make_config, run, start_in
from ml_collections import ConfigDict
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from configs import dgkd_cifar10_resnet, dgkd_cifar100_plain, dgkd_cifar100_wrn, dgkd_digits, dgkd_imagenet
from distill_jax import files, methods, models, stages, study, workdir
from distill_jax.data import augment
from distill_jax.errors import UserError
from distill_jax.methods import Batch
from distill_jax.methods.densely_guided import Guidance, draw_survivors
from distill_jax.stages.densely_guided import choose_path
from distill_jax.state import empty_metrics

B, C = 16, 7
PATH = ("small_cnn", "plain2", "plain2_cifar10")  # a teacher, one assistant, a student
STUDENT = "stochastic_plain2_cifar10"


def make_method(guides=3, num_classes=C, **options):
    setting = methods.Setting(apply=None, cycle_ends=(1,), num_examples=50, num_classes=num_classes, num_teachers=guides)
    return methods.create("densely_guided", setting=setting, **options)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    student, *guides = 3 * rng.standard_normal((4, B, C)).astype(np.float32)
    return student, np.stack(guides), rng.integers(0, C, B)


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 0, 1), (0, 1, 0)])
@pytest.mark.parametrize("form", ["paper", "code"])
def test_loss_by_hand(batch, form, weights):
    student, guides, labels = batch
    parts = make_method(form=form, weight_teacher=0.7, temperature=5.0).loss(student, labels, Guidance(guides, np.array(weights, float)))
    ce = -log_softmax(student.astype(float), axis=1)[np.arange(B), labels].mean()
    soft = softmax(student.astype(float) / 5, axis=1)
    kd = [25 * entropy(softmax(guide.astype(float) / 5, axis=1), soft, axis=1).mean() for guide in guides]
    taught = 0.7 * np.dot(weights, kd) / (1 if form == "paper" else C)
    assert parts.ce == pytest.approx(ce, rel=1e-5)
    assert parts.teacher == pytest.approx(taught, rel=1e-5)
    assert parts.loss == pytest.approx((3 if form == "paper" else 1) * 0.3 * ce + taught, rel=1e-5)


@pytest.mark.parametrize(("form", "reduction"), [("paper", "batchmean"), ("code", "mean")])
@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # PyTorch advises against "mean"
def test_loss_and_gradient_against_pytorch(batch, form, reduction):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    F = torch.nn.functional
    student, guides, labels = batch
    z = torch.tensor(student, requires_grad=True)
    soft = F.log_softmax(z / 5, dim=1)
    kd = [25 * F.kl_div(soft, F.softmax(torch.tensor(guide) / 5, dim=1), reduction=reduction) for guide in guides]
    loss = (3 if form == "paper" else 1) * 0.3 * F.cross_entropy(z, torch.tensor(labels)) + 0.7 * sum(kd)
    loss.backward()
    method = make_method(form=form, weight_teacher=0.7, temperature=5.0)
    ours, gradient = jax.value_and_grad(lambda x: method.loss(x, labels, Guidance(guides, jnp.ones(3))).loss)(student)
    assert ours == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("form", "factor"), [("paper", 3), ("code", 1)])
def test_without_a_guide_the_cross_entropy_is_left(batch, form, factor):
    student, guides, labels = batch
    method = make_method(form=form, weight_teacher=0.75)
    parts, gradient = jax.value_and_grad(lambda x: method.loss(x, labels, Guidance(guides, jnp.zeros(3))).loss)(student)
    ce, gradient_ce = jax.value_and_grad(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, labels).mean())(student)
    assert parts == pytest.approx(factor * 0.25 * float(ce), rel=1e-6)
    np.testing.assert_allclose(gradient, factor * 0.25 * gradient_ce, rtol=1e-5, atol=1e-8)


def test_one_guide_is_plain_distillation(batch):
    """KD and TAKD are special cases: with one guide the loss is that of `distillation`; in form code, with the KL divided by C."""
    student, guides, labels = batch
    kd = methods.distillation(weight_ce=0.3, temperature=5.0).loss(student, labels, guides[0])
    for form, factor in (("paper", 1), ("code", C)):
        parts = make_method(1, form=form, weight_teacher=0.7).loss(student, labels, Guidance(guides[:1], jnp.ones(1)))
        assert parts.teacher == pytest.approx(float(kd.teacher) / factor, rel=1e-6)
        assert parts.loss - parts.teacher == pytest.approx(float(kd.loss - kd.teacher), rel=1e-5)


def test_with_the_larger_guides_dropped_it_is_takd_but_for_the_papers_factor(batch):
    """DGKD differs from TAKD in the other guides' terms and, in form paper, also in the labels' weight n + 1."""
    student, guides, labels = batch
    for form, factor in (("paper", 3), ("code", 1)):
        takd = make_method(1, form=form, weight_teacher=0.7).loss(student, labels, Guidance(guides[2:], jnp.ones(1)))
        dgkd = make_method(3, form=form, weight_teacher=0.7).loss(student, labels, Guidance(guides, jnp.array([0.0, 0.0, 1.0])))
        assert dgkd.teacher == pytest.approx(float(takd.teacher), rel=1e-6)
        assert dgkd.loss - dgkd.teacher == pytest.approx(factor * float(takd.loss - takd.teacher), rel=1e-5)


def draws(**fields):
    """The guides drawn in 4000 steps of a run with 4 guides, with keys made as in the train step."""
    fields = {"guides": 4, "survival": 1.0, "drop": 0, "teacher_may_drop": True} | fields
    keys = jax.vmap(lambda step: jax.random.fold_in(jax.random.key(0), step))(jnp.arange(4000))
    return np.asarray(jax.vmap(lambda key: draw_survivors(key, **fields))(keys))


@pytest.mark.parametrize("survival", [0.0, 0.3, 0.75, 1.0])
def test_guides_survive_as_often_as_asked_and_independently(survival):
    drawn = draws(survival=survival)
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    deviation = np.sqrt(survival * (1 - survival) / 4000)
    np.testing.assert_allclose(drawn.mean(axis=0), survival, atol=4 * deviation)
    pairs = drawn.T @ drawn / 4000
    expected = np.where(np.eye(4), survival, survival**2)
    np.testing.assert_allclose(pairs, expected, atol=4 * np.sqrt(survival**2 * (1 - survival**2) / 4000) + 4 * deviation)


def test_exactly_so_many_guides_are_dropped_each_as_often():
    drawn = draws(drop=1)
    assert set(drawn.sum(axis=1)) == {3.0}
    np.testing.assert_allclose(drawn.mean(axis=0), 0.75, atol=0.03)
    assert set(draws(drop=4).ravel()) == {0.0}


@pytest.mark.parametrize("fields", [{"survival": 0.5}, {"drop": 2}])
def test_the_teacher_can_be_kept_out_of_the_draw(fields):
    drawn = draws(**fields, teacher_may_drop=False)
    assert set(drawn[:, 0]) == {1.0}
    np.testing.assert_allclose(drawn[:, 1:].mean(axis=0), 0.5 if "survival" in fields else 1 / 3, atol=0.04)


def test_a_dropped_guide_is_not_asked():
    asked = []

    def guide(number):
        def say():
            jax.debug.callback(lambda: asked.append(number))
            return jnp.full((5, C), float(number))

        return say

    method = methods.densely_guided(num_teachers=3, survival=0.5)
    batch, seen = Batch(jnp.zeros((5, 2)), jnp.arange(5), tuple(map(guide, (1, 2, 3)))), set()
    for step in range(12):
        asked.clear()
        said = method.signal(None, batch, jax.random.key(step))
        jax.effects_barrier()
        assert said.logits_GxBxC.shape == (3, 5, C)
        assert np.array_equal(said.logits_GxBxC[:, 4, 2], said.weights_G * np.array([1, 2, 3]))
        assert sorted(asked) == [number for number in (1, 2, 3) if said.weights_G[number - 1]]
        seen.add(tuple(np.asarray(said.weights_G)))
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"survival": 1.5}, r"survival is 1.5; it must lie in \(0, 1\]"),
        ({"survival": 0.0}, r"survival is 0.0; it must lie in \(0, 1\]"),
        ({"survival": -0.1, "teacher_may_drop": False}, r"survival is -0.1; it must lie in \[0, 1\]"),
        ({"weight_teacher": 2.0}, "weight_teacher is 2.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"form": "both"}, "form is 'both'; known: paper, code"),
        ({"drop": 3}, r"drop is 3; it must lie in \[0, 2\]"),
        ({"drop": 3, "teacher_may_drop": False}, r"drop is 3; it must lie in \[0, 2\]"),
        ({"drop": 1, "survival": 0.5}, "drop is 1 and survival 0.5; choose one"),
        ({"guide_logits": "disk"}, "guide_logits is 'disk'; known: forward, table"),
        ({"standardize": True, "num_classes": 2}, "standardize is True, which needs three"),
        ({"guides": 0}, "num_teachers is 0; densely_guided takes one guide or more"),
    ],
)
def test_bad_options_are_named(fields, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_method(**fields)


def path_config(**fields):
    """The stages of the configs with a path of three small networks, in a run as tiny as those of the other tests."""
    config = make_config(data__crop_padding=0, schedule__cycles=1)
    config.method = ConfigDict({"name": "supervised"})
    config.stages = dgkd_cifar100_plain.densely_guided()
    config.stages.update({"path": PATH, "compare": ("stochastic",), "form": "paper", "weight_teacher": 0.5, "survival": 0.5} | fields)
    return config


def names(**fields):
    return list(stages.expand(path_config(**fields)))


def test_no_run_is_trained_twice():
    assert names(path=("plain10", "plain8", "plain6", "plain4"), compare=("supervised", "kd", "takd", "dgkd", "stochastic")) == [
        "plain10", "supervised_plain8", "kd_plain8", "supervised_plain6", "takd_plain6", "dgkd_plain6",
        "supervised_plain4", "kd_plain4", "takd_plain4", "dgkd_plain4", "stochastic_plain4",
    ]  # fmt: skip
    everything = stages.expand(path_config(path=("plain10", "plain8", "plain6", "plain4"), compare=("takd", "stochastic")))
    guides = {name: stage.teachers for name, stage in everything.items()}
    assert guides == {
        "plain10": (),
        "kd_plain8": ("stage:plain10",),
        "takd_plain6": ("stage:kd_plain8",),
        "dgkd_plain6": ("stage:plain10", "stage:kd_plain8"),
        "takd_plain4": ("stage:takd_plain6",),
        "stochastic_plain4": ("stage:plain10", "stage:kd_plain8", "stage:dgkd_plain6"),
    }
    assert "survival" not in everything["dgkd_plain6"].method and everything["stochastic_plain4"].method.survival == 0.5


def test_without_an_assistant_kd_takd_and_dgkd_are_one_run():
    assert names(path=("plain4", "plain2"), compare=("kd", "takd", "dgkd")) == ["plain4", "kd_plain2"]


def test_the_number_of_assistants_is_a_field():
    path = ("plain10", "plain8", "plain6", "plain4", "plain2")
    assert [choose_path(path, n) for n in (-1, 3, 0)] == [path, path, ("plain10", "plain2")]
    assert choose_path(path, 1) == ("plain10", "plain6", "plain2")
    assert choose_path(path, 2) == ("plain10", "plain8", "plain4", "plain2")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": ("plain4", "plain3", "plain2")}, "stages.path names 'plain3': name is 'plain3'; known: .*plain10, .*resnet"),
        ({"path": ("plain4",)}, "stages.path is .*; it must have the teacher"),
        ({"path": ("plain2", "text_cnn")}, "model.name is 'text_cnn', a network for text, but the inputs are images"),
        ({"path": ("plain4", "plain2", "plain4")}, "stages.path names plain4 more than once"),
        ({"assistants": 2}, "stages.assistants is 2; stages.path has 1"),
        ({"compare": ("dkd",)}, "stages.compare is 'dkd'; known: supervised, kd, takd, dgkd, stochastic"),
        ({"survival": 1.5}, r"stages.survival is 1.5; it must lie in \(0, 1\]"),
        ({"drop": 2, "survival": 1.0}, r"stages.drop is 2; it must lie in \[0, 1\]"),
        ({"temperature": 0.0}, "stages.temperature is 0.0"),
        ({"guide_logits": "disk"}, "stages.guide_logits is 'disk'; known: forward, table"),
    ],
)
def test_a_bad_path_is_refused_before_anything_is_trained(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        study.train(path_config(**fields), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", [dgkd_cifar100_plain, dgkd_cifar10_resnet, dgkd_cifar100_wrn, dgkd_imagenet, dgkd_digits])
def test_every_path_has_its_stages(source):
    config = source.get_config()
    students = [name for name in stages.expand(config) if name.endswith(config.stages.path[-1])]
    assert [name.split("_")[0] for name in students] == ["supervised", "kd", "takd", "dgkd", "stochastic"]
    assert config.model.name == config.stages.path[-1]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A finished family, its summary, and the experiment of its last stage, the stochastic student."""
    folder, kept = tmp_path_factory.mktemp("path"), {}
    with pytest.MonkeyPatch.context() as patch:
        run_job = study.run
        patch.setattr(study, "run", lambda exp, job, *rest: kept.update({job.stage: exp}) or run_job(exp, job, *rest))
        return folder, study.train(path_config(), folder), kept[STUDENT]


def test_a_family_leaves_its_table(family):
    folder, summary, _ = family
    accuracy = {stage["stage"]: f"{100 * stage['test_accuracy']:.2f}" for stage in summary["stages"]}
    assert list(accuracy) == ["small_cnn", "kd_plain2", STUDENT]
    assert (folder / "table.md").read_text().splitlines() == [
        "| network | parameters | supervised, % | KD, % | stochastic DGKD, % |",
        "| --- | --- | --- | --- | --- |",
        f"| small_cnn | 24,058 | {accuracy['small_cnn']} | - | - |",
        f"| plain2 | 10,986 | - | {accuracy['kd_plain2']} | - |",
        f"| plain2_cifar10 | 3,194 | - | - | {accuracy[STUDENT]} |",
    ]


def test_the_table_has_a_column_a_variant():
    config = path_config(compare=("supervised", "kd", "takd", "dgkd", "stochastic"))
    summaries = [
        {"stage": name, "model": stage.model.name, "num_params": 1000 * (4 - PATH.index(stage.model.name)), "test_accuracy": i / 100}
        for i, (name, stage) in enumerate(stages.expand(config).items())
    ]
    summaries[-1]["test_accuracy_std"] = 0.005
    assert stages.FAMILIES[config.stages.name].table(summaries).splitlines() == [
        "| network | parameters | supervised, % | KD, % | TAKD, % | DGKD, % | stochastic DGKD, % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| small_cnn | 4,000 | 0.00 | - | - | - | - |",
        "| plain2 | 3,000 | 1.00 | 2.00 | 2.00 | 2.00 | - |",
        "| plain2_cifar10 | 2,000 | 3.00 | 4.00 | 5.00 | 6.00 | 7.00 ± 0.50 |",
    ]


def test_no_gradient_reaches_the_guides(family):
    """A step equals a step by hand in which the guides' logits are constants."""
    folder, _, exp = family
    key, ids = jax.random.key(0), np.arange(40)
    state = start_in(exp, folder / "by_hand")
    before = jax.tree.map(jnp.copy, state)
    after, _, _ = exp.train_step(state, empty_metrics(exp.data.mesh), exp.data.train, batch_of(exp, ids), key)
    assert bits(after.given) == bits(before.given)

    mean, std = augment.channel_statistics(exp.data.dataset.train["image"])
    rows = {name: value[ids] for name, value in exp.data.dataset.train.items()}
    inputs = (rows["image"].astype(np.float32) / 255 - mean) / std
    guides = [np.asarray(jax.jit(models.create(name, 10).apply)(guide, inputs)) for name, guide in zip(PATH[:2], before.given, strict=True)]
    weights = draw_survivors(jax.random.split(jax.random.fold_in(key, 0), 3)[2], 2, 0.5, 0, True)
    assert weights.sum() > 0

    def loss_by_hand(params):
        variables = {"params": params, "batch_stats": before.batch_stats}
        logits, _ = models.create(PATH[-1], 10).apply(variables, inputs, train=True, mutable=["batch_stats"])
        ce = -jax.nn.log_softmax(logits)[ids, rows["label"]].mean()
        soft = [jax.nn.softmax(guide / 5) for guide in guides]
        kd = [25 * (p * (jnp.log(p) - jax.nn.log_softmax(logits / 5))).sum(axis=1).mean() for p in soft]
        return 2 * 0.5 * ce + 0.5 * sum(weight * term for weight, term in zip(weights, kd, strict=True))

    def first_step(leaf, gradient):  # Nesterov's momentum, from 0
        return leaf - exp.plan.learning_rates[0] * 1.9 * (gradient + 1e-4 * leaf)

    expected = jax.tree.map(first_step, before.params, jax.jit(jax.grad(loss_by_hand))(before.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), after.params, expected)


def test_a_crash_in_a_stage_changes_nothing_in_the_end(family, tmp_path, capsys):
    """Finished stages are not repeated, and the last one continues with the same guides and draws."""
    folder, whole, _ = family
    broken = shutil.copytree(
        folder, tmp_path / "broken", ignore=lambda path, files: {STUDENT, "summary.json"} & set(files) if path == str(folder) else ()
    )
    with crash_in(STUDENT, 13):
        study.train(path_config(), broken)
    capsys.readouterr()
    assert study.train(path_config(), broken)["weights_sha256"] == whole["weights_sha256"]
    said = capsys.readouterr().out
    assert said.count("already finished") == 2 and "resuming after step 10" in said


def test_a_table_says_what_the_guides_would(family):
    folder, whole, exp = family
    config = stages.expand(path_config(guide_logits="table"))[STUDENT]
    from_table = build(config, folder / "table")._replace(init=exp.init, predict=exp.predict)  # they are compiled
    summary = run(from_table, 0, folder / "table")
    assert summary["test_nll"] == pytest.approx(whole["test_nll"], rel=1e-3)
    assert "teacher_agreement" in whole and "teacher_agreement" not in summary
    config.data.crop_padding = 1
    with pytest.raises(UserError, match="method.guide_logits is 'table', which needs data.crop_padding=0"):
        build(config, folder / "table")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 7, "classes": []}, "has 7 classes; digits has 10"),
        ({"input_shape": [32, 32, 3]}, r"takes inputs of shape \(32, 32, 3\)"),
    ],
)
def test_a_guide_must_fit_the_data(family, tmp_path, changes, message):
    guide = shutil.copytree(family[0] / "kd_plain2", tmp_path / "guide")
    workdir.write_json(guide / "network.json", files.read_json(guide / "network.json") | changes)
    config = stages.expand(path_config())[STUDENT]
    config.teachers = (str(family[0] / PATH[0]), str(guide))
    with pytest.raises(UserError, match=f"teacher {guide} {message}"):
        study.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
