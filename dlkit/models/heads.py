"""Several heads on a shared trunk: an ensemble in one net (Lee et al. 2015)."""

from typing import Annotated, Any

import keras
import tensorflow as tf
from pydantic import Field

from dlkit import models
from dlkit.errors import UsageError, nearest
from dlkit.models import Paper
from dlkit.values import check_call

PAPERS = {
    "heads": Paper(
        "Lee, Purushwalkam, Cogswell, Crandall and Batra 2015, Why M Heads are Better than One: Training a Diverse "
        "Ensemble of Deep Networks"
    )
}


class MeanOfHeads(keras.layers.Layer):
    """What the heads say together: in training the logits of each, else the logarithm of their mean probabilities.

    So in training every head has a loss of its own, and in use the net is a classifier like any other: the softmax of
    its outputs are the averaged probabilities.
    """

    def call(self, logits: list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Takes logits (batch, classes) of each head to (batch, heads, classes) in training, else (batch, classes)."""
        each = tf.stack(logits, axis=1)  # (batch, heads, classes)
        return each if training else log_mean_probabilities(each)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """The shape in use, (batch, classes)."""
        return input_shape[0]


def log_mean_probabilities(logits: tf.Tensor) -> tf.Tensor:
    """The logarithm of the probabilities averaged over the heads: their softmax is the averaged probabilities again.

    Args:
        logits: (batch, heads, classes).

    Returns:
        (batch, classes) float32, or float64 of such.
    """
    dtype = tf.float64 if logits.dtype == tf.float64 else tf.float32
    each = tf.nn.log_softmax(tf.cast(logits, dtype))
    return tf.reduce_logsumexp(each, axis=1) - tf.math.log(tf.cast(tf.shape(logits)[1], dtype))


def heads(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    *,
    trunk: str = "resnet20",
    heads: Annotated[int, Field(ge=2, le=100)] = 5,
    branch: str | None = None,
    trunk_options: dict[str, Any] = {},  # noqa: B006 - never changed
) -> keras.Model:
    """An image net of which all layers from one on are there several times: a shared trunk, and heads behind it.

    The heads begin with weights of their own, and each is trained on a loss of its own; the loss of the net is the mean
    of theirs. `train.resample=head_bootstrap` trains each on a bootstrap sample of its own besides.

    Args:
        input_shape: height, width and channels of the images.
        classes: number of classes.
        trunk: an image net of `dlkit models`.
        heads: how many heads there are.
        branch: the first layer that every head has for itself, such as `dense1` or `stage3_block2_conv1`; none for the
            last layer with weights. All that comes behind must come out of what it is given.
        trunk_options: options of the net, such as {norm = "none"}.

    Returns:
        A model from images to logits; see `MeanOfHeads`.

    Raises:
        dlkit.errors.UsageError: there is no such net, option or layer, or the net cannot be divided there.
    """
    if models.task_of(trunk) != "image_classification" or trunk == "heads":
        raise UsageError(f"model.trunk={trunk} is no image net", "such as resnet20; `dlkit models` lists all")
    builder = models.builder(trunk)
    checked = check_call(builder, trunk_options, where="model.trunk_options", hidden=("input_shape", "classes"))
    net = builder(input_shape=input_shape, classes=classes, **checked)
    first = _branching(net, branch)
    shared = first.input
    own = _behind(net, first)
    logits = [own._run_through_graph([shared], operation_fn=_copier(f"head{number + 1}")) for number in range(heads)]
    return keras.Model(net.inputs[0], MeanOfHeads(name="heads")(logits), name="heads")


def of_each_head(model: keras.Model) -> list[keras.Model]:
    """The heads of a net as classifiers, which share their trunk and their weights with it; none of another net."""
    layer = next((layer for layer in model.layers if isinstance(layer, MeanOfHeads)), None)
    return [] if layer is None else [keras.Model(model.inputs[0], logits) for logits in layer.input]


def _branching(net: keras.Model, name: str | None) -> keras.layers.Layer:
    """The layer that the heads begin with."""
    if name is None:
        return next(layer for layer in reversed(net.layers) if layer.weights)
    layers = {layer.name: layer for layer in net.layers}
    if name not in layers:
        match = nearest(name, layers)
        hint = f"did you mean `{match}`?" if match else f"`dlkit summarize {net.name}` lists the layers"
        raise UsageError(f"model.branch={name}: {net.name} has no such layer", hint)
    return layers[name]


def _behind(net: keras.Model, first: keras.layers.Layer) -> keras.Model:
    """The part of a net from a layer on, as a model of its own that shares its layers."""
    part = _divided(net, first)
    if part is not None:
        return part
    before = reversed(net.layers[: net.layers.index(first)])
    nearby = next((layer.name for layer in before if _divided(net, layer)), None)
    raise UsageError(
        f"model.branch={first.name}: {net.name} cannot be divided there, as other ways lead past that layer",
        f"`{nearby}` before it will do" if nearby else "leave it out: the last layer with weights will do",
    )


def _divided(net: keras.Model, first: keras.layers.Layer) -> keras.Model | None:
    """As `_behind`, or None where something of what comes before the layer is needed behind it, too."""
    if isinstance(first, keras.layers.InputLayer) or not isinstance(first.input, keras.KerasTensor):
        return None
    try:
        return keras.Model(first.input, net.outputs[0])
    except ValueError:
        return None


def _copier(place: str) -> Any:
    """A function that makes of each layer a new one at a place, with the same settings and fresh weights."""
    copies: dict[int, Any] = {}

    def copy(operation: Any) -> Any:
        if id(operation) not in copies:  # a layer that is called twice has one copy
            config = operation.get_config()
            copies[id(operation)] = type(operation).from_config({**config, "name": f"{place}_{operation.name}"})
        return copies[id(operation)]

    return copy
