"""Translates text with a run, or with several as one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from dlkit import runs
from dlkit.data import pairs, tokenizer
from dlkit.data.buckets import TOKENS_WRITTEN
from dlkit.data.tokenizer import END, UNKNOWN, Tokenizer
from dlkit.decode.beam import LengthNorm
from dlkit.decode.decoder import Decoder, Source
from dlkit.decode.step import Decoded, Record
from dlkit.errors import CheckpointError, DataError, UsageError
from dlkit.runs import Run
from dlkit.tasks.run_files import TOKENIZER_FILE, open_run_of

# Attention takes memory with the square of the length. No sentence is so long, and no model has learned to translate
# one that is.
MOST_TOKENS = 1000

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Search:
    """How outputs are searched for; see `dlkit.decode` for what each setting means.

    Args:
        method: `beam`; `greedy`, which is a beam of one; or `sample`.
        beams: prefixes that a beam search keeps.
        n_best: outputs for each input: the best of the beams, or so many samples.
        length_norm: by what a beam search compares outputs of different lengths.
        alpha: of the normalization `gnmt`.
        max_len: most tokens of an output, the end token included; None for what the run's recipe says. A prefix counts
            in translations and captions, and not where a language model goes on with it.
        min_len: fewest tokens of an output, counted likewise.
        temperature: of sampling; below 1 likely tokens become likelier.
        top_k: sample from so many most probable tokens; 0 for all.
        top_p: sample from the most probable tokens that together have this probability.
        seed: of sampling.
        prefix: how every output has to begin.
        align: whether to say where each output token looked at in the source.
        record: whether a beam search keeps all that it has looked at.
    """

    method: Literal["beam", "greedy", "sample"] = "beam"
    beams: int = 5
    n_best: int = 1
    length_norm: LengthNorm = "avg"
    alpha: float = 0.6
    max_len: int | None = None
    min_len: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    prefix: str = ""
    align: bool = False
    record: bool = False


@dataclass(frozen=True)
class Hypothesis:
    """One output.

    Args:
        text: the output.
        ids: its tokens, the end token included.
        pieces: the same as text.
        log_probability: the sum over them; None where nothing was searched for.
        score: by which outputs are compared: the log-probability, normalized by length when asked for.
        attention: (pieces, source pieces), where each token looked; None unless asked for, and without attention.
    """

    text: str
    ids: list[int]
    pieces: list[str]
    log_probability: float | None
    score: float | None
    attention: NDArray[np.float32] | None = None

    @property
    def alignment(self) -> list[tuple[int, int]]:
        """(source piece, target piece) of where each output token looked most, end tokens left out."""
        if self.attention is None:
            return []
        looked = self.attention[:-1, :-1].argmax(axis=1) if self.attention.shape[1] > 1 else np.zeros(0, int)
        return [(int(source), target) for target, source in enumerate(looked)]


# What becomes of a line without any token: nothing is searched for, so it has no probability.
NO_OUTPUT = Hypothesis("", [], [], log_probability=None, score=None)


@dataclass(frozen=True)
class Translated:
    """One line and what became of it.

    Args:
        number: of the line, from 1.
        source: the line.
        pieces: its tokens as text, the end token included.
        unknown: what the tokenizer does not know of it.
        hypotheses: the outputs, the best first.
        record: all that a beam search has looked at, of a batch of one, for `dlkit.decode.tree`; None unless asked
            for.
    """

    number: int
    source: str
    pieces: list[str]
    unknown: list[str]
    hypotheses: list[Hypothesis]
    record: Record | None = None


@dataclass(frozen=True)
class Scored:
    """How probable a given translation is.

    Args:
        number: of the pair, from 1.
        pieces: the tokens of the translation as text, the end token included.
        log_probabilities: (pieces,), of each after the true ones before it.
    """

    number: int
    pieces: list[str]
    log_probabilities: NDArray[np.float32]


class Translator:
    """Translates with a model; with several, their probabilities are averaged at each step.

    Args:
        models: with `start` and `step`, see `dlkit.decode.step`.
        tokenizers: of each model those of the source and of the target; the latter are all the same.
        max_len: most tokens of an output, the end token included, where a search does not say it.
        compile_after: see `dlkit.decode.decoder.Decoder`.
        workers: the same.

    Example:
        >>> load("transformer_tatoeba")("Quelle heure est-il ?")
        'What time is it?'
    """

    def __init__(
        self,
        models: Sequence[Any],
        tokenizers: Sequence[tuple[Tokenizer, Tokenizer]],
        max_len: int,
        *,
        compile_after: int | None = None,
        workers: int = 1,
    ) -> None:
        sources = [source for source, _ in tokenizers]
        self.sources = sources[:1] if all(own == sources[0] for own in sources) else sources
        self.target = tokenizers[0][1]
        self.decoder = Decoder(list(models), compile_after=compile_after, workers=workers)
        self.most_tokens = min(MOST_TOKENS, self.decoder.most_tokens)
        self.max_len = min(max_len, self.most_tokens)

    @overload  # a text, too, is a sequence of texts
    def __call__(self, text: str, search: Search = ...) -> str: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, text: Sequence[str], search: Search = ...) -> list[str]: ...
    def __call__(self, text: str | Sequence[str], search: Search = Search()) -> str | list[str]:
        """The best translation of a text, or of each of several.

        Raises:
            dlkit.errors.DataError: a text is too long.
        """
        if isinstance(text, str):
            return self([text], search)[0]
        found = []
        for translated in self.each([text], search):
            if isinstance(translated, DataError):
                raise translated
            found.append(translated.hypotheses[0].text)
        return found

    def each(
        self, groups: Iterable[Sequence[str | DataError]], search: Search = Search(), *, batch_size: int = 32
    ) -> Iterator[Translated | DataError]:
        """Translates any number of lines, and gives in their order what became of each, or why it was not translated.

        Args:
            groups: lines that are translated together, those of like length in one batch; no group is drawn before all
                of the last one is given. What could not be read is passed on.
            search: how.
            batch_size: lines at a time; results do not depend on it.

        Raises:
            dlkit.errors.UsageError: a setting is out of range, the prefix has an unknown word or leaves no room for an
                end, or there is no one source that an output could be aligned with.
        """
        if search.align and len(self.sources) > 1:
            raise UsageError(
                "the runs divide sources into different tokens, so that outputs cannot be aligned with them",
                "name one run, or leave out --align",
            )
        self.check_prefix(search)
        yield from _by_length(groups, self._read, lambda lines: self._batch(lines, search), batch_size=batch_size)

    def check_prefix(self, search: Search) -> None:
        """Raises a UsageError when the prefix leaves no room for an end, or has a word that the runs do not know."""
        prefix, most = self.target.encode(search.prefix), self._most(search)
        if UNKNOWN in prefix:
            words = " ".join(self.target.unknown(search.prefix))
            raise UsageError(f"not in the vocabulary of the run: {words}", "leave it out of the prefix")
        if len(prefix) >= most:
            raise UsageError(
                f"the prefix has {len(prefix)} tokens, and an output at most {most}, the end token among them",
                "allow more tokens, or give a shorter prefix",
            )

    def score(
        self, groups: Iterable[Sequence[tuple[str, str] | DataError]], *, batch_size: int = 32
    ) -> Iterator[Scored | DataError]:
        """Says of any number of pairs (source, target) how probable the target is, in their order.

        Args:
            groups: pairs that are worked on together. What could not be read is passed on.
            batch_size: pairs at a time; results do not depend on it.
        """
        yield from _by_length(
            groups, lambda number, pair: self._read(number, *pair), self._scored, batch_size=batch_size
        )

    # ----------------------------------------------------------------------------------------------------- one line

    def _read(self, number: int, text: str, target: str | None = None) -> "_Line | DataError":
        ids = [[*own.encode(text), END] for own in self.sources]
        of_target = [] if target is None else [*self.target.encode(target), END]
        line = _Line(number, text, ids, of_target)
        if line.longer > self.most_tokens:
            where = f"the translation in line {number}" if line.longer == len(of_target) else f"line {number}"
            return DataError(
                f"{where} has {line.longer:,} tokens, and at most {self.most_tokens:,} are read at once",
                "divide it into sentences",
            )
        return line

    # ----------------------------------------------------------------------------------------------------- one batch

    def _scored(self, lines: "Sequence[_Line]") -> list[Scored]:
        targets = _padded([line.target for line in lines], most=self.most_tokens)
        by_position = self.decoder.score(self._arrays(lines), targets)  # (lines, time)
        return [
            Scored(line.number, self.target.pieces(line.target), values[: len(line.target)])
            for line, values in zip(lines, by_position, strict=True)
        ]

    def _arrays(self, lines: "Sequence[_Line]") -> Source:
        arrays = tuple(
            _padded([line.ids[at] for line in lines], most=self.most_tokens) for at in range(len(self.sources))
        )
        return arrays if len(arrays) > 1 else arrays[0]

    def _batch(self, lines: "Sequence[_Line]", search: Search) -> list[Translated]:
        """What becomes of some lines; one without any token has an empty translation."""
        spoken = [line for line in lines if len(line.ids[0]) > 1]
        decoded = self.decode(self._arrays(spoken), [line.number for line in spoken], search) if spoken else None
        rows = {line.number: row for row, line in enumerate(spoken)}
        found = []
        for line in lines:
            hypotheses, record, row = [NO_OUTPUT], None, rows.get(line.number)
            if decoded is not None and row is not None:
                hypotheses = self.hypotheses(decoded, row, len(line.ids[0]), search)
                record = decoded.record and Record(*(values[row : row + 1] for values in decoded.record))
            reader = self.sources[0]
            unknown = reader.unknown(line.text) if UNKNOWN in line.ids[0] else []
            pieces = reader.pieces(line.ids[0])
            found.append(Translated(line.number, line.text, pieces, unknown, hypotheses, record))
        return found

    def _most(self, search: Search) -> int:
        return min(search.max_len or self.max_len, self.most_tokens)

    def decode(self, source: Source, numbers: Sequence[int], search: Search) -> Decoded:
        """Searches for the outputs of a batch; `numbers` of its rows make draws their own."""
        rows = len(numbers)
        forced = self.target.encode(search.prefix)
        common: dict[str, Any] = {
            "max_len": self._most(search),
            "min_len": search.min_len,
            "prefix": np.repeat(np.array([forced], np.int32), rows, axis=0) if forced else None,
            "attention": search.align,
        }
        match search.method:
            case "greedy":
                return self.decoder.greedy(source, **common)
            case "beam":
                # Of several the text may be the same, cut into other tokens; those behind them take their place.
                n_best = 1 if search.n_best == 1 else max(search.n_best, search.beams)
                return self.decoder.beam(
                    source, beams=search.beams, n_best=n_best, length_norm=search.length_norm,
                    alpha=search.alpha, record=search.record, **common,
                )  # fmt: skip
            case "sample":
                return self.decoder.sample(
                    source, seed=search.seed, lines=numbers, samples=search.n_best, temperature=search.temperature,
                    top_k=search.top_k, top_p=search.top_p, **common,
                )  # fmt: skip

    def hypotheses(self, decoded: Decoded, row: int, source_length: int, search: Search) -> list[Hypothesis]:
        """The outputs of a row, the best first; those of a beam search with the same text once only."""
        places = range(decoded.lengths.shape[1])
        outputs = (self._hypothesis(decoded, row, place, source_length) for place in places)
        hypotheses = [output for output in outputs if output]
        return _distinct(hypotheses)[: search.n_best] if search.method == "beam" else hypotheses

    def _hypothesis(self, decoded: Decoded, row: int, place: int, source_length: int) -> Hypothesis | None:
        """One output; None where a row has fewer than were asked for."""
        length = int(decoded.lengths[row, place])
        if length == 0:
            return None
        ids = decoded.tokens[row, place, :length].tolist()
        attention = None if decoded.attention is None else decoded.attention[row, place, :length, :source_length]
        return Hypothesis(
            self.target.decode(ids),
            ids,
            self.target.pieces(ids),
            float(decoded.log_probabilities[row, place]),
            float(decoded.scores[row, place]),
            attention,
        )


def load(
    names: str | Path | Sequence[str | Path],
    *,
    compile_after: int | None = None,
    workers: int = 1,
    precision: str | None = None,
) -> Translator:
    """The translator of a run or a checkpoint, or of several together.

    Args:
        names: runs or checkpoints.
        compile_after: see `dlkit.decode.decoder.Decoder`.
        workers: the same.
        precision: what the models compute in, their weights rounded to it; None for what `precision_of` says of each.

    Raises:
        dlkit.errors.UsageError: a run is of another task, or several have different target vocabularies.
        dlkit.errors.CheckpointError: a tokenizer does not belong to its model, or a checkpoint to its run.
    """
    names = [names] if isinstance(names, str | Path) else list(names)
    opened = [open_run_of("translation", name) for name in names]
    tokenizers = [load_tokenizers(run.path) for run in opened]
    for run, own in zip(opened, tokenizers, strict=True):
        check_tokenizers(run.path, own, arguments=run.info["model_arguments"], info=run.info["data"])
        if own[1] != tokenizers[0][1]:
            raise UsageError(
                f"{opened[0].path} and {run.path} have different target vocabularies",
                "an ensemble is of runs that were trained on the same data",
            )
    longest = max(int(run.recipe["decode"]["max_len"]) for run in opened)
    models = [
        runs.load_model(name, precision=precision or precision_of(run)) for name, run in zip(names, opened, strict=True)
    ]
    return Translator(models, tokenizers, longest, compile_after=compile_after, workers=workers)


def precision_of(run: Run) -> str:
    """What a run searches and scores in, unless another precision is asked for: float32 when trained in bfloat16.

    Rounded to bfloat16, probabilities of two prefixes often tie or change places, and then what is said of a sentence
    depends on which others are translated beside it.
    """
    return "float32" if run.precision == "bfloat16" else run.precision


# The tokenizers' files in a run folder: one for both sides, or one each.
JOINT_FILE, SOURCE_FILE, TARGET_FILE = TOKENIZER_FILE, "source_tokenizer.json", "target_tokenizer.json"


def save_tokenizers(folder: Path, tokenizers: tuple[Tokenizer, Tokenizer]) -> None:
    """Writes the tokenizers of source and target into a run folder, once when they are the same."""
    source, target = tokenizers
    if source == target:
        source.save(folder / JOINT_FILE)
    else:
        source.save(folder / SOURCE_FILE)
        target.save(folder / TARGET_FILE)


def load_tokenizers(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """Reads the tokenizers of source and target of a run folder.

    Raises:
        dlkit.errors.DataError: a file is missing or no tokenizer.
    """
    if (folder / JOINT_FILE).exists():
        both = tokenizer.load(folder / JOINT_FILE)
        return both, both
    return tokenizer.load(folder / SOURCE_FILE), tokenizer.load(folder / TARGET_FILE)


def check_tokenizers(
    folder: Path, tokenizers: tuple[Tokenizer, Tokenizer], *, arguments: Mapping[str, Any], info: Mapping[str, Any]
) -> None:
    """Whether the tokenizers of a run folder, of source and target, are those that its model was trained with.

    Args:
        folder: of the run.
        tokenizers: what is in its files.
        arguments: of the model, the sizes of the vocabularies.
        info: what the run knows of its data; of older runs no digests of tokenizers.

    Raises:
        dlkit.errors.CheckpointError: they are others.
    """
    digests = info.get("tokenizers", (None, None))
    for side, own, digest in zip(("source", "target"), tokenizers, digests, strict=True):
        expected = arguments.get(f"{side}_vocabulary")
        if own.size != expected:
            problem = f"has {own.size} tokens, and its model {expected}"
        elif digest is not None and digest != own.digest():
            problem = "is not the one that its model was trained with"
        else:
            continue
        raise CheckpointError(f"the {side} tokenizer of {folder} {problem}", "the file comes from another run")


def _distinct(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Of hypotheses with the same text the first."""
    by_text: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        by_text.setdefault(hypothesis.text, hypothesis)
    return list(by_text.values())


