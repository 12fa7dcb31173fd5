"""Spaces: what is written, what a grid of it has, and how it gets finer. The numbers are arithmetic."""

import pytest

from dlkit.errors import UsageError
from dlkit.train.search.space import grid_points, narrowed, parse


def one(text):
    (space,) = parse([text])
    return space


@pytest.mark.parametrize(
    ("text", "kind", "low", "high", "log"),
    [
        ("train.lr=log:1e-4..1e-1", "float", 1e-4, 0.1, True),
        ("model.dropout=0..0.5", "float", 0, 0.5, False),
        ("train.batch_size=int:16..128", "int", 16, 128, False),
        ("model.width=int:log:16..512", "int", 16, 512, True),
        ("model.width=log:int:16..512", "int", 16, 512, True),
        ("train.momentum=-.5...5", "float", -0.5, 0.5, False),
    ],
)
def test_ranges(text, kind, low, high, log):
    space = one(text)
    assert (space.kind, space.low, space.high, space.log, space.points) == (kind, low, high, log, None)


def test_a_space_is_written_as_it_is_read():
    for text in ("log:0.0001..0.1/5", "0..0.5", "int:1..4", "int:log:16..512", "{64,128}"):
        assert str(one(f"a.b={text}")) == text


def test_what_the_shell_makes_of_braces_are_choices():
    """In bash `x={64,128}` becomes two words."""
    assert one("a.b={64,128}") == parse(["a.b=64", "a.b=128"])[0]
    assert [space.key for space in parse(["a.b=64", "c.d=0..1", "a.b=128"])] == ["a.b", "c.d"]


def test_commas_within_a_list_divide_no_choices():
    assert one("data.augment={[],[flip,crop]}").choices == ("[]", "[flip,crop]")


@pytest.mark.parametrize(
    ("operands", "words"),
    [
        (["train.lr"], "has no space"),
        (["train.lr="], "has no space"),
        (["train.lr=0.1"], "is one value and no space"),
        (["train.lr=0..x"], "is no space"),
        (["train.lr=lin:0..1"], "is no space"),
        (["train.lr=int:0.5..2"], "is no space"),
        (["train.lr=1..0"], "from a lower number to a higher"),
        (["train.lr=0..inf"], "from a lower number to a higher"),
        (["train.lr=0..nan"], "from a lower number to a higher"),
        (["train.lr=log:0..1"], "begins above 0"),
        (["train.lr=0..1/1"], "at least two points"),
        (["train.lr={1}"], "at least two choices"),
        (["train.lr={1,1}"], "at least two choices"),
        (["train.lr={1,}"], "at least two choices"),
        (["train.lr={1,2"], "has no end"),
        (["train.lr={0..1,2}"], "a range among its choices"),
        (["train.lr=0..1", "train.lr=1..2"], "has two spaces"),
        (["train.lr=0..1", "train.lr=2"], "has two spaces"),
    ],
)
def test_mistakes(operands, words):
    with pytest.raises(UsageError, match=words) as caught:
        parse(operands)
    assert caught.value.hint


def test_grids():
    assert one("train.lr=log:1e-4..1/5").grid() == [1e-4, 1e-3, 1e-2, 0.1, 1.0]
    assert one("train.lr=0..1/3").grid() == [0, 0.5, 1]
    assert one("train.lr=int:1..3/9").grid() == [1, 2, 3]
    points = grid_points(parse(["a.b=0..1/2", "c.d={x,y}"]))
    assert points == [{"a.b": b, "c.d": d} for b in (0, 1) for d in ("x", "y")]


def test_a_grid_has_a_point_once_when_nothing_reads_what_it_differs_in():
    def read(values):
        return {key: value for key, value in values.items() if key != "c.d" or values["a.b"] == "sgd"}

    points = grid_points(parse(["a.b={sgd,adam}", "c.d={1,2}"]), read)
    assert points == [{"a.b": "sgd", "c.d": "1"}, {"a.b": "sgd", "c.d": "2"}, {"a.b": "adam"}]


def test_a_range_gets_half_as_wide_about_the_best():
    linear = one("a.b=0..8")
    assert [(s.low, s.high) for s in (linear.narrowed(3, (), 1), linear.narrowed(3, (), 2))] == [(1, 5), (2, 4)]
    log = one("a.b=log:1..16").narrowed(4, (), 1)
    assert (log.low, log.high) == pytest.approx((2, 8))


def test_at_an_end_it_is_moved_and_not_cut():
    assert [(s.low, s.high) for s in (one("a.b=0..8").narrowed(b, (), 1) for b in (0, 1, 8))] == [
        (0, 4),
        (0, 4),
        (4, 8),
    ]


def test_integers_keep_the_neighbours_of_the_best():
    assert [(s.low, s.high) for s in (one("a.b=int:1..5").narrowed(b, (), 5) for b in (1, 3, 5))] == [
        (1, 2), (2, 4), (4, 5),
    ]  # fmt: skip


def test_of_choices_the_better_half_stays():
    space = one("a.b={1,2,3,4,5}")
    assert space.narrowed("4", ["4", "2", "5", "1"], 1).choices == ("2", "4", "5")
    assert space.narrowed("4", ["4", "2", "5", "1"], 2).choices == ("2", "4")
    assert space.narrowed("4", ["4", "2"], 9).choices == ("4",)


def test_all_spaces_are_narrowed_about_the_trial_with_the_least_loss():
    spaces = parse(["a.b=0..8", "c.d={x,y}", "e.f=0..1"])
    scored = [({"a.b": 1, "c.d": "x"}, 0.5), ({"a.b": 6, "c.d": "y"}, 0.1)]
    found = narrowed(spaces, scored, 1)
    assert [str(space) for space in found] == ["4..8", "{y}", "0..1"]  # nothing is known of the last
    assert narrowed(spaces, [], 1) == spaces


def test_what_is_drawn_has_four_digits_and_stays_in_the_range():
    space = one("a.b=log:0.00012345..1")
    assert space.rounded(0.123456789) == 0.1235
    assert space.rounded(0.00012345) == 0.00012345


def test_a_narrow_range_near_one_keeps_its_points():
    points = [0.9999, 0.9999225, 0.999945, 0.9999675, 0.99999]
    assert one("train.ema=0.9999..0.99999/5").grid() == pytest.approx(points, abs=1e-12)
    assert one("train.ema=0.9999..0.99999").rounded(0.99994123456) == pytest.approx(0.99994123, abs=1e-12)
