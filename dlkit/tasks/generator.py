"""Writes text with the run of a language model: samples, or what a search finds, from nothing or from a prefix."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import runs
from dlkit.data.tokenizer import END, START, UNKNOWN, Tokenizer
from dlkit.decode.beam import beam_search
from dlkit.decode.greedy import greedy
from dlkit.decode.sample import sample, uniform_numbers
from dlkit.decode.step import Decoded, Step, reorder_of, with_room
from dlkit.errors import UsageError
from dlkit.tasks.run_files import load_tokenizer, open_run_of
from dlkit.tasks.translator import Search, precision_of

ONE_SAMPLE = Search(method="sample")
# So many samples are drawn side by side at most; more would take memory, and hardly less time each.
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Generated:
    """One text.

    Args:
        text: the text, the prefix included, the stop token not.
        ids: its tokens, the stop token included.
        pieces: the same as text.
        log_probability: the sum over them.
        score: by which the beams of a search are compared; of others the log-probability.
        ended: whether the stop token came before the last place that there was for one, where it stands in any case;
            never without one.
    """

    text: str
    ids: list[int]
    pieces: list[str]
    log_probability: float
    score: float
    ended: bool


class Generator:
    r"""A language model that is ready to write; one graph for each setting, compiled by XLA.

    Args:
        model: of the task.
        tokenizer: of the run.
        info: what the run knows of its data, see `LanguageModelling.info`.
        max_len: of the run's recipe, tokens that are written unless a search says another number.

    Example:
        >>> load("runs/gpt_shakespeare-1")(Search(method="sample", n_best=2, prefix="ROMEO:", seed=7))[0].text
        'ROMEO:\nWhat say you?'
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, info: dict[str, Any], max_len: int) -> None:
        self.model, self.tokenizer, self.info, self.max_len = model, tokenizer, info, max_len
        self._graphs: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(self, search: Search = ONE_SAMPLE, *, stop: str | None = None) -> list[Generated]:
        """The texts: `n_best` samples, or the `n_best` best of a search.

        Args:
            search: how; `max_len` counts what is written behind the prefix.
            stop: the token that ends a text; by default none, but of runs for which `ends_by_itself` that of their
                own. Not for units that are lines.

        Raises:
            dlkit.errors.UsageError: the prefix or the stop token is none of the vocabulary, or there is one already.
        """
        return list(self.each(search, stop=stop))

    def each(self, search: Search, *, stop: str | None = None) -> Iterator[Generated]:
        """The same, one after another as they are there."""
        end, prefix = self._stop(stop), self._prefix(search.prefix)
        count = search.n_best if search.method == "sample" else 1
        rows = min(count, ROWS_AT_ONCE)
        for first in range(0, count, rows):
            # Of the last ones fewer may be wanted; what is drawn depends on the number of a sample alone.
            decoded = self._decoded(search, end, prefix, list(range(first, first + rows)))
            for row in range(min(rows, count - first)):
                for place in range(decoded.lengths.shape[1]):
                    if length := int(decoded.lengths[row, place]):
                        yield self._generated(decoded, row, place, length, end)

    def marginals(self, search: Search, *, of: int = 1000) -> "Marginals":
        """How often each token comes at each step, in so many samples; for runs whose units are lines."""
        drawn = self(replace(search, method="sample", n_best=of))
        return Marginals(self.tokenizer, [each.ids for each in drawn], seed=search.seed)

    # ----------------------------------------------------------------------------------------------------- what is set

    def _stop(self, stop: str | None) -> int | None:
        if self.info["units"] == "lines":
            check_stop(self.info, stop)
            return END
        if stop is None:
            return END if ends_by_itself(self.info) else None
        ids = [END] if stop == "\n" and not self.info["keeps_lines"] else self.tokenizer.encode(stop)
        if len(ids) != 1 and (piece := self.tokenizer.id_of(stop)) != UNKNOWN:
            ids = [piece]  # by itself it would begin with a space, in a text it follows a word
        if len(ids) != 1 or ids[0] == UNKNOWN:
            raise UsageError(
                f"the stop token {stop!r} is {len(ids)} tokens of the run"
                if len(ids) != 1
                else f"the stop token {stop!r} is not in the vocabulary of the run",
                "give one token, such as a character of a model of characters",
            )
        return ids[0]

    def _prefix(self, text: str) -> list[int]:
        if self.info["keeps_lines"] or self.info["units"] == "lines" or not text:
            ids = self.tokenizer.encode(text)
        else:  # between lines stands a stop token
            lines = self.tokenizer.encode_all(text.split("\n"))
            ids = [token for line in lines for token in (END, *line)][1:]
        if UNKNOWN in ids:
            words = " ".join(self.tokenizer.unknown(text))
            raise UsageError(f"not in the vocabulary of the run: {words}", "leave it out of the prefix")
        return ids

    # ------------------------------------------------------------------------------------------------------- the work

    def _decoded(self, search: Search, end: int | None, prefix: list[int], lines: Sequence[int]) -> Decoded:
        rows, longest = len(lines), len(prefix) + (search.max_len or self.max_len)
        limits = np.full(rows, longest, np.int32)
        forced = np.array([prefix] * rows, np.int32).reshape(rows, len(prefix))
        more: tuple[NDArray, ...] = ()
        if search.method == "sample":
            more = (uniform_numbers(seed=search.seed, lines=lines, samples=1, max_len=longest),)
        beams = max(search.beams, search.n_best) if search.method == "beam" else 1
        setting = (
            search.method, beams, search.n_best if search.method == "beam" else 1, search.length_norm, search.alpha,
            search.min_len, search.temperature, search.top_k, search.top_p, end, rows, longest, len(prefix),
        )  # fmt: skip
        if setting not in self._graphs:
            run = self._graph(search, end, beams=beams, steps=longest, min_len=len(prefix) + search.min_len)
            self._graphs[setting] = tf.function(run, jit_compile=True, autograph=False)
        found = self._graphs[setting](*map(tf.constant, (limits, forced, *more)))
        return tf.nest.map_structure(lambda tensor: None if tensor is None else tensor.numpy(), found)

    def _graph(
        self, search: Search, end: int | None, *, beams: int, steps: int, min_len: int
    ) -> Callable[..., Decoded]:
        """A function of limits, prefixes and, for samples, uniform numbers, with shapes that do not change."""
        first = self.info["first"]
        # What is no text; nor, where lines are characters, what stands between texts, unless it is to end them.
        never = {START, UNKNOWN, *([END] if self.info["keeps_lines"] else [])} - {end}

        def step(tokens: tf.Tensor, state: Any, memory: Any) -> Step:
            made = self.model.step(tokens, state, memory)
            logits = tf.cast(made.logits, tf.float32)
            if never:
                banned = tf.reduce_any(tf.range(logits.shape[-1])[:, tf.newaxis] == sorted(never), axis=-1)
                logits = tf.where(banned, -float("inf"), logits)
            return Step(logits, made.state)

        def run(limits: tf.Tensor, prefix: tf.Tensor, uniforms: tf.Tensor | None = None) -> Decoded:
            state, memory = self.model.start(prefix, max_len=steps)
            state, memory = with_room(self.model, state, memory, steps=steps, beams=beams)
            common: dict[str, Any] = {
                "start_id": first, "max_len": limits, "min_len": min_len, "steps": steps,
                "prefix": prefix if prefix.shape[1] else None,
            }  # fmt: skip
            match search.method:
                case "greedy":
                    return greedy(step, state, memory, batch=limits.shape[0], end_id=end, **common)
                case "sample":
                    return sample(
                        step, state, memory, uniforms=uniforms, end_id=end, temperature=search.temperature,
                        top_k=search.top_k, top_p=search.top_p, reorder=reorder_of(self.model), **common,
                    )  # fmt: skip
                case "beam":
                    return beam_search(
                        step, state, memory, batch=limits.shape[0], beams=beams, end_id=end, n_best=search.n_best,
                        length_norm=search.length_norm, alpha=search.alpha, reorder=reorder_of(self.model), **common,
                    )  # fmt: skip

        return run

    def _generated(self, decoded: Decoded, row: int, place: int, length: int, end: int | None) -> Generated:
        ids = decoded.tokens[row, place, :length].tolist()
        written = ids[:-1] if ids[-1] == end else ids
        return Generated(
            self._text(written),
            ids,
            self.tokenizer.pieces(ids),
            float(decoded.log_probabilities[row, place]),
            float(decoded.scores[row, place]),
            ended=end is not None and length < decoded.tokens.shape[-1],
        )

    def _text(self, ids: list[int]) -> str:
        """The text of ids, in which stop tokens end lines."""
        lines: list[list[int]] = [[]]
        for token in ids:
            if token == END:
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(map(self.tokenizer.decode, lines))


