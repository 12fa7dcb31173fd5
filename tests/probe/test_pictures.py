import matplotlib.figure
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from probe_pictures import assert_readable

from dlkit.errors import DlkitError
from dlkit.probe import panels, pictures
from dlkit.probe.activations import LayerActivations
from dlkit.probe.features import LayerFeatures
from dlkit.probe.filters import LayerFilters
from dlkit.probe.panels import Line, Lines

HOSTILE = "\x1b[31m$b$[red]\u202e猫" + "long" * 60


def drawn(figure, tmp_path):
    """The pixels of a figure, (height, width, 3)."""
    pictures.save(figure, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        return np.asarray(image.convert("RGB"))


def test_a_mosaic_by_hand():
    """Three 1x1 tiles in two columns: enlarged to 16x16, 2 dots apart, the fourth place empty."""
    whole = pictures.mosaic(np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1), 2)
    assert whole.shape == (34, 34)
    assert set(whole[:16, :16].ravel()) == {1}
    assert set(whole[:16, 18:].ravel()) == {2}
    assert set(whole[18:, :16].ravel()) == {3}
    assert np.isnan(whole[18:, 18:]).all()
    assert np.isnan(whole[16:18]).all()
    assert np.isnan(whole[:, 16:18]).all()


def test_large_tiles_keep_their_dots_and_colours_stand_on_white():
    tile = np.random.default_rng(0).random((1, 20, 30, 3))
    whole = pictures.mosaic(tile, 2)
    assert whole.shape == (20, 64, 3)
    assert np.array_equal(whole[:, :30], tile[0])
    assert (whole[:, 30:] == 1).all()


@given(count=st.integers(1, 500), limit=st.integers(2, 40))
def test_spread_keeps_the_ends_and_the_limit(count, limit):
    chosen = pictures.spread(count, limit)
    assert len(chosen) == min(count, limit)
    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, count - 1)


def test_spread_of_nothing():
    assert pictures.spread(0, 5) == []


@pytest.mark.parametrize(("across", "whole"), [([0, 1, 2, 3, 4], True), ([0.0, 0.4, 1.7, 4.0], False)])
def test_between_whole_numbers_an_axis_has_no_ticks(across, whole):
    """There is no half a pixel; of times and rates there is."""
    sheet = panels.figure([Lines("t", "x", "y", [Line("a", across, [1.0] * len(across))])], title="t")
    (axes,) = sheet.axes
    assert all(float(tick).is_integer() for tick in axes.get_xticks()) is whole


def colours(pixels):
    return {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}


def test_maps_have_the_colours_of_their_values(tmp_path):
    """Maps of the least value, the greatest and the one halfway have the ends and the middle of cividis."""
    values = np.stack([np.full((8, 8), value, np.float32) for value in (-1, 3, 1)], axis=-1)
    figure = pictures.features([LayerFeatures("conv", values)], np.zeros((8, 8, 1), np.float32), title="t")
    shown = colours(drawn(figure, tmp_path))
    ends = {tuple(int(v) for v in matplotlib.colormaps["cividis"](share, bytes=True)[:3]) for share in (0.0, 1.0, 0.5)}
    assert ends <= shown


def test_kernels_have_the_gray_of_their_weights(tmp_path):
    """Weights -2, 0 and 2 of a layer whose greatest is 2: black, the middle gray and white."""
    kernel = np.array([-2.0, 0.0, 2.0], np.float32).reshape(1, 1, 1, 3)
    shown = colours(drawn(pictures.filters([LayerFilters("conv", kernel)], title="t"), tmp_path))
    assert {(0, 0, 0), (128, 128, 128), (255, 255, 255)} <= shown


def test_kernels_on_colour_images_are_colours(tmp_path):
    """One filter that wants red and no green: 1, -1 and 0 become full red, no green and half blue."""
    kernel = np.array([1.0, -1.0, 0.0], np.float32).reshape(1, 1, 3, 1)
    shown = colours(drawn(pictures.filters([LayerFilters("conv", kernel)], title="t"), tmp_path))
    assert {(255, 0, 127), (255, 0, 128)} & shown


