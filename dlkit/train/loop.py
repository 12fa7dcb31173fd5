"""The loop on the host: which step comes next, when to log, evaluate and save, and when to stop."""

import math
import resource
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from types import FrameType
from typing import Any, NamedTuple, NoReturn, Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import signals, workers
from dlkit.cluster import ALONE, Peers
from dlkit.data.batching import Batch, prefetch, until_failure
from dlkit.errors import DataError, DivergedError, DlkitError, Interrupted, cannot_write
from dlkit.recipe import TrainSection, seconds
from dlkit.runs import Run, best_whole, find_checkpoint, load_weights
from dlkit.runtime import Devices
from dlkit.tasks import Direction
from dlkit.tasks.task import Task
from dlkit.train import checkpoints
from dlkit.train.evaluation import Evaluation
from dlkit.train.progressive import Progressive, resized
from dlkit.train.schedules import Plateau, is_better, own_word_probability, schedule
from dlkit.train.step import TrainingStep, means, rows_here

# The first call of a graph traces and optimizes it; these many steps after it tell how fast it runs.
WARM_STEPS = 3


@dataclass
class Progress:
    """Where a run stands; all of it goes into `state.json`, so that a resumed run goes on as if nothing had been.

    Args:
        step: updates made.
        epoch: the epoch in progress, from 0.
        position: its batches that are done.
        seconds: time spent training, over all attempts.
        attempt: how often the run was started.
        best: the best value of the monitored metric.
        best_step: of the checkpoint that the run stands for: when that was, or where it was reached several times, when
            the loss was lowest; with the recipe's train.select=last the last evaluation.
        best_loss: the validation loss then; None where that is not known, or no number.
        stale: evaluations since the best value was first reached.
        plateau: what the plateau schedule remembers.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    seconds: float = 0.0
    attempt: int = 1
    best: float | None = None
    best_step: int | None = None
    best_loss: float | None = None
    stale: int = 0
    plateau: dict[str, Any] = field(default_factory=dict)


class Display(Protocol):
    """What shows a run while it trains."""

    def estimate(self, *, steps: int, seconds: float) -> None:
        """How many steps are left and how long they will take, told once, after the first few."""

    def advance(self, step: int) -> None:
        """One more update is done."""

    def interval(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl about training."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl about an evaluation."""


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Args:
        steps: updates in all.
        steps_per_epoch: updates in one pass over the data.
        evaluate_every: updates between evaluations.
        log_every: updates between log lines.
    """

    steps: int
    steps_per_epoch: int
    evaluate_every: int
    log_every: int

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return self.steps / self.steps_per_epoch


def length_of(settings: TrainSection, task: Task) -> Length:
    """Works out the length of a run from the recipe's `epochs` or `steps` and the size of the training split."""
    per_epoch = len(task.plan("train", batch_size=settings.batch_size, epoch=0))
    if per_epoch == 0:
        raise DlkitError("the training split is empty")
    steps = settings.steps or max(1, round((settings.epochs or 1) * per_epoch))
    return Length(
        steps=steps,
        steps_per_epoch=per_epoch,
        evaluate_every=max(1, round(settings.evaluate_every * per_epoch)),
        log_every=settings.log_every or min(per_epoch, 50),
    )


def rates(settings: TrainSection, total_steps: int, *, width: int | None) -> Callable[[int], float]:
    """The learning rate as a function of the step, by the recipe's [train] section; not of the plateau schedule."""
    return schedule(
        settings.schedule, lr=settings.lr, total_steps=total_steps, warmup=settings.warmup, final_lr=settings.final_lr,
        milestones=settings.milestones, gamma=settings.gamma, power=settings.power, width=width,
    )  # fmt: skip


def plateau_of(settings: TrainSection, task: Task, monitor: str, total_steps: int) -> Plateau:
    """The plateau schedule of a [train] section; its patience counts the evaluations that measure the metric."""
    between = settings.evaluate_every
    if monitor in task.about.decoded:
        between *= settings.decode_every or 1
    return Plateau(
        lr=settings.lr, total_steps=total_steps, warmup=settings.warmup, gamma=settings.gamma,
        patience=math.ceil(settings.plateau_patience / between), direction=task.about.metrics[monitor],
    )  # fmt: skip


