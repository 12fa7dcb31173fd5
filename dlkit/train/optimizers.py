"""Optimizers as pure arithmetic: (gradient, weight, slots) -> (new weight, new slots).

The trainer owns the variables, sums the gradients over devices and calls `update` once for every weight and step.
With g the gradient, w the weight, lr the learning rate of this step, t = 1, 2, ... its number, and d the weight decay:

    sgd     g <- g + d w;  v <- momentum v + g;  w <- w - lr v                nesterov: w <- w - lr (g + momentum v)
    adam    g <- g + d w;  m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
            w <- w - lr m^ / (sqrt(v^) + epsilon)              with m^ = m / (1 - beta1^t),  v^ = v / (1 - beta2^t)
    adamw   adam with d = 0, and  w <- w - lr (m^ / (sqrt(v^) + epsilon) + d w)

v and m are the slots and start at zero. d is 0 where a weight does not decay (`decays`).
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from dlkit.errors import UsageError, unknown

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices
Slots: TypeAlias = dict[str, tf.Tensor]


def dense(gradient: Gradient, weight: tf.Tensor) -> tf.Tensor:
    """The gradient as a tensor shaped like the weight, in its dtype.

    An embedding's gradient comes as rows (`tf.IndexedSlices`), one for each token of the batch. Rows of one token are
    added up; tokens that are not in the batch get a zero and are not left out, so that their momentum and decay go on
    as the equations say. TensorFlow's own conversion gives the same, and a warning about memory for large tables.
    """
    if isinstance(gradient, tf.IndexedSlices):
        gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, weight.shape[0])
    return tf.cast(gradient, weight.dtype)


def decays(weight: Any) -> bool:
    """Whether weight decay applies to a weight: to matrices and kernels, not to biases and norms.

    Decay is there to keep a net from fitting noise through large weights between units. A bias cannot do that, and the
    scale of a norm pulled to zero only starves its layer (He et al. 2019, "Bag of tricks", section 3.1). These have one
    dimension, save for the biases of Keras' GRU, (2, 3 units), and attention, (heads, depth), which the name tells.

    Args:
        weight: a Keras or TensorFlow variable, or anything else with a shape.
    """
    name = str(getattr(weight, "name", "")).partition(":")[0]
    return len(weight.shape) >= 2 and not name.endswith("bias")


def _with_l2(gradient: Gradient, weight: tf.Tensor, decay: float) -> tf.Tensor:
    """The gradient of loss + decay / 2 |w|^2."""
    gradient = dense(gradient, weight)
    return gradient + decay * weight if decay else gradient


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, after Sutskever et al. 2013, section 2.

    Their velocity (eq. 1) contains the learning rate: v <- momentum v - lr g. Here, as in PyTorch, it sums gradients
    and lr multiplies the whole step. While lr is constant both take the same steps. When a schedule changes lr, this
    form obeys at once; theirs goes on at the old rate until the velocity has decayed, about 1 / (1 - momentum) steps,
    unless it is rescaled by hand (Goyal et al. 2017, section 3, "momentum correction").

    Nesterov's gradient belongs to the point w + momentum v (eq. 3). That point is what is kept as the weight here, so
    that the model computes its gradient where it is wanted.

    Args:
        momentum: share of the velocity that a step keeps, in [0, 1); 0 needs no slot.
        nesterov: look ahead along the velocity.
        weight_decay: coupled, as the L2 penalty weight_decay / 2 |w|^2.
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors, shaped like the weight, that are kept from step to step."""
        return ("momentum",) if self.momentum else ()

    def update(
        self, gradient: Gradient, weight: tf.Tensor, slots: Slots, *, lr: Any, step: Any, decay: bool
    ) -> tuple[tf.Tensor, Slots]:
        """Takes one step.

        Args:
            gradient: of the loss, shaped like the weight.
            weight: float32 or float64; the arithmetic runs in its dtype.
            slots: what the step before returned; zeros at first.
            lr: learning rate, a scalar tensor.
            step: number of this step, from 1, a scalar integer.
            decay: whether this weight decays, see `decays`.

        Returns:
            The new weight and the new slots.
        """
        gradient = _with_l2(gradient, weight, self.weight_decay if decay else 0.0)
        lr = tf.cast(lr, weight.dtype)
        if not self.momentum:
            return weight - lr * gradient, {}
        velocity = self.momentum * slots["momentum"] + gradient
        direction = gradient + self.momentum * velocity if self.nesterov else velocity
        return weight - lr * direction, {"momentum": velocity}


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1).

    Epsilon is added to the corrected root, as in algorithm 1 and PyTorch. Keras adds it to the uncorrected one, where
    in the first step it weighs 1 / sqrt(1 - beta2) = 32 times as much.

    Args:
        beta1: share of the mean gradient that a step keeps, in [0, 1).
        beta2: share of the mean squared gradient that a step keeps, in [0, 1).
        epsilon: keeps the step finite where gradients vanish.
        weight_decay: coupled, as the L2 penalty weight_decay / 2 |w|^2. Adam divides its gradient by the usual size of
            the whole, so weights with large gradients hardly decay; in `AdamW` all decay alike.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors, shaped like the weight, that are kept from step to step."""
        return ("m", "v")

    def update(
        self, gradient: Gradient, weight: tf.Tensor, slots: Slots, *, lr: Any, step: Any, decay: bool
    ) -> tuple[tf.Tensor, Slots]:
        """Takes one step; arguments and results as in `SGD.update`."""
        gradient = _with_l2(gradient, weight, self.weight_decay if decay else 0.0)
        change, slots = self._change(gradient, slots, lr, step)
        return weight - change, slots

    def apply(
        self, gradient: Gradient, weight: tf.Variable, slots: dict[str, tf.Variable], *, lr: Any, step: Any, decay: bool
    ) -> None:
        """`update` in place, by TensorFlow's kernel that goes once over weight and slots; the same up to rounding."""
        gradient = _with_l2(gradient, weight, self.weight_decay if decay else 0.0)
        self._apply(gradient, weight, slots, lr, step)

    def _apply(
        self, gradient: tf.Tensor, weight: tf.Variable, slots: dict[str, tf.Variable], lr: Any, step: Any
    ) -> None:
        rate, epsilon = self._corrected(lr, step, weight.dtype)
        zero = tf.zeros((), weight.dtype)  # in place of the powers of beta: the rate is corrected
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle, m=slots["m"].handle, v=slots["v"].handle, beta1_power=zero, beta2_power=zero, lr=rate,
            beta1=tf.constant(self.beta1, weight.dtype), beta2=tf.constant(self.beta2, weight.dtype), epsilon=epsilon,
            grad=gradient,
        )  # fmt: skip

    def _change(self, gradient: tf.Tensor, slots: Slots, lr: Any, step: Any) -> tuple[tf.Tensor, Slots]:
        """The step lr m^ / (sqrt(v^) + epsilon), and the new slots."""
        m = self.beta1 * slots["m"] + (1 - self.beta1) * gradient
        v = self.beta2 * slots["v"] + (1 - self.beta2) * tf.square(gradient)
        rate, epsilon = self._corrected(lr, step, gradient.dtype)
        return rate * m / (tf.sqrt(v) + epsilon), {"m": m, "v": v}

    def _corrected(self, lr: Any, step: Any, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        """Learning rate and epsilon with the corrections of m and v in them."""
        # The corrections go into lr and epsilon (the fraction times sqrt(1 - beta2^t)), which saves two passes over the
        # weight. They are computed in float64: of 1 - 0.999 float32 keeps four digits.
        t = tf.cast(step, tf.float64)
        correction1 = 1 - tf.pow(tf.constant(self.beta1, tf.float64), t)
        correction2 = tf.sqrt(1 - tf.pow(tf.constant(self.beta2, tf.float64), t))
        rate = tf.cast(tf.cast(lr, tf.float64) * correction2 / correction1, dtype)
        return rate, tf.cast(self.epsilon * correction2, dtype)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    Arguments as in `Adam`, but weight_decay shrinks the weight itself, by the factor 1 - lr * weight_decay. The paper
    multiplies by a schedule that is 1 at its peak in place of lr; with lr it is what PyTorch and Keras do, and what
    published values of weight_decay mean.
    """

    def update(
        self, gradient: Gradient, weight: tf.Tensor, slots: Slots, *, lr: Any, step: Any, decay: bool
    ) -> tuple[tf.Tensor, Slots]:
        """Takes one step; arguments and results as in `SGD.update`."""
        change, slots = self._change(dense(gradient, weight), slots, lr, step)
        if decay and self.weight_decay:
            # Not (1 - lr d) w: float32 rounds 1 - 1e-5 by up to 0.3 % of the decay, at each step the same way.
            change += tf.cast(lr, weight.dtype) * self.weight_decay * weight
        return weight - change, slots

    def apply(
        self, gradient: Gradient, weight: tf.Variable, slots: dict[str, tf.Variable], *, lr: Any, step: Any, decay: bool
    ) -> None:
        """`update` in place, as `Adam.apply`."""
        if decay and self.weight_decay:
            weight.assign_sub(tf.cast(lr, weight.dtype) * self.weight_decay * weight)
        self._apply(dense(gradient, weight), weight, slots, lr, step)


Optimizer: TypeAlias = SGD | Adam | AdamW


def optimizer(
    name: str,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> Optimizer:
    """The optimizer `name`: sgd, adam or adamw. It takes the options that are its own and leaves the others.

    Raises:
        dlkit.errors.UsageError: an unknown name, a value out of range, or `nesterov` without momentum.

    Example:
        >>> optimizer("sgd", momentum=0.9, nesterov=True)
        SGD(momentum=0.9, nesterov=True, weight_decay=0.0)
    """
    for option, value in {"momentum": momentum, "beta1": beta1, "beta2": beta2}.items():
        if not 0 <= value < 1:
            raise UsageError(f"{option} must be at least 0 and below 1, and is {value}")
    if not 0 < epsilon < math.inf:
        raise UsageError(f"epsilon must be above 0, and is {epsilon}")
    if not 0 <= weight_decay < math.inf:
        raise UsageError(f"weight decay must be at least 0, and is {weight_decay}")
    match name:
        case "sgd":
            if nesterov and not momentum:
                raise UsageError("nesterov looks ahead along the momentum, and momentum is 0", "0.9 is usual")
            return SGD(momentum, nesterov, weight_decay)
        case "adam":
            return Adam(beta1, beta2, epsilon, weight_decay)
        case "adamw":
            return AdamW(beta1, beta2, epsilon, weight_decay)
        case _:
            raise unknown("optimizer", name, ["sgd", "adam", "adamw"])
