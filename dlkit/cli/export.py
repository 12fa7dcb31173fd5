"""`dlkit export`: a trained net as other programs read it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlkit import console
from dlkit.cli import options as opt
from dlkit.errors import UsageError
from dlkit.export import bundle, ctranslate2


def export(
    run: opt.Checkpoint,
    to: Annotated[
        Literal["ctranslate2", "bundle"],
        typer.Option("--to", help="ctranslate2: a Transformer, served without dlkit. bundle: a small run to pass on."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where to; by default export/FORMAT in the run."),
    ] = None,
    quantization: Annotated[
        ctranslate2.Quantization | None,
        typer.Option(
            "--quantization",
            help="How weights are stored; int8 is smallest and fastest.  [default: float32, of a bundle float16]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a trained net as other programs read it, or as a small run to pass on.

    With --to ctranslate2 a Transformer becomes a folder for CTranslate2, with its tokenizers and a translate.py that
    needs ctranslate2 and sentencepiece alone. With --to bundle any run becomes one with the weights of one checkpoint
    and no more: it can stand wherever a run can, and cannot be resumed. An earlier export of the same name is replaced.

    Example: dlkit export runs/transformer_tatoeba-1 --to ctranslate2 --quantization int8
    """
    if to == "ctranslate2":
        stored = quantization or "float32"
        folder, use = ctranslate2.write(run, output, quantization=stored), "python {}/translate.py < lines.txt"
    elif quantization in (None, "float16", "float32"):
        stored = quantization or "float16"
        folder, use = bundle.write(run, output, storage=stored), "dlkit runs show {}"
    else:
        raise UsageError(f"a bundle is not stored in {quantization}", "float16 and float32 are possible")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if console.settings.json:
        console.data_json({"folder": str(folder), "to": to, "quantization": stored, "bytes": size})
        return
    console.data(str(folder))
    console.note(f"{size / 1e6:.1f} MB, weights in {stored}")
    console.note(f"next: {use.format(folder)}")
