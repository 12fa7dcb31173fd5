"""A model, or several as one, ready to decode: arrays in, arrays out."""

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from dlkit.data.tokenizer import END, PAD, START
from dlkit.decode.beam import LengthNorm, beam_search
from dlkit.decode.ensemble import Ensemble, mean_logits
from dlkit.decode.greedy import greedy
from dlkit.decode.sample import sample, uniform_numbers
from dlkit.decode.score import target_scores
from dlkit.decode.step import Decoded, reorder_of, with_room

# Compiled searches are for few shapes: source time and steps are rounded up to multiples of this, rows to powers of 2.
BUCKET = 16

# A part of a batch has at least so many rows: each part reads all weights, which fewer are not worth.
ROWS_OF_PART = 4

# Source ids (batch, time) padded with 0, or images (batch, height, width, channels) float32; of an ensemble whose
# models read each in its own way, one array for each.
Source = NDArray[Any] | Sequence[NDArray[Any]]


class Decoder:
    """Decodes with one model, or with the mean of several, in one graph for each setting, whatever the shapes.

    Results of a row do not depend on the rows beside it or on padding, up to the rounding of matrix products, whose
    order of summation may change with the shape. `max_len` is for all rows or for each: to be as free of batch mates,
    it must not come from the longest of a batch.

    Args:
        models: a model that has `start` and `step` (see `dlkit.decode.step`), or several with one target vocabulary.
            For `score` they are called as `model((source, target_in))`.
        compile_after: from so many batches of about the same shape on their beam search is compiled by XLA; None for
            never. That takes seconds for each such shape, and small models and small batches are then several times as
            fast. Results are the same up to the rounding of sums. A search with a record is not compiled.
        workers: into how many parts a batch is divided, each decoded in a thread of its own. A step is made of many
            small operations, over which threads are hardly faster than one; so this is how processors are kept
            busy, once operations have one thread each: see `dlkit.runtime.one_thread_each`.

    Example:
        >>> decoder = Decoder(model)
        >>> decoder.beam(np.array([[5, 6, 2]]), max_len=20, beams=5).tokens.shape
        (1, 1, 20)
    """

    def __init__(self, models: Any, *, compile_after: int | None = None, workers: int = 1) -> None:
        self.models = tuple(models) if isinstance(models, list | tuple) else (models,)
        self._model = Ensemble(self.models) if len(self.models) > 1 else self.models[0]
        self.compile_after = compile_after
        self.workers = workers
        # Tables of learned positions are for so many tokens: nothing is read, said or filled up beyond.
        self.most_tokens = min(map(positions_of, self.models))
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._graphs: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._lock = threading.Lock()  # of the two above
        self._threads = ThreadPoolExecutor(workers)  # which begin when there is work for them

    def greedy(
        self,
        source: Source,
        *,
        max_len: int | NDArray[np.int32],
        min_len: int = 0,
        prefix: NDArray[np.int32] | None = None,
        attention: bool = False,
    ) -> Decoded:
        """The most probable token at each step; see `dlkit.decode.greedy`. One hypothesis a row."""

        def decode(source: Any, limits: tf.Tensor, prefix: tf.Tensor | None = None) -> Decoded:
            state, memory = self._model.start(source, max_len=tf.reduce_max(limits))
            return greedy(
                self._model.step, state, memory, batch=tf.shape(limits)[0], start_id=START, end_id=END,
                max_len=limits, min_len=min_len, prefix=prefix, attention=attention,
            )  # fmt: skip

        return self._decode(decode, ("greedy", min_len, attention), source, max_len, prefix)

    def sample(
        self,
        source: Source,
        *,
        seed: int,
        lines: Sequence[int],
        max_len: int | NDArray[np.int32],
        samples: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_len: int = 0,
        prefix: NDArray[np.int32] | None = None,
        attention: bool = False,
    ) -> Decoded:
        """Draws `samples` hypotheses a row, in the order of their drawing; see `dlkit.decode.sample`.

        Args:
            source: see `Source`.
            seed: the same seed draws the same.
            lines: for each row the index of its line in the whole input, so that the draws do not depend on batches.
            max_len: most tokens, the end token included; for all rows, or (batch,).
            samples: hypotheses a row.
            temperature: 0 for greedy decoding.
            top_k: 0 for all tokens.
            top_p: 1 for all tokens.
            min_len: fewest tokens, the end token included.
            prefix: (batch, time) int32 padded with 0, the tokens that each row has to begin with.
            attention: whether to return the weights over the source.
        """

        def decode(source: Any, limits: tf.Tensor, uniforms: tf.Tensor, prefix: tf.Tensor | None = None) -> Decoded:
            state, memory = self._model.start(source, max_len=tf.reduce_max(limits))
            return sample(
                self._model.step, state, memory, uniforms=tf.ensure_shape(uniforms, (None, samples, None)),
                start_id=START, end_id=END, max_len=limits,
                temperature=temperature, top_k=top_k, top_p=top_p, min_len=min_len, prefix=prefix, attention=attention,
                reorder=reorder_of(self._model),
            )  # fmt: skip

        uniforms = uniform_numbers(seed=seed, lines=lines, samples=samples, max_len=int(np.max(max_len)))
        setting = ("sample", samples, temperature, top_k, top_p, min_len, attention)
        return self._decode(decode, setting, source, max_len, prefix, uniforms)

    def beam(
        self,
        source: Source,
        *,
        max_len: int | NDArray[np.int32],
        beams: int = 5,
        n_best: int = 1,
        length_norm: LengthNorm = "avg",
        alpha: float = 0.6,
        min_len: int = 0,
        patience: float = 1.0,
        prefix: NDArray[np.int32] | None = None,
        attention: bool = False,
        record: bool = False,
    ) -> Decoded:
        """The `n_best` hypotheses of a beam search, the best first; see `dlkit.decode.beam`."""

        def decode(
            source: Any, limits: tf.Tensor, prefix: tf.Tensor | None = None, *, steps: int | None = None
        ) -> Decoded:
            state, memory = self._model.start(source, max_len=tf.reduce_max(limits) if steps is None else steps)
            if steps is not None:
                state, memory = with_room(self._model, state, memory, steps=steps, beams=beams)
            return beam_search(
                self._model.step, state, memory, batch=tf.shape(limits)[0], beams=beams, start_id=START, end_id=END,
                max_len=limits, n_best=n_best, length_norm=length_norm, alpha=alpha, min_len=min_len,
                patience=patience, prefix=prefix, attention=attention, record=record, reorder=reorder_of(self._model),
                steps=steps,
            )  # fmt: skip

        setting = ("beam", beams, n_best, length_norm, alpha, min_len, patience, attention, record)
        return self._decode(decode, setting, source, max_len, prefix, may_compile=not record)

    def score(self, source: Source, target: NDArray[np.int32]) -> NDArray[np.float32]:
        """Log-probability of each token of given outputs, by teacher forcing.

        Args:
            source: see `Source`.
            target: (batch, time) int32 with the end token, padded with 0.

        Returns:
            (batch, time), 0 at padding; their sum over time is the log-probability of the output.
        """

        def score(source: Any, target: tf.Tensor) -> tf.Tensor:
            target_in = tf.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=START)
            target_in = tf.where(target == PAD, PAD, target_in)
            sources = source if isinstance(source, tuple) else (source,) * len(self.models)
            logits = [model((own, target_in)) for model, own in zip(self.models, sources, strict=True)]
            return target_scores(mean_logits(logits), target)

        run = functools.partial(self._run, score, ("score",))
        return self._in_parts(run, source, np.asarray(target, np.int32), parts=self.workers)

    def _decode(
        self,
        decode: Callable[..., Decoded],
        setting: tuple[Any, ...],
        source: Source,
        max_len: ArrayLike,
        prefix: NDArray[np.int32] | None,
        *more: NDArray[np.float32],
        may_compile: bool = False,
    ) -> Decoded:
        rows = len(source[0] if isinstance(source, list | tuple) else source)
        limits = np.broadcast_to(np.asarray(max_len, np.int32), rows)
        extra = () if prefix is None else (np.asarray(prefix, np.int32),)
        run = functools.partial(self._compiled_if_often if may_compile else self._run, decode, setting)
        # As long as the longest limit is what comes back, and so it has to be in each part.
        parts = self.workers if np.ndim(max_len) == 0 else 1
        return self._in_parts(run, source, limits, *more, *extra, parts=parts)

    def _in_parts(self, run: Callable[..., Any], *arguments: Any, parts: int) -> Any:
        """What `run` makes of the rows of the arguments, part by part, put together again."""
        rows = len(tf.nest.flatten(arguments)[0])
        parts = max(1, min(parts, rows // ROWS_OF_PART))
        if parts == 1:
            return run(*arguments)

        def run_rows(first: int, last: int) -> Any:
            return run(*tf.nest.map_structure(lambda array: array[first:last], arguments))

        bounds = [part * rows // parts for part in range(parts + 1)]
        found = self._threads.map(run_rows, bounds[:-1], bounds[1:])
        return tf.nest.map_structure(lambda *of: None if of[0] is None else np.concatenate(of), *found)

    def _compiled_if_often(
        self,
        decode: Callable[..., Decoded],
        setting: tuple[Any, ...],
        source: Source,
        limits: NDArray[np.int32],
        *prefix: NDArray[np.int32],
    ) -> Decoded:
        """As `_run`, but in a graph that is compiled for a shape once that has come often."""
        if self.compile_after is None:
            return self._run(decode, setting, source, limits, *prefix)
        shape = _Shape.of(source, limits, most=self.most_tokens)
        with self._lock:
            self._seen[setting, shape] += 1
            often = self._seen[setting, shape] > self.compile_after
        if not often:
            return self._run(decode, setting, source, limits, *prefix)
        # The batch is filled up to the shape, and what fills it is cut off again.
        sources = source if isinstance(source, list | tuple) else (source,)
        rows, time = np.shape(sources[0])
        filled = tuple(_filled(own, shape.rows, length) for own, length in zip(sources, shape.times, strict=True))
        decoded = self._run(
            functools.partial(decode, steps=shape.steps),
            (*setting, shape.steps),
            filled if isinstance(source, list | tuple) else filled[0],
            np.pad(limits, (0, shape.rows - rows), constant_values=1),  # a row that is made up ends at once
            *(_filled(own, shape.rows, np.shape(own)[1]) for own in prefix),
            compiled=True,
        )
        tokens, lengths, log_probabilities, scores = (part[:rows] for part in decoded[:4])
        longest = int(np.max(limits))
        looked = None if decoded.attention is None else decoded.attention[:rows, :, :longest, :time]
        return Decoded(tokens[:, :, :longest], lengths, log_probabilities, scores, looked)

    def _run(
        self,
        function: Callable[..., Any],
        setting: tuple[Any, ...],
        source: Source,
        *rest: NDArray[Any],
        compiled: bool = False,
    ) -> Any:
        """Runs a function of (source, *rest) in the graph of its setting, which is traced when first needed."""
        source = tuple(map(_as_read, source)) if isinstance(source, list | tuple) else _as_read(source)
        arguments = (source, *rest)
        key = (*setting, len(rest), len(source) if isinstance(source, tuple) else 0)
        with self._lock:
            if key not in self._graphs:
                specs = tf.nest.map_structure(lambda array: tf.TensorSpec([None] * array.ndim, array.dtype), arguments)
                self._graphs[key] = tf.function(
                    function, input_signature=specs, autograph=False, jit_compile=compiled or None
                )
        found = self._graphs[key](*arguments)
        return tf.nest.map_structure(lambda tensor: None if tensor is None else tensor.numpy(), found)


def _as_read(source: ArrayLike) -> NDArray[Any]:
    """Ids as int32; images as they are."""
    array = np.asarray(source)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.int32, copy=False)


def positions_of(model: Any) -> int:
    """For how many tokens a model has learned positions; any number where it computes them, or has none."""
    return getattr(model, "max_length", None) or sys.maxsize


class _Shape(NamedTuple):
    """What a search is compiled for."""

    rows: int
    times: tuple[int, ...]  # of each source
    steps: int

    @classmethod
    def of(cls, source: Source, max_len: ArrayLike, *, most: int) -> "_Shape":
        """The least that holds a batch, and no longer than `most` unless the batch is."""

        def bucket(length: int) -> int:
            return max(length, min(-(-length // BUCKET) * BUCKET, most))

        sources = source if isinstance(source, list | tuple) else (source,)
        rows = 1 << (len(sources[0]) - 1).bit_length()
        return cls(rows, tuple(bucket(np.shape(own)[1]) for own in sources), bucket(int(np.max(max_len))))


def _filled(array: ArrayLike, rows: int, length: int) -> NDArray[np.int32]:
    """An array (rows, length), padded with 0."""
    array = np.asarray(array, np.int32)
    return np.pad(array, ((0, rows - len(array)), (0, length - array.shape[1])), constant_values=PAD)