def layers_of(count, channels=40):
    rng = np.random.default_rng(0)
    return [
        LayerFeatures(f"stage3_block{i}_relu2", rng.normal(size=(8, 6, channels)).astype(np.float32))
        for i in range(count)
    ]


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (5, 40), (45, 17)])
def test_pictures_of_features_are_readable(count, channels):
    figure = pictures.features(
        layers_of(count, channels), np.zeros((8, 8, 3), np.float32), title="t" * 90, subtitle="s"
    )
    assert_readable(figure)


def test_a_picture_says_what_it_leaves_out():
    image = np.zeros((8, 8, 1), np.float32)

    def said(maps, **options):
        figure = pictures.features(maps, image, title="t", **options)
        return " ".join(text.get_text() for text in figure.texts)

    assert "20 of 45 layers" in said(layers_of(45))
    assert "3 of 68 layers" in said(layers_of(3), layers=68)
    assert " layers" not in said(layers_of(3))
    assert "16 of 40 maps 8x6" in said(layers_of(1))
    assert "3 maps 8x6" in said(layers_of(1, 3))


@pytest.mark.parametrize("count", [1, 6, 30])
def test_pictures_of_filters_are_readable(count):
    rng = np.random.default_rng(0)
    shapes = [(7, 7, 3, 64), (1, 1, 256, 512), (3, 3, 64, 64), (5, 5, 6, 2), (1, 7, 2, 1), (11, 11, 1, 100)] * 5
    layers = [
        LayerFilters(f"stage{i}_block1_conv2", rng.normal(size=shape).astype(np.float32))
        for i, shape in enumerate(shapes[:count])
    ]
    assert_readable(pictures.filters(layers, title="runs/resnet20_digits-1: filters"))


