"""`dlkit summarize`: what a net costs, layer by layer, before a single weight is drawn."""

import csv
import inspect
import io
import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlkit import console
from dlkit.cli.options import complete_model_or_run
from dlkit.errors import UsageError

if TYPE_CHECKING:
    import keras

    from dlkit.models import Paper
    from dlkit.summary import Row, Sees, Summary

Format = Literal["table", "csv", "markdown"]


def summarize(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            show_default=False,
            autocompletion=complete_model_or_run,
            help="Names of `dlkit models`, runs (runs/x) or checkpoints (runs/x@best).",
        ),
    ],
    *,
    size: Annotated[
        str | None,
        typer.Option("--input", metavar="HxWxC", help="Size of the images; for texts the number of tokens."),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option("--classes", metavar="N", min=1, help="Number of classes; for texts the size of the vocabulary."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="model.KEY=VALUE", help="An option of the builder, such as model.norm=none."),
    ] = None,
    max_depth: Annotated[
        int | None,
        typer.Option("--max-depth", metavar="N", min=1, help="One row for all layers whose first N levels agree."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="For the memory that training takes.")
    ] = 128,
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw"],
        typer.Option("--optimizer", help="For the same; sgd keeps one value a weight (momentum), the others two."),
    ] = "adamw",
    precision: Annotated[
        Literal["float32", "bfloat16", "float64"],
        typer.Option("--precision", help="For the same; bfloat16 halves the activations, weights stay float32."),
    ] = "float32",
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the arithmetic of each count, and a conv's size as a dense layer.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="One row for each model instead of its layers.")] = False,
    layout: Annotated[Format, typer.Option("--format", help="How tables are printed.")] = "table",
) -> None:
    """Print parameters, shapes, multiply-adds, FLOPs, memory and receptive field of every layer.

    One multiply-add is two FLOPs; biases, norms, poolings and activations are not counted. Memory is what the backward
    pass keeps for one example. Levels of a name are parted by _: with --max-depth 1, stage2_block1_conv2 belongs to
    stage2.

    Example: dlkit summarize alexnet --explain
    """
    if compare and (explain or max_depth):
        unread = "--explain" if explain else "--max-depth"
        raise UsageError(f"{unread} is about layers, and --compare prints none", "leave one of the two out")
    if console.settings.json and layout != "table":
        raise UsageError(f"--json and --format {layout} exclude each other", "leave one of the two out")
    loaded = [_load(each, size, classes, _options(sets or []), precision) for each in model]
    for note in dict.fromkeys(note for whole, _ in loaded for note in whole.notes):
        console.note(note)
    totals = [_totals(whole, paper, batch_size, optimizer) for whole, paper in loaded]
    parts = [whole.grouped(max_depth) if max_depth else whole for whole, _ in loaded]
    if console.settings.json:
        layers = [{} if compare else {"layers": _records(part, explain)} for part in parts]
        reports = [total | rows for total, rows in zip(totals, layers, strict=True)]
        console.data_json(reports[0] if len(reports) == 1 and not compare else reports)
    elif compare and layout == "csv":
        _print_csv(totals)
    elif compare:
        _print_table([_compared(total) for total in totals], layout)
    elif layout == "csv":
        _print_csv([{"model": part.model} | record for part in parts for record in _records(part, explain)])
    else:
        for part, total in zip(parts, totals, strict=True):
            _print_summary(part, total, layout, explain)
            if total is not totals[-1]:
                console.data("")


# ------------------------------------------------------------------------------------------------------- what to build


def _load(
    operand: str, size: str | None, classes: int | None, options: dict[str, Any], precision: str
) -> "tuple[Summary, Paper | None]":
    """Builds the model without allocating its weights, and summarizes it."""
    from dlkit import models, runs, runtime

    runtime.import_tensorflow()
    from dlkit.summary import summarize, unallocated

    is_name = operand in models.names() or not runs.is_run(operand)
    if not is_name and (size or classes or options):
        raise UsageError(f"{operand} is a run, whose model is settled", "--input, --classes and --set are for names")
    with unallocated():
        name, net, inputs = _of_name(operand, size, classes, options) if is_name else _of_run(operand)
        summary = replace(summarize(net, inputs, precision=precision), model=operand)
    return summary, models.paper(name)


