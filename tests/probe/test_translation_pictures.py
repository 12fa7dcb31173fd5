"""Pictures of translations: what stands where in them."""

import numpy as np
import pytest

from dlkit.probe import pictures, translation

SOURCE = ["Il", "fait", "un", "froid", "de", "canard", ".", "</s>"]
TARGET = ["It's", "freezing", ".", "</s>"]


def test_a_row_of_the_alignment_is_a_token_of_the_translation(tmp_path):
    weights = np.random.default_rng(0).dirichlet(np.ones(8), 4)
    figure = translation.alignment(weights, SOURCE, TARGET, title="Il fait $un$ froid -> It's freezing")
    (axes,) = figure.axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), weights)
    assert image.get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_yticklabels()] == TARGET
    assert [label.get_text() for label in axes.get_xticklabels()] == SOURCE
    pictures.save(figure, tmp_path / "alignment.png")


@pytest.mark.parametrize("count", [1, 60])
def test_nothing_is_cut_off_however_long_the_sentences(count):
    figure = translation.alignment(np.eye(count), ["word" * 8] * count, ["mot" * 9] * count, title="long")
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    (axes,) = figure.axes
    texts = [*axes.get_xticklabels(), *axes.get_yticklabels(), *figure.texts]
    boxes = [text.get_window_extent() for text in texts]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= width
    assert min(box.y0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) <= height
    title, note = (text.get_window_extent() for text in figure.texts)
    names = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert max(box.y1 for box in names) <= title.y0
    assert note.y1 <= axes.get_window_extent().y0


def test_a_line_for_each_run_and_a_place_for_each_length(tmp_path):
    values = {"runs/plain": [100.0, 60.0, 20.0], "runs/attention": [100.0, 99.0, 98.0]}
    figure = translation.by_length([(1, 5), (6, 12), (13, 13)], values, measure="exact, %", title="reverse")
    (axes,) = figure.axes
    assert {f"runs/{line.get_label()}": line.get_ydata().tolist() for line in axes.lines} == values, "no folder"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1-5", "6-12", "13"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylabel() == "exact, %"
    assert len({line.get_marker() for line in axes.lines}) == 2, "told apart without colours"
    pictures.save(figure, tmp_path / "lengths.png")
