"""The same task with another seed or limit: as if it were opened so, on data that are there; the first stays."""

import numpy as np
import pytest

from dlkit.data.resampling import Resampling, bootstrap
from dlkit.experiments import training
from dlkit.tasks.task import open_task

TEXTS = {"train": 40, "validation": 4, "test": 6}
TASKS = {
    "image_classification": {"name": "digits", "size": 8},
    "translation": {"name": "synthetic:reverse", **TEXTS},
    "text_classification": {"name": "synthetic:order", **TEXTS},
    "tagging": {"name": "synthetic:next_marker", **TEXTS},
    "sequences": {"name": "synthetic:adding", "length": 5, **TEXTS},
    "language_modelling": {"name": "shakespeare", "block": 200},
}
BY_TOKENS = ["translation", "text_classification", "tagging"]


def epoch(task):
    return [rows.tolist() for rows in task.plan("train", batch_size=4, epoch=2)]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_with_another_seed_or_limit_is_one_that_was_opened_so(name):
    task = open_task(name, TASKS[name], seed=0)
    own = epoch(task)
    seeded, limited = task.with_seed(1), task.with_limit(8)
    assert epoch(seeded) == epoch(open_task(name, TASKS[name], seed=1)) != own
    assert epoch(limited) == epoch(open_task(name, TASKS[name], seed=0, limit=8)) != own
    assert (limited.size("train"), limited.with_limit(None).size("train")) == (8, task.size("train"))
    assert (task.seed, task.limit, epoch(task)) == (0, None, own)
    assert seeded.data is task.data is limited.data, "loaded once"


@pytest.mark.parametrize("name", BY_TOKENS)
def test_batches_by_tokens_are_made_of_as_many_texts_as_the_limit_says(name):
    task = open_task(name, TASKS[name], batch_tokens=60)
    assert sorted(np.concatenate(task.plan("train", batch_size=1, epoch=0))) == list(range(40))
    few = task.with_limit(10)
    assert sorted(np.concatenate(few.plan("train", batch_size=1, epoch=0))) == list(range(10))
    assert sorted(np.concatenate(few.with_limit(None).plan("train", batch_size=1, epoch=0))) == list(range(40))


def test_another_seed_draws_another_sample():
    task = open_task("image_classification", TASKS["image_classification"], resampling=Resampling("bootstrap", 0))
    for seed in (0, 5):
        np.testing.assert_array_equal(task.with_seed(seed).trained_on("train", 90), bootstrap(90, seed=seed))


def test_of_two_images_each_is_shown_for_the_other():
    """Also after the ring of all images was made."""
    task = open_task("captioning", {"name": "synthetic:shapes", "train": 8, "validation": 4, "test": 8, "size": 16})
    rows, shuffled = np.arange(2), task.with_shuffled_images()
    images = task.batch("test", rows, epoch=None)["images"]
    assert len(shuffled.batch("test", np.arange(8), epoch=None)["images"]) == 8
    few = shuffled.with_limit(2)
    np.testing.assert_array_equal(few.batch("test", rows, epoch=None)["images"], images[::-1])
    np.testing.assert_array_equal(task.with_limit(2).batch("test", rows, epoch=None)["images"], images)


def test_trainings_that_share_their_data_have_their_own_limits():
    options = {"model.hidden": [8], "train.limit": 30}
    first = training.prepared("mlp", "digits", options, seed=0)
    other = training.prepared("mlp", "digits", {**options, "train.limit": 20}, seed=1, like=first)
    assert [each.task.size("train") for each in (first, other)] == [30, 20]
    assert other.task.data is first.task.data
