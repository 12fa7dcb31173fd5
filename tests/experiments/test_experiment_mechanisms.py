"""Each claim holds in a small size, and does not once what makes it true is switched off."""

import pytest

from dlkit.experiments import EXPERIMENTS, function_of

# Name -> options of a small size at which the claims hold -> (option that is switched off, the verdict that turns).
CASES = {
    "initialization": (
        {"depth": 12, "width": 192, "rows": 64, "seeds": 3},
        [({"for_relu": "gaussian:0.01"}, 0), ({"orthogonal": "xavier"}, 5)],
    ),
    "ensembles": ({"members": 5, "steps": 300}, [({"by": "none"}, 0), ({"by": "none"}, 1)]),
    "padding_and_stride": ({"images": 60, "filters": 8}, [({"standardized": False}, 3)]),
    "attention_cost": (
        {"lengths": [32, 256], "width": 64, "tokens": 512, "rounds": 3, "usual": 32},
        [({"width": 8, "ffn": 8, "usual": 256}, 0)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_verdict_turns_with_its_mechanism(name):
    small, switches = CASES[name]
    run = function_of(name)
    found = run(**small)
    for options, verdict in switches:
        assert found.verdicts[verdict].holds, str(found.verdicts[verdict])
        assert not run(**small | options).verdicts[verdict].holds


def test_every_experiment_has_a_switch():
    assert set(CASES) == set(EXPERIMENTS)
