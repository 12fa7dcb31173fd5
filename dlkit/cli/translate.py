"""`dlkit translate`: lines of text in, their translations out."""

from typing import Annotated

import typer

from dlkit import console, runs, runtime
from dlkit.cli import options as opt


def translate(
    text: Annotated[
        list[str] | None, typer.Argument(help="What to translate; without it, the lines of standard input.")
    ] = None,
    model: opt.RunModel = None,
    max_len: Annotated[
        int | None, typer.Option("--max-len", min=1, help="Most tokens of an output; default: the recipe's.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Lines at a time, from a file or pipe.")] = 32,
    runs_dir: opt.RunsDir = opt.RUNS_DIR,
) -> None:
    """Translate text, line by line.

    Example: echo "a b c" | dlkit translate --model runs/seq2seq_reverse-1
    """
    lines, size = opt.lines(text, batch_size)
    run = opt.run_or_newest(model, "translation", runs_dir)
    runs.open_run(run)  # before TensorFlow takes its time
    runtime.import_tensorflow()
    from dlkit.tasks.translation import translate_lines

    translated = translate_lines(lines, model=run, max_len=max_len, batch_size=size)
    for number, (source, output, unknown) in enumerate(translated, 1):
        if unknown:
            console.warn(f"line {number}: not in the vocabulary: {' '.join(unknown)}")
        if console.settings.json:
            console.data_json({"source": source, "translation": output, "unknown": unknown})
        else:
            console.data(output)
