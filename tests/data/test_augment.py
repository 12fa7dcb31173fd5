import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.data import trivial
from dlkit.data.augment import (
    IMAGES,
    MIXES,
    PIXELS,
    alternation,
    augment,
    crop,
    crop_flip,
    cutmix,
    cutout,
    example_keys,
    flip,
    mirror,
    mixup,
    option_names,
    splitmix64,
    symmetric_beta,
    uniform,
)
from dlkit.data.images import standardize
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


def test_alternate_flip_shows_both_sides_in_any_two_epochs():
    """Jordan 2024, section 3.6: a random half in the first epoch, then the others, then the first again."""
    turned = np.array([alternation(3, epoch, range(4000)) for epoch in range(4)])
    assert np.array_equal(turned, [turned[0], ~turned[0], turned[0], ~turned[0]])
    assert turned[0].mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))
    assert not np.array_equal(turned[0], alternation(4, 0, range(4000)))
    assert np.array_equal(turned[1][[7, 2]], alternation(3, 1, [7, 2]))  # of the example, not of its place

    images = np.arange(2 * 1 * 3 * 1, dtype=np.float32).reshape(2, 1, 3, 1)
    flipped = mirror(images, np.array([False, True]))
    assert flipped[:, 0, :, 0].tolist() == [[0, 1, 2], [5, 4, 3]]


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(sorted(PIXELS | IMAGES)),
    examples=st.lists(st.integers(0, 10_000), min_size=1, max_size=12),
    epoch=st.integers(0, 300),
    seed=st.integers(0, 2**64 - 1),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3])),
)
def test_the_batch_does_not_matter(name, examples, epoch, seed, shape):
    images = np.random.default_rng(examples).integers(0, 256, (len(examples), *shape)).astype(np.uint8)
    if name in IMAGES:
        images = images.astype(np.float32) - 128
    before = images.copy()
    change = (PIXELS | IMAGES)[name]
    together = change(images, example_keys(seed, epoch, examples))
    assert together.shape == images.shape
    assert together.dtype == images.dtype
    assert np.array_equal(images, before)
    for place, example in enumerate(examples):
        alone = change(images[place : place + 1], example_keys(seed, epoch, [example]))
        assert np.array_equal(together[place], alone[0])


def test_epochs_see_different_crops():
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    first, second = (crop_flip(images, example_keys(0, epoch, range(8))) for epoch in (0, 1))
    assert not np.array_equal(first, second)


# ------------------------------------------------------------------------------------------------------------- cutout


def centred_in(purpose, row, column, side):
    """A condition on keys: their box is centred in this pixel of an image with `side` rows and columns."""

    def fulfilled(keys):
        draws = uniform(keys, 2, purpose=purpose)
        return (np.floor(draws * side) == (row, column)).all(axis=1)

    return fulfilled


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [
        (4, 4, range(2, 6), range(2, 6)),  # 4 of 8, half on each side of the centre's upper left corner
        (0, 7, range(2), range(5, 8)),  # what lies outside is lost
    ],
)
def test_cutout_by_hand(row, column, rows, columns):
    images = np.ones((1, 8, 8, 3), np.float32)
    expected = np.ones((8, 8))
    expected[np.ix_(rows, columns)] = 0
    changed = cutout(images, keys_with(centred_in("cutout", row, column, 8)))
    assert (changed[0] == expected[..., None]).all()


@pytest.mark.parametrize(("size", "side"), [(0.5, 16), (0.25, 8), (0.1, 3), (0.001, 1), (1.0, 32)])
def test_cutout_takes_a_square_of_its_size(size, side):
    images = np.ones((500, 32, 48, 1), np.float32)
    changed = cutout(images, example_keys(0, 0, range(500)), size=size)
    areas = (changed == 0).sum(axis=(1, 2, 3))
    assert areas.max() == side**2
    assert areas.min() >= (side // 2) * (side // 2)


def test_the_centre_of_cutout_is_anywhere():
    """The pixel (0, 0) of 8x8 is cut by centres 0 to 2 of 8 in each direction, the pixel in the middle by 4 of 8."""
    count = 6400
    changed = cutout(np.ones((count, 8, 8, 1), np.float32), example_keys(0, 0, range(count)))
    shares = (changed == 0).mean(axis=0)[..., 0]
    for place, expected in [((0, 0), (3 / 8) ** 2), ((4, 4), 1 / 4), ((0, 4), 3 / 16)]:
        assert shares[place] == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / count))


