"""Digits that move about: where they are, what is labelled, and that some labels need the frames that follow."""

import numpy as np
import pytest

from dlkit.data import digits, videos
from dlkit.data.augment import example_keys
from dlkit.data.videos import DIRECTIONS, after_next_bounce, moving_digits, trajectories

ROOM = 12


def of_train(label, count=300, **options):
    return moving_digits(label=label, **options).splits["train"].fetch(np.arange(count))


def test_a_clip_shows_one_digit_of_its_own_split_whole_in_every_frame():
    images, labels = digits.read()
    rows = digits.split_rows(labels)["test"]
    half = np.rint(digits.resize(images[rows].astype(np.float32), 12) * (255 / 16))
    pixels, said = moving_digits().splits["test"].fetch(np.arange(40))
    assert (pixels.shape, pixels.dtype, said.shape) == ((40, 12, 24, 24, 1), np.uint8, (40,))
    ink = {}
    for image, label in zip(half, labels[rows], strict=True):
        ink.setdefault(int(image.sum()), set()).add(int(label))
    sums = pixels.sum(axis=(2, 3, 4), dtype=np.int64)
    assert (sums == sums[:, :1]).all(), "nothing leaves the frame"
    assert all(label in ink[int(total)] for label, total in zip(said, sums[:, 0], strict=True))


def test_digits_move_between_the_walls_in_the_direction_that_is_said():
    corners, headings, segments = trajectories(example_keys(0, 0, np.arange(500)), room=ROOM, frames=12)
    assert corners.min() == 0
    assert corners.max() == ROOM
    steps = np.diff(corners, axis=1)
    assert np.abs(steps).max() <= np.ceil(0.2 * ROOM)
    down, right = headings[:, 1:] >= 2, headings[:, 1:] % 2 == 1
    assert (np.where(down, steps[..., 0], -steps[..., 0]) >= 0).all()
    assert (np.where(right, steps[..., 1], -steps[..., 1]) >= 0).all()
    assert [DIRECTIONS[number] for number in (0, 3)] == ["up left", "down right"]
    turned = np.diff(segments, axis=1) == 1
    assert ((np.diff(headings, axis=1) != 0) <= turned).all(), "it turns at bounces only"
    assert 1 < turned.sum(axis=1).mean() < 4


def test_the_direction_after_the_next_bounce_by_hand():
    headings = np.array([[3, 3, 1, 1, 0], [2, 2, 2, 2, 2]])
    segments = np.array([[0, 0, 1, 1, 2], [0, 0, 0, 0, 0]])
    assert after_next_bounce(headings, segments).tolist() == [[1, 1, 0, 0, 0], [2, 2, 2, 2, 2]]


def test_the_label_of_a_clip_is_the_way_it_goes_at_the_end():
    pixels, labels = of_train("direction")
    rows = np.arange(24)[:, np.newaxis, np.newaxis]
    ink = pixels.astype(np.float64)
    heights = (ink * rows).sum((2, 3, 4)) / ink.sum((2, 3, 4))  # of the digit's centre
    moved = heights[:, -1] - heights[:, -2]
    seen = np.abs(moved) > 0.5  # at a wall the last step may be less than a pixel
    assert np.array_equal(moved[seen] > 0, labels[seen] >= 2)
    assert seen.mean() > 0.8


def same_up_to_the_second_frame(seen, labels):
    """Pairs of clips whose first two frames are the same and whose labels of the second are not."""
    first, found = {}, []
    for clip, shown in enumerate(seen[:, :2]):
        other = first.setdefault(shown.tobytes(), clip)
        if labels[other, 1] != labels[clip, 1]:
            found.append((other, clip))
    return found


def test_which_digit_a_covered_one_is_only_later_frames_show():
    assert same_up_to_the_second_frame(*of_train("revealed", 2_000, size=16, frames=4))


def test_which_way_it_goes_after_a_bounce_only_later_frames_show():
    corners, headings, segments = trajectories(example_keys(0, 0, np.arange(20_000)), room=4, frames=4)
    assert same_up_to_the_second_frame(corners, after_next_bounce(headings, segments))


def test_how_much_can_be_known_without_the_frames_that_follow():
    """Frames of a digit that is still covered: on average (T - 1) / 2T of all, where one can but guess."""
    found = moving_digits(label="revealed", frames=6, test=3_000)
    pixels, labels = found.splits["test"].fetch(np.arange(3_000))
    covered = (pixels == videos.COVER).sum(axis=(2, 3, 4)) == 12 * 12
    assert not covered[:, -1].any()
    assert (covered[:, :-1] >= covered[:, 1:]).all(), "what is uncovered stays so"
    assert covered.mean() == pytest.approx(5 / 12, abs=0.02)
    assert (labels == labels[:, :1]).all()
    tests = digits.split_rows(digits.read()[1])["test"]
    commonest = np.bincount(digits.read()[1][tests]).max() / len(tests)
    assert found.looking_back == pytest.approx(7 / 12 + 5 / 12 * commonest)
    assert moving_digits(label="digit").looking_back is None


def test_a_clip_depends_on_seed_split_and_index_alone():
    few, many = moving_digits(train=4), moving_digits(train=40)
    np.testing.assert_array_equal(few.splits["train"].fetch([2]).pixels, many.splits["train"].fetch([2]).pixels)
    assert not np.array_equal(few.splits["train"].fetch([2]).pixels, few.splits["test"].fetch([2]).pixels)
    assert few.fingerprint() != many.fingerprint() != moving_digits(train=40, seed=1).fingerprint()


def test_one_frame_is_a_video_too():
    pixels, labels = moving_digits(frames=1, label="next_direction").splits["validation"].fetch([0, 1])
    assert (pixels.shape, labels.shape) == ((2, 1, 24, 24, 1), (2, 1))


def test_statistics_are_those_of_numpy():
    split = moving_digits(train=30).splits["train"]
    mean, std = videos.statistics(split)
    values = split.fetch(np.arange(30)).pixels / 255
    assert (mean, std) == (pytest.approx([values.mean()]), pytest.approx([values.std()]))
