"""`dlkit generate`: text out of a language model."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit import console, runtime
from dlkit.cli import options as opt
from dlkit.errors import UsageError

if TYPE_CHECKING:
    from dlkit.tasks.generator import Generated, Generator
    from dlkit.tasks.translator import Search


def generate(
    model: opt.Checkpoint,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="How every text has to begin.")] = "",
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, metavar="N", help="How many texts are drawn, side by side.")
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most probable token at each step.")] = False,
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, metavar="N", help="Search, with so many prefixes kept.")
    ] = None,
    n_best: Annotated[
        int | None, typer.Option("--n-best", min=1, metavar="N", help="Texts of the search, the best first.")
    ] = None,
    length_norm: opt.LengthNorm = None,
    alpha: opt.Alpha = None,
    max_len: Annotated[
        int | None,
        typer.Option(
            "--max-len", min=1, help="Most tokens behind the prefix, a stop token included. Default: the recipe's."
        ),
    ] = None,
    min_len: Annotated[
        int, typer.Option("--min-len", min=0, help="Fewest tokens behind the prefix, a stop token included.")
    ] = 0,
    stop: Annotated[
        str | None,
        typer.Option(
            "--stop",
            metavar="TOKEN",
            help=r"Where a text ends, such as $'\n'. Lines end by themselves, and so do texts of characters where the"
            " model has read many.",
        ),
    ] = None,
    temperature: opt.Temperature = None,
    top_k: opt.TopK = None,
    top_p: opt.TopP = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of what is drawn.  [default: 0]")
    ] = None,
    marginals: Annotated[
        bool,
        typer.Option(
            "--marginals",
            help="Before the texts so many others, of which each word is drawn from what comes at its step, whatever"
            " came before it; of models of lines.",
        ),
    ] = False,
) -> None:
    """Write text with a language model: draw it, or search for what is most probable.

    A text of several lines ends with a line of three dashes when others follow. What is drawn depends on the seed and
    on the number of a sample alone.

    Example: dlkit generate runs/gpt_shakespeare-1 --prefix "ROMEO:" --samples 3 --temperature 0.8
    """
    drawing = {"--temperature": temperature, "--top-k": top_k, "--top-p": top_p, "--seed": seed, "--samples": samples}
    searching = {"--n-best": n_best, "--length-norm": length_norm, "--alpha": alpha}
    _check(drawing, searching, greedy=greedy, beam=beam, n_best=n_best, marginals=marginals)
    from dlkit.recipe import resolve_decode

    runtime.import_tensorflow()
    from dlkit.tasks import generator
    from dlkit.tasks.run_files import open_run_of
    from dlkit.tasks.translator import Search

    run = open_run_of("language_modelling", model)
    flags = {"decode.beams": beam, "decode.length_norm": length_norm, "decode.alpha": alpha, "decode.max_len": max_len}
    decode = resolve_decode(run.recipe["decode"], flags=flags, path=run.path / "recipe.toml")
    if min_len > decode.max_len:
        raise UsageError(f"--min-len {min_len:,} is more than --max-len {decode.max_len:,}", "give a smaller one")
    if marginals and run.info["data"].get("units") != "lines":
        raise UsageError(
            f"--marginals is for models of lines, whose steps have a number, and {run.path} reads one long text",
            "`dlkit train lstm_lm --data three_sentences` trains one",
        )
    generator.check_stop(run.info["data"], stop)
    about_ends = {"--min-len": min_len or None, "--length-norm": length_norm, "--alpha": alpha}
    if stop is None and not generator.ends_by_itself(run.info["data"]) and (given := opt.given(about_ends)):
        raise UsageError(
            f"{given} is about where a text ends, and nothing but --max-len ends the texts of {run.path}",
            f"add --stop, or leave out {given}",
        )
    search = Search(
        method="greedy" if greedy else "beam" if beam else "sample", beams=decode.beams,
        n_best=(n_best if beam else samples) or 1, length_norm=decode.length_norm, alpha=decode.alpha,
        max_len=decode.max_len, min_len=min_len, temperature=1.0 if temperature is None else temperature,
        top_k=top_k or 0, top_p=1.0 if top_p is None else top_p, seed=seed or 0, prefix=prefix,
    )  # fmt: skip
    writer = generator.load(model)
    if marginals:
        _print_both(writer, search)
        return
    if console.settings.json:
        console.data_json([_record(found) for found in writer.each(search, stop=stop)])
        return
    for number, found in enumerate(writer.each(search, stop=stop)):
        if number and run.info["data"]["units"] != "lines":
            console.data("---")
        for line in found.text.split("\n"):
            console.data(line)


def _check(
    drawing: dict[str, Any],
    searching: dict[str, Any],
    *,
    greedy: bool,
    beam: int | None,
    n_best: int | None,
    marginals: bool,
) -> None:
    if greedy and beam is not None:
        raise UsageError("--greedy and --beam are two ways", "give one of them")
    if (greedy or beam is not None) and (given := opt.given(drawing)):
        raise UsageError(f"{given} is for drawing", f"leave out {'--greedy' if greedy else '--beam'}, or {given}")
    if beam is None and (given := opt.given(searching)):
        raise UsageError(f"{given} is about beam search", "add --beam, or leave it out")
    if beam is not None and n_best is not None and n_best > beam:
        raise UsageError(f"--n-best {n_best} of {beam} beams", f"`--beam {n_best}` keeps enough")
    same = "--temperature 0" if drawing["--temperature"] == 0 else "--top-k 1" if drawing["--top-k"] == 1 else ""
    if same and (samples := drawing["--samples"] or 1) > 1:
        raise UsageError(f"--samples {samples} with {same} would be the same text each time", "leave one of them out")
    if (top_p := drawing["--top-p"]) is not None and top_p <= 0:
        raise UsageError(f"--top-p {top_p:g} leaves nothing to draw from", "0.9 is a usual one")
    if marginals and (greedy or beam is not None):
        raise UsageError("--marginals is about drawing", f"leave out {'--greedy' if greedy else '--beam'}")


def _record(found: "Generated") -> dict[str, Any]:
    return {
        "text": found.text,
        "log_probability": found.log_probability,
        "score": found.score,
        "ended": found.ended,
        "tokens": found.pieces,
    }


def _print_both(writer: "Generator", search: "Search") -> None:
    """Texts from the marginals of each step, and texts whose words were fed back."""
    count = search.n_best
    table = writer.marginals(search)
    apart, fed_back = table.draw(count), [found.text for found in writer(replace(search, n_best=count))]
    if console.settings.json:
        console.data_json({"steps": table.table(), "marginals": apart, "fed_back": fed_back})
        return
    for number, step in enumerate(table.table(), 1):
        words = ", ".join(f"{word} {100 * share:.0f} %" for word, share in list(step.items())[:5])
        console.note(f"step {number}  {words}")
    for way, texts in (("each word from its step alone", apart), ("each word fed back", fed_back)):
        for text in texts:
            console.data_row([way, text])
