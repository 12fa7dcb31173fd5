import io
import re
import sys

import pytest

from dlkit import console
from dlkit.cli.live import SHORTEST_BAR, Live, amount, count, duration, metric, sentence, size

RECORD = {
    "loss": 0.0714, "accuracy": 0.981, "lr": 8.2e-4, "gradient_norm": 0.412, "clipped": 0.02,
    "img_per_second": 5120.4, "seconds_left": 9.4,
}  # fmt: skip
METRICS = ["loss", "accuracy"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_of_the_log_has_all_figures():
    assert sentence(RECORD, METRICS) == (
        "loss 0.071  acc 98.1  lr 0.00082  |g| 0.41 (2 % clipped)  5,120 img/s  9 s left"
    )


def test_the_probability_of_own_words_is_told():
    assert "  |g| 0.41 (2 % clipped)  sampling 0.13  5,120 img/s" in sentence(RECORD | {"sampling": 0.1251}, METRICS)


@pytest.mark.parametrize("record", [RECORD, RECORD | {"sampling": 0.25}], ids=["", "sampling"])
@pytest.mark.parametrize("width", range(20, 100, 3))
def test_what_does_not_fit_is_left_out_but_never_the_metrics_and_the_time(width, record):
    text = sentence(record, METRICS, width=width)
    assert text.startswith("loss 0.071  acc 98.1  ")
    assert text.endswith("  9 s left")
    assert len(text) <= max(width, len("loss 0.071  acc 98.1  9 s left"))


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_the_bar_on_a_terminal_shows_epoch_bar_and_time(monkeypatch, columns):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    console.reset()
    with Live(steps=240, steps_per_epoch=12, metrics=METRICS) as live:
        live.interval(RECORD)
        live.advance(144)
        live.bar.refresh()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain) if "epoch 12/20" in line]
    assert lines
    assert re.fullmatch(rf"epoch 12/20 [━╸╺ ]{{{SHORTEST_BAR},}} loss 0\.071  acc 98\.1  .*9 s left", lines[-1])
    assert len(lines[-1]) <= columns


def test_elsewhere_it_is_one_line_an_interval(capsys):
    with Live(steps=240, steps_per_epoch=12, metrics=METRICS) as live:
        live.advance(144)
        live.interval(RECORD)
        live.evaluation({"split": "validation", "weights": "ema", "loss": 2000.0, "accuracy": 0.5})
        live.estimate(steps=96, seconds=9.6)
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == [
        f"epoch 12/20  {sentence(RECORD, METRICS)}",
        "epoch 12/20  validation: loss 2e+03  acc 50.0 (averaged weights)",
        "time    about 10 s for the 96 steps that are left, and the evaluations",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (250, "4 min 10 s"), (3599, "59 min"), (7500, "2 h 5 min")],
)
def test_times(seconds, text):
    assert duration(seconds) == text


def test_numbers_are_short_and_right():
    assert [size(n) for n in (100, 1024, 1.5 * 2**20, 2**30)] == ["100 B", "1.0 KiB", "1.5 MiB", "1.0 GiB"]
    assert [amount(x) for x in (20, 20.0, 2.805, 0.02439)] == ["20", "20", "2.8", "0.024"]
    assert [count(x, "epoch") for x in (1, 2.5)] == ["1 epoch", "2.5 epochs"]
    assert metric("loss", 1.2e28) == "loss 1.2e+28"