class Marginals:
    """What comes at each step, whatever came before: a table of how often each token did.

    Args:
        tokenizer: of the run.
        drawn: tokens of many samples, each with its stop token.
        seed: of what is drawn.
    """

    def __init__(self, tokenizer: Tokenizer, drawn: Sequence[Sequence[int]], *, seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed
        longest = max(map(len, drawn))
        # Behind its stop token a sample goes on with stop tokens.
        steps = np.array([[*ids, *[END] * (longest - len(ids))] for ids in drawn])
        self.steps = [np.unique(column, return_counts=True) for column in steps.T]

    def draw(self, count: int) -> list[str]:
        """So many texts, each token drawn by itself from those of its step; a stop token ends a text."""
        random = np.random.default_rng([self.seed, len(self.steps)])
        columns = [random.choice(tokens, count, p=counts / counts.sum()) for tokens, counts in self.steps]
        return [self.tokenizer.decode(ids) for ids in np.stack(columns, axis=1).tolist()]

    def table(self) -> list[dict[str, float]]:
        """For each step the tokens with their shares, the most frequent first."""
        found = []
        for tokens, counts in self.steps:
            order = np.argsort(-counts, kind="stable")
            pieces = self.tokenizer.pieces(tokens[order].tolist())
            found.append(dict(zip(pieces, (counts[order] / counts.sum()).tolist(), strict=True)))
        return found


def ends_by_itself(info: Mapping[str, Any]) -> bool:
    """Whether a run has learned where its texts end: lines, and texts of characters where it has read many.

    `info` is what it knows of its data. Where line ends are stop tokens, these stand between texts, too, and nothing
    tells the two apart.
    """
    return bool(info["units"] == "lines" or (info["keeps_lines"] and info["first"] == END))


def check_stop(info: Mapping[str, Any], stop: str | None) -> None:
    """Raises a UsageError where a stop token is given for a run of lines; `info` is what it knows of its data."""
    if stop is not None and info["units"] == "lines":
        raise UsageError("--stop is for running text, and each line of this run ends by itself", "leave it out")


def load(name: str | Path) -> Generator:
    """The generator of a run or a checkpoint.

    Raises:
        dlkit.errors.UsageError: the run is of another task.
        dlkit.errors.CheckpointError: the tokenizer does not belong to the model, or the checkpoint to the run.
    """
    run = open_run_of("language_modelling", name)
    own = load_tokenizer(run.path, run.info["data"])
    model = runs.load_model(name, precision=precision_of(run))
    return Generator(model, own, run.info["data"], int(run.recipe["decode"]["max_len"]))