class _Line(NamedTuple):
    """A line that is read, with the end tokens."""

    number: int  # from 1
    text: str
    ids: list[list[int]]  # of the source, for each tokenizer
    target: list[int]  # to be scored; empty when it is to be found

    @property
    def longer(self) -> int:
        """Tokens of its longer side."""
        return max(map(len, [*self.ids, self.target]))


def _by_length(
    groups: Iterable[Sequence[Item | DataError]],
    read: Callable[[int, Item], _Line | DataError],
    work: Callable[[Sequence[_Line]], Sequence[Result]],
    *,
    batch_size: int,
) -> Iterator[Result | DataError]:
    """What becomes of each line, in their order; in a group those of like length are worked on together.

    So little is padding, and few rows wait for the longest of their batch.
    """
    before = 0
    for group in groups:
        lines = [
            item if isinstance(item, DataError) else read(number, item) for number, item in enumerate(group, before + 1)
        ]
        before += len(group)
        readable = sorted(
            (line for line in lines if isinstance(line, _Line)), key=lambda line: len(line.ids[0]) + len(line.target)
        )
        done: dict[int, Result] = {}
        for batch in _batches(readable, batch_size):
            done |= zip((line.number for line in batch), work(batch), strict=True)
        for line in lines:
            yield done[line.number] if isinstance(line, _Line) else line


def _batches(lines: Iterable[_Line], batch_size: int) -> Iterator[list[_Line]]:
    """Divides lines, at most so many together and no more than have `TOKENS_WRITTEN` with the padding."""
    batch: list[_Line] = []
    longest = 0
    for line in lines:
        longest = max(longest, line.longer)
        if batch and (len(batch) == batch_size or (len(batch) + 1) * longest > TOKENS_WRITTEN):
            yield batch
            batch, longest = [], line.longer
        batch.append(line)
    if batch:
        yield batch


def _padded(ids: Sequence[Sequence[int]], *, most: int) -> NDArray[np.int32]:
    """Ids side by side, padded to few different lengths, so that few shapes occur."""
    return pairs.pad(ids, length=pairs.padded_length(max(map(len, ids)), most=most))
