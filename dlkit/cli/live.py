"""How a training run looks while it runs: a live bar on a terminal, one line an interval elsewhere. No TensorFlow."""

import math
from typing import TYPE_CHECKING, Any, Self

from dlkit import console
from dlkit.tasks import POINTS

if TYPE_CHECKING:
    from rich.progress import Progress

SHORTEST_BAR = 8
SHORT = {"accuracy": "acc", "loss": "loss", "exact": "exact"}
PLAIN = {"perplexity": "perplexity", "bits_per_character": "bits/char"}  # neither losses nor shares


def duration(seconds: float) -> str:
    """A time in words short enough for a bar: `9 s`, `4 min 10 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(count: float) -> str:
    """Bytes in the unit that fits: `1.1 MiB`, `0.5 GiB`."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**power * 0.5:
            return f"{count / 2**power:.1f} {unit}"
    return f"{count:.0f} B"


def amount(value: float) -> str:
    """A number of epochs: whole when it is, else with as many digits as tell it from 0."""
    if value == round(value):
        return str(round(value))
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def count(value: float, noun: str) -> str:
    """An amount of things: `1 epoch`, `2.5 epochs`."""
    return f"{amount(value)} {noun}{'' if value == 1 else 's'}"


def metric(name: str, value: float) -> str:
    """A metric as people read it: shares in percent, losses with three digits, BLEU and CIDEr-D as they are."""
    if name == "loss":
        return f"loss {value:.3f}" if abs(value) < 1000 else f"loss {value:.3g}"
    if name in PLAIN:
        return f"{PLAIN[name]} {value:.3f}" if abs(value) < 1000 else f"{PLAIN[name]} {value:.3g}"
    if name == "mse":
        return f"mse {value:.4f}" if 0.001 <= abs(value) < 1000 else f"mse {value:.3g}"
    if name in POINTS:
        return f"{name} {value:.1f}"
    if name == "cider":
        return f"{name} {value:.3f}"
    return f"{SHORT.get(name, name)} {100 * value:.1f}"


def sentence(record: dict[str, Any], metrics: list[str], *, width: int | None = None) -> str:
    """The figures of one log line in one line of text.

    Args:
        record: a line of metrics.jsonl about training.
        metrics: the task's metrics.
        width: most characters; what matters least is left out, the metrics and the time that is left never.
    """
    rate = next(key for key in record if key.endswith("_per_second"))
    clipped = f" ({100 * record['clipped']:.0f} % clipped)" if record["clipped"] else ""
    parts = {name: metric(name, record[name]) for name in metrics if name in record}
    parts |= {
        "lr": f"lr {record['lr']:.2g}",
        "gradient": f"|g| {record['gradient_norm']:.2g}{clipped}",
    }
    if "sampling" in record:
        parts["sampling"] = f"sampling {record['sampling']:.2f}"
    if not math.isnan(record[rate]):  # unknown as long as every step has traced a graph
        parts["rate"] = f"{record[rate]:,.0f} {rate.removesuffix('_per_second')}/s"
    if not math.isnan(record["seconds_left"]):
        parts["left"] = f"{duration(record['seconds_left'])} left"
    for name, shorter in (
        ("gradient", f"|g| {record['gradient_norm']:.2g}"),
        ("gradient", ""),
        ("sampling", ""),
        ("lr", ""),
        ("rate", ""),
    ):
        if width is None or len("  ".join(parts.values())) <= width:
            break
        if shorter:
            parts[name] = shorter
        else:
            parts.pop(name, None)
    return "  ".join(parts.values())


class Live:
    """Shows a run, as the trainer's `Display`; a context manager, so that the terminal is put right at the end.

    Args:
        steps: updates in all.
        steps_per_epoch: updates in one pass over the data.
        metrics: the task's metrics, in the order to show them.
    """

    def __init__(self, *, steps: int, steps_per_epoch: int, metrics: list[str]) -> None:
        self.steps, self.steps_per_epoch, self.metrics = steps, steps_per_epoch, metrics
        self.done = 0
        self.bar: Progress | None = None
        self.record: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        if console.is_terminal() and not console.settings.quiet:
            self.bar = console.progress(self._place(), self.steps)
            self.bar.start()
            self._redraw()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def estimate(self, *, steps: int, seconds: float) -> None:
        """Tells how long the run will take."""
        left = f"about {duration(seconds)} for the {steps:,} steps that are left, and the evaluations"
        console.labelled([("time", left if steps else "no step is left, only the evaluations")])

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self.done = step
        if self.bar:
            self._redraw()

    def interval(self, record: dict[str, Any]) -> None:
        """Renews the figures of the bar, or prints a line."""
        self.record = record
        if self.bar:
            self._redraw()
        else:
            console.note(f"{self._place()}  {sentence(record, self.metrics)}")

    def evaluation(self, record: dict[str, Any]) -> None:
        """Prints what an evaluation found."""
        figures = "  ".join(metric(name, record[name]) for name in self.metrics if name in record)
        weights = " (averaged weights)" if record["weights"] == "ema" else ""
        console.note(f"{self._place()}  {record['split']}: {figures}{weights}")

    def _place(self) -> str:
        return f"epoch {amount(self.done / self.steps_per_epoch)}/{amount(self.steps / self.steps_per_epoch)}"

    def _redraw(self) -> None:
        assert self.bar is not None
        place = self._place()
        room = console.width("stderr") - len(place) - SHORTEST_BAR - 2
        figures = sentence(self.record, self.metrics, width=room) if self.record else "the first step takes longest"
        self.bar.update(self.bar.task_ids[0], completed=self.done, place=place, figures=console.safe(figures))
