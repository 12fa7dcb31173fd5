"""The view `attention`: where each head of each layer looks, from word to word or from word to place."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.layers.attention import Attention, MultiHeadAttention
from dlkit.probe.one_example import Example, example
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import calls_of, inner_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16  # heads in a picture


@dataclass(frozen=True)
class Heads:
    """The weights of one attention for one example.

    Args:
        layer: its name.
        weights: (heads, queries, keys); what a query looks at sums to 1.
        queries: what looks: the words that are then said, or those that are read.
        keys: what is looked at; empty for the places of an image.
    """

    layer: str
    weights: NDArray[np.float64]
    queries: list[str]
    keys: list[str]

    @property
    def looked_at(self) -> NDArray[np.float64]:
        """(heads,): at how many keys a query looks, as 2 to the entropy of its weights in bits, mean over queries.

        1 where it looks at one alone, as many as there are where it looks at all alike.
        """
        safe = np.maximum(self.weights, np.finfo(np.float64).tiny)
        return (2.0 ** -(self.weights * np.log2(safe)).sum(axis=-1)).mean(axis=-1)

    @property
    def most(self) -> NDArray[np.float64]:
        """(heads,): the greatest weight of a query, mean over queries."""
        return self.weights.max(axis=-1).mean(axis=-1)

    def from_diagonal(self) -> NDArray[np.float64] | None:
        """(heads,): how many places before a query lies what it looks at, on average; None across two sequences."""
        count = self.weights.shape[1]
        if self.weights.shape[2] != count or self.queries != self.keys:
            return None
        before = np.arange(count)[:, np.newaxis] - np.arange(count)
        return (self.weights * before).sum(axis=-1).mean(axis=-1)


def attention(subject: Subject, one: Example) -> list[Heads]:
    """The weights of every attention of a model that reads and writes an example.

    What it writes is given to it word by word, so that they are those of the example and no search goes astray.

    Raises:
        dlkit.errors.UsageError: the model has no attention.
    """
    if not any(isinstance(layer, Attention | MultiHeadAttention) for _, layer in inner_layers(subject.model)):
        raise UsageError(
            f"{subject.operand} has no attention", "transformer, gpt, text_transformer, tagger_transformer,"
            " seq2seq_attention and captioner_attention have",
        )  # fmt: skip
    tensors = {key: tf.convert_to_tensor(array) for key, array in one.batch.items()}
    calls, _ = calls_of(
        subject.model, lambda: subject.task.loss_sums(subject.model, tensors, training=False, smoothing=0.0)
    )
    parts: dict[str, list[NDArray]] = {}
    for seen in calls:
        if isinstance(seen.layer, Attention | MultiHeadAttention):
            weights = np.asarray(seen.result[1], np.float64)[0]
            parts.setdefault(seen.name, []).append(weights if weights.ndim == 3 else weights[np.newaxis])
    # A recurrent decoder that looks before each step calls its attention once for each.
    whole = {name: np.concatenate(found, axis=1) for name, found in parts.items()}
    return [Heads(name, weights, *_names(subject, name, one, weights)) for name, weights in whole.items()]


def _names(subject: Subject, layer: str, one: Example, weights: NDArray) -> tuple[list[str], list[str]]:
    """What looks, and what is looked at."""
    if not one.source:  # it looks at an image
        return one.target, []
    if subject.task_info.steps:  # what is said is said of the words that are read, or is read next
        words = one.source
        own = weights.shape[-1] - len(words)  # a token of the model's own
        words = ["(start)"] * own + words
        return words, words
    if layer.startswith("encoder"):
        return one.source, one.source
    if layer.startswith("decoder") and "cross" not in layer:
        read = ["<s>", *one.target[:-1]]
        return read, read
    return one.target, one.source


def view(subject: Subject) -> View:
    """The view `attention`."""
    one = example(subject)
    known = {heads.layer: heads for heads in attention(subject, one)}
    names = subject.chosen(list(known))
    chosen = [known[name] for name in names]
    grid = getattr(subject.model, "grid", None)

    def draw() -> "Figure":
        if not one.source:
            return _over_image(subject, one, chosen[0], grid)
        from dlkit.probe.panels import Map, figure

        # Of many layers the last of each kind, where what is known is put together.
        last = {heads.layer.rpartition("block")[0] + heads.layer.split("_", 2)[-1]: heads for heads in chosen}
        drawn = chosen if subject.layers else list(last.values())
        panels = [
            Map(
                heads.layer if len(heads.weights) == 1 else f"{heads.layer}, head {at + 1}", weights, "weight",
                "looked at", "looks", x_names=heads.keys, y_names=heads.queries,
            )
            for heads in drawn
            for at, weights in enumerate(heads.weights)
        ]  # fmt: skip
        note = f"{one.called}; {subject.weights}. A row is what looks, and sums to 1; bright is where it looks."
        if len(panels) > MOST:
            note += f" {MOST} of {len(panels)} heads; --layer chooses others."
        return figure(panels[:MOST], title=f"{subject.operand}: attention", note=note, columns=min(4, len(panels)))

    rows, records = [], []
    for heads in chosen:
        back = heads.from_diagonal()
        for at, (count, most) in enumerate(zip(heads.looked_at, heads.most, strict=True)):
            before = None if back is None else float(back[at])
            of = f"{count:.1f} of {heads.weights.shape[-1]}"
            rows.append(
                (heads.layer, at + 1, of, f"{most:.2f}", None if before is None else f"{before:+.1f}")
            )  # fmt: skip
            records.append(
                {
                    "layer": heads.layer, "head": at + 1, "looked_at": float(count), "largest": float(most),
                    "places_before": before, "queries": heads.queries, "keys": heads.keys,
                    "weights": heads.weights[at].tolist(),
                }
            )  # fmt: skip
    facts: dict[str, Any] = {"example": one.called}
    if grid is not None:
        facts["grid"] = list(grid)
    return View(
        columns=["layer", "head", "looks at", "largest", "places before"],
        right=["head", "looks at", "largest", "places before"],
        rows=rows,
        records=records,
        notes=[
            f"{one.called}; weights: {subject.weights}",
            "looks at: 2 to the entropy of the weights in bits, at how many keys a query looks; largest: its greatest"
            " weight; places before: how far back it looks; all are means over the queries",
        ],
        draw=draw,
        facts=facts,
        key="heads",
    )


def _over_image(subject: Subject, one: Example, heads: Heads, grid: Any) -> "Figure":
    from dlkit.probe import captions
    from dlkit.probe.saliency import shown

    image = np.asarray(one.batch["images"])[0]
    pixels = shown(image)
    pixels = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    weights = heads.weights[0].reshape(-1, *grid)
    title = f"{subject.operand}: where each word looked"
    return captions.looks((255 * pixels).round().astype(np.uint8), weights, heads.queries, title=title)
