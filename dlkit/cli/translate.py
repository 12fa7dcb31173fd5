"""`dlkit translate`: lines of text in, their translations out."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlkit import console, runs, runtime
from dlkit.cli import options as opt
from dlkit.cli.files import check_new, check_picture_name, check_writable
from dlkit.decode.step import ENDED, KEPT, PRUNED
from dlkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from dlkit.data.tokenizer import Tokenizer
    from dlkit.decode.tree import Node
    from dlkit.tasks.translator import Hypothesis, Search, Translated, Translator

FATES = {KEPT: "kept", ENDED: "ended", PRUNED: "pruned"}


def translate(
    text: Annotated[
        list[str] | None, typer.Argument(help="What to translate; without it, the lines of standard input.")
    ] = None,
    model: opt.RunModels = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Translate its lines; plain or .gz.")
    ] = None,
    beam: opt.Beam = None,
    n_best: Annotated[
        int,
        typer.Option("--n-best", min=1, metavar="N", help="Outputs of each line; a search has at least as many beams."),
    ] = 1,
    length_norm: opt.LengthNorm = None,
    alpha: opt.Alpha = None,
    max_len: opt.MaxLen = None,
    min_len: Annotated[int, typer.Option("--min-len", min=0, help="Fewest tokens of an output.")] = 0,
    sample: Annotated[bool, typer.Option("--sample", help="Draw outputs at random instead of searching.")] = False,
    temperature: opt.Temperature = None,
    top_k: opt.TopK = None,
    top_p: opt.TopP = None,
    seed: opt.SampleSeed = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="How every output has to begin.")] = "",
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Print the score of each output before it; of a sample its log-probability."),
    ] = False,
    align: Annotated[
        bool, typer.Option("--align", help="Print source-output pairs of token numbers: where each token looked.")
    ] = False,
    show_beams: Annotated[
        bool, typer.Option("--show-beams", help="Draw the tree of hypotheses, with running log-probabilities.")
    ] = False,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png",
            metavar="FILE",
            help="Draw the tree of one line, or with --align where it looked, into a new file.",
        ),
    ] = None,
    format_: Annotated[
        Literal["text", "tsv", "jsonl"],
        typer.Option("--format", help="tsv: line, rank, score, log-probability, output. jsonl: all there is."),
    ] = "text",
    output: opt.Output = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Lines at a time.")] = 32,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(
            "--precision",
            help="bfloat16: faster where the processor has it; results may then depend on the rounding, and so on the "
            "lines beside them.  [default: float32]",
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the search with XLA: for many lines. Each call does it anew: seconds for each new length.",
        ),
    ] = False,
    runs_dir: opt.NewestIn = None,
) -> None:
    """Translate text, line by line: as many lines come out as go in, in their order.

    Several --model are an ensemble: their probabilities are averaged.

    Example: echo "Il fait un froid de canard." | dlkit translate --beam 5
    """
    from dlkit.cli import lines

    check_writable(output)
    check_picture_name(png)
    check_new(png, "--png")
    searching = {"--length-norm": length_norm, "--alpha": alpha}
    drawing = {"--temperature": temperature, "--top-k": top_k, "--top-p": top_p, "--seed": seed}
    check_search(
        searching, drawing,
        sample=sample, beam=beam, n_best=n_best, temperature=temperature, top_k=top_k, top_p=top_p,
        min_len=min_len, max_len=max_len,
    )  # fmt: skip
    if text and file is not None:
        raise UsageError("a text and --file are both given", "give one of them")
    if console.settings.json and format_ == "tsv":
        raise UsageError("--json and --format tsv are two formats", "give one of them")
    format_ = "jsonl" if console.settings.json else format_
    of_rows = {
        "--format tsv": format_ == "tsv",
        "--scores": scores,
        "--n-best": n_best > 1,
        "--align": align and not png,
    }
    if show_beams and format_ != "jsonl" and (beside := [option for option, given in of_rows.items() if given]):
        raise UsageError(
            f"{beside[0]} is about rows of output, and --show-beams prints trees", "`--format jsonl` has all there is"
        )
    draws_tree = show_beams or (png is not None and not align)
    if draws_tree and sample:
        option = "--show-beams" if show_beams else "--png without --align"
        raise UsageError(f"{option} is about beam search, not about sampling", "leave out --sample")
    if compiled and (sample or draws_tree):
        raise UsageError("--compile is about beam search without its tree", "leave it out")
    names = opt.runs_or_shipped(model, "translation", runs_dir)
    first, *_ = [runs.open_run(name) for name in names]  # before TensorFlow takes its time
    from dlkit.recipe import resolve_decode

    flags = {"decode.beams": beam, "decode.length_norm": length_norm, "decode.alpha": alpha}
    decode = resolve_decode(first.recipe["decode"], flags=flags, path=first.path / "recipe.toml")
    groups = lines.groups(text, file, batch_size=batch_size)
    runtime.import_tensorflow()
    from dlkit.tasks.translator import Search, load

    search = Search(
        method="sample" if sample else "beam", beams=beam or max(decode.beams, n_best), n_best=n_best,
        length_norm=decode.length_norm, alpha=decode.alpha, max_len=max_len, min_len=min_len,
        temperature=1.0 if temperature is None else temperature, top_k=top_k or 0,
        top_p=1.0 if top_p is None else top_p, seed=seed or 0, prefix=prefix, align=align,
        record=draws_tree,
    )  # fmt: skip
    # A line that somebody waits for has all threads; many lines are divided among them.
    workers = 1 if text or (file is None and sys.stdin and sys.stdin.isatty()) else runtime.one_thread_each()
    translator = load(names, compile_after=0 if compiled else None, workers=workers, precision=precision)
    printer = _Printer(format_, search, translator.target, scores=scores, tree=show_beams, png=png)
    _check_lengths(translator, min_len=min_len, max_len=max_len)
    failures = lines.Failures()
    with lines.writer(output) as write:
        for number, found in enumerate(translator.each(groups, search, batch_size=batch_size), 1):
            if isinstance(found, DataError):  # the other lines are still worth an answer
                failures.tell(found)
            for row in printer.rows(number, found):
                write(*row)
    if printer.png:
        console.warn(f"{png} is not drawn: no line has any token")
    failures.end()


def check_search(
    searching: Mapping[str, Any],
    drawing: Mapping[str, Any],
    *,
    sample: bool,
    beam: int | None,
    n_best: int,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_len: int,
    max_len: int | None,
) -> None:
    """Raises a UsageError when options of a search contradict each other.

    Args:
        searching: options of beam search alone, None where they are not given.
        drawing: those of sampling.
        sample: `--sample`; the others are called like their options, too.
        beam: see there.
        n_best: see there.
        temperature: see there.
        top_k: see there.
        top_p: see there.
        min_len: see there.
        max_len: see there.
    """
    of_search, of_drawing = ([name for name, value in own.items() if value is not None] for own in (searching, drawing))
    if of_search and sample:
        raise UsageError(f"{of_search[0]} is about beam search, not about sampling", "leave it out")
    if of_drawing and not sample:
        raise UsageError(f"{of_drawing[0]} is for sampling", "add --sample, or leave it out")
    if sample and beam is not None:
        raise UsageError("--beam searches and --sample draws", "give one of them")
    if beam is not None and n_best > beam:
        raise UsageError(f"--n-best {n_best} of {beam} beams", f"`--beam {n_best}` keeps enough")
    if sample and n_best > 1 and (temperature == 0 or top_k == 1):
        always = "--temperature 0" if temperature == 0 else "--top-k 1"
        raise UsageError(f"--n-best {n_best} with {always} would be the same output each time", "leave one of them out")
    if top_p is not None and top_p <= 0:
        raise UsageError(f"--top-p {top_p:g} leaves nothing to draw from", "0.9 is a usual one")
    if max_len is not None and min_len > max_len:
        raise UsageError(f"--min-len {min_len} is more than --max-len {max_len}", "give a smaller --min-len")


def _check_lengths(translator: "Translator", *, min_len: int, max_len: int | None) -> None:
    """Says what the model, or its recipe, has no room for."""
    most = min(max_len or translator.max_len, translator.most_tokens)
    if max_len is not None and max_len > most:
        console.warn(f"--max-len {max_len:,} is more than can be written: outputs have at most {most:,} tokens")
    if min_len > most:
        raise UsageError(
            f"--min-len {min_len:,} is more than the {most:,} tokens that an output has at most",
            "give a smaller --min-len" if most == translator.most_tokens else "give a --max-len, too",
        )


class _Printer:
    """Turns what became of a line into rows of output, of one cell or several."""

    def __init__(
        self,
        format_: str,
        search: "Search",
        target: "Tokenizer",
        *,
        scores: bool,
        tree: bool,
        png: Path | None,
    ) -> None:
        self.format, self.search, self.target = format_, search, target
        self.scores, self.tree, self.png = scores, tree, png

    def rows(self, number: int, found: "Translated | DataError") -> list[list[str]]:
        if isinstance(found, DataError):
            return self._failed(number, found)
        if found.unknown:
            console.warn(f"line {number}: not in the vocabulary: {' '.join(found.unknown)}")
        count, asked = len(found.hypotheses), self.search.n_best
        if count < asked and found.hypotheses[0].ids:
            console.warn(f"line {number}: {count} of {asked} outputs; there are no others of so many tokens")
        if self.png and found.hypotheses[0].ids:
            self._draw(found, self.png)
            self.png = None  # of the first line: a picture for each would be too many
        if self.format == "jsonl":
            return [[console.as_json(self._record(found))]]
        if self.tree:
            return [[line] for line in [*[""] * (number > 1), *self._tree(found)]]  # apart from the one before
        return self._outputs(number, found.hypotheses)

    def _failed(self, number: int, failure: DataError) -> list[list[str]]:
        if self.format == "jsonl":
            return [[console.as_json({"line": number, "error": failure.message})]]
        return [[""]] if self.tree else self._outputs(number, [])

    def _outputs(self, number: int, hypotheses: "Sequence[Hypothesis]") -> list[list[str]]:
        """A row for each output that was asked for, so that each line keeps its place; where there is none, empty."""
        from dlkit.tasks.translator import NO_OUTPUT

        rows = []
        for rank in range(1, self.search.n_best + 1):
            hypothesis = hypotheses[rank - 1] if rank <= len(hypotheses) else NO_OUTPUT
            figures = (hypothesis.score, hypothesis.log_probability)
            score, log_probability = ("" if figure is None else f"{figure:.4f}" for figure in figures)
            cells = [str(number), str(rank), score, log_probability] if self.format == "tsv" else [score] * self.scores
            cells.append(hypothesis.text)
            if self.search.align:
                cells.append(" ".join(f"{source}-{target}" for source, target in hypothesis.alignment))
            rows.append(cells)
        return rows

    def _record(self, found: "Translated") -> dict[str, Any]:
        record: dict[str, Any] = {
            "line": found.number,
            "source": found.source,
            "translation": found.hypotheses[0].text,
            "unknown": found.unknown,
        }
        if self.search.align:
            record["source_tokens"] = found.pieces
        record["hypotheses"] = [
            {
                "text": hypothesis.text,
                "score": hypothesis.score,
                "log_probability": hypothesis.log_probability,
                "tokens": hypothesis.pieces,
                **({"alignment": hypothesis.alignment} if self.search.align else {}),
            }
            for hypothesis in found.hypotheses
        ]
        if self.tree and found.record:
            record["steps"] = [
                [
                    {
                        "token": self._piece(node.token),
                        "log_probability": node.log_probability,
                        "fate": FATES[node.fate],
                        "chosen": node.chosen,
                        "leads_to": [level.index(child) for child in node.children] if level else [],
                    }
                    for node in nodes
                ]
                for nodes, level in zip(*self._levels(found), strict=True)
            ]
        return record

    def _levels(self, found: "Translated") -> "tuple[list[list[Node]], list[list[Node]]]":
        """The levels of the tree, and for each the one after it."""
        from dlkit.decode import tree

        assert found.record is not None
        levels = tree.grow(found.record, 0, chosen=found.hypotheses[0].ids)
        return levels, [*levels[1:], []]

    def _piece(self, token: int) -> str:
        return _readable(self.target.pieces([token])[0])

    def _tree(self, found: "Translated") -> list[str]:
        """The tree, and below it what was chosen."""
        from dlkit.decode import tree

        best = found.hypotheses[0]
        if best.log_probability is None or best.score is None:  # of a line without any token
            return [""]
        width = console.width("stdout") if console.is_terminal("stdout") else None
        figures = f"log-probability {best.log_probability:.1f}, {len(best.ids)} tokens, score {best.score:.2f}"
        chosen = f"chosen  {best.text}   {figures} ({self.search.length_norm})"
        return [*tree.text(self._levels(found)[0], self._piece, width=width), chosen]

    def _draw(self, found: "Translated", path: Path) -> None:
        from dlkit.decode import tree
        from dlkit.probe import pictures, translation

        best = found.hypotheses[0]
        title = f"{found.source} -> {best.text}"
        if best.attention is not None:
            pieces = ([_readable(piece) for piece in side] for side in (found.pieces, best.pieces))
            figure = translation.alignment(best.attention, *pieces, title=title)
        else:
            figure = tree.picture(self._levels(found)[0], self._piece, title=title)
        pictures.save(figure, path)
        console.note(f"picture {path} (line {found.number})")


def _readable(piece: str) -> str:
    """A token without SentencePiece's mark of a space before it."""
    return piece.replace("\u2581", " ").strip() or "_"