# -------------------------------------------------------------------------------------------------------------- mixes


@pytest.mark.parametrize(
    ("alpha", "distribution"),
    [
        (0.5, lambda x: 2 / np.pi * np.arcsin(np.sqrt(x))),
        (1.0, lambda x: x),
        (2.0, lambda x: 3 * x**2 - 2 * x**3),
    ],
)
def test_beta_has_its_distribution(alpha, distribution):
    """Kolmogorov and Smirnov: 1.95 / sqrt(n) is passed by chance once in 1000."""
    count = 20_000
    values = np.sort(symmetric_beta(example_keys(0, 0, range(count)), alpha, purpose="test"))
    assert np.abs(distribution(values) - np.arange(count) / count).max() < 1.95 / np.sqrt(count)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 8.0])
def test_beta_has_its_moments(alpha):
    """Mean 1/2, variance 1 / (4 (2 alpha + 1)), and the fourth central moment 3 / (16 (2 alpha + 1) (2 alpha + 3))."""
    count = 40_000
    off = symmetric_beta(example_keys(0, 0, range(count)), alpha, purpose="test") - 0.5
    variance, fourth = 1 / (4 * (2 * alpha + 1)), 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert off.mean() == pytest.approx(0, abs=4 * np.sqrt(variance / count))
    assert off.var() == pytest.approx(variance, abs=4 * np.sqrt((fourth - variance**2) / count))
    assert (off**4).mean() == pytest.approx(fourth, rel=0.05)


@pytest.mark.parametrize("alpha", [1e-4, 1e4])
def test_beta_at_its_ends(alpha):
    values = symmetric_beta(example_keys(0, 0, range(2000)), alpha, purpose="test")
    assert ((values >= 0) & (values <= 1)).all()
    assert np.abs(np.abs(values - 0.5) - (0.5 if alpha < 1 else 0)).mean() < 0.01


def test_mixup_is_the_weighted_mean():
    images = np.random.default_rng(0).normal(size=(50, 4, 4, 3)).astype(np.float32)
    others = np.random.default_rng(1).normal(size=(50, 4, 4, 3)).astype(np.float32)
    mixed, shares = mixup(images, others, example_keys(0, 0, range(50)), alpha=1)
    assert shares.dtype == mixed.dtype == np.float32
    for one, other, share, found in zip(images, others, shares, mixed, strict=True):
        np.testing.assert_allclose(found, float(share) * one + (1 - float(share)) * other, atol=1e-6)
    assert 0.2 < shares.std() < 0.4, "each example has a share of its own: 0.29 is that of even ones"


def test_cutmix_by_hand():
    """A share between 1/2 and 9/16 leaves sqrt(1 - share) * 8 = 5.3 to 5.7 of 8: a box of 5, from 2 rows above."""

    def fulfilled(keys):
        share = symmetric_beta(keys, 1.0, purpose="cutmix area")
        return (share > 1 / 2) & (share < 9 / 16) & centred_in("cutmix place", 6, 3, 8)(keys)

    mixed, shares = cutmix(np.zeros((1, 8, 8, 1), np.float32), np.ones((1, 8, 8, 1), np.float32), keys_with(fulfilled))
    expected = np.zeros((8, 8))
    expected[4:8, 1:6] = 1  # the fifth row would be outside
    assert mixed[0, ..., 0].tolist() == expected.tolist()
    assert shares.tolist() == [1 - 20 / 64]


