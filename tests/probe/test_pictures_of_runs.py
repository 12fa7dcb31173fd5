"""Pictures of a range test, an ensemble and a search can be read, whatever the names are."""

import numpy as np
import pytest
from probe_pictures import assert_readable

from dlkit.probe import ensembles, lr_range, search_pictures
from dlkit.train.lr_range import RangeTest
from dlkit.train.search.effects import Effect, KeyEffects
from dlkit.train.search.space import parse
from dlkit.train.search.study import Plan, Result

NAMES = ["runs/transformer_synthetic_reverse_of_great_length_bootstrap-12", "$x_1", "runs/b"]


def test_a_range_test_can_be_read():
    rates = np.geomspace(1e-7, 10, 100)
    losses = np.concatenate([np.linspace(2.3, 0.5, 80), np.geomspace(0.5, 1e6, 20)])
    found = RangeTest(rates.tolist(), losses.tolist(), "diverged")
    assert found.suggestion is not None
    assert_readable(lr_range.picture(found, title=f"learning rate range test of {NAMES[0]}"))


def ensemble(values, names=NAMES):
    """Of so many members, each with its accuracy."""
    random = np.random.default_rng(0)
    records = [{"accuracy": value, "interval": (value - 0.02, min(1, value + 0.02))} for value in values]
    return {
        "members": [{"name": names[at % len(names)], **record} for at, record in enumerate(records)],
        "averaged": records[0], "vote": records[1], "mean": {"accuracy": np.mean(values)}, "measure": "accuracy",
        "examples": 10_000, "data": "cifar10", "split": "test",
        "by_size": np.linspace(values[0], max(values), len(values)).tolist(),
        "disagreements": random.uniform(0.01, 0.2, (len(values), len(values))).tolist(),
    }  # fmt: skip


@pytest.mark.parametrize("members", [2, 16])
def test_an_ensemble_can_be_read(members):
    assert_readable(ensembles.picture(ensemble(np.random.default_rng(0).uniform(0.9, 0.91, members))))


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.97, 0.99, 1.0], [0.0, 0.0, 0.1]])
def test_nothing_of_an_ensemble_is_beyond_what_is_possible(values):
    """All that is written stands within the axes or at their left, and no tick is below 0 or above 100 %."""
    figure = ensembles.picture(ensemble(values))
    assert_readable(figure)
    each, sizes, _ = figure.axes
    for ticks, (low, high) in ((each.get_xticks(), each.get_xlim()), (sizes.get_yticks(), sizes.get_ylim())):
        drawn = [tick for tick in ticks if low <= tick <= high]
        assert len(drawn) >= 2
        assert min(drawn) >= 0
        assert max(drawn) <= 100
    (label,) = [text for text in each.texts if text.get_text() == "mean of the members"]
    left, right = each.get_window_extent().intervalx
    shown = label.get_window_extent()
    assert left <= shown.x0 < shown.x1 <= right
    line = each.transData.transform((100 * np.mean(values), 0))[0]
    assert min(abs(line - shown.x0), abs(line - shown.x1)) < 10, "beside its line"


def test_members_of_an_ensemble_are_told_apart():
    names = [f"runs/a_net_with_a_name_of_great_length_bootstrap-{number}" for number in (1, 2)]
    each, *_ = ensembles.picture(ensemble([0.9, 0.8], names)).axes
    first, second, *_ = [label.get_text() for label in each.get_yticklabels()]
    assert (first[:3], second[:3]) == ("1  ", "2  "), "as in the other panels"
    assert (first[-2:], second[-2:]) == ("-1", "-2")


@pytest.mark.parametrize("keys", [1, 5])
def test_a_search_can_be_read(keys):
    spaces = parse(
        ["train.lr=log:1e-4..1e-1", "train.batch_size={32,64,128,256}", "model.dropout=0..0.5", "model.layers=int:1..8",
         "train.label_smoothing=log:0.02..0.06"][:keys]
    )  # fmt: skip
    random = np.random.default_rng(0)
    found = []
    for number in range(30):
        values = {
            space.key: str(random.choice(space.choices))
            if space.kind == "choice"
            else space.from_unit(random.uniform())
            for space in spaces
        }
        state = "complete" if number % 3 else "pruned"
        found.append(Result(number, 0, state, values, random.uniform(0.1, 0.9), 3, "", "", {}))
    early, gap = Effect(0.8, 0.01, 0.5, 30), Effect(0.3, 0.4, None, 20)
    told = [KeyEffects(space.key, 1 / keys, early, gap) for space in spaces]
    plan = Plan(spaces=tuple(spaces), trials=30, metric="accuracy", direction="higher")
    assert_readable(search_pictures.figure(found, told, plan, title="runs/lenet_digits-search-1"))