@contextmanager
def stop_signals(hint: str = "") -> Iterator[Callable[[], int | None]]:
    """Turns the signals that end the work into a question, `which one came?`, that the loop asks between steps.

    The second signal acts at once, for those who do not want to wait. SIGUSR1 is what batch systems send before the
    time is up, and `--workers` to its workers. As these may get it from both, it is not for them to act at once.

    Args:
        hint: how to go on from what was saved before, for who does not wait.
    """
    received: list[int] = []
    hurried: list[Interrupted] = []

    def note(number: int, _: FrameType | None) -> None:
        if signals.note(received, number) and not workers.launcher():
            hurried.append(Interrupted("interrupted at once; what was saved before is whole", hint, number))
            raise hurried[0]

    with signals.handled(note):
        try:
            yield lambda: received[0] if received else None
        except Exception:
            if hurried:  # TensorFlow wraps what is raised while it traces a graph
                raise hurried[0] from None
            raise


class Drawn(NamedTuple):
    """A batch of training, as far as this process needs it.

    Args:
        epoch: its epoch, from 0.
        position: its place in the epoch.
        size: rows of the global batch.
        batch: the rows of it that the devices of this process train on.
    """

    epoch: int
    position: int
    size: int
    batch: Batch


def batches(task: Task, settings: TrainSection, progress: Progress, devices: Devices) -> Iterator[Drawn]:
    """All batches from where `progress` stands, without end."""
    sizes = Progressive(settings, length_of(settings, task).steps) if settings.progressive else None

    def drawn() -> Iterator[Drawn]:
        epoch, position, step = progress.epoch, progress.position, progress.step
        while True:
            plan: list[NDArray[np.int64]] = task.plan("train", batch_size=settings.batch_size, epoch=epoch)
            for index in range(position, len(plan)):
                indices = plan[index]
                rows = rows_here(len(indices), devices, accumulate=settings.accumulate)
                batch = task.rows_of("train", indices, rows, epoch=epoch)
                if sizes:
                    batch |= {"images": resized(batch["images"], sizes.scale(step))}
                yield Drawn(epoch, index, len(indices), batch)
                step += 1
            epoch, position = epoch + 1, 0

    return prefetch(drawn())


def first_batch(task: Task, settings: TrainSection) -> tuple[NDArray[np.int64], Batch]:
    """The examples of the first update and their batch, all rows of it, as `batches` draws them."""
    indices = task.plan("train", batch_size=settings.batch_size, epoch=0)[0]
    batch = task.batch("train", indices, epoch=0)
    if settings.progressive:
        sizes = Progressive(settings, length_of(settings, task).steps)
        batch |= {"images": resized(batch["images"], sizes.scale(0))}
    return indices, batch


def high_norm(norms: Sequence[float]) -> float:
    """The least of some norms at or below which 90 % of them lie; NaN where one is.

    Clipping looks at the norm of single updates, which their mean over an interval says little of.
    """
    return float(np.percentile(norms, 90, method="inverted_cdf"))


def _no_room(run: Run, failure: OSError) -> DlkitError:
    """The error of a run that cannot be written to."""
    return cannot_write(run.path, failure, full=f"free some space; `dlkit train --resume {run.shown}` goes on")