def _of_name(
    name: str, size: str | None, classes: int | None, options: dict[str, Any]
) -> "tuple[str, keras.Model, Any]":
    """The model, and for a sequence model its inputs; its vocabularies and lengths are those of the task's own data."""
    import keras

    from dlkit import models
    from dlkit.tasks import TASKS

    if "input_shape" in inspect.signature(models.builder(name)).parameters:
        shape = {"input_shape": _sizes(size, "HxWxC")} if size else {}
        return name, models.build(name, **shape, **({"classes": classes} if classes else {}), **options), None
    from dlkit.tasks.task import open_task

    kind = models.task_of(name)
    task = open_task(kind, {"name": TASKS[kind].default_data})
    from_data, inputs = task.model_arguments(), task.example_inputs()
    if classes:
        of_words = [key for key in from_data if key.endswith("vocabulary")]
        of_classes = from_data.keys() & {"outputs", "classes"} or of_words  # those of what is written: its vocabulary
        from_data |= dict.fromkeys(of_classes, classes)
    if size and "image_shape" in from_data:
        from_data["image_shape"] = _sizes(size, "HxWxC")
        inputs = (keras.KerasTensor((1, *from_data["image_shape"]), "float32"), *inputs[1:])
    elif size:
        (tokens,) = _sizes(size, "N")
        inputs = keras.tree.map_structure(lambda x: keras.KerasTensor((1, tokens, *x.shape[2:]), x.dtype), inputs)
    if not (classes and size):
        console.note(f"{name}: what is not given is taken from {TASKS[kind].default_data}")
    return name, models.build(name, **(from_data | options)), inputs


def _of_run(operand: str) -> "tuple[str, keras.Model, Any]":
    from dlkit import runs
    from dlkit.tasks.task import open_task

    run = runs.open_run(operand)
    task = open_task(run.task, run.recipe["data"], info=run.info["data"], folder=run.path)
    return str(run.recipe["model"]["name"]), runs.build_model(operand), task.example_inputs()


def _sizes(text: str, form: str) -> tuple[int, ...]:
    """The numbers of `--input`, as many as `form` has."""
    if not re.fullmatch("x".join([r"[1-9]\d{0,6}"] * (form.count("x") + 1)), text):
        raise UsageError(f"--input {text} is not of the form {form}", "such as 224x224x3, or 10 for a sequence model")
    return tuple(int(number) for number in text.split("x"))


