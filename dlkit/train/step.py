"""One update, the same for one device, several devices and several processes.

    local sums -> all-reduce -> divide by the global weight -> finite check -> clip -> update

Gradients are of the *sum* of losses, over the rows that a device has; only after the all-reduce are they divided, by
the weight (examples or tokens) of the whole batch. So the update does not depend on how a batch is divided over devices
and micro-batches, an uneven last one included. Keras' own loop clips before the reduction and averages means.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data.batching import ROW_WEIGHTS, Batch, lay_out, layout
from dlkit.layers import step_context
from dlkit.runs import named_variables
from dlkit.runtime import Devices
from dlkit.tasks.task import Sums, Task
from dlkit.train.clipping import NO_CLIPPING, Clipping, clip_by_global_norm, clip_by_value, global_norm
from dlkit.train.optimizers import Optimizer, decays

Tensors = Mapping[str, tf.Tensor]


class Draw(NamedTuple):
    """What chance depends on in a step.

    Args:
        seed: (2,) int32, folded from (seed, purpose, step).
        micro_rows: scalar int32, rows of a micro-batch over all devices, padding that divides it left out.
        sampling: scalar float32, how probably a decoder reads its own word; None without scheduled sampling.
    """

    seed: tf.Tensor
    micro_rows: tf.Tensor
    sampling: tf.Tensor | None = None


def _here(places: NDArray[np.int64], devices: Devices) -> NDArray[np.int64]:
    """The part of a `layout` that is of the devices of this process."""
    count = devices.replicas // devices.processes
    return places[devices.rank * count :][:count]


def rows_here(size: int, devices: Devices, *, accumulate: int = 1) -> NDArray[np.int64]:
    """Which rows of a batch of `size` the devices of this process need, in the order that `distribute` wants."""
    here = _here(layout(size, replicas=devices.replicas, accumulate=accumulate), devices)
    return here[here >= 0]


def _layout_of(held: int, devices: Devices, *, accumulate: int, size: int | None) -> NDArray[np.int64]:
    """The `layout` of a batch of which so many rows are held; with `size`, numbers of this process's are of these."""
    places = layout(held if size is None else size, replicas=devices.replicas, accumulate=accumulate)
    if size is not None:
        here = _here(places, devices)
        here[here >= 0] = np.arange(held)
    return places


def distribute(batch: Batch, devices: Devices, *, accumulate: int = 1, size: int | None = None) -> Batch:
    """Divides a batch over the devices of this process, padded where it does not divide evenly.

    Args:
        batch: NumPy arrays: the global batch or, when `size` is given, of it the `rows_here`.
        devices: where it goes.
        accumulate: number of micro-batches.
        size: rows of the global batch.

    Returns:
        For one device arrays, else per-replica values.
    """
    held = len(next(iter(batch.values())))
    places = _layout_of(held, devices, accumulate=accumulate, size=size)
    weighted = bool((places < 0).any())  # on all devices or on none: they run one graph
    if devices.replicas == 1:
        return lay_out(batch, places, weighted=weighted)

    def rows(context: Any) -> dict[str, tf.Tensor]:
        mine = lay_out(batch, places[context.replica_id_in_sync_group], weighted=weighted)
        return {key: tf.constant(array) for key, array in mine.items()}

    return devices.strategy.experimental_distribute_values_from_function(rows)


def all_reduce(values: tf.types.experimental.TensorLike, replicas: int) -> tf.types.experimental.TensorLike:
    """Sums a nest of tensors over all devices, inside a replica."""
    if replicas == 1:
        return values
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def dense(gradient: tf.Tensor | tf.IndexedSlices, weight: tf.Variable) -> tf.Tensor:
    """The gradient of a weight as a tensor of its shape.

    An embedding's gradient comes as rows (`tf.IndexedSlices`), one for each token of the batch. Rows of one token are
    added up; tokens that are not in the batch get a zero and are not left out, so that their momentum and decay go on
    as the equations say. TensorFlow's own conversion gives the same, and a warning about memory for large tables.
    """
    if isinstance(gradient, tf.IndexedSlices):
        return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, weight.shape[0])
    return gradient


def frozen_weights(model: keras.Model) -> list[keras.Variable]:
    """The weights that were made to be trained, and do not: nothing but the optimizer ever changes them.

    Keras counts them among the `non_trainable_variables`, beside the statistics that layers keep themselves.
    """
    owned = [variable for layer in model._flatten_layers() for variable in layer._trainable_variables]
    return [variable for variable in owned if not variable.trainable]


def _half_square(values: tf.Tensor) -> tf.Tensor:
    """Half the sum of the squares of a weight, made float64, in which those of all weights are added."""
    return tf.cast(tf.nn.l2_loss(values), tf.float64)


