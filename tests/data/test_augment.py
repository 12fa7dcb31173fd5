import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.data.augment import AUGMENTATIONS, augment, crop, crop_flip, example_keys, flip, splitmix64, uniform
from dlkit.errors import UsageError


def keys_with(condition, count=1):
    """The first `count` keys whose draws fulfil a condition."""
    keys = example_keys(0, 0, range(5000))
    return keys[condition(keys)][:count]


def test_splitmix64_gives_the_known_sequence():
    """The first five outputs for the seed 1234567, as Rosetta Code ("Pseudo-random numbers/Splitmix64") lists them."""
    seed = np.array([1234567], np.uint64)
    assert splitmix64(seed, np.arange(5, dtype=np.uint64)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_keys_differ_by_seed_epoch_and_example():
    keys = [
        key for seed in (0, 1, 2**63) for epoch in range(20) for key in example_keys(seed, epoch, range(500)).tolist()
    ]
    assert len(set(keys)) == 3 * 20 * 500
    assert example_keys(1, 2, [7, 3]).dtype == np.uint64


def test_a_key_belongs_to_its_example_wherever_it_stands():
    together = example_keys(5, 3, [4, 9, 2])
    assert together.tolist() == [example_keys(5, 3, [example])[0] for example in (4, 9, 2)]


def test_uniform_fills_the_interval_evenly():
    numbers = uniform(example_keys(0, 0, range(20_000)), 3, purpose="test")
    assert numbers.shape == (20_000, 3)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        counts = np.histogram(column, 20, (0, 1))[0]
        # chi-square with 19 degrees of freedom: 43.8 is passed by chance once in 1000
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8


def test_draws_purposes_epochs_and_neighbours_are_uncorrelated():
    keys = example_keys(0, 0, range(20_000))
    first = uniform(keys, 2, purpose="a")
    others = [
        first[:, 1],
        uniform(keys, 1, purpose="b")[:, 0],
        uniform(example_keys(0, 1, range(20_000)), 1, purpose="a")[:, 0],
        uniform(example_keys(1, 0, range(20_000)), 1, purpose="a")[:, 0],
        np.roll(first[:, 0], 1),
    ]
    for other in others:
        assert abs(np.corrcoef(first[:, 0], other)[0, 1]) < 4 / np.sqrt(20_000)


def test_flip_by_hand():
    yes = keys_with(lambda keys: uniform(keys, 1, purpose="flip")[:, 0] < 0.5)
    no = keys_with(lambda keys: uniform(keys, 1, purpose="flip")[:, 0] >= 0.5)
    images = np.array([[[[1, 10], [2, 20], [3, 30]]]] * 2, np.float32)  # (2, 1, 3, 2)
    flipped = flip(images, np.concatenate([yes, no]))
    assert flipped[0].tolist() == [[[3, 30], [2, 20], [1, 10]]]
    assert flipped[1].tolist() == [[[1, 10], [2, 20], [3, 30]]]


def test_crop_by_hand():
    """An 8x16 image moves by at most 1 row and 2 columns; what comes in from outside is 0."""
    image = np.arange(1, 129, dtype=np.float32).reshape(1, 8, 16, 1)

    def corner(keys):
        draws = uniform(keys, 2, purpose="crop")
        return (draws[:, 0] < 1 / 3) & (draws[:, 1] >= 4 / 5)  # the first of 3 rows, the last of 5 columns

    expected = np.zeros((8, 16), np.float32)
    expected[1:, :14] = image[0, :7, 2:, 0]
    assert crop(image, keys_with(corner))[0, ..., 0].tolist() == expected.tolist()


def test_crop_takes_every_window_equally_often():
    count = 8100
    image = np.zeros((1, 32, 32, 1), np.float32)
    image[0, 16, 16] = 1
    crops = crop(np.repeat(image, count, axis=0), example_keys(0, 0, range(count)))
    _, rows, columns, _ = np.nonzero(crops)
    assert len(rows) == count
    places = np.zeros((9, 9))
    np.add.at(places, (rows - 12, columns - 12), 1)
    # chi-square with 80 degrees of freedom: 124.8 is passed by chance once in 1000
    assert ((places - 100) ** 2 / 100).sum() < 124.8


def test_flip_mirrors_half_of_the_examples():
    images = np.zeros((4000, 1, 2, 1), np.float32)
    images[:, 0, 0] = 1
    share = flip(images, example_keys(0, 0, range(4000)))[:, 0, 1, 0].mean()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(sorted(AUGMENTATIONS)),
    examples=st.lists(st.integers(0, 10_000), min_size=1, max_size=12),
    epoch=st.integers(0, 300),
    seed=st.integers(0, 2**64 - 1),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4)),
)
def test_the_batch_does_not_matter(name, examples, epoch, seed, shape):
    images = np.random.default_rng(examples).normal(size=(len(examples), *shape)).astype(np.float32)
    before = images.copy()
    together = augment([name], images, example_keys(seed, epoch, examples))
    assert together.shape == images.shape
    assert together.dtype == np.float32
    assert np.array_equal(images, before)
    for place, example in enumerate(examples):
        alone = augment([name], images[place : place + 1], example_keys(seed, epoch, [example]))
        assert np.array_equal(together[place], alone[0])


def test_epochs_see_different_crops():
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    first, second = (crop_flip(images, example_keys(0, epoch, range(8))) for epoch in (0, 1))
    assert not np.array_equal(first, second)


def test_names_apply_in_order_and_none_leave_the_images():
    images = np.random.default_rng(0).normal(size=(8, 16, 16, 1)).astype(np.float32)
    keys = example_keys(0, 0, range(8))
    assert np.array_equal(augment(["crop", "flip"], images, keys), crop_flip(images, keys))
    assert np.array_equal(augment([], images, keys), images)


def test_an_unknown_name():
    with pytest.raises(UsageError, match="unknown augmentation: crop_flop") as caught:
        augment(["crop_flop"], np.zeros((1, 8, 8, 1), np.float32), example_keys(0, 0, [0]))
    assert "`crop_flip`" in caught.value.hint
