"""`dlkit caption`: image files in, sentences about them out."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlkit import console, runs, runtime
from dlkit.cli import options as opt
from dlkit.cli.files import check_new, check_picture_name, check_writable
from dlkit.cli.predict import STDIN, inputs
from dlkit.cli.translate import check_search
from dlkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from dlkit.tasks.captioner import Captioned, Captioner
    from dlkit.tasks.translator import Search

PAGE = 36  # images on a page


def caption(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            show_default=False,
            help="Image files, and folders to look for images in. `-`, or none in a pipe, is standard input, which"
            " names one file a line or is an image itself.",
        ),
    ] = None,
    model: opt.NewestModels = None,
    beam: opt.Beam = None,
    n_best: Annotated[
        int,
        typer.Option(
            "--n-best", min=1, metavar="N", help="Captions of each image; a search has at least so many beams."
        ),
    ] = 1,
    length_norm: opt.LengthNorm = None,
    alpha: opt.Alpha = None,
    max_len: opt.MaxLen = None,
    min_len: Annotated[int, typer.Option("--min-len", min=0, help="Fewest tokens of a caption.")] = 0,
    sample: Annotated[bool, typer.Option("--sample", help="Draw captions at random instead of searching.")] = False,
    temperature: opt.Temperature = None,
    top_k: opt.TopK = None,
    top_p: opt.TopP = None,
    seed: opt.SampleSeed = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="How every caption has to begin.")] = "",
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Print the score of each caption before it; of a sample its log-probability."),
    ] = False,
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="Say of each token at which place it looked most, as row,column; with --png draw it. For"
            " captioner_attention.",
        ),
    ] = False,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png",
            metavar="FILE",
            help=f"Draw up to {PAGE} images with their captions, or with --align where each word of the first one"
            " looked, into a new file.",
        ),
    ] = None,
    output: opt.Output = None,
    batch_size: opt.ImagesAtATime = 32,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option("--precision", help="bfloat16: faster where the processor has it.  [default: float32]"),
    ] = None,
    runs_dir: opt.NewestIn = None,
) -> None:
    """Say what is in images in a sentence, one line each.

    Several --model are an ensemble: their probabilities are averaged.

    Example: dlkit caption photo.jpg holiday/ --model runs/captioner_attention_flickr8k-1 --beam 5
    """  # fmt: skip
    from dlkit.cli import lines

    check_writable(output)
    check_picture_name(png)
    check_new(png, "--png")
    check_search(
        {"--length-norm": length_norm, "--alpha": alpha},
        {"--temperature": temperature, "--top-k": top_k, "--top-p": top_p, "--seed": seed},
        sample=sample, beam=beam, n_best=n_best, temperature=temperature, top_k=top_k, top_p=top_p,
        min_len=min_len, max_len=max_len,
    )  # fmt: skip
    names = opt.runs_or_newest(model, "captioning", runs_dir)
    first, *_ = [runs.open_run(name) for name in names]  # before TensorFlow takes its time
    from dlkit.recipe import resolve_decode

    flags = {"decode.beams": beam, "decode.length_norm": length_norm, "decode.alpha": alpha}
    decode = resolve_decode(first.recipe["decode"], flags=flags, path=first.path / "recipe.toml")
    most = max_len or decode.max_len
    if min_len > most:
        raise UsageError(
            f"--min-len {min_len:,} is more than the {most:,} tokens that a caption has at most",
            "give a smaller --min-len, or a larger --max-len",
        )
    with inputs(images or []) as (called, paths):
        runtime.import_tensorflow()
        from dlkit.tasks.captioner import load
        from dlkit.tasks.translator import Search

        search = Search(
            method="sample" if sample else "beam", beams=beam or max(decode.beams, n_best), n_best=n_best,
            length_norm=decode.length_norm, alpha=decode.alpha, max_len=max_len, min_len=min_len,
            temperature=1.0 if temperature is None else temperature, top_k=top_k or 0,
            top_p=1.0 if top_p is None else top_p, seed=seed or 0, prefix=prefix, align=align,
        )  # fmt: skip
        captioner = load(names, precision=precision)
        size = 1 if images == [STDIN] and sys.stdin.isatty() else batch_size
        printer = _Printer(captioner, search, scores=scores, keep=0 if png is None else 1 if align else PAGE)
        failures = lines.Failures()
        with lines.writer(output) as write:
            answers = captioner.each(paths, search, batch_size=size)
            for row in printer.rows(called, answers, failures):
                write(*row)
    if png is not None:
        printer.draw(png)
    failures.end()


class _Printer:
    """Turns the captions of images into rows of output, and keeps the first ones for a picture."""

    def __init__(self, captioner: "Captioner", search: "Search", *, scores: bool, keep: int) -> None:
        self.captioner, self.search, self.scores, self.keep = captioner, search, scores, keep
        self.kept: list[tuple[str, Captioned]] = []

    def rows(
        self, names: Iterable[str], answers: "Iterable[Captioned | DataError]", failures: Any
    ) -> Iterable[list[str]]:
        """A row for each caption; of an image that cannot be read the reason is told, in JSON in a row, too."""
        from dlkit.data.image_files import UnreadableImage

        for name, answer in zip(names, answers, strict=False):
            if isinstance(answer, DataError):  # the other images are still worth an answer
                failure = answer
                if name == STDIN and isinstance(answer, UnreadableImage):
                    failure = UnreadableImage("standard input", answer.reason, answer.hint)
                failures.tell(failure)
                if console.settings.json:
                    yield [console.as_json({"file": name, "error": failure.message})]
                continue
            if len(self.kept) < self.keep:
                self.kept.append((name, answer))
            if len(answer.hypotheses) < self.search.n_best:
                count = f"{len(answer.hypotheses)} of {self.search.n_best} captions"
                console.warn(f"{name}: {count}; there are no others of so many tokens")
            if console.settings.json:
                yield [console.as_json(self._record(name, answer))]
                continue
            for hypothesis in answer.hypotheses:
                cells = [name, f"{hypothesis.score:.4f}"] if self.scores else [name]
                cells.append(hypothesis.text)
                if self.search.align:
                    cells.append(" ".join(f"{row},{column}" for row, column in self._looked(hypothesis)))
                yield cells

    def _places(self, hypothesis: Any) -> Any:
        """The weights of each token, (tokens, rows, columns)."""
        return hypothesis.attention.reshape(-1, *self.captioner.grid)

    def _looked(self, hypothesis: Any) -> list[list[int]]:
        """Row and column of the place that each token looked at most, from 0, the end token left out."""
        columns = self.captioner.grid[1]
        return [list(divmod(int(at), columns)) for at in hypothesis.attention[:-1].argmax(axis=1)]

    def _record(self, name: str, answer: "Captioned") -> dict[str, Any]:
        return {
            "file": name,
            "caption": answer.hypotheses[0].text,
            **({"grid": list(self.captioner.grid)} if self.search.align else {}),
            "hypotheses": [
                {
                    "text": hypothesis.text,
                    "score": hypothesis.score,
                    "log_probability": hypothesis.log_probability,
                    "tokens": hypothesis.pieces,
                    **({"looked": self._looked(hypothesis)} if self.search.align else {}),
                }
                for hypothesis in answer.hypotheses
            ],
        }

    def draw(self, path: Path) -> None:
        """A page of images with their captions, or where each word of one looked."""
        import numpy as np

        from dlkit.probe import captions, pictures

        if not self.kept:
            console.warn(f"{path} is not drawn: no image could be read")
            return
        name, first = self.kept[0]
        if self.search.align:
            best = first.hypotheses[0]
            words = [piece.replace("\u2581", " ").strip() or "_" for piece in best.pieces]
            figure = captions.looks(first.pixels, self._places(best), words, title=f"{name}: {best.text}")
        else:
            texts = [tuple(hypothesis.text for hypothesis in answer.hypotheses[:3]) for _, answer in self.kept]
            pixels = np.stack([answer.pixels for _, answer in self.kept])
            figure = captions.page(pixels, texts, title="Captions of images")
        pictures.save(figure, path)
        console.note(f"picture {path}" + (f" ({name})" if self.search.align else ""))