def test_the_share_of_cutmix_is_what_is_left_to_see():
    count = 2000
    images, others = np.zeros((count, 12, 20, 1), np.float32), np.ones((count, 12, 20, 1), np.float32)
    mixed, shares = cutmix(images, others, example_keys(0, 0, range(count)))
    np.testing.assert_allclose(shares, 1 - mixed.mean(axis=(1, 2, 3)), atol=1e-6)
    assert set(np.unique(mixed)) == {0, 1}
    assert 0.5 < shares.mean() < 0.8, "half, and what the border clips"


LABELS = np.arange(12, dtype=np.int32)
PIXEL_BATCH = np.random.default_rng(5).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]


def batch_of(names, rows=range(12), *, seed=0, epoch=0, mirrored=None, **options):
    rows = list(rows)
    keys = example_keys(seed, epoch, rows)
    return augment(names, PIXEL_BATCH[rows], LABELS[rows], keys, mean=MEAN, std=STD, options=options, mirrored=mirrored)


def test_without_names_a_batch_is_standardized():
    batch = batch_of([])
    assert set(batch) == {"images", "labels"}
    assert np.array_equal(batch["images"], standardize(PIXEL_BATCH, MEAN, STD))
    assert batch["labels"].tolist() == list(range(12))


def test_names_of_a_kind_apply_in_their_order():
    assert np.array_equal(batch_of(["crop", "flip"])["images"], batch_of(["crop_flip"])["images"])
    different = (batch_of(names)["images"] for names in (["cutout", "crop"], ["crop", "cutout"]))
    assert not np.array_equal(*different)


def test_alternate_flip_mirrors_what_it_is_told_to():
    mirrored = np.arange(12) % 3 == 0
    changed = batch_of(["alternate_flip"], mirrored=mirrored)["images"]
    expected = standardize(PIXEL_BATCH, MEAN, STD)
    expected[mirrored] = expected[mirrored][:, :, ::-1]
    assert np.array_equal(changed, expected)
    with pytest.raises(ValueError, match="which images to mirror"):
        batch_of(["alternate_flip"])


def test_kinds_apply_in_their_own_order_however_they_are_named():
    """Pixels are changed before they are standardized, and mixed when all else is done."""
    one, other = batch_of(["mixup", "cutout", "trivial"]), batch_of(["trivial", "cutout", "mixup"])
    assert np.array_equal(one["images"], other["images"])
    keys = example_keys(0, 0, range(12))
    images = cutout(standardize(PIXELS["trivial"](PIXEL_BATCH, keys), MEAN, STD), keys)
    partners = one["other_labels"]  # label i is that of image i
    assert np.array_equal(one["images"], mixup(images, images[partners], keys)[0])


@pytest.mark.parametrize("name", MIXES)
def test_everyone_is_mixed_with_someone_else_and_nobody_twice(name):
    for epoch in range(20):
        partners = batch_of([name], epoch=epoch)["other_labels"]
        assert sorted(partners) == list(range(12))
        assert not (partners == LABELS).any()
    assert partners.dtype == np.int32


@pytest.mark.parametrize("name", MIXES)
def test_a_mixed_batch_does_not_depend_on_the_order_of_its_rows(name):
    order = np.random.default_rng(0).permutation(12)
    one, other = batch_of([name]), batch_of([name], order)
    for key in ("images", "labels", "other_labels", "shares"):
        assert np.array_equal(one[key][order], other[key]), key


@pytest.mark.parametrize("name", MIXES)
def test_shares_belong_to_the_example_and_change_with_epoch_and_seed(name):
    base = batch_of([name], range(6))["shares"]
    assert np.array_equal(batch_of([name])["shares"][:6], base), "whoever else is in the batch"
    assert not np.array_equal(batch_of([name], range(6), epoch=1)["shares"], base)
    assert not np.array_equal(batch_of([name], range(6), seed=1)["shares"], base)
    assert not np.array_equal(batch_of([name], epoch=1)["other_labels"], batch_of([name])["other_labels"])


