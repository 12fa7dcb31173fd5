"""Curves of hand-written logs: the expected points are those of the log, by hand."""

from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from probe_pictures import assert_readable

from dlkit.errors import DataError, UsageError
from dlkit.probe import charts, look
from dlkit.probe.curves import Chart, Series, charts_of, title


def logged(name, lines, *, clip=None, task="image_classification"):
    return SimpleNamespace(
        name=name, path=f"runs/{name}", task=task, monitor=("accuracy", "higher"), metrics=lambda: lines,
        recipe={"train": {} if clip is None else {"clip_norm": clip}},
    )  # fmt: skip


def trained(step, loss, *, lr=0.1, norm=2.0):
    return {
        "kind": "train", "step": step, "epoch": step / 10, "loss": loss, "accuracy": 0.5, "lr": lr,
        "gradient_norm": norm, "seconds": 6.0 * step, "schema": 1, "attempt": 1,
    }  # fmt: skip


def evaluated(step, loss, accuracy, *, weights="raw", split="validation"):
    return {
        "kind": "evaluation", "step": step, "epoch": step / 10, "split": split, "weights": weights,
        "loss": loss, "accuracy": accuracy,
    }  # fmt: skip


ONE = [trained(5, 3.0), trained(10, 2.0), evaluated(10, 2.5, 0.25), trained(15, 1.0), evaluated(15, 1.5, 0.75)]


def test_the_usual_panels_hold_the_points_of_the_log():
    found = {panel.metric: panel for panel in charts_of([logged("a", ONE, clip=1.5)])}
    assert list(found) == ["loss", "accuracy", "lr", "gradient_norm"]
    training, validation = found["loss"].series
    assert (training.part, training.x, training.y) == ("training", (0.5, 1.0, 1.5), (3.0, 2.0, 1.0))
    assert (validation.part, validation.x, validation.y) == ("validation", (1.0, 1.5), (2.5, 1.5))
    assert found["accuracy"].series[1].y == (25.0, 75.0), "shares are drawn in percent"
    assert found["accuracy"].title == "accuracy, %"
    assert found["gradient_norm"].limit == 1.5
    assert found["loss"].limit is None
    lines = [line | {"gradient_norm_p90": 3.0} for line in ONE]
    assert charts_of([logged("a", lines, clip=1.5)], ["gradient_norm_p90"])[0].limit == 1.5
    assert found["loss"].unit == "loss, nats"


def test_the_squared_error_of_numbers_is_in_no_nats():
    lines = [trained(5, 1.0) | {"mse": 0.2}, trained(10, 0.5) | {"mse": 0.1}]
    (found,) = charts_of([logged("a", lines)], ["loss"])
    assert found.unit == "loss"


def test_an_evaluation_lies_at_the_time_of_its_step():
    minutes = charts_of([logged("a", ONE)], ["loss"], along="minutes")[0]
    assert minutes.series[0].x == (0.5, 1.0, 1.5), "6 seconds a step"
    assert minutes.series[1].x == (1.0, 1.5)
    assert charts_of([logged("a", ONE)], ["loss"], along="step")[0].series[1].x == (10.0, 15.0)


def test_of_averaged_weights_only_their_evaluations_are_drawn_and_no_test():
    lines = [*ONE, evaluated(15, 9.0, 0.9, weights="ema"), evaluated(15, 7.0, 0.7, split="test")]
    validation = charts_of([logged("a", lines)], ["loss"])[0].series[1]
    assert (validation.x, validation.y) == ((1.5,), (9.0,))


def test_numbers_that_are_none_leave_no_point():
    lines = [trained(5, None), trained(10, 2.0), {**trained(15, 1.0), "loss": float("inf")}]
    assert charts_of([logged("a", lines)], ["loss"])[0].series[0].x == (1.0,)


def test_runs_of_one_name_are_told_apart_and_their_limit_only_where_they_share_it():
    one, other = logged("a", ONE, clip=1.0), logged("a", ONE, clip=2.0)
    other.path = "elsewhere/a"
    panel = charts_of([one, other], ["gradient_norm"])[0]
    assert [series.run for series in panel.series] == ["runs/a", "elsewhere/a"]
    assert panel.limit is None


def test_what_is_not_logged_is_told_with_the_nearest_name():
    with pytest.raises(UsageError, match="unknown metric: acuracy") as failure:
        charts_of([logged("a", ONE)], ["acuracy"])
    assert "accuracy" in failure.value.hint
    with pytest.raises(DataError, match="has no log"):
        charts_of([logged("a", [])])


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("lr", "learning rate"), ("exact", "exact, %"), ("bleu", "bleu"), ("img_per_second", "img per second"),
        ("gradient_norm_p90", "norm of the gradient, before clipping, that 90 % of the updates lie below"),
    ],
)  # fmt: skip
def test_titles_say_what_and_in_which_unit(metric, words):
    assert title(metric) == words


