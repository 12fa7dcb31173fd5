"""Nets built without weights, to look at their shapes and counts in no time."""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np

from dlkit.probe.record import unallocated


@cache
def deferred(build: Callable[..., keras.Model], *args: Any, **options: Any) -> keras.Model:
    """Builds a net whose weights have shapes only, and checks what holds for every net."""
    with unallocated():
        model = build(*args, **options)
    assert all(weight._value is None for weight in model.weights)
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert [layer.name for layer in model.layers if layer.weights][-1] == "head"
    return model


def count(weights: list[keras.Variable]) -> int:
    """How many numbers the weights hold."""
    return sum(int(np.prod(weight.shape)) for weight in weights)


def shapes(model: keras.Model, *names: str) -> list[tuple[int, ...]]:
    """The shapes of the named layers' outputs, without the batch."""
    return [tuple(model.get_layer(name).output.shape[1:]) for name in names]


def layer_types(model: keras.Model) -> set[str]:
    """The names of the layers' classes."""
    return {type(layer).__name__ for layer in model.layers}