@pytest.mark.parametrize("name", MIXES)
def test_an_example_alone_is_mixed_with_itself(name):
    batch = batch_of([name], [3])
    np.testing.assert_allclose(batch["images"], standardize(PIXEL_BATCH[3:4], MEAN, STD), atol=1e-6)
    assert batch["other_labels"].tolist() == [3]


def test_of_two_mixes_each_example_draws_one():
    """Black and white images side by side: what mixup made is one gray, what cutmix made is black and white."""
    count = 2000
    pixels = np.zeros((count, 8, 8, 1), np.uint8)
    pixels[::2] = 255
    labels = (np.arange(count) % 2).astype(np.int32)
    keys = example_keys(0, 0, range(count))
    batch = augment(["mixup", "cutmix"], pixels, labels, keys, mean=[0], std=[1], options={"mixup_alpha": 2.0})
    images, shares = batch["images"][..., 0], batch["shares"]
    differ = batch["labels"] != batch["other_labels"]
    gray = (np.ptp(images, axis=(1, 2)) < 1e-6) & (images[:, 0, 0] > 0.01) & (images[:, 0, 0] < 0.99)
    assert gray[differ].mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(differ.sum()))
    white = 1 - batch["labels"]
    expected = np.where(differ, shares * white + (1 - shares) * (1 - white), white)
    np.testing.assert_allclose(images.mean(axis=(1, 2)), expected, atol=1e-5)


def test_options_reach_their_augmentation():
    assert option_names("mixup") == {"mixup_alpha": "alpha"}
    assert option_names("crop_flip") == {}
    ends = batch_of(["mixup"], mixup_alpha=1e-4)["shares"]
    assert np.abs(ends - 0.5).min() > 0.49
    assert (batch_of(["cutout"], cutout_size=1.0)["images"] == 0).mean() > 0.2
    assert np.array_equal(batch_of(["mixup"], cutout_size=1.0)["shares"], batch_of(["mixup"])["shares"])


def test_what_comes_in_stays_as_it_is():
    before = PIXEL_BATCH.copy()
    batch_of([*PIXELS, *IMAGES, *MIXES])
    assert np.array_equal(PIXEL_BATCH, before)
    assert LABELS.tolist() == list(range(12))


def test_an_unknown_name():
    with pytest.raises(UsageError, match="unknown augmentation: crop_flop") as caught:
        batch_of(["crop_flop"])
    assert "`crop_flip`" in caught.value.hint


# ------------------------------------------------------------------------------------------------------------- trivial


def test_trivial_draws_operations_strengths_and_signs_evenly(monkeypatch):
    drawn = []

    def recorded(number):
        def operation(image, strength, sign):
            drawn.append((number, round(strength * 30, 9), sign))
            return image

        return operation

    monkeypatch.setattr(trivial, "WIDE", [recorded(number) for number in range(14)])
    count = 14 * 31 * 20
    pixels = np.zeros((count, 2, 2, 3), np.uint8)
    assert np.array_equal(PIXELS["trivial"](pixels, example_keys(0, 0, range(count))), pixels)
    for column, values in enumerate([range(14), range(31), (-1, 1)]):
        found = [row[column] for row in drawn]
        assert set(found) == set(values)
        expected = count / len(values)
        # chi-square: 80 is passed by chance less than once in 1000 with 30 degrees of freedom or fewer
        assert sum((found.count(value) - expected) ** 2 / expected for value in values) < 80


def test_trivial_changes_gray_and_colour_images_only():
    keys = example_keys(0, 0, range(60))
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 9, 7, channels)).astype(np.uint8)
        assert (PIXELS["trivial"](pixels, keys) != pixels).any(axis=(1, 2, 3)).mean() > 0.5
    with pytest.raises(UsageError, match="2 channels"):
        PIXELS["trivial"](np.zeros((60, 9, 7, 2), np.uint8), keys)
