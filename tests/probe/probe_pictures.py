"""Whether a picture can be read."""

import re

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg


def texts_of(figure):
    """All texts that a figure shows, with their extents in dots."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    unseen = set(map(id, ticks_out_of_view(figure)))
    texts = [
        text
        for text in figure.findobj(matplotlib.text.Text)
        if text.get_text() and text.get_visible() and id(text) not in unseen
    ]
    return [(text, text.get_window_extent(renderer)) for text in texts]


def ticks_out_of_view(figure):
    """The labels of ticks beyond the ends of their axis, or of axes that are off: they are there, and not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            margin = 1e-9 * (high - low)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not axes.axison or not low - margin <= tick.get_loc() <= high + margin:
                    yield from (tick.label1, tick.label2)


def unlabelled(figure):
    """The axes, by title and direction, of which nobody says what lies along them. The figure has been drawn.

    It is said by a label or by names at the ticks; or, where there are no numbers at the ticks, by those of axes in
    line with them.
    """
    for axes in figure.axes:
        if not (axes.axison and axes.has_data()):
            continue
        is_bar_of_colours = hasattr(axes, "_colorbar")
        for name in ("y",) if is_bar_of_colours else ("x", "y"):
            others = [] if at_ticks(axes, name) else [o for o in figure.axes if o.axison and in_line(axes, o, name)]
            if not any(is_labelled(each, name) for each in (axes, *others)):
                yield axes.get_title(loc="left"), name


def at_ticks(axes, name):
    """What stands at the ticks of an axis."""
    ticks = getattr(axes, f"{name}axis").get_major_ticks()
    return [tick.label1.get_text() for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]


def is_labelled(axes, name):
    names = [text for text in at_ticks(axes, name) if re.search(r"[^\W\d]", re.sub(r"\$.*\$|\de", "", text))]
    return bool(getattr(axes, f"get_{name}label")().strip() or names)


def in_line(axes, other, name):
    """Whether two axes begin and end at the same places of the figure, and at the same values."""
    places = [each.get_position().extents[["x", "y"].index(name) :: 2] for each in (axes, other)]
    values = [getattr(each, f"get_{name}lim")() for each in (axes, other)]
    return np.allclose(*places, atol=1e-3) and np.allclose(*values)


def assert_readable(figure):
    """No text reaches over another one or over the edge, and all axes with lines, bars, points or a map have labels."""
    texts = texts_of(figure)
    missing = list(unlabelled(figure))
    assert not missing, missing
    width, height = figure.bbox.size
    for place, (text, box) in enumerate(texts):
        assert -1 <= box.x0 <= box.x1 <= width + 1, text
        assert -1 <= box.y0 <= box.y1 <= height + 1, text
        for other, other_box in texts[place + 1 :]:
            overlap = min(box.x1, other_box.x1) - max(box.x0, other_box.x0) > 1 and (
                min(box.y1, other_box.y1) - max(box.y0, other_box.y0) > 1
            )
            assert not overlap, (text, other)
