"""Optimizers: one step of one weight and its slots, in place.

The trainer owns the variables, sums the gradients over devices and calls `apply` once for every weight and step.
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

Slots: TypeAlias = dict[str, tf.Variable]


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


def _with_l2(gradient: tf.Tensor, weight: tf.Tensor, decay: float) -> tf.Tensor:
    """The gradient of loss + decay / 2 |w|^2."""
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

    def apply(self, gradient: tf.Tensor, weight: tf.Variable, slots: Slots, *, lr: Any, step: Any, decay: bool) -> None:
        """Takes one step.

        Args:
            gradient: of the loss, shaped like the weight and of its dtype.
            weight: float32 or float64; the arithmetic runs in its dtype.
            slots: a variable like the weight for each of `self.slots`, with zeros before the first step.
            lr: learning rate, a scalar tensor.
            step: number of this step, from 1, a scalar integer.
            decay: whether this weight decays, see `decays`.
        """
        before = tf.convert_to_tensor(weight)
        direction = gradient = _with_l2(gradient, before, self.weight_decay if decay else 0.0)
        if self.momentum:
            velocity = self.momentum * tf.convert_to_tensor(slots["momentum"]) + gradient
            direction = gradient + self.momentum * velocity if self.nesterov else velocity
            slots["momentum"].assign(velocity)
        weight.assign(before - tf.cast(lr, weight.dtype) * direction)


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

    def apply(self, gradient: tf.Tensor, weight: tf.Variable, slots: Slots, *, lr: Any, step: Any, decay: bool) -> None:
        """Takes one step; arguments as in `SGD.apply`."""
        self._step(_with_l2(gradient, weight, self.weight_decay if decay else 0.0), weight, slots, lr, step)

    def _step(self, gradient: tf.Tensor, weight: tf.Variable, slots: Slots, lr: Any, step: Any) -> None:
        """The step without decay, by TensorFlow's kernel, which goes once over weight and slots."""
        rate, epsilon = self._corrected(lr, step, weight.dtype)
        zero = tf.zeros((), weight.dtype)  # in place of the powers of beta: the rate is corrected
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle, m=slots["m"].handle, v=slots["v"].handle, beta1_power=zero, beta2_power=zero, lr=rate,
            beta1=tf.constant(self.beta1, weight.dtype), beta2=tf.constant(self.beta2, weight.dtype), epsilon=epsilon,
            grad=gradient,
        )  # fmt: skip

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

    def apply(self, gradient: tf.Tensor, weight: tf.Variable, slots: Slots, *, lr: Any, step: Any, decay: bool) -> None:
        """Takes one step; arguments as in `SGD.apply`."""
        if decay and self.weight_decay:
            # Not (1 - lr d) w: float32 rounds 1 - 1e-5 by up to 0.3 % of the decay, at each step the same way.
            weight.assign_sub(tf.cast(lr, weight.dtype) * self.weight_decay * weight)
        self._step(gradient, weight, slots, lr, step)


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
