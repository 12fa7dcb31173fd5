"""Gradients of the weights: how large they are on a batch and were over a run, and where clipping would begin."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data.batching import Batch
from dlkit.errors import DataError
from dlkit.layers import step_context
from dlkit.probe.features import shape_text
from dlkit.probe.jacobian_view import by_distance, panel_by_distance
from dlkit.probe.views import Subject, View
from dlkit.runs import named_variables
from dlkit.tasks.task import Task
from dlkit.train.clipping import global_norm
from dlkit.train.loop import first_batch
from dlkit.train.progressive import accept_sizes
from dlkit.train.step import seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A limit is suggested from what the intervals of so many epochs have logged: so many percent of it lie below it.
FIRST_EPOCHS, PERCENTILE = 3, 90
FEWEST = 3  # intervals


@dataclass(frozen=True)
class WeightGradient:
    """The gradient of the mean loss with respect to one weight.

    Args:
        layer: the layer that the weight belongs to, such as `conv1`, behind those that it lies in and a slash.
        variable: the weight's name in its layer, such as `kernel`.
        shape: of the weight.
        norm: Euclidean, of its gradient.
        weight: that of the weight itself.
        largest: absolute entry of the gradient, which clipping by value looks at.
        layer_norm: Euclidean, of the gradients of all weights of the layer together.
    """

    layer: str
    variable: str
    shape: tuple[int, ...]
    norm: float
    weight: float
    largest: float
    layer_norm: float

    @property
    def path(self) -> str:
        """Layer and name of the weight, such as `conv1/kernel`."""
        return f"{self.layer}/{self.variable}" if self.layer else self.variable


@dataclass(frozen=True)
class Gradients:
    """The gradients of a batch.

    Args:
        weights: of each trainable weight, in the order of the model.
        norm: the global norm, which the log of a run has and clipping by norm looks at.
        loss: the mean.
    """

    weights: list[WeightGradient]
    norm: float
    loss: float


def gradients(task: Task, model: keras.Model, batch: Batch, *, smoothing: float = 0.0, seed: int = 0) -> Gradients:
    """The gradients of a training step: of the mean loss over a batch, with dropout and with batch statistics.

    The model stays as it was, moving statistics included.

    Args:
        task: of the model.
        model: any.
        batch: of the task.
        smoothing: label smoothing of the loss.
        seed: of the run, from which dropout draws as it does in the first update.

    Raises:
        dlkit.errors.DataError: the batch has nothing to learn from.
    """
    variables = {path: variable for path, variable in named_variables(model).items() if variable.trainable}
    tensors = {key: tf.convert_to_tensor(array) for key, array in batch.items()}
    context = step_context.StepContext(seed=tf.constant(seed_of(seed, 0)), first_row=tf.constant(0))
    values = [variable.value for variable in variables.values()]
    with _kept(model), step_context.use(context), tf.GradientTape() as tape:
        sums = task.loss_sums(model, tensors, training=True, smoothing=smoothing)
        loss = sums.loss / sums.weight
    if not float(sums.weight):
        raise DataError("the batch has nothing to learn from: all of it is padding")
    found = [
        tf.convert_to_tensor(gradient)  # embeddings give slices
        for gradient in tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    ]
    by_layer: dict[str, list[tf.Tensor]] = {}
    for path, gradient in zip(variables, found, strict=True):
        by_layer.setdefault(_divided(path)[0], []).append(gradient)
    of_layers = {layer: float(global_norm(own)) for layer, own in by_layer.items()}
    rows = [
        WeightGradient(
            *_divided(path), tuple(variable.shape), float(tf.norm(gradient)),
            float(tf.norm(tf.convert_to_tensor(variable))), float(tf.reduce_max(tf.abs(gradient))),
            of_layers[_divided(path)[0]],
        )
        for (path, variable), gradient in zip(variables.items(), found, strict=True)
    ]  # fmt: skip
    return Gradients(rows, float(global_norm(found)), float(loss))


def _divided(path: str) -> tuple[str, str]:
    """The layer of a weight's path, and the weight's name in it."""
    layer, _, name = path.rpartition("/")
    return layer, name


@contextmanager
def _kept(model: keras.Model) -> Iterator[None]:
    """Puts the moving statistics back that a training step changes."""
    before = [(variable, variable.numpy()) for variable in model.non_trainable_variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def suggested_limit(
    epochs: Sequence[float], norms: Sequence[float], *, first: float = FIRST_EPOCHS, percentile: float = PERCENTILE
) -> float | None:
    """A limit for clipping by norm: the `percentile` of what was logged in the `first` epochs.

    So clipping leaves most steps of healthy training as they are and holds back the rare large ones (Pascanu et al.
    2013, section 3.2, who look at the norm over enough updates). Two digits, since no more of them mean anything.

    Args:
        epochs: when each interval ended.
        norms: of its gradients, before clipping: what 90 % of its updates lie below (`gradient_norm_p90`). Their mean
            says too little: norms that spread by a third around 1 have means within a few percent of 1, and a limit
            there clips nearly half of the updates.
        first: how many epochs are looked at.
        percentile: from 0 to 100.

    Returns:
        The limit; None where fewer than three finite norms are among them.

    Example:
        >>> suggested_limit([0.1 * at for at in range(1, 11)], [1.0] * 9 + [50.0], percentile=80)
        1.0
    """
    early = [norm for epoch, norm in zip(epochs, norms, strict=True) if epoch <= first and np.isfinite(norm)]
    if len(early) < FEWEST:
        return None
    return float(f"{np.percentile(early, percentile):.2g}")


@dataclass(frozen=True)
class _Log:
    """What a run has logged of its gradients."""

    epochs: NDArray[np.float64]
    norms: NDArray[np.float64]  # the mean of each interval
    high: NDArray[np.float64]  # what 90 % of the norms of an interval lie below; NaN where it is not logged
    clipped: float | None  # the mean share of updates
    limit: float | None  # at which it clips

    def suggested(self) -> tuple[float | None, bool]:
        """A limit for clipping, and whether it comes from the norms of updates rather than from their means."""
        limit = suggested_limit(self.epochs.tolist(), self.high.tolist())
        if limit is not None:
            return limit, True
        return suggested_limit(self.epochs.tolist(), self.norms.tolist()), False


def _logged(subject: Subject) -> _Log | None:
    if subject.run is None:
        return None
    lines = [
        line
        for line in subject.run.metrics()
        if line["kind"] == "train"
        and all(isinstance(line.get(key), int | float) for key in ("epoch", "gradient_norm"))
    ]  # fmt: skip
    if not lines:
        return None
    clipped = [line["clipped"] for line in lines if isinstance(line.get("clipped"), int | float)]
    return _Log(
        np.array([line["epoch"] for line in lines], float),
        np.array([line["gradient_norm"] for line in lines], float),
        np.array([line.get("gradient_norm_p90") for line in lines], float),  # None becomes NaN
        float(np.mean(clipped)) if clipped else None,
        subject.settings.clip_norm,
    )


def _batch(subject: Subject) -> tuple[Batch, str]:
    """The first batch of the first epoch, as training sees it; of another split, or so many examples, as they are."""
    if subject.split is None and subject.limit is None and "train" in subject.training_task.splits:
        accept_sizes(subject.training_task, subject.model, subject.settings)
        indices, batch = first_batch(subject.training_task, subject.settings)
        return batch, f"on the first training batch, {len(indices)} examples"
    task = subject.task
    split = subject.split or ("train" if "train" in task.splits else task.splits[0])
    task.check_split(split)
    indices = task.plan(split, batch_size=subject.limit or 32, epoch=None)[0]
    return task.batch(split, indices, epoch=None), f"on {len(indices)} examples of the {split} split"


def view(subject: Subject) -> View:
    """The view `gradients`."""
    batch, on = _batch(subject)
    settings = subject.settings
    found = gradients(
        subject.training_task, subject.model, batch, smoothing=settings.label_smoothing, seed=settings.seed
    )
    # A pattern may be one of weights or of layers.
    chosen = set(subject.chosen(list(dict.fromkeys(name for one in found.weights for name in (one.layer, one.path)))))
    rows = [one for one in found.weights if chosen & {one.layer, one.path}]
    log = _logged(subject)
    limit, of_updates = (None, False) if log is None else log.suggested()
    distances = by_distance(subject)
    notes = [f"{on}; weights: {subject.weights}", f"loss {found.loss:.4g}, norm of the whole gradient {found.norm:.3g}"]
    notes.append("norms of each weight's gradient and of the weight; of the layer: of all its weights' gradients")
    notes += _of_log(log, limit, of_updates=of_updates)

    def draw() -> "Figure":
        from dlkit.probe.panels import Line, Lines, Rows, figure

        panels: list[Any] = [
            Rows(
                "each weight", "norm", [one.path for one in rows],
                {"its gradient": [one.norm for one in rows], "the weight itself": [one.weight for one in rows]},
                logarithmic=True,
            )
        ]  # fmt: skip
        if log is not None:
            levels = [] if log.limit is None else [(float(log.limit), f"clipped above {log.limit:g}")]
            levels += [] if limit is None else [(limit, f"suggested limit {limit:g}")]
            known = np.isfinite(log.high)
            high = [Line("90 % below", log.epochs[known].tolist(), log.high[known].tolist())] if known.any() else []
            panels.append(
                Lines(
                    "whole gradient over the run", "epochs", "norm before clipping, by interval",
                    [Line("mean" if high else "", log.epochs.tolist(), log.norms.tolist()), *high],
                    logarithmic=bool((log.norms > 0).all()), levels=levels,
                )
            )  # fmt: skip
        if distances:
            panels.append(panel_by_distance(distances))
        return figure(
            panels, title=f"{subject.operand}: gradients", note=f"{on}; {subject.weights}", columns=len(panels)
        )

    return View(
        columns=["layer", "variable", "shape", "gradient", "weight", "ratio", "largest entry", "of the layer"],
        right=["gradient", "weight", "ratio", "largest entry", "of the layer"],
        rows=[
            (one.layer, one.variable, shape_text(one.shape), f"{one.norm:.3g}", f"{one.weight:.3g}", _ratio(one),
             f"{one.largest:.3g}", f"{one.layer_norm:.3g}")
            for one in rows
        ],
        records=[asdict(one) for one in rows],
        notes=notes,
        draw=draw,
        facts={
            "on": on,
            "loss": found.loss,
            "norm": found.norm,
            "logged": None
            if log is None
            else {"epochs": log.epochs.tolist(), "norms": log.norms.tolist(), "norms_p90": log.high.tolist()},
            "suggested_clip_norm": limit,
            "gradient_by_distance": {label: norms.tolist() for label, norms in distances.items()},
        },
    )  # fmt: skip


def _ratio(one: WeightGradient) -> str | None:
    return f"{one.norm / one.weight:.2g}" if one.weight else None


def _of_log(log: _Log | None, limit: float | None, *, of_updates: bool) -> list[str]:
    if log is None:
        return []
    clips = "it does not clip" if log.limit is None else f"it clips at {log.limit:g}"
    if log.limit is not None and log.clipped is not None:
        clips += f", {100 * log.clipped:.0f} % of the updates"
    lines = [
        f"over the run, {len(log.norms)} intervals: mean norm from {log.norms.min():.3g} to {log.norms.max():.3g},"
        f" median {np.median(log.norms):.3g}; {clips}"
    ]
    if limit is None:
        lines.append(f"no limit is suggested: that takes {FEWEST} intervals in the first {FIRST_EPOCHS} epochs")
    elif of_updates:
        lines.append(
            f"suggested limit for --clip-norm: {limit:g}; in {PERCENTILE} % of the intervals of the first"
            f" {FIRST_EPOCHS} epochs 90 % of the norms lie below it"
        )
    else:
        lines.append(
            f"suggested limit for --clip-norm: {limit:g}, which {PERCENTILE} % of the mean norms of the first"
            f" {FIRST_EPOCHS} epochs lie below; the log has no norms of single updates, of which it may clip far more"
        )
    return lines
