"""Word vectors: which words lie close to each other, and all of them in two dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit.data.tokenizer import SPECIAL, Tokenizer
from dlkit.errors import UsageError
from dlkit.probe.one_example import pieces
from dlkit.probe.views import Subject, View
from dlkit.probe.watching import inner_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS, NEIGHBOURS, DRAWN = 12, 5, 80


@dataclass(frozen=True)
class Table:
    """The vectors of a vocabulary.

    Args:
        layer: the name of the layer that has them.
        vectors: (vocabulary, width).
        tokenizer: what its rows stand for.
    """

    layer: str
    vectors: NDArray[np.float32]
    tokenizer: Tokenizer


def tables(subject: Subject) -> list[Table]:
    """The tables of word vectors of a model, one for each vocabulary unless one serves both.

    Raises:
        dlkit.errors.UsageError: it has none.
    """
    reads, writes = subject.task.tokenizers
    found = []
    for name, layer in inner_layers(subject.model):
        if not isinstance(layer, keras.layers.Embedding) or name == "positions":
            continue
        tokenizer = writes if name.startswith("target") else reads
        vectors = np.asarray(layer.embeddings, np.float32)
        if len(vectors) == tokenizer.size:  # else it is no table of words, but of pairs of them
            found.append(Table(name, vectors, tokenizer))
    if not found:
        raise UsageError(
            f"{subject.operand} has no table of word vectors",
            "words that it reads one-hot have no vectors of their own",
        )
    return found


def neighbours(vectors: NDArray, row: int, count: int = NEIGHBOURS) -> list[tuple[int, float]]:
    """The rows that point most nearly where a row does, and the cosines of the angles between them.

    Rows of special tokens, the first four, and rows of zeros are left out.

    Args:
        vectors: (rows, width).
        row: which.
        count: how many others.

    Example:
        >>> neighbours(np.array([[0, 0]] * 4 + [[1, 0], [1, 1], [0, 1]]), 4, 1)
        [(5, 0.7071067811865475)]
    """
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    if norms[row] == 0:
        return []
    cosines = wide @ wide[row] / np.maximum(norms * norms[row], np.finfo(np.float64).tiny)
    cosines[(norms == 0) | (np.arange(len(wide)) < len(SPECIAL)) | (np.arange(len(wide)) == row)] = -np.inf
    order = [int(at) for at in np.argsort(-cosines, kind="stable")[:count]]
    return [(at, float(cosines[at])) for at in order if np.isfinite(cosines[at])]


def in_two_dimensions(vectors: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors by their first two principal components (Pearson 1901), and the share of the variance of each.

    Args:
        vectors: (rows, width), two rows or more.

    Returns:
        (rows, 2) and (2,).
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(vectors), 2))
    kept = min(2, len(values))
    points[:, :kept] = (left * values)[:, :kept]
    shares = np.zeros(2)
    shares[:kept] = values[:kept] ** 2 / max(float((values**2).sum()), np.finfo(np.float64).tiny)
    return points, shares


def _rows_of(table: Table, words: Sequence[str]) -> list[int]:
    """The rows of the words that are asked for, or of the first of the vocabulary."""
    if not words:
        return list(range(len(SPECIAL), min(len(table.vectors), len(SPECIAL) + WORDS)))
    rows = []
    for word in words:
        ids = table.tokenizer.encode(word)
        if table.tokenizer.unknown(word) or not ids:
            raise UsageError(f"{word} is not in the vocabulary of {table.layer}", "without --word the first are listed")
        if len(ids) > 1:
            parts = " ".join(pieces(table.tokenizer, ids))
            raise UsageError(f"{word} is no single token: it is read as {parts}", "ask for one of these")
        rows.append(ids[0])
    return rows


def view(subject: Subject) -> View:
    """The view `embeddings`."""
    known = {table.layer: table for table in tables(subject)}
    chosen = [known[name] for name in subject.chosen(list(known))]
    asked = [(table, row) for table in chosen for row in _rows_of(table, subject.words)]
    found = [(table, row, neighbours(table.vectors, row)) for table, row in asked]

    def name(table: Table, row: int) -> str:
        return pieces(table.tokenizer, [row])[0]

    def draw() -> "Figure":
        from dlkit.probe.panels import Names, Panel, figure

        panels: list[Panel] = []
        for table in chosen:
            own = [row for one, row, _ in found if one is table]
            near = [at for one, _, others in found if one is table for at, _ in others]
            rest = range(len(SPECIAL), len(table.vectors))
            rows = list(dict.fromkeys([*own, *near, *([] if subject.words else rest)]))[:DRAWN]
            points, shares = in_two_dimensions(table.vectors[rows])
            x, y = (f"component {at}, {100 * share:.0f} % of the variance" for at, share in enumerate(shares, 1))
            strong = len(own) if subject.words else 0
            panels.append(Names(table.layer, x, y, points, [name(table, row) for row in rows], strong))
        note = "The first two principal components; a name that would cover another is left out."
        if subject.words:
            note += " Orange and bold: what was asked for; blue: what lies closest to it."
        return figure(panels, title=f"{subject.operand}: word vectors", note=note)

    several = len(chosen) > 1
    return View(
        columns=[*(["layer"] if several else []), "token", "norm", "closest, with cosine"],
        right=["norm"],
        rows=[
            (
                *([table.layer] if several else []),
                name(table, row),
                f"{np.linalg.norm(table.vectors[row]):.3g}",
                ", ".join(f"{name(table, at)} {cosine:.2f}" for at, cosine in others),
            )
            for table, row, others in found
        ],
        records=[
            {
                "layer": table.layer,
                "token": name(table, row),
                "id": row,
                "norm": float(np.linalg.norm(table.vectors[row])),
                "neighbours": [{"token": name(table, at), "id": at, "cosine": cosine} for at, cosine in others],
            }
            for table, row, others in found
        ],
        notes=[
            f"weights: {subject.weights}; "
            + ", ".join(f"{t.layer}: {len(t.vectors):,} vectors of {t.vectors.shape[1]}" for t in chosen)
        ],
        draw=draw,
        key="tokens",
    )
