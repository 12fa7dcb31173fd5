"""Whether a picture can be read."""

import matplotlib
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


def assert_readable(figure):
    """No text reaches over another one or over the edge."""
    texts = texts_of(figure)
    width, height = figure.bbox.size
    for place, (text, box) in enumerate(texts):
        assert -1 <= box.x0 <= box.x1 <= width + 1, text
        assert -1 <= box.y0 <= box.y1 <= height + 1, text
        for other, other_box in texts[place + 1 :]:
            overlap = min(box.x1, other_box.x1) - max(box.x0, other_box.x0) > 1 and (
                min(box.y1, other_box.y1) - max(box.y0, other_box.y0) > 1
            )
            assert not overlap, (text, other)