def peak_memory() -> int:
    """The most memory that this process has used, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Loop:
    """Trains a model and keeps its run folder.

    Args:
        run: the run folder; None writes nothing.
        settings: the recipe's [train] section.
        task: data, loss and metrics.
        model: built in the scope of the strategy.
        step: the update, with its state restored.
        devices: where it runs.
        display: who shows it.
        width: the model's width, which the Noam schedule needs.
        progress: where to go on.
        peers: the other processes that train it.
    """

    def __init__(
        self,
        run: Run | None,
        settings: TrainSection,
        task: Task,
        model: keras.Model,
        step: TrainingStep,
        devices: Devices,
        display: Display,
        *,
        width: int | None = None,
        progress: Progress | None = None,
        peers: Peers = ALONE,
    ) -> None:
        self.peers = peers
        self.run, self.settings, self.task, self.model, self.training_step = run, settings, task, model, step
        self.devices, self.display, self.progress = devices, display, progress or Progress()
        self.length = length_of(settings, task)
        self.monitor = settings.monitor or task.about.monitor
        self.direction: Direction = task.about.metrics[self.monitor]
        rows = -(-settings.batch_size // settings.accumulate)  # what fits in training fits here
        self.evaluation = Evaluation(task, model, devices, batch_size=max(rows, 32), peers=peers)
        self.validation = "validation" if "validation" in task.splits else None
        steps = self.length.steps
        self.plateau = plateau_of(settings, task, self.monitor, steps) if settings.schedule == "plateau" else None
        if self.plateau and self.progress.plateau:
            self.plateau.restore(self.progress.plateau)
        self.lr: Callable[[int], float] = self.plateau or rates(settings, steps, width=width)
        self.sizes = Progressive(settings, steps)
        self.sampling = settings.sampling and own_word_probability(
            settings.sampling, rate=settings.sampling_rate, total_steps=steps
        )
        self.saved_step: int | None = None
        self.clock: list[tuple[float, bool]] = []  # when the first steps were done, and whether they traced a graph
        self.step_seconds = math.nan  # of one step, without tracing, in the newest interval that had one
        self.evaluation_seconds: dict[bool, float] = {}  # of the newest evaluation with decoding, and without
        self._reset_interval()
        self.writer: tf.summary.SummaryWriter | None = None

    # ------------------------------------------------------------------------------------------------------- the loop

    @property
    def finished(self) -> str | None:
        """Why there is nothing left to train, "done" or "early stopping"; None when there is."""
        if self.progress.step >= self.length.steps:
            return "done"
        patience = self.settings.patience
        return "early stopping" if patience and self.progress.stale >= patience else None

    def fit(self) -> str:
        """Trains until the end, and says why it ended: "done", "early stopping" or "time is up".

        Raises:
            dlkit.errors.DivergedError: the loss or a gradient is not finite.
            dlkit.errors.Interrupted: a signal came; the state is saved.
            dlkit.errors.DataError: an image cannot be decoded any more; the state is saved.
            dlkit.errors.DlkitError: the disk is full, or the memory.
        """
        budget = seconds(self.settings.max_time) if self.settings.max_time else math.inf
        started = time.monotonic()
        first, before = self.progress.step, self.progress.seconds
        reason = "done"
        self._reset_interval()
        with stop_signals(self._goes_on("its last checkpoint")) as signalled:
            for drawn in until_failure(batches(self.task, self.settings, self.progress, self.devices)):
                if self.progress.step >= self.length.steps:
                    break
                failure = drawn if isinstance(drawn, DataError) else None
                number, over = signalled(), time.monotonic() - started >= budget
                asked = self.progress.step > first and (number is not None or over)
                # One sum for all that may stop the processes; what it was they ask each other once it does.
                if self.devices.any(asked or failure is not None):
                    reason = self._stop(number, failure)
                    break
                assert isinstance(drawn, Drawn)
                self._one_step(drawn)
                self.progress.seconds = before + time.monotonic() - started
                ended = self.progress.step >= self.length.steps
                if self._is_logged(self.progress.step):
                    self._log()
                if self.progress.step % self.length.evaluate_every == 0 or ended:
                    try:
                        self._evaluate_and_save()
                    except DataError as damage:
                        self._end_with(damage)
                    self.progress.seconds = before + time.monotonic() - started
                    if self.finished == "early stopping":
                        reason = "early stopping"
                        break
                elif self.settings.checkpoint_every and self.progress.step % self.settings.checkpoint_every == 0:
                    self._check_finite()
                    self.save()
            number = signalled()
            if reason != "time is up" and self.devices.any(number is not None):
                self._stop(number, None)
        self.peers.say_goodbye()
        return reason

    def _stop(self, number: int | None, failure: DataError | None) -> str:
        """Saves before the end, in all processes after the same step, and says or raises why they stop."""
        if self.devices.any(failure is not None):
            self._end_with(self.peers.share(failure))
        # It may have come to another process alone; all end with the same exit code.
        agreed = next((each for each in signals.STOP if self.devices.any(number == each)), None)
        if agreed is not None:
            self.peers.say_goodbye()
        self._log()
        self.save()
        if agreed is not None:
            raise self._interrupted(agreed)
        return "time is up"

    def _end_with(self, failure: DataError) -> NoReturn:
        """Saves and ends, in all processes, for a failure that all of them know of."""
        self.peers.say_goodbye()  # the chief may take its time to save
        self._keep(failure)
        raise self.peers.ending(failure)

    def try_out(self) -> None:
        """Makes the first few steps, which tells how long the run would take; the weights are lost to it."""
        for drawn in batches(self.task, self.settings, self.progress, self.devices):
            self._one_step(drawn)
            if len(self.clock) > WARM_STEPS or self.progress.step >= self.length.steps:
                break

    def losses_at(self, rates: Iterable[float]) -> Iterator[float]:
        """Makes an update at each of the rates, one a step from where the run stands, and keeps nothing of it.

        Gives:
            The loss of each batch before its update; nan when it or a gradient is not finite.
        """
        drawn = batches(self.task, self.settings, self.progress, self.devices)
        for rate, each in zip(rates, drawn, strict=False):  # the batches have no end
            measured = self._updated(each, rate)
            self.progress.step += 1
            yield float(measured["loss"]) / float(measured["weight"]) if bool(measured["finite"]) else math.nan

    def test(self) -> dict[str, Any]:
        """Evaluates the checkpoint that the run stands for on the test split, and keeps the result in the run.

        Returns:
            "split" ("test", or None when there is none), "metrics", "step" and "epoch" of the weights, "weights" ("raw"
            or "ema") and "best" (whether a validation split chose them).
        """
        assert self.run is not None
        split = "test" if "test" in self.task.splits else None
        best = self.validation is not None and self.settings.select == "best"
        path = best_whole(self.run) if self.validation else find_checkpoint(self.run, "last")
        weights = "ema" if self.training_step.ema else "raw"
        load_weights(self.model, checkpoints.read(path, "weights" if weights == "raw" else "ema"), where=str(path))
        self.progress.step = checkpoints.step_of(path.name)
        if self.devices.processes > 1:  # the other processes have no checkpoint to load, and may be gone
            alone = Devices(tf.distribute.get_strategy(), self.devices.description)
            self.evaluation = Evaluation(self.task, self.model, alone, batch_size=self.evaluation.batch_size)
        metrics = self._evaluate(split, weights, show=False) if split else {}
        result = {
            "split": split, "metrics": metrics, "step": self.progress.step,
            "epoch": self.progress.step / self.length.steps_per_epoch, "weights": weights, "best": best,
        }  # fmt: skip
        if self.devices.is_chief:
            self.run.update_info(result=result)
        return result

    def _one_step(self, drawn: Drawn) -> None:
        rate = self.lr(self.progress.step)
        # The last update before a line of the log is measured; and the first, in case a signal ends the interval.
        measures = not self.pending or self._is_logged(self.progress.step + 1)
        before = self.training_step.weights() if measures else None
        traces, started = self.training_step.traces, time.monotonic()
        measured = self._updated(drawn, rate)
        if not self.devices.on_gpu:
            float(measured["loss"])  # done by now on a CPU; a GPU may work on while the next batch is made
        traced = self.training_step.traces > traces
        (self.tracing if traced else self.durations).append(time.monotonic() - started)
        self.pending.append(measured)
        self.interval_rate = rate
        if before is not None:
            self.update_ratio = self.training_step.update_ratio(before)
        self.progress.step += 1
        self.progress.epoch, self.progress.position = drawn.epoch, drawn.position + 1
        self.display.advance(self.progress.step)
        self._time_steps(traced)

    def _updated(self, drawn: Drawn, rate: float) -> dict[str, tf.Tensor]:
        """Makes the update of a batch; see `TrainingStep`."""
        sampling = self.sampling(self.progress.step) if self.sampling else None
        measured: dict[str, tf.Tensor] = self._out_of_memory_explained(
            lambda: self.training_step(
                drawn.batch,
                step=self.progress.step,
                lr=rate,
                size=drawn.size,
                sampling=sampling,
                begins=drawn.position == 0,
            )
        )
        return measured

    def _time_steps(self, traced: bool) -> None:
        """Starts the clock after the first step, which traces the graph, and tells the estimate soon after."""
        done = len(self.clock)
        if done <= WARM_STEPS + 1:
            if self.pending:
                float(self.pending[-1]["loss"])  # wait for the device
            self.clock.append((time.monotonic(), traced))
        if done == min(WARM_STEPS, self.length.steps - 1) and done:
            spans = [(after - before, traced) for (before, _), (after, traced) in pairwise(self.clock)]
            quick = [span for span, traced in spans if not traced] or [span for span, _ in spans]
            left, like_these = self.length.steps - self.progress.step, self.sizes.steps_left(self.progress.step)
            self.display.estimate(steps=left, seconds=like_these * statistics.fmean(quick))

    def _reset_interval(self) -> None:
        self.pending: list[dict[str, tf.Tensor]] = []
        self.durations: list[float] = []  # of the steps, apart from those that traced a graph
        self.tracing: list[float] = []
        self.interval_start = time.monotonic()
        self.update_ratio = math.nan
        self.interval_rate = float("nan")

    # ------------------------------------------------------------------------------------- what is logged and decided

    def _is_logged(self, step: int) -> bool:
        """Whether a line of the log is due after a step: at the end of an interval and before each evaluation."""
        length = self.length
        return step >= length.steps or step % length.log_every == 0 or step % length.evaluate_every == 0

    def _log(self) -> None:
        """Writes one line about the steps since the last one."""
        if not self.pending:
            return
        totals: defaultdict[str, float] = defaultdict(float)
        finite = True
        for measured in self.pending:
            for name, value in measured.items():
                totals[name] += float(value)
            finite = finite and bool(measured["finite"])
        count = len(self.pending)
        if self.durations:  # on a GPU single steps have no time of their own
            mean = (time.monotonic() - self.interval_start - sum(self.tracing)) / len(self.durations)
            self.step_seconds = mean if self.devices.on_gpu else statistics.median(self.durations)
        steps_left = self.sizes.steps_left(self.progress.step)
        norm, clipped = totals.pop("gradient_norm") / count, totals.pop("clipped") / count
        norms = [float(measured["gradient_norm"]) for measured in self.pending]
        totals.pop("finite")
        record = {
            "kind": "train", "attempt": self.progress.attempt, "step": self.progress.step,
            "epoch": self.progress.step / self.length.steps_per_epoch, **means(totals),
            "lr": self.interval_rate, "gradient_norm": norm, "gradient_norm_p90": high_norm(norms),
            "clipped": clipped, "update_ratio": float(self.update_ratio),
            **({"sampling": self.sampling(self.progress.step - 1)} if self.sampling else {}),
            f"{self.task.unit}_per_second": totals["weight"] / count / self.step_seconds, "memory": peak_memory(),
            "seconds": self.progress.seconds,
            "seconds_left": steps_left * self.step_seconds + self._evaluations_left() if steps_left else 0.0,
        }  # fmt: skip
        self._write(record)
        self.display.interval(record)
        self._reset_interval()
        if not finite:
            raise DivergedError(
                f"training diverged: the loss or a gradient is not finite near step {self.progress.step}",
                f"try a smaller --lr (now {record['lr']:.2g}), --clip-norm 1, or a longer --warmup"
                + (f"; `--resume {self.run.shown}` would repeat it" if self.run else ""),
            )

    def _check_finite(self) -> None:
        """Ends training now, rather than at the next line of the log, when a step was not finite."""
        if not all(bool(measured["finite"]) for measured in self.pending):
            self._log()

    def _evaluate_and_save(self) -> None:
        chosen = True
        if self.validation:
            decode, started = self._decodes(self.progress.step), time.monotonic()
            monitored = self._evaluate(self.validation, "raw", decode=decode)
            if self.training_step.ema:
                with self.averaged():
                    monitored = self._evaluate(self.validation, "ema", decode=decode)
            self.evaluation_seconds[decode] = time.monotonic() - started
            # Evaluations without decoding have no BLEU: where it is monitored, only the others choose and count.
            improved = self.monitor in monitored and self._observe(monitored[self.monitor], monitored["loss"])
            chosen = improved or self.settings.select == "last"
            if chosen:
                self.progress.best_step = self.progress.step
        self.save(best=chosen)
        self._reset_interval()

    def _evaluations_left(self) -> float:
        """How many seconds the evaluations will take that are still to come, as far as one like them has been timed."""
        if not self.evaluation_seconds:
            return 0.0
        every, decode_every = self.length.evaluate_every, self.settings.decode_every
        # Those from the next one up to the last one, by their numbers: none has been made at the step of a log line.
        first, last = -(-self.progress.step // every), -(-self.length.steps // every)
        decoding = 0 if decode_every is None else (last - 1) // decode_every - (first - 1) // decode_every + 1
        timed = self.evaluation_seconds
        return decoding * timed.get(True, 0.0) + (last - first + 1 - decoding) * timed.get(False, 0.0)

    def _decodes(self, step: int) -> bool:
        """Whether the evaluation after a step decodes, too; the last one does, so that a best one is found."""
        every = self.settings.decode_every
        if every is None:
            return False
        return step >= self.length.steps or step // self.length.evaluate_every % every == 0

    def _observe(self, value: float, loss: float) -> bool:
        """Takes note of the monitored metric, and says whether the weights are the best so far.

        On a small split an accuracy is often reached again: of equals the one with the lower loss is the better one.
        Patience waits for a better metric all the same.
        """
        progress = self.progress
        improved = is_better(value, progress.best, self.direction)
        progress.stale = 0 if improved else progress.stale + 1
        if value == progress.best and progress.best_loss is not None:
            improved = is_better(loss, progress.best_loss, "lower")
        if improved:
            progress.best = value
            progress.best_loss = loss if math.isfinite(loss) else None
        if self.plateau:
            self.plateau.observe(value)
            progress.plateau = self.plateau.state
        return improved

    def _evaluate(self, split: str, weights: str, *, decode: bool = True, show: bool = True) -> dict[str, float]:
        values = self._out_of_memory_explained(lambda: self.evaluation(split, decode=decode))
        record = {
            "kind": "evaluation", "attempt": self.progress.attempt, "step": self.progress.step,
            "epoch": self.progress.step / self.length.steps_per_epoch, "split": split, "weights": weights, **values,
        }  # fmt: skip
        self._write(record)
        if show:
            self.display.evaluation(record)
        return values

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has its averaged weights inside the block."""
        step = self.training_step
        raw = {path: step.variables[path].value.numpy() for path in step.ema}
        for path, average in step.ema.items():
            step.variables[path].assign(average.numpy())
        try:
            yield
        finally:
            for path, weight in raw.items():
                step.variables[path].assign(weight)

    def _write(self, record: dict[str, Any]) -> None:
        if self.run is None or not self.devices.is_chief:
            return
        try:
            self.run.log(record)
        except OSError as failure:
            raise _no_room(self.run, failure) from None
        if self.settings.tensorboard:
            self.writer = self.writer or tf.summary.create_file_writer(str(self.run.path / "tensorboard"))
            prefix = record["kind"] if record["kind"] == "train" else f"{record['split']}/{record['weights']}"
            with self.writer.as_default(step=record["step"]):
                for name, value in record.items():
                    if isinstance(value, float):
                        tf.summary.scalar(f"{prefix}/{name}", value)
            self.writer.flush()  # the process may be ended

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def save(self, *, best: bool = False) -> None:
        """Writes a checkpoint of this step, moves the pointers and removes old ones.

        Raises:
            dlkit.errors.DlkitError: the disk is full; the checkpoints before are whole.
        """
        if self.run is None or not self.devices.is_chief:
            return
        folder = self.run.path / "checkpoints"
        name = checkpoints.name_of(self.progress.step)
        try:
            if self.saved_step != self.progress.step:
                checkpoints.write(folder / name, self.training_step.arrays(), asdict(self.progress))
                self.saved_step = self.progress.step
            if best:
                self.run.point("best", name)
            self.run.point("last", name)
        except OSError as failure:
            raise _no_room(self.run, failure) from None
        self._remove_old(self.run)

    def _remove_old(self, run: Run) -> None:
        kept = {run.pointer("best"), run.pointer("last"), *run.checkpoints()[-self.settings.keep :]}
        for name in run.checkpoints():
            if name not in kept:
                shutil.rmtree(run.path / "checkpoints" / name, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------- what goes wrong

    def _interrupted(self, number: int) -> Interrupted:
        saved = f", saved in {self.run.path}" if self.run else ""
        return Interrupted(f"interrupted after step {self.progress.step}{saved}", self._goes_on("there"), number)

    def _goes_on(self, whence: str) -> str:
        """How the run goes on; empty where nothing is written."""
        return f"`dlkit train --resume {self.run.shown}` goes on from {whence}" if self.run else ""

    def _keep(self, failure: DataError) -> None:
        """Saves what is trained when the data fail, unless it is not finite, and tells how it goes on."""
        if not self.progress.step or not all(bool(measured["finite"]) for measured in self.pending):
            return
        self._log()
        self.save()
        if self.run:
            failure.hint = (
                f"step {self.progress.step} is saved: with the file as it was, `dlkit train --resume {self.run.shown}`"
                f" goes on from there; without it, `--init-from {self.run.shown}` starts a new run from these weights"
            )

    def _out_of_memory_explained(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (tf.errors.ResourceExhaustedError, MemoryError):
            (size, unit), parts = self.settings.batch, self.settings.accumulate
            smaller = max(1, size // parts // 2)
            if self.task.rows(self.settings.batch_size) > parts:
                hint = f"`--accumulate {-(-size // smaller)}` makes the same update from {smaller:,} {unit} at a time"
            elif unit == "tokens":
                hint = "fewer `--batch-tokens` make smaller updates, a smaller data.max_length leaves long pairs out"
            else:
                hint = "the model does not fit this machine at all"
            raise DlkitError(
                f"out of memory with {size:,} {unit} per update"
                + (f" in {parts} parts" if parts > 1 else "")
                + f" (this process has used {peak_memory() / 2**30:.1f} GiB)",
                hint,
            ) from None
