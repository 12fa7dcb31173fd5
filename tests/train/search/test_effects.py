"""What a search says of its keys, against arithmetic, and against functions whose answer is known."""

import numpy as np
import pytest
from conftest_search import Done

from dlkit import recipe, runs
from dlkit.train.search.effects import effect, effects, figures_of, importances, ranks
from dlkit.train.search.space import parse
from dlkit.train.search.study import Result, results


def test_equal_values_share_the_mean_of_their_ranks():
    assert ranks([30, 10, 20, 10]).tolist() == [4, 1.5, 3, 1.5]


def test_the_correlation_is_spearmans():
    """1 - 6 sum d^2 / (n (n^2 - 1)): the ranks differ by 1, 1, 0, 1, 1, so 1 - 6 * 4 / 120."""
    assert effect([1, 2, 3, 4, 5], [20, 10, 30, 50, 40]).correlation == pytest.approx(0.8)
    assert effect(["8", "16", "128", "64"], [4, 3, 1, 2]).correlation == pytest.approx(-1)  # texts of numbers


def test_the_strength_is_the_correlation_ratio_of_the_ranks():
    """Ranks 1, 4 and 2, 3: group means 2.5 and 2.5, nothing between. Ranks 1, 2 and 3, 4: 4 of the variance's 5."""
    assert effect(["x", "x", "y", "y"], [1, 9, 2, 3]).strength == pytest.approx(0)
    assert effect(["x", "x", "y", "y"], [1, 2, 3, 9]).strength == pytest.approx(np.sqrt(4 / 5))
    assert effect(["x", "x", "y", "y"], [1, 2, 3, 9]).correlation is None


def test_a_key_whose_best_values_lie_in_the_middle_is_seen():
    values = np.linspace(-1, 1, 21)
    found = effect(list(values), list(values**2))
    assert abs(found.correlation) < 0.1
    assert found.strength > 0.8
    assert found.is_significant


def test_chance_is_told_from_an_effect():
    """A key without any effect is significant in about 1 of 20 cases: of 100 at most 14, by the binomial 99.99 %."""
    generator = np.random.default_rng(0)
    false_alarms = sum(
        effect(list(generator.normal(size=12)), list(generator.normal(size=12))).is_significant for _ in range(100)
    )
    assert 0 < false_alarms <= 14
    assert effect(list(range(12)), list(range(12))).chance == pytest.approx(1 / 1000)


@pytest.mark.parametrize(
    ("values", "figures"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [1, 1, 1, 1])]
)
def test_too_little_says_nothing(values, figures):
    assert effect(values, figures) is None


def test_what_keys_act_on():
    generator = np.random.default_rng(1)
    spaces = parse(["train.lr=log:1e-4..1", "model.dropout=0..0.5", "a.idle=0..1"])
    found = []
    for number in range(30):
        rate, dropout, idle = 10 ** generator.uniform(-4, 0), generator.uniform(0, 0.5), generator.uniform()
        figures = {"early": abs(np.log10(rate) + 2), "gap": 0.3 - dropout / 2}
        values = {"train.lr": rate, "model.dropout": dropout, "a.idle": idle}
        found.append(Result(number, 0, "complete", values, 0.0, 1, "", "", figures))
    assert [each.acts_on for each in effects(spaces, found, {})] == ["optimization", "generalization", ""]
    pruned = [Result(each.number, 0, "pruned", each.values, 0.0, 1, "", "", each.figures) for each in found]
    rate, dropout, _ = effects(spaces, pruned, {})
    assert rate.early.trials == 30
    assert dropout.gap is None  # the gap of what was stopped early is another one


def test_the_key_that_matters_has_the_greatest_importance(in_memory):
    search = in_memory(["a.much=0..1", "a.little=0..1"], lambda v, n: v["a.much"] + 0.01 * v["a.little"], trials=40)
    search.run()
    found = importances(search.study, search.plan)
    assert sum(found.values()) == pytest.approx(1)
    assert found["a.much"] > 0.7
    few = in_memory(["a.much=0..1"], lambda v, n: 0.0, trials=9)
    few.run()
    assert importances(few.study, few.plan) == {}


def test_an_idle_key_does_not_seem_to_act_because_finer_rounds_draw_it_near_the_best(in_memory):
    """Only the rate acts, but over all rounds an idle key's values go with the error in half of the searches; in the
    first round, where both are drawn at random, in 1 of 20: of 20 at most 4, by the binomial 99.7 %.
    """  # fmt: skip
    alarms = {"first round": 0, "all rounds": 0}
    shares, hits = [], 0
    for seed in range(20):

        def trained(values, number):
            error = abs(np.log10(values["train.lr"]) + 2)
            return Done([error], {"early": error, "gap": error})

        search = in_memory(["train.lr=log:1e-4..1", "a.idle=0..1"], trained, trials=90, refine=2, seed=seed)
        search.run()
        found = results(search.study, search.plan)
        assert [sum(each.round == number for each in found) for number in range(3)] == [30, 30, 30]
        rate, idle = effects(search.plan.spaces, found, {})
        hits += rate.acts_on == "both"
        assert idle.early.trials == 30
        alarms["first round"] += idle.early.is_significant
        together = effect([each.values["a.idle"] for each in found], [each.figures["early"] for each in found])
        alarms["all rounds"] += together.is_significant
        shares.append(importances(search.study, search.plan)["a.idle"])
    assert alarms["first round"] <= 4
    assert alarms["all rounds"] >= 8, "what this test is for"
    assert hits == 20
    assert np.mean(shares) < 0.1


@pytest.fixture
def run(tmp_path):
    info = {"task": "image_classification", "data": {}, "model_arguments": {}}
    resolved = recipe.resolve("lenet", "digits", overrides=[("train.monitor", "accuracy", "set")])
    return runs.create(tmp_path, resolved, info)


def test_the_figures_of_a_run(run):
    """Early: training just before the first evaluation, 1 - 0.5. The gap at the last: (1 - 0.8) - (1 - 0.9)."""
    for step, accuracy in ((10, 0.3), (20, 0.5), (30, 0.7), (40, 0.9)):
        run.log({"kind": "train", "step": step, "epoch": step / 20, "loss": 1.0, "accuracy": accuracy})
        if step % 20 == 0:
            line = {"kind": "evaluation", "step": step, "split": "validation", "weights": "raw", "loss": 2.0}
            run.log(line | {"accuracy": 0.6 if step == 20 else 0.8})
    run.log({"kind": "evaluation", "step": 40, "split": "test", "weights": "raw", "loss": 2.0, "accuracy": 0.1})
    assert run.monitor[0] == "accuracy"
    assert figures_of(run) == pytest.approx({"epochs": 2.0, "early": 0.5, "gap": 0.1})


def test_without_the_metric_in_training_it_is_the_loss(run):
    run.log({"kind": "train", "step": 1, "epoch": 1.0, "loss": 1.5})
    assert figures_of(run) == {"epochs": 1.0}
    run.log({"kind": "evaluation", "step": 1, "split": "validation", "weights": "raw", "loss": 2.0, "accuracy": 0.5})
    assert figures_of(run) == {"epochs": 1.0, "early": 1.5, "gap": 0.5}
