"""What the layers of any model get and give in a call, whether the model is a graph of layers or code of its own."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Protocol

import keras
import tensorflow as tf

from dlkit.layers.dropout import Dropout
from dlkit.layers.word_dropout import WordDropout

# They hand on the values that they are given, so a view of them would show the layer before twice.
PASSING_ON = (
    keras.layers.InputLayer,
    keras.layers.Dropout,
    Dropout,
    WordDropout,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.ZeroPadding2D,
)
# These call their parts in ways that say nothing of how often, such as once for all time steps.
WHOLE = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed, keras.layers.MultiHeadAttention)


class Block(Protocol):
    """Layers that are called as one and are no layer of Keras, such as a block of a Transformer."""

    layers: list[keras.layers.Layer]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What they give."""


@dataclass(frozen=True)
class Seen:
    """One call of a layer, or of a block.

    Args:
        name: of a layer as in `inner_layers`; of a block see `block_of`.
        layer: the layer or the block.
        args: what it was called with.
        kwargs: likewise, by name.
        result: what it gave.
    """

    name: str
    layer: keras.layers.Layer | Block
    args: tuple
    kwargs: dict[str, Any]
    result: Any

    @property
    def given(self) -> tf.Tensor | None:
        """The first tensor of floating-point numbers among its arguments."""
        return _first_float([self.args, self.kwargs])

    @property
    def output(self) -> tf.Tensor | None:
        """The first tensor of floating-point numbers that it gave: without the state, and without attention weights."""
        return _first_float(self.result)

    def again(self, given: tf.Tensor) -> tf.Tensor:
        """The `output` of another call, with this in place of `given` and all else as it was."""
        leaves = [given if leaf is self.given else leaf for leaf in tf.nest.flatten([self.args, self.kwargs])]
        args, kwargs = tf.nest.pack_sequence_as([self.args, self.kwargs], leaves)
        return _first_float(self.layer(*args, **kwargs))


def _first_float(nest: Any) -> tf.Tensor | None:
    return next((leaf for leaf in tf.nest.flatten(nest) if tf.is_tensor(leaf) and leaf.dtype.is_floating), None)


