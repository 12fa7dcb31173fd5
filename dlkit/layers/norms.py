"""Normalization layers: batch norm, alike on one device and on many, and layer norm."""

from functools import partial
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from dlkit.errors import unknown
from dlkit.layers import step_context

Norm = Literal["batch", "layer", "none"]

# The widespread values, also those of PyTorch and of torchvision's nets. Keras' 0.99 and 1e-3 suit long runs of large
# batches: with 0.99 the moving statistics still carry a third of their initial value after 100 steps.
MOMENTUM = 0.9
EPSILON = 1e-5


def norm(kind: Norm, *, name: str) -> keras.layers.Layer | None:
    """The normalization layer of the given kind, or None for `none`.

    Args:
        kind: `batch` normalizes each feature over the batch and all positions; `layer` normalizes each position over
            its features (Ba et al. 2016); `none`.
        name: of the layer.

    Raises:
        dlkit.errors.UsageError: there is no such kind.
    """
    match kind:
        case "batch":
            return BatchNorm(name=name)
        case "layer":
            return keras.layers.LayerNormalization(epsilon=EPSILON, name=name)
        case "none":
            return None
    raise unknown("norm", kind, get_args(Norm))


class BatchNorm(keras.layers.Layer):
    """Batch normalization (Ioffe and Szegedy 2015, algorithm 1) over the global batch.

    Training normalizes with mean and (biased) variance of the batch; inference, and a layer with `trainable = False`,
    with moving averages of the mean and of the unbiased variance n/(n - 1) (algorithm 2).

    On one device a fused kernel does it in one pass over data of 16 or 32 bits, several times faster than Keras' layer.
    It can neither look at other devices nor leave out padded rows; then, and in float64, sums are taken over all
    replicas and weighted by the rows of the step context. Both paths compute the same numbers.

    Args:
        momentum: weight of the old moving average in an update.
        epsilon: added to the variance.
    """

    def __init__(self, *, momentum: float = MOMENTUM, epsilon: float = EPSILON, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates scale, offset and moving statistics, one number a feature; in float32 when the data are bfloat16."""
        weight = partial(self.add_weight, shape=(input_shape[-1],), autocast=False)
        # Every replica holds the same statistics of the global batch, so the first one's are everybody's.
        statistic = partial(weight, trainable=False, aggregation="only_first_replica")
        self.gamma = weight(name="gamma", initializer="ones")
        self.beta = weight(name="beta", initializer="zeros")
        self.moving_mean = statistic(name="moving_mean", initializer="zeros")
        self.moving_variance = statistic(name="moving_variance", initializer="ones")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalizes (batch, ..., features); updates the moving statistics when training."""
        fusible = inputs.dtype != tf.float64
        if not (training and self.trainable):
            mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
            return self._fused(inputs, mean, variance)[0] if fusible else self._scale(inputs, mean, variance)

        context = step_context.current()
        row_weights = None if context is None else context.row_weights
        if fusible and row_weights is None and _replicas() == 1:
            outputs, mean, unbiased = self._fused(inputs)
            update = 1 - self.momentum
        else:
            # Cast once: of bfloat16 inputs the two parts of the gradient would else be rounded before they are added.
            data = tf.cast(inputs, self.gamma.dtype)
            mean, variance, count = _moments(data, row_weights)
            outputs = tf.cast(self._scale(data, mean, variance), inputs.dtype)
            unbiased = variance * count / tf.maximum(count - 1, 1)
            update = (1 - self.momentum) * tf.cast(count > 0, count.dtype)  # a micro-batch can be all padding
        self.moving_mean.assign(self.moving_mean + update * (mean - self.moving_mean))
        self.moving_variance.assign(self.moving_variance + update * (unbiased - self.moving_variance))
        return outputs

    def _fused(
        self, inputs: tf.Tensor, mean: tf.Tensor | None = None, variance: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns outputs, mean and unbiased variance; with statistics given it uses them, else those of the batch."""
        flat = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]])
        outputs, batch_mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
            x=flat,
            scale=self.gamma,
            offset=self.beta,
            mean=[] if mean is None else mean,
            variance=[] if variance is None else variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            is_training=mean is None,
        )
        return tf.reshape(outputs, tf.shape(inputs)), batch_mean, unbiased

    def _scale(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        data = tf.cast(inputs, self.gamma.dtype)
        outputs = tf.nn.batch_normalization(data, mean, variance, self.beta, self.gamma, self.epsilon)
        return tf.cast(outputs, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}


def _replicas() -> int:
    """Over how many replicas the current call is spread; building a model under a strategy is no such call."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def _global_sum(*values: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The sums of each value over all replicas; the gradient of an all-reduced sum is an all-reduced sum again."""
    if _replicas() == 1:
        return values
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def _moments(data: tf.Tensor, row_weights: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean and biased variance of each feature over the rows of all replicas, and the number of values behind them.

    Two passes, the mean first: a difference of E[x^2] and E[x]^2 would lose the variance of data far from zero.
    """
    shape = tf.shape(data)
    axes = list(range(len(data.shape) - 1))
    if row_weights is None:
        row_weights = tf.ones([shape[0]])
    weights = tf.reshape(tf.cast(row_weights, data.dtype), [-1] + [1] * len(axes))
    local_count = tf.reduce_sum(weights) * tf.cast(tf.reduce_prod(shape[1:-1]), data.dtype)
    total, count = _global_sum(tf.reduce_sum(weights * data, axes), local_count)
    mean = total / tf.maximum(count, 1)
    # Without the gradient with respect to the mean, which is zero: the weighted deviations from it sum to zero.
    (squares,) = _global_sum(tf.reduce_sum(weights * tf.square(data - tf.stop_gradient(mean)), axes))
    return mean, squares / tf.maximum(count, 1), count
