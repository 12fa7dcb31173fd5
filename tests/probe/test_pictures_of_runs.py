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


@pytest.mark.parametrize("members", [2, 16])
def test_an_ensemble_can_be_read(members):
    random = np.random.default_rng(0)

    def record():
        value = random.uniform(0.9, 0.91)
        return {"accuracy": value, "interval": (value - 0.02, value + 0.02)}

    found = {
        "members": [{"name": NAMES[at % 3], **record()} for at in range(members)], "averaged": record(),
        "vote": record(), "mean": {"accuracy": 0.905}, "measure": "accuracy", "examples": 10_000,
        "data": "cifar10", "split": "test", "by_size": np.linspace(0.9, 0.93, members).tolist(),
        "disagreements": random.uniform(0.01, 0.2, (members, members)).tolist(),
    }  # fmt: skip
    assert_readable(ensembles.picture(found))


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