def flat_sums(sums: Sums) -> dict[str, tf.Tensor]:
    """Sums as one flat dict, so that they can be added and reduced together."""
    flat = {"loss": sums.loss, "weight": sums.weight}
    for name, (total, weight) in sums.metrics.items():
        flat[f"{name}/sum"], flat[f"{name}/weight"] = total, weight
    return flat


def means(flat: Mapping[str, float]) -> dict[str, float]:
    """The loss and every metric as sum / weight, from added-up `flat_sums`; nan where there was nothing."""
    ratio = {"loss": (flat["loss"], flat["weight"])}
    ratio |= {
        key.removesuffix("/sum"): (flat[key], flat[key.replace("/sum", "/weight")])
        for key in flat
        if key.endswith("/sum")
    }
    return {name: total / weight if weight else float("nan") for name, (total, weight) in ratio.items()}


def seed_of(seed: int, step: int) -> NDArray[np.int32]:
    """What the random layers of an update draw from, (2,): a function of the run's seed and the update's number."""
    return np.random.SeedSequence([seed, crc32(b"step"), step]).generate_state(2).view(np.int32)


class TrainingStep:
    """The model's variables, the optimizer's slots and the averaged weights, and the update of them all.

    Args:
        task: where the loss comes from.
        model: built in the scope of the strategy.
        optimizer: the update rule.
        devices: where it runs.
        clipping: limits on the gradients.
        accumulate: number of micro-batches that a batch is divided into.
        smoothing: label smoothing of the loss.
        ema: decay of the moving average of the weights; None keeps none.
        seed: the run's seed.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        optimizer: Optimizer,
        devices: Devices,
        *,
        clipping: Clipping = NO_CLIPPING,
        accumulate: int = 1,
        smoothing: float = 0.0,
        ema: float | None = None,
        seed: int = 0,
    ) -> None:
        self.task, self.model, self.optimizer, self.devices = task, model, optimizer, devices
        self.clipping, self.accumulate, self.smoothing, self.ema_decay = clipping, accumulate, smoothing, ema
        self.seed = seed
        self.variables = named_variables(model)
        self.trainable = {v.path: v for v in model.trainable_variables}
        frozen = {id(v) for v in frozen_weights(model)}
        self.statistics = {v.path: v for v in model.non_trainable_variables if id(v) not in frozen}
        if not self.trainable:
            raise ValueError("nothing to train: every variable is frozen")
        with devices.strategy.scope():
            self.slots = {
                slot: {path: self._zeros_like(variable, f"{slot}/{path}") for path, variable in self.trainable.items()}
                for slot in optimizer.slots
            }
            # Of what is frozen the average is the weight itself.
            moving = {path: v for path, v in self.variables.items() if ema and id(v) not in frozen}
            self.ema = {path: self._copy_of(variable, f"ema/{path}") for path, variable in moving.items()}
        # What the next batch is given of the one before it, a row for each of its rows; see `Task.first_carry`.
        self.carry: Batch = {}
        # Without autograph, as in evaluation: there is nothing to convert, and looking takes a tenth of a tracing.
        self._update = tf.function(self._distributed, reduce_retracing=task.shapes_vary, autograph=False)

    @property
    def traces(self) -> int:
        """How often a graph was traced, at the first update and for new shapes: such an update takes far longer."""
        return self._update.experimental_get_tracing_count()

    @staticmethod
    def _zeros_like(variable: keras.Variable, name: str) -> tf.Variable:
        return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False, name=name)

    @staticmethod
    def _copy_of(variable: keras.Variable, name: str) -> tf.Variable:
        return tf.Variable(tf.convert_to_tensor(variable.value), trainable=False, name=name)

    def __call__(
        self,
        batch: Batch,
        *,
        step: int,
        lr: float,
        size: int | None = None,
        sampling: float | None = None,
        begins: bool = False,
    ) -> dict[str, tf.Tensor]:
        """Makes one update.

        Args:
            batch: the global batch, or with `size` of it the `rows_here`, as NumPy arrays.
            step: number of this update, from 0.
            lr: learning rate.
            size: rows of the global batch.
            sampling: how probably a decoder reads its own word; None without scheduled sampling.
            begins: whether a pass over the data begins, so that nothing is carried into this batch.

        Returns:
            Scalars: the sums of `flat_sums`, `gradient_norm` before clipping, `clipped` (the share), `finite`.
        """
        seed = seed_of(self.seed, step)
        held = len(next(iter(batch.values())))
        rows = np.arange(held)
        if begins or not self.carry:
            self.carry = self.task.first_carry(self.model, held if size is None else size)
        if self.carry and size is not None:
            rows = rows_here(size, self.devices, accumulate=self.accumulate)
        batch = batch | {name: array[rows] for name, array in self.carry.items()}
        distributed = distribute(batch, self.devices, accumulate=self.accumulate, size=size)
        micro_rows = -(-(held if size is None else size) // self.accumulate)
        own = None if sampling is None else tf.constant(sampling, tf.float32)
        draw = Draw(tf.constant(seed), tf.constant(micro_rows, tf.int32), own)
        measured, carried = self._update(
            distributed, tf.constant(step + 1, tf.int64), tf.constant(lr, tf.float64), draw
        )
        first = self.devices.strategy.experimental_local_results
        if self.carry:
            places = _layout_of(held, self.devices, accumulate=self.accumulate, size=size)
            self._keep(carried, _here(places, self.devices), rows)
        return {name: first(value)[0] for name, value in measured.items()}

    def _keep(self, carried: Mapping[str, Any], places: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Puts what each device has carried on, in the order of its `places`, at the rows of the global batch."""
        kept = {name: before.copy() for name, before in self.carry.items()}
        for name, array in kept.items():
            of_devices = self.devices.strategy.experimental_local_results(carried[name])
            for own, value in zip(places.reshape(len(places), -1), of_devices, strict=True):
                array[rows[own[own >= 0]]] = value.numpy()[own >= 0]
        self.carry = kept

    def _distributed(self, batch: Tensors, count: tf.Tensor, lr: tf.Tensor, draw: Draw) -> tuple[Tensors, Tensors]:
        return self.devices.strategy.run(self._replica, args=(batch, count, lr, draw))

    def _replica(self, batch: Tensors, count: tf.Tensor, lr: tf.Tensor, draw: Draw) -> tuple[Tensors, Tensors]:
        statistics = [tf.identity(variable.value) for variable in self.statistics.values()]
        with tf.control_dependencies(statistics):
            batch = {key: tf.identity(tensor) for key, tensor in batch.items()}
        gradients, sums, carried = self._local_sums(batch, draw)
        gradients, sums = all_reduce((gradients, sums), self.devices.replicas)
        gradients = [gradient / tf.cast(sums["weight"], gradient.dtype) for gradient in gradients]
        norm = global_norm(gradients)
        finite = tf.math.is_finite(norm) & tf.math.is_finite(sums["loss"])
        clipped = tf.constant(0.0)
        if self.clipping.value is not None:
            gradients, clipped = clip_by_value(gradients, self.clipping.value)
        if self.clipping.norm is not None:
            again = norm if self.clipping.value is None else global_norm(gradients)
            gradients, scaled = clip_by_global_norm(gradients, self.clipping.norm, again)
            clipped = tf.maximum(clipped, tf.cast(scaled, clipped.dtype))
        # Across replicas for MirroredStrategy, in place for the others.
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._apply, self.devices.strategy, gradients, statistics, count, lr, finite
        )
        return {**sums, "gradient_norm": norm, "clipped": clipped, "finite": finite}, carried

    def _local_sums(
        self, batch: Tensors, draw: Draw
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Gradients, sums and what is carried on, over this replica's rows, one micro-batch after another."""
        rows = tf.shape(next(iter(batch.values())))[0] // self.accumulate
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradients: list[tf.Tensor] = []
        sums: dict[str, tf.Tensor] = {}
        carried: list[dict[str, tf.Tensor]] = []
        # Unrolled, since strategies cannot reduce inside a loop of the graph. The dependency makes a micro-batch wait
        # for the one before it: side by side they would need the memory that accumulation is there to save.
        for micro in range(self.accumulate):
            with tf.control_dependencies(gradients):
                part = (
                    {key: tensor[micro * rows : (micro + 1) * rows] for key, tensor in batch.items()}
                    if self.accumulate > 1
                    else batch
                )
                part = {key: tf.identity(tensor) for key, tensor in part.items()}
            context = step_context.StepContext(
                seed=draw.seed,
                first_row=micro * draw.micro_rows + tf.cast(replica * rows, tf.int32),
                row_weights=part.get(ROW_WEIGHTS),
                sampling=draw.sampling,
            )
            with step_context.use(context), tf.GradientTape() as tape:
                found = self.task.loss_sums(self.model, part, training=True, smoothing=self.smoothing)
            values = [variable.value for variable in self.trainable.values()]
            new = tape.gradient(found.loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            new = [dense(gradient, value) for gradient, value in zip(new, values, strict=True)]
            flat = flat_sums(found)
            gradients = [a + b for a, b in zip(gradients, new, strict=True)] if gradients else new
            sums = {name: sums[name] + flat[name] for name in flat} if sums else flat
            carried.append(found.carry)
        return gradients, sums, {name: tf.concat([part[name] for part in carried], 0) for name in carried[0]}

    def _apply(
        self,
        strategy: tf.distribute.Strategy,
        gradients: list[tf.Tensor],
        statistics: list[tf.Tensor],
        count: tf.Tensor,
        lr: tf.Tensor,
        finite: tf.Tensor,
    ) -> None:
        """Updates every variable on every device; when the gradients are not finite, all stays as it was."""
        # The forward pass has moved the statistics of batch norm before anyone could look at the loss.
        for variable, before in zip(self.statistics.values(), statistics, strict=True):
            strategy.extended.update(variable.value, self._undo_one, args=(before, finite), group=False)
        for (path, variable), gradient in zip(self.trainable.items(), gradients, strict=True):
            slots = {name: variables[path] for name, variables in self.slots.items()}
            strategy.extended.update(
                variable.value,
                self._update_one,
                args=(gradient, slots, count, lr, finite, decays(variable)),
                group=False,
            )
        if self.ema_decay is None:
            return
        for path, average in self.ema.items():
            strategy.extended.update(
                average, self._average_one, args=(self.variables[path].value, count, finite), group=False
            )

    def _update_one(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        slots: dict[str, tf.Variable],
        count: tf.Tensor,
        lr: tf.Tensor,
        finite: tf.Tensor,
        decay: bool,
    ) -> None:
        def update() -> tf.Tensor:
            self.optimizer.apply(gradient, variable, slots, lr=lr, step=count, decay=decay)
            return tf.constant(True)

        tf.cond(finite, update, lambda: tf.constant(False))

    @staticmethod
    def _undo_one(variable: tf.Variable, before: tf.Tensor, finite: tf.Tensor) -> None:
        variable.assign(tf.where(finite, tf.convert_to_tensor(variable), before))

    def _average_one(self, average: tf.Variable, variable: tf.Tensor, count: tf.Tensor, finite: tf.Tensor) -> None:
        # A short memory at first: after n updates no more than about n of them are averaged.
        steps = tf.cast(count, average.dtype)
        decay = tf.minimum(tf.cast(self.ema_decay, average.dtype), (1 + steps) / (10 + steps))
        moved = average + (1 - decay) * (tf.cast(variable, average.dtype) - average)
        average.assign(tf.where(finite, moved, tf.convert_to_tensor(average)))

    # ---------------------------------------------------------------------------------------------- how far it has gone

    def weights(self) -> list[tf.Tensor]:
        """The trained weights as they are now, on their device; later updates do not change them.

        Until it is dropped, the next update costs as much memory more as the weights take.
        """
        return [variable.value.read_value() for variable in self.trainable.values()]

    def update_ratio(self, before: Sequence[tf.Tensor]) -> tf.Tensor:
        """The norm of what updates changed over the norm of the weights: about 1e-3 is healthy, much more is too fast.

        Args:
            before: what `weights` gave before them.

        Returns:
            A scalar, for which nothing waits until somebody looks at it; infinite where all weights were zero.
        """
        moved = [_half_square(new - old) for new, old in zip(self.weights(), before, strict=True)]
        return tf.sqrt(tf.add_n(moved) / tf.add_n([_half_square(weight) for weight in before]))

    # ------------------------------------------------------------------------------------------ what a checkpoint keeps

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """All that a checkpoint needs: "weights", "optimizer" and, when they are kept, "ema" and "carry"."""
        groups = {
            "weights": {path: variable.value.numpy() for path, variable in self.variables.items()},
            "optimizer": {
                f"{slot}/{path}": v.numpy() for slot, group in self.slots.items() for path, v in group.items()
            },
        }
        if self.ema:  # of all variables: they are what the model is evaluated with
            averages = {path: average.numpy() for path, average in self.ema.items()}
            groups["ema"] = groups["weights"] | averages
        if self.carry:
            groups["carry"] = self.carry
        return groups

    def slot_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array in the group "optimizer"."""
        return {f"{slot}/{path}": tuple(v.shape) for slot, group in self.slots.items() for path, v in group.items()}

    def restore_slots(self, optimizer: Mapping[str, np.ndarray], ema: Mapping[str, np.ndarray]) -> None:
        """Assigns what `arrays` gave, after the names were checked."""
        for slot, group in self.slots.items():
            for path, variable in group.items():
                variable.assign(optimizer[f"{slot}/{path}"])
        for path, average in self.ema.items():
            average.assign(ema[path])