def inner_layers(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """The layers of a model that compute something and are not made of others that do, with their names.

    What is made of others is gone through, and its name and a slash stand before theirs, as in `dlkit summarize`; but
    for dlkit's own `names_parts`, whose parts have names that are no one else's. Attention and recurrent layers count
    as one.

    Example:
        >>> [name for name, _ in inner_layers(dlkit.build("text_lstm", vocabulary=9, classes=2))]
        ['embedding', 'encoder_lstm1', 'head']
    """
    return [(name, layer) for name, layer, is_composed in _inside(model) if not is_composed]


def inner_nets(model: keras.Model) -> list[tuple[str, keras.Model]]:
    """The nets inside of a model, with their names as they stand before those of their layers in `inner_layers`."""
    return [(name, net) for name, net, is_composed in _inside(model) if is_composed and isinstance(net, keras.Model)]


def has_graph(layer: keras.Operation) -> bool:
    """Whether a layer is a graph of layers: a functional or a built sequential model."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def is_flat(model: keras.Model) -> bool:
    """Whether a model is a graph of layers, none of which is made of others: a net, or a block of a user's own."""
    return has_graph(model) and not any(is_composed for _, _, is_composed in _inside(model))


def _inside(model: keras.Model) -> list[tuple[str, keras.layers.Layer, bool]]:
    """Each layer of a model that computes something, its name, and whether it is made of others that do."""
    found: dict[int, tuple[str, keras.layers.Layer, bool]] = {}

    def walk(owner: keras.layers.Layer, prefix: str) -> None:
        for part in parts_of(owner):
            if id(part) in found or isinstance(part, PASSING_ON):
                continue
            is_composed = any(not isinstance(inner, PASSING_ON) for inner in _parts(part))
            found[id(part)] = prefix + part.name, part, is_composed
            if is_composed:
                walk(part, prefix if getattr(part, "names_parts", False) else f"{prefix}{part.name}/")

    walk(model, "")
    return list(found.values())


def parts_of(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer or a model is made of, without theirs."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    return [] if isinstance(layer, WHOLE) else parts_of(layer)


@contextmanager
def each_call(layer: keras.layers.Layer, done: Callable[[tuple, dict[str, Any], Any], None]) -> Iterator[None]:
    """Tells `done` of each call of a layer, as long as the block runs: arguments, those by name, and what it gave."""
    call, before = layer.call, layer.__dict__.get("call")  # watched by another, perhaps

    @wraps(call)
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        done(args, kwargs, result)
        return result

    layer.call = watched
    try:
        yield
    finally:
        if before is None:
            del layer.call
        else:
            layer.call = before


@contextmanager
def watching(model: keras.Model, wanted: Callable[[Seen], None]) -> Iterator[None]:
    """Tells `wanted` of every call of a layer of `inner_layers`, as long as the block runs.

    Args:
        model: any.
        wanted: gets each call when it is done. Where the model runs in a graph it gets tensors of that graph.
    """
    with _watching(inner_layers(model), each_call, wanted):
        yield


@contextmanager
def _watching(
    parts: Iterable[tuple[str, Any]], watch: Callable[..., AbstractContextManager[None]], wanted: Callable[[Seen], None]
) -> Iterator[None]:
    """Tells `wanted` of every call of some parts, each of which `watch` watches."""

    def tell(name: str, part: Any, args: tuple, kwargs: dict[str, Any], result: Any) -> None:
        wanted(Seen(name, part, args, kwargs, result))

    with ExitStack() as stack:
        for name, part in parts:
            stack.enter_context(watch(part, partial(tell, name, part)))
        yield


@contextmanager
def taping(model: keras.Model, tape: tf.GradientTape) -> Iterator[list[Seen]]:
    """Lets a tape watch what each layer gives, as long as the block runs, and lists those calls in their order."""
    calls: list[Seen] = []

    def note(seen: Seen) -> None:
        if seen.output is not None:
            tape.watch(seen.output)
            calls.append(seen)

    with watching(model, note):
        yield calls


def calls_of(model: keras.Model, run: Callable[[], Any]) -> tuple[list[Seen], Any]:
    """What the layers of a model do while `run` runs, in order, and what it returns."""
    found: list[Seen] = []
    with watching(model, found.append):
        result = run()
    return found, result


def block_of(name: str) -> str:
    """The block that a layer belongs to by its name; empty for none.

    Example:
        >>> block_of("stage2_block1_conv1"), block_of("decoder_block3_ffn1"), block_of("stage2_pool")
        ('stage2_block1', 'decoder_block3', '')
    """
    parts = name.split("_")
    at = next((place for place, part in enumerate(parts[:-1]) if part.startswith("block")), None)
    return "" if at is None else "_".join(parts[: at + 1])


def blocks_of(model: keras.Model) -> list[tuple[str, Block]]:
    """The blocks of a model that are no layers, with their names as of `block_of`.

    They are what a model has in its lists that has layers and is called like one, but is no layer of Keras.
    """
    listed = [part for value in vars(model).values() if isinstance(value, list) for part in value]
    called = {id(part): part for part in listed if callable(part) and not isinstance(part, keras.layers.Layer)}
    blocks = [part for part in called.values() if getattr(part, "layers", [])]
    return [(block_of(block.layers[0].name), block) for block in blocks]


@contextmanager
def each_call_of_block(block: Block, done: Callable[[tuple, dict[str, Any], Any], None]) -> Iterator[None]:
    """As `each_call`, of a block."""
    kind: Any = type(block)

    @wraps(kind.__call__)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = kind.__call__(self, *args, **kwargs)
        done(args, kwargs, result)
        return result

    # Python looks for `__call__` at the class: this object gets one of its own, and its like stay as they are.
    own: Any = type(kind.__name__, (kind,), {"__call__": watched})
    block.__class__ = own
    try:
        yield
    finally:
        block.__class__ = kind


def calls_of_nets(model: keras.Model, run: Callable[[], Any]) -> list[Seen]:
    """What a model, whose name here is empty, and the nets inside of it, see `inner_nets`, do while `run` runs.

    A call stands behind those that were made in it.
    """
    found: list[Seen] = []
    with _watching([("", model), *inner_nets(model)], each_call, found.append):
        run()
    return found


def calls_of_blocks(model: keras.Model, run: Callable[[], Any]) -> list[Seen]:
    """What the blocks of a model, see `blocks_of`, do while `run` runs, in order."""
    found: list[Seen] = []
    with _watching(blocks_of(model), each_call_of_block, found.append):
        run()
    return found


class Named(Protocol):
    """What has a name, such as a call."""

    @property
    def name(self) -> str:
        """The name."""


def numbered(calls: Sequence[Named]) -> list[str]:
    """A name of its own for each call: the layer's, with the number of the call behind it from the second one on.

    Example:
        >>> numbered(calls_of(transformer, run)[0])[:3]  # source and target share an embedding
        ['embedding', 'embedding (2)', 'encoder1_attention']
    """
    count: Counter[str] = Counter()
    names = []
    for seen in calls:
        count[seen.name] += 1
        names.append(seen.name if count[seen.name] == 1 else f"{seen.name} ({count[seen.name]})")
    return names
