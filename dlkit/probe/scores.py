"""What a model says of one example, as one number, and its derivative with respect to what it was shown."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data.batching import Batch
from dlkit.errors import UsageError
from dlkit.probe.views import Subject
from dlkit.probe.watching import Seen, taping
from dlkit.tasks.task import Task


@dataclass(frozen=True)
class Derivative:
    """A number and its derivatives.

    Args:
        name: what the number is, in words.
        value: the number.
        shown: what the model was shown, (1, ...): floating-point inputs, or the vectors of the words.
        gradient: the derivative with respect to it, of its shape.
        calls: of the layers, in order.
        of_calls: the derivatives with respect to the outputs of `calls`; None where the number does not depend on one.
    """

    name: str
    value: float
    shown: NDArray
    gradient: NDArray
    calls: Sequence[Seen]
    of_calls: Sequence[NDArray | None]


def derivative(subject: Subject, batch: Batch) -> Derivative:
    """The derivatives of what a subject's model says of a batch of one example.

    A classifier's number is the logit of the class that is asked for, or of its answer. A model of numbers tells one;
    one that writes has the log-probability of the example's own words, a language model of the last of them.

    Raises:
        dlkit.errors.UsageError: a class is asked for where there are none, or there is no such class.
    """
    task, model = subject.task, subject.model
    tensors = {key: tf.convert_to_tensor(array) for key, array in batch.items()}
    shown = tensors[task.about.shown]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([shown] if shown.dtype.is_floating else [])
        with taping(model, tape) as calls:
            number, name = _number(subject, task, model, tensors)
    vectors = shown if shown.dtype.is_floating else vectors_of(calls, np.asarray(shown))
    gradients = tape.gradient(number, [vectors, *(seen.output for seen in calls)])
    dense = [None if gradient is None else np.asarray(tf.convert_to_tensor(gradient)) for gradient in gradients]
    values, own = np.asarray(vectors), dense[0]
    return Derivative(
        name, float(number), values, np.zeros_like(values) if own is None else own, calls, dense[1:]
    )  # fmt: skip


def vectors_of(calls: Sequence[Seen], ids: NDArray) -> tf.Tensor:
    """What the first layer made of the words."""
    for seen in calls:
        given = next((leaf for leaf in tf.nest.flatten(seen.args) if tf.is_tensor(leaf)), None)
        # A token of its own may stand before the words.
        if given is not None and given.dtype.is_integer and given.shape.rank == 2:
            read = np.asarray(given)[:, -ids.shape[1] :]
            if read.shape == ids.shape and (read == ids).all():
                return seen.output
    raise UsageError("this model has no layer that makes vectors of words", "`dlkit summarize` lists its layers")


def _number(subject: Subject, task: Task, model: keras.Model, tensors: dict[str, tf.Tensor]) -> tuple[tf.Tensor, str]:
    likelihood = task.likelihood(model, tensors)
    if likelihood is not None:
        _no_class(subject)
        number, whose = likelihood
        return number, f"log-probability of {whose}"
    logits = task.logits(model, tensors)[0]
    if not task.info.get("classes"):
        _no_class(subject)
        return logits[0], "number that is told, standardized"
    logits = logits if logits.shape.rank == 1 else logits[-1]  # of a label for each step the last
    label = subject.class_number(int(tf.argmax(logits)))
    name = subject.classes[label]
    share = float(tf.nn.softmax(logits)[label])
    return logits[label], f"logit of {name}, whose probability is {100 * share:.1f} %"


def _no_class(subject: Subject) -> None:
    if subject.label is not None:
        raise UsageError(f"{subject.operand} tells no class of an example", "leave out --class")
