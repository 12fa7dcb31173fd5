"""The picture of a classifier: what is written, how dark, how tall, and that nothing overlaps."""

import matplotlib
import numpy as np
import pytest
from test_pictures import HOSTILE, assert_readable, drawn

from dlkit import metrics
from dlkit.probe import classification

BINS = metrics.reliability([0.3, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9], [0, 1, 0, 1, 1, 1, 0], bins=5)


def picture(confusion, classes, *, name="runs/x", title="7 examples", **options):
    return classification.picture(np.array(confusion), classes, BINS, name=name, title=title, **options)


def some(classes, count):
    """The confusion matrix of a classifier that is often right, and often one class too far."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    return metrics.confusion_matrix(labels, (labels + rng.choice([0, 0, 0, 1, 5], count)) % classes, classes)


def test_every_count_stands_in_its_cell_and_zeros_nowhere():
    matrix, *_ = picture([[5, 0], [1234, 7]], ["cat", "dog"]).axes
    assert {(text.get_position(), text.get_text()) for text in matrix.texts} == {
        ((0, 0), "5"), ((0, 1), "1234"), ((1, 1), "7")
    }  # fmt: skip
    assert [label.get_text() for label in matrix.get_yticklabels()] == ["cat", "dog"]
    assert (matrix.get_xlabel(), matrix.get_ylabel()) == ("predicted", "true")


def test_the_shade_is_the_share_of_the_row():
    """3 of 4 and 30 of 40 are equally dark; a class that does not occur is white."""
    matrix, *_ = picture([[3, 1, 0], [10, 30, 0], [0, 0, 0]], list("abc")).axes
    (image,) = matrix.images
    assert image.get_array().tolist() == [[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0, 0]]
    shades = image.to_rgba(image.get_array())
    assert (shades[2] == 1).all(), "white"
    darkness = [shades[0, at, :3].sum() for at in (2, 1, 0)]
    assert darkness == sorted(darkness, reverse=True)


def test_the_reliability_diagram_by_hand():
    """Bins (0.2, 0.4], (0.4, 0.6] and (0.8, 1]: 0, 1/2 and 3/4 right. Error (0.3 + 2 * 0 + 4 * 0.15) / 7 = 12.86 %."""
    _, diagram, histogram = picture([[5, 2], [0, 0]], ["a", "b"]).axes
    assert [bar.get_height() for bar in diagram.patches] == [0, 0.5, 0.75]
    assert [bar.get_x() + bar.get_width() / 2 for bar in diagram.patches] == pytest.approx([0.3, 0.5, 0.9])
    assert [y for _, y in diagram.collections[0].get_offsets().tolist()] == pytest.approx([0.3, 0.5, 0.9])
    assert [bar.get_height() for bar in histogram.patches] == [0, 1, 2, 0, 4]
    assert "12.86 %" in diagram.get_title(loc="left")


@pytest.mark.parametrize(
    ("classes", "count", "name"),
    [(2, 50, "cat"), (10, 10_000, "automobile"), (10, 360, "7"), (36, 5000, "a name of twenty letters and more")],
)
def test_the_picture_is_readable(classes, count, name):
    assert_readable(picture(some(classes, count), [name] * classes, subtitle="accuracy 91.2 %, " * 12))


def test_all_figures_stand_over_a_narrow_picture():
    names = ("loss", "accuracy", "macro F1", "calibration error", "Brier score", "top-5")
    figures = [f"{name} {100 * at:.2f} %" for at, name in enumerate(names, 1)]
    figure = picture(some(3, 50), ["cat", "dog", "owl"], subtitle=", ".join(figures))
    assert_readable(figure)
    _, subtitle, _ = (text.get_text() for text in figure.texts)
    assert subtitle.count("\n") == 1
    assert subtitle.replace("\n", " ").split(", ") == figures


def test_a_long_title_still_says_how_many_examples_of_what():
    run, title = "/home/someone/experiments/runs/lenet_photos-12", "1,234 examples of photos, validation"
    figure = picture(some(3, 50), ["cat", "dog", "owl"], name=run, title=title)
    assert_readable(figure)
    shown = figure.texts[0].get_text()
    assert shown.endswith(f"lenet_photos-12: {title}")
    assert shown.startswith("… ")


def test_a_hundred_classes_are_readable():
    figure = picture(some(100, 10_000), [f"class_{at}" for at in range(100)])
    assert_readable(figure)
    matrix = figure.axes[0]
    assert len(matrix.get_yticklabels()) == 100
    assert len(matrix.texts) == np.count_nonzero(some(100, 10_000))
    assert min(text.get_fontsize() for text in matrix.texts) > 5


def test_of_more_classes_a_hundred_are_named_and_no_counts_written():
    matrix, *_ = picture(some(400, 4000), [f"n{at:08}" for at in range(400)]).axes
    names = [label.get_text() for label in matrix.get_xticklabels()]
    assert (len(names), names[0], names[-1]) == (100, "n00000000", "n00000399")
    assert not matrix.texts


def test_hostile_names_are_shown_as_text(tmp_path):
    figure = picture([[1, 0], [0, 1]], [HOSTILE, "b"], subtitle=HOSTILE)
    drawn(figure, tmp_path)
    shown = "".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
    assert "\\x1b[31m" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