def _options(sets: list[str]) -> dict[str, Any]:
    from dlkit.recipe import parse_override

    options = {}
    for key, text in map(parse_override, sets):
        section, _, name = key.partition(".")
        if section != "model":
            raise UsageError(f"--set {key} does not change a model", "summarize takes --set model.key=value")
        try:
            options[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            options[name] = text
    return options


# -------------------------------------------------------------------------------------------------------- what to print


def _totals(summary: "Summary", paper: "Paper | None", batch_size: int, optimizer: str) -> dict[str, Any]:
    """The totals of a net, as plain numbers."""
    memory = summary.training_memory(batch_size=batch_size, optimizer=optimizer)
    return {
        "model": summary.model,
        "input": summary.inputs[0] if len(summary.inputs) == 1 else summary.inputs,
        "output": summary.output,
        "stem": summary.stem or None,
        "parameters": summary.parameters,
        "trainable": summary.trainable,
        "statistics": summary.statistics,
        "multiply_adds": summary.multiply_adds,
        "flops": summary.flops,
        "activation_bytes": summary.activation_bytes,
        "receptive_field": _sees(summary.sees),
        "precision": summary.precision,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "training_bytes": {**asdict(memory), "total": memory.total},
        "most_parameters": dict(summary.most("parameters")),
        "most_memory": dict(summary.most("activation_bytes")),
        "paper": asdict(paper) if paper else None,
        "notes": summary.notes,
    }


def _records(summary: "Summary", explain: bool) -> list[dict[str, Any]]:
    """The layers of a net, as plain numbers; `explain` adds the arithmetic."""
    return [
        {
            "name": row.name,
            "type": row.kind,
            "output": row.output,
            "parameters": row.parameters,
            "trainable": int(row.trainable),
            "statistics": int(row.statistics),
            "multiply_adds": int(row.multiply_adds),
            "flops": row.flops,
            "activation_bytes": row.activation_bytes,
            "receptive_field": _sees(row.sees),
        }
        | (_arithmetic(row) if explain else {})
        for row in summary.rows
    ]


def _arithmetic(row: "Row") -> dict[str, Any]:
    return {
        "trainable_arithmetic": str(row.trainable),
        "statistics_arithmetic": str(row.statistics),
        "multiply_adds_arithmetic": str(row.multiply_adds),
        "dense_weights": int(row.dense) if row.dense else None,
        "dense_arithmetic": str(row.dense) if row.dense else None,
    }


def _sees(sees: "Sees") -> int | str | list[int] | None:
    """A number for a square field."""
    if isinstance(sees, tuple):
        return list(sees) if len(set(sees)) > 1 else max(sees, default=1)
    return sees


def _print_csv(records: list[dict[str, Any]]) -> None:
    """Plain numbers under one line of titles; shapes as HxWxC, nested values as `key_inner`."""
    flat = [dict(_flat(record)) for record in records]
    titles = list(dict.fromkeys(title for record in flat for title in record))
    lines: list[list[Any]] = [titles, *([record.get(title) for title in titles] for record in flat)]
    for cells in lines:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(["" if cell is None else cell for cell in cells])
        console.data(line.getvalue())


def _flat(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if key in {"most_parameters", "most_memory", "notes"}:
            yield key, "; ".join(value)
        elif isinstance(value, dict):
            yield from ((f"{key}_{inner}", each) for inner, each in value.items())
        else:
            yield key, _shape(value) if isinstance(value, list | tuple) else value


def _print_summary(summary: "Summary", totals: dict[str, Any], layout: Format, explain: bool) -> None:
    """The net's line, its layers, with `explain` their arithmetic, and the totals in words."""
    stem = f", stem {totals['stem']}" if totals["stem"] else ""
    title = f"{summary.model}  {_shape(totals['input'])} -> {_shape(totals['output'])}{stem}"
    console.data(f"## {title}" if layout == "markdown" else title)
    if layout == "markdown":
        console.data("")
    _print_table([*map(_cells, summary.rows), _total_cells(totals)], layout)
    if explain:
        console.data("")
        _print_table([_explained(row) for row in summary.rows if row.parameters or int(row.multiply_adds)], layout)
    console.data("")
    for line in _in_words(totals):
        console.data(f"- {line}" if layout == "markdown" else line)


def _print_table(rows: list[dict[str, str]], layout: Format) -> None:
    titles = [title for title in rows[0] if any(row[title].strip("-") for row in rows)]
    cells = [[row[title] for title in titles] for row in rows]
    if layout == "table":
        console.table(titles, cells, right=_NUMBERS)
        return
    console.data(_markdown(titles))
    console.data(_markdown(["---:" if title in _NUMBERS else "---" for title in titles]))
    for line in cells:
        console.data(_markdown(line))


def _markdown(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in cells) + " |"


_NUMBERS = {
    "trainable",
    "statistics",
    "multiply-adds",
    "FLOPs",
    "memory",
    "sees",
    "parameters",
    "activations",
    "training",
}


def _cells(row: "Row") -> dict[str, str]:
    return {
        "layer": row.name,
        "type": row.kind,
        "output": _shape(row.output),
        "trainable": _exact(int(row.trainable)),
        "statistics": _exact(int(row.statistics)),
        "multiply-adds": _short(int(row.multiply_adds)),
        "FLOPs": _short(row.flops),
        "memory": _bytes(row.activation_bytes),
        "sees": _shape(_sees(row.sees)),
    }


def _total_cells(totals: dict[str, Any]) -> dict[str, str]:
    return {
        "layer": "total",
        "type": "",
        "output": "",
        "trainable": _exact(totals["trainable"]),
        "statistics": _exact(totals["statistics"]),
        "multiply-adds": _short(totals["multiply_adds"]),
        "FLOPs": _short(totals["flops"]),
        "memory": _bytes(totals["activation_bytes"]),
        "sees": "",
    }


def _compared(totals: dict[str, Any]) -> dict[str, str]:
    return {
        "model": totals["model"],
        "input": _shape(totals["input"]),
        "stem": totals["stem"] or "-",
        "trainable": _exact(totals["trainable"]),
        "statistics": _exact(totals["statistics"]),
        "multiply-adds": _short(totals["multiply_adds"]),
        "FLOPs": _short(totals["flops"]),
        "activations": _bytes(totals["activation_bytes"]),
        "training": _bytes(totals["training_bytes"]["total"]),
        "sees": _shape(totals["receptive_field"]),
        "published": (totals["paper"] or {}).get("parameters") or "-",
    }


def _explained(row: "Row") -> dict[str, str]:
    statistics = f", statistics {row.statistics} = {int(row.statistics):,}" if int(row.statistics) else ""
    return {
        "layer": row.name,
        "its parameters": f"{row.trainable} = {int(row.trainable):,}{statistics}" if row.parameters else "-",
        "its multiply-adds": f"{row.multiply_adds} = {int(row.multiply_adds):,}" if int(row.multiply_adds) else "-",
        "as a dense layer": f"{row.dense} = {int(row.dense):,} weights" if row.dense else "-",
    }


def _in_words(totals: dict[str, Any]) -> Iterator[str]:
    """The totals, where they sit, what the paper says and what training takes."""
    statistics = f" and {totals['statistics']:,} statistics" if totals["statistics"] else ""
    yield f"parameters: {totals['trainable']:,}{statistics}{_published(totals)}"
    yield (
        f"for one example: {_short(totals['multiply_adds'])} multiply-adds = {_short(totals['flops'])} FLOPs"
        " (1 multiply-add = 2 FLOPs)"
    )
    for key, what in (("most_parameters", "most parameters"), ("most_memory", "most memory")):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in totals[key].items())
        yield f"{what}: {shares or 'none'}"
    memory = totals["training_bytes"]
    kinds = " + ".join(
        f"{kind} {_bytes(memory[kind])}" for kind in ("weights", "gradients", "optimizer", "activations")
    )
    yield (
        f"training at batch {totals['batch_size']} with {totals['optimizer']} in {totals['precision']}: "
        f"{kinds} = {_bytes(memory['total'])}"
    )
    if totals["paper"]:
        yield f"paper: {totals['paper']['title']}"


def _published(totals: dict[str, Any]) -> str:
    """What was published, and whether our count rounds to it: "; published 60 million (the paper), ours +4.0 %"."""
    paper = totals["paper"] or {}
    match = re.match(r"([\d,]*\d)(?:\.(\d+))?( million)?", paper.get("parameters", ""))
    if not match:
        return ""
    whole, decimals, million = match[1].replace(",", ""), match[2] or "", match[3]
    unit = 10.0 ** ((6 if million else 0) - len(decimals))
    published = int(whole + decimals) * unit
    ours = totals["trainable"]
    verdict = "the same" if abs(ours - published) <= unit / 2 else f"here {ours / published - 1:+.1%}"
    source = f" ({paper['source']})" if paper["source"] else ""
    return f"; published: {paper['parameters']}{source}, {verdict}"


def _shape(shape: Any) -> str:
    """`224x224x3`; shapes of several inputs are parted by commas."""
    if shape is None or shape == ():
        return "-"
    if not isinstance(shape, list | tuple):
        return str(shape)
    if isinstance(shape[0], list | tuple):
        return ", ".join(_shape(each) for each in shape)
    return "x".join(str(size) for size in shape)


def _exact(number: int) -> str:
    return f"{number:,}" if number else "-"


def _short(number: int) -> str:
    """Exact below 100,000, then in millions (M) and from ten billion on in billions (G)."""
    if number < 100_000:
        return _exact(number)
    if number < 10**7:
        return f"{number / 1e6:,.2f} M"
    return f"{number / 1e6:,.1f} M" if number < 10**10 else f"{number / 1e9:,.1f} G"


def _bytes(number: int) -> str:
    if number < 1000:
        return f"{number} B" if number else "-"
    power = 1 if number < 1000 * 1024 else 2 if number < 1000 * 1024**2 else 3
    return f"{number / 1024**power:,.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"