def test_every_number_that_training_logs_of_its_updates_has_words_and_a_unit_for_a_picture():
    """The names of the log are made for programs: none of them stands in a picture."""
    for metric in ("lr", "gradient_norm", "gradient_norm_p90", "clipped", "update_ratio"):
        drawn = Chart(metric, title(metric), "epoch", ())
        assert "_" not in drawn.title + drawn.unit
        assert drawn.unit in {"rate", "norm", "%", "ratio"}


def panel(*series, metric="loss", limit=None):
    return Chart(metric, metric, "epoch", series, limit)


def test_norms_far_apart_are_drawn_on_a_logarithmic_axis_and_rates_and_shares_never():
    far = Series("a", "training", (0.0, 1.0), (0.1, 10.0))
    assert panel(far).is_logarithmic
    assert not panel(far, metric="lr").is_logarithmic
    assert not panel(far, metric="accuracy").is_logarithmic
    assert not panel(Series("a", "training", (0.0, 1.0), (0.0, 10.0))).is_logarithmic


def test_a_terminal_sees_a_falling_line_fall():
    lines = charts.lines(panel(Series("a", "validation", (0.0, 1.0, 2.0), (3.0, 2.0, 1.0))), width=20, height=3)
    assert lines[:4] == ["loss", " 3 |a", f"   |{' ' * 8}a", f" 1 |{' ' * 15}a"], "16 columns, the middle one is 8"
    assert lines[5].split() == ["0", "2"]
    assert lines[-1].strip() == "a  a, validation"


def test_of_many_runs_a_terminal_sees_validation_only():
    series = [Series(name, part, (0.0, 1.0), (1.0, 2.0)) for name in "xyz" for part in ("training", "validation")]
    legend = charts.lines(panel(*series))[-3:]
    assert [line.split()[0] for line in legend] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.1, "0.1"), (12.3456, "12.3"), (4000, "4000"), (2e-5, "2e-5"), (1.5e7, "1.5e7")]
)
def test_numbers_beside_an_axis_are_short(value, text):
    assert charts.tick(value) == text


def test_constant_values_and_single_points_are_drawn():
    one = panel(Series("a", "training", (1.0,), (2.0,)), limit=2.0)
    assert "a" in "".join(charts.lines(one)).lower()
    assert "<circle" in charts.page([one], title="x")
    charts.figure([one], title="x")


class Tags(HTMLParser):
    """Counts tags, and sees that each is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_page_needs_nothing_from_elsewhere_and_shows_names_as_text():
    hostile = "<script>alert(1)</script>\x1b[31m"
    page = charts.page(
        [panel(Series(hostile, "validation", (0.0, 1.0), (1.0, 2.0)))], title=hostile, columns=["run"], rows=[[hostile]]
    )
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert "script" not in {tag for tag, _ in tags.seen}
    assert "<script>alert(1)</script>\\x1b[31m" in tags.text
    places = [value for _, attrs in tags.seen for key, value in attrs.items() if key in {"src", "href"}]
    assert places == ["data:,"], "the empty icon, which keeps a browser from asking for one"
    points = [attrs["points"] for tag, attrs in tags.seen if tag == "polyline" and len(attrs["points"]) > 15]
    assert points[-1].startswith("72.0,256.0"), "the first point is at the left end and at the foot of the chart"
    upright = [attrs for tag, attrs in tags.seen if tag == "text" and "transform" in attrs]
    assert [attrs["transform"] for attrs in upright] == ["rotate(-90 12 133.0)"], "the unit, halfway up"
    assert ">loss</text>" in page


def test_numbers_of_the_table_stand_to_the_right_and_words_do_not():
    one = panel(Series("a", "validation", (0.0, 1.0), (1.0, 2.0)))
    page = charts.page([one], title="x", columns=["part", "last"], rows=[["validation", "2"]], right=["last"])
    assert '<td>validation</td><td class="number">2</td>' in page


def test_a_picture_has_a_panel_each_and_a_colour_for_each_run():
    runs = [Series(name, "validation", (0.0, 1.0), (1.0, 2.0)) for name in ("$a", "b")]
    drawn = charts.figure([panel(*runs), panel(*runs, metric="lr")], title="$x$")
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["loss", "lr"]
    colours = [line.get_color() for line in drawn.axes[0].lines]
    assert colours == list(look.COLOURS[:2])
    assert [axes.get_ylabel() for axes in drawn.axes] == ["loss", "rate"]
    assert_readable(drawn)
