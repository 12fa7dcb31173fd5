"""Bootstrap samples and parts: their sizes, what chance makes of them, and that batches consist of nothing else."""

import numpy as np
import pytest

from dlkit import recipe
from dlkit.data.resampling import Resampling, bootstrap, part_of
from dlkit.errors import UsageError
from dlkit.train import start


def test_a_bootstrap_sample_has_as_many_examples_and_63_percent_of_the_different_ones():
    sample = bootstrap(10_000, seed=0)
    assert len(sample) == 10_000
    assert 0 <= sample.min() <= sample.max() < 10_000
    # 1 - (1 - 1/n)^n = 0.6321, with a standard deviation of sqrt(n (1/e - 2/e^2)) / n = 0.0031
    assert abs(len(np.unique(sample)) / 10_000 - 0.6321) < 4 * 0.0031
    counts = np.bincount(np.bincount(sample), minlength=4)[:4] / 10_000
    np.testing.assert_allclose(counts, [0.3679, 0.3679, 0.1839, 0.0613], atol=0.02)  # Poisson with mean 1


def test_samples_depend_on_the_seed_and_the_draw_alone():
    np.testing.assert_array_equal(bootstrap(50, seed=3), bootstrap(50, seed=3))
    assert not np.array_equal(bootstrap(50, seed=3), bootstrap(50, seed=4))
    assert not np.array_equal(bootstrap(50, seed=3), bootstrap(50, seed=3, draw=1))


@pytest.mark.parametrize(("count", "parts"), [(10, 2), (11, 3), (5, 5)])
def test_parts_are_disjoint_of_one_size_and_all_together(count, parts):
    found = [part_of(count, part=part, parts=parts) for part in range(parts)]
    assert sorted(np.concatenate(found).tolist()) == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_part_is_drawn_from_all_over_the_split():
    """Files may lie class by class."""
    assert np.ptp(part_of(1000, part=0, parts=10)) > 900


def test_the_counts_of_a_head_are_those_of_its_sample():
    counts = Resampling("head_bootstrap", seed=2).head_counts(20, 3)
    assert counts.shape == (20, 3)
    assert counts.sum(axis=0).tolist() == [20, 20, 20]
    for head in range(3):
        np.testing.assert_array_equal(counts[:, head], np.bincount(bootstrap(20, seed=2, draw=head), minlength=20))


def task_of(model, **keys):
    overrides = [(f"{section}.{key}", str(value), "set") for section, of in keys.items() for key, value in of.items()]
    return start._open(recipe.resolve(model, overrides=overrides), None, None)


@pytest.mark.parametrize(
    ("model", "data"), [("mlp", None), ("text_bag", None), ("lstm", {"length": 3}), ("seq2seq", {"symbols": 5})]
)
def test_an_epoch_consists_of_what_was_drawn(model, data):
    plain = task_of(model, train={"limit": 60}, data=data or {})
    whole = np.sort(np.concatenate(plain.plan("train", batch_size=16, epoch=0)))
    assert whole.tolist() == list(range(60)), "no resampling, no difference"
    task = task_of(model, train={"limit": 60, "resample": "bootstrap", "seed": 5}, data=data or {})
    for epoch in (0, 1):
        plan = task.plan("train", batch_size=16, epoch=epoch)
        np.testing.assert_array_equal(np.sort(np.concatenate(plan)), bootstrap(60, seed=5))
    assert np.concatenate(task.plan("train", batch_size=16, epoch=None)).tolist() == list(range(60)), "evaluation"
    task = task_of(model, train={"limit": 60, "resample": "part", "part": 1, "parts": 3}, data=data or {})
    plan = task.plan("train", batch_size=16, epoch=2)
    assert len(plan) == 2, "20 examples: two batches an epoch"
    np.testing.assert_array_equal(np.sort(np.concatenate(plan)), part_of(60, part=1, parts=3))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"resample": "part", "part": 3, "parts": 3}, "no train.part 3 of 3"),
        ({"resample": "part"}, "no train.part 0 of 1"),
        ({"part": 1}, "train.part is for the resample part"),
        ({"resample": "bootstrap", "batch_tokens": 100}, "batches are made of so many tokens"),
        ({"resample": "jackknife"}, "train.resample"),
        ({"resample": "head_bootstrap"}, "not for text classification"),
    ],
)
def test_what_does_not_fit_is_an_error(keys, message):
    with pytest.raises(UsageError, match=message):
        recipe.resolve("text_bag", overrides=[(f"train.{key}", str(value), "set") for key, value in keys.items()])
