"""How a training run looks while it runs: a live bar on a terminal, one line an interval elsewhere. No TensorFlow."""

from typing import TYPE_CHECKING, Any, Self

from dlkit import console

if TYPE_CHECKING:
    from rich.progress import Progress

SHORT = {"accuracy": "acc", "loss": "loss", "exact": "exact"}


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
    """Bytes in the unit that fits: `1.1 MB`, `0.5 GB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale * 0.5:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def metric(name: str, value: float) -> str:
    """A metric as people read it: shares in percent, losses with three digits."""
    if name == "loss":
        return f"loss {value:.3f}"
    return f"{SHORT.get(name, name)} {100 * value:.1f}"


def sentence(record: dict[str, Any], metrics: list[str]) -> str:
    """The figures of one log line in one line of text."""
    rate_key = next(key for key in record if key.endswith("_per_second"))
    clipped = f" ({100 * record['clipped']:.0f} % clipped)" if record["clipped"] else ""
    parts = [metric(name, record[name]) for name in metrics if name in record]
    parts += [
        f"lr {record['lr']:.2g}",
        f"|g| {record['gradient_norm']:.2g}{clipped}",
        f"{record[rate_key]:,.0f} {rate_key.removesuffix('_per_second')}/s",
        f"{duration(record['seconds_left'])} left",
    ]
    return "  ".join(parts)


class Live:
    """Shows a run, as the trainer's `Display`; a context manager, so that the terminal is put right at the end.

    Args:
        steps: updates in all.
        steps_per_epoch: updates in one pass over the data.
        done: updates already made, by earlier attempts.
        metrics: the task's metrics, in the order to show them.
    """

    def __init__(self, *, steps: int, steps_per_epoch: int, done: int, metrics: list[str]) -> None:
        self.steps, self.steps_per_epoch, self.done, self.metrics = steps, steps_per_epoch, done, metrics
        self.bar: Progress | None = None
        self.text = "the first step compiles the graph"
        self.validation = ""

    def __enter__(self) -> Self:
        if console.is_terminal() and not console.settings.quiet:
            self.bar = console.progress("epoch", self.steps)
            self.bar.start()
            self._redraw()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def estimate(self, *, steps: int, step_seconds: float, epochs: float) -> None:
        """Tells how long the run will take."""
        text = f"{epochs:.4g} epochs x {self.steps_per_epoch:,}, about {duration(steps * step_seconds)}"
        if self.done:
            text += f" for the {steps:,} that are left"
        console.labelled([("steps", text)])

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self.done = step
        if self.bar:
            self._redraw()

    def interval(self, record: dict[str, Any]) -> None:
        """Renews the figures of the bar, or prints a line."""
        self.text = sentence(record, self.metrics)
        if self.bar:
            self._redraw()
        else:
            console.note(f"{self._place()}  {self.text}")

    def evaluation(self, record: dict[str, Any]) -> None:
        """Prints what an evaluation found."""
        figures = "  ".join(metric(name, record[name]) for name in self.metrics if name in record)
        weights = " (averaged weights)" if record["weights"] == "ema" else ""
        console.note(f"{self._place()}  {record['split']}: {figures}{weights}")

    def _place(self) -> str:
        epochs = self.steps / self.steps_per_epoch
        epoch = self.done / self.steps_per_epoch
        return f"epoch {epoch:.4g}/{epochs:.4g}" if self.steps_per_epoch > 1 else f"step {self.done}/{self.steps}"

    def _redraw(self) -> None:
        assert self.bar is not None
        self.bar.update(self.bar.task_ids[0], completed=self.done, place=self._place(), figures=console.safe(self.text))