@pytest.mark.parametrize("missing", ["x", "y"])
def test_a_picture_without_a_label_is_not_readable(missing):
    """Numbers at the ticks are no label, on a logarithmic axis either; names are, and those of axes in line are."""
    figure = matplotlib.figure.Figure(layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    for axes in (above, below):
        axes.plot([1e-4, 1], [1, 10], label="a")
        axes.set_ylabel("loss, nats")
    below.set_xscale("log")
    below.set_xlabel("learning rate")
    assert_readable(figure)
    getattr(below, f"set_{missing}label")("")
    with pytest.raises(AssertionError, match=f"'{missing}'"):
        assert_readable(figure)
    if missing == "y":
        below.set_yticks([1, 10], ["least", "most"])
        assert_readable(figure)


@pytest.mark.parametrize("count", [1, 12, 70])
def test_pictures_of_activations_are_readable(count):
    layers = [
        LayerActivations(f"stage3_block{i}_relu2", (4, 4, 8), i / 7, 1.5, i / 100, 8, None if i % 3 else i % 9)
        for i in range(count)
    ]
    assert_readable(pictures.activations(layers, title="runs/x: activations over 1,000 images of the test split"))


def test_the_bars_and_marks_of_activations_are_their_shares():
    layers = [LayerActivations("a", (4,), 1.0, 0.5, 0.25, 4, 3), LayerActivations("b", (4,), -1.0, 2.0, 0.0, 4, None)]
    left, right = pictures.activations(layers, title="t").axes
    assert [bar.get_width() for bar in right.patches] == [25, 0]
    assert right.collections[0].get_offsets().tolist() == [[75, 0]]
    (dots,) = [line for line in left.lines if line.get_marker() == "o"]
    assert (dots.get_xdata().tolist(), dots.get_ydata().tolist()) == ([1, -1], [0, 1])
    ends = [segment.tolist() for segment in left.collections[0].get_segments()]
    assert ends == [[[0.5, 0], [1.5, 0]], [[-3, 1], [1, 1]]]
    assert left.yaxis_inverted()


def test_running_statistics_are_drawn_as_means_and_as_ratios_of_variances():
    layers = [
        LayerActivations("stage3_block1_conv1", (4,), 1.0, 0.5, 0.25, 4, None),
        *(
            LayerActivations(f"norm{at}", (4,), 0.0, 1.0, 0.0, 4, None, mean_gap=gap, variance_ratio=ratio)
            for at, (gap, ratio) in enumerate([(0.5, 0.04), (0.25, 1.5), (0.0, 0.0)])  # a ratio of 0 has no place
        ),
    ]
    figure = pictures.activations(layers, title="runs/x: activations over 1,000 images of the test split")
    _, _, means, variances = figure.axes
    assert [bar.get_width() for bar in means.patches] == [0.5, 0.25, 0]
    points = variances.collections[0].get_offsets()
    assert points[~np.isnan(points.filled(np.nan)).any(axis=1)].tolist() == [[0.04, 1], [1.5, 2]]
    assert variances.get_xscale() == "log"
    low, high = variances.get_xlim()
    assert (low < 0.04, high > 1.5) == (True, True)
    assert_readable(figure)


def test_constant_and_zero_values_are_drawn(tmp_path):
    zeros = np.zeros((4, 4, 2), np.float32)
    drawn(pictures.features([LayerFeatures("conv", zeros)], np.ones((4, 4, 3), np.float32), title="t"), tmp_path)
    drawn(pictures.filters([LayerFilters("conv", np.zeros((3, 3, 1, 2), np.float32))], title="t"), tmp_path)


def test_hostile_names_are_shown_as_text(tmp_path):
    values = np.zeros((2, 2, 1), np.float32)
    figures = [
        pictures.features([LayerFeatures(HOSTILE, values)], values, title=HOSTILE, subtitle=HOSTILE),
        pictures.filters([LayerFilters(HOSTILE, np.ones((1, 1, 1, 1), np.float32))], title=HOSTILE),
        pictures.activations([LayerActivations(HOSTILE, (1,), 0.0, 0.0, 0.0, 1, 0)], title=HOSTILE),
    ]
    for figure in figures:
        drawn(figure, tmp_path)
        shown = "".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
        assert "\\x1b[31m$b$" in shown
        assert not {"\x1b", "\u202e"} & set(shown)


def test_over_a_picture_the_name_of_a_run_gives_way_to_what_it_was_tested_on():
    text = "360 examples of digits, test"  # 28 letters
    assert pictures.heading("runs/lenet_digits-1", text, 49) == f"runs/lenet_digits-1: {text}"
    shortened = pictures.heading("runs/lenet_digits-1", text, 45)
    assert shortened == f"… enet_digits-1: {text}"
    assert len(shortened) == 45
    both = pictures.heading("x" * 60, f"360 examples of {'y' * 60}, test", 60)
    assert len(both) <= 60
    assert ": 360 examples of y" in both
    assert both.endswith("y, test")
    assert "\x1b" not in pictures.heading("\x1b[31m", "\x1b[31m")


def test_data_are_called_by_their_own_name():
    names = ["/home/me/photos", "./photos/", "~/a.en,/b/a.de", "imagenette/160px-v2", "synthetic:shapes", "./"]
    assert [pictures.own_name(name) for name in names] == ["photos", "photos", "a.en,a.de", *names[3:]]


@pytest.mark.parametrize("length", [10, 16, 24, 40])
def test_names_are_shortened_where_they_are_alike(length):
    names = [f"runs/resnet20_cifar10_bootstrap-{number}" for number in (1, 2, 10)]  # without the folder 28 and 29
    shown = pictures.told_apart(names, length)
    assert len(set(shown)) == 3
    assert max(map(len, shown)) == min(length, 29)
    assert [name.rpartition("-")[2] for name in shown] == ["1", "2", "10"]


def test_names_that_are_short_stay_as_they_are_but_for_a_folder_of_all():
    assert pictures.told_apart(["runs/a", "runs/b@step-12"], 30) == ["a", "b@step-12"]
    assert pictures.told_apart(["one/a", "two/a"], 30) == ["one/a", "two/a"]
    assert pictures.told_apart(["runs/a", "runs/a"], 30) == ["a", "a"]


def test_a_picture_that_cannot_be_written(tmp_path):
    figure = pictures.features([], np.zeros((4, 4, 1), np.float32), title="t")
    with pytest.raises(DlkitError, match="cannot write") as caught:
        pictures.save(figure, tmp_path / "nowhere" / "a.png")
    assert "a place that you may write to" in caught.value.hint
