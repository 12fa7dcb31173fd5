"""`dlkit evaluate`: the loss and metrics of a run on a split; of two runs, which is better; of several, together."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlkit import console, runs, runtime
from dlkit.cli import options as opt
from dlkit.cli.files import check_writable, new_file, picture_path
from dlkit.cli.lines import writer
from dlkit.errors import UsageError
from dlkit.tasks import POINTS, TASKS
from dlkit.train.setting import About, Setting, about_writing, check_about, not_together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_CLASSES = 20  # more are listed only when --per-class asks for them

# The metrics of a classifier beside those of the task: key -> title.
OF_CLASSES = {"top_5": "top-5", "macro_f1": "macro F1", "ece": "calibration error", "brier": "Brier score"}
# Those of a model that tells numbers.
OF_NUMBERS = {"mae": "mean absolute error", "r2": "R2", "mean_mse": "mse of always the mean"}
# The others are shares, told in percent.
PLAIN = {"loss", "own_words_loss", "brier", "perplexity", "bits_per_character", "cider", "mse", *OF_NUMBERS}
# Those of translations that have other titles than names.
OF_TRANSLATIONS = {
    "accuracy": "token accuracy", "bleu": "BLEU", "chrf": "chrF", "own_words_loss": "loss, own words read"
}  # fmt: skip
# And of captions; their metric `bleu` is of order 4.
OF_CAPTIONS = {
    "accuracy": "token accuracy", "exact": "exact", "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3",
    "bleu": "BLEU-4", "cider": "CIDEr-D",
}  # fmt: skip


@dataclass(frozen=True)
class _Tables:
    """Which tables beside the metrics are wanted."""

    per_class: bool | None
    confusion: bool
    reliability: bool

    @property
    def asked(self) -> str | None:
        """An option that is about one, if there is any."""
        flags = {
            "--per-class": self.per_class is True, "--no-per-class": self.per_class is False,
            "--confusion": self.confusion, "--reliability": self.reliability,
        }  # fmt: skip
        return opt.given(flags)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            show_default=False,
            autocompletion=opt.complete_run,
            callback=opt.all_with_weights,
            help="A run (runs/x: its best weights) or a checkpoint (runs/x@last, runs/x@step-1200); several are"
            " compared, or with --ensemble averaged. After them, with --png, the new FILE.png to write; by default"
            " into the run, replacing the last one; with --ensemble into this folder.",
        ),
    ],
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="train, validation or test.")] = "test",
    weights: Annotated[
        Literal["auto", "raw", "ema"],
        typer.Option("--weights", help="auto: the moving average when the run keeps one."),
    ] = "auto",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            autocompletion=opt.complete_data,
            help="Another dataset, with classes of the same names or in the run's languages: of `dlkit data list`, a"
            " folder, or files of pairs. What has no splits is tested on as a whole.",
        ),
    ] = None,
    data_dir: opt.DataDir = None,
    on_bad: opt.OnBad = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Does not change the result.")] = 256,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use this many examples.")] = None,
    devices: opt.Devices = "auto",
    source: Annotated[
        str | None,
        typer.Option("--source", help="Language, or number of the column, to translate from; of --data with pairs."),
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="The same of the references.")] = None,
    beam: opt.Beam = None,
    length_norm: opt.LengthNorm = None,
    alpha: opt.Alpha = None,
    max_len: opt.MaxLen = None,
    lowercase: Annotated[
        bool, typer.Option("--lowercase", help="BLEU and chrF of lower-cased texts; their signatures say so.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write translations or captions, complete or not at all."),
    ] = None,
    own_words: Annotated[
        bool,
        typer.Option("--own-words", help="Also tell the loss when the decoder reads words that it drew itself."),
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Average the outputs for each image and for its mirror image; for classes that a mirror leaves alone.",
        ),
    ] = False,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="Several runs together, or one with several heads: averaged, by majority vote, and how they differ.",
        ),
    ] = False,
    shuffle_images: Annotated[
        bool, typer.Option("--shuffle-images", help="Caption another image of the split: what is guessed blindly.")
    ] = False,
    constant: Annotated[
        bool, typer.Option("--constant", help="Take one training caption for all images: the other blind baseline.")
    ] = False,
    per_class: Annotated[
        bool | None,
        typer.Option(
            "--per-class/--no-per-class",
            show_default=False,
            help=f"List precision, recall and F1 of each class; by default of up to {FEW_CLASSES} classes.",
        ),
    ] = None,
    confusion: Annotated[bool, typer.Option("--confusion", help="Print the confusion matrix.")] = False,
    reliability: Annotated[
        bool, typer.Option("--reliability", help="Print how often it is right when it is how sure.")
    ] = False,
    png: Annotated[
        bool,
        typer.Option(
            "--png",
            help="Draw the confusion matrix and the reliability diagram; of translations, how good they are by length;"
            " of captions, some images with theirs; of sequences of numbers, how they were learned and what is told.",
        ),
    ] = False,
) -> None:
    """Evaluate a run on a split of its data, or compare runs on the same examples.

    Intervals hold the true value in 95 of 100 cases: Wilson's for a share, that of Agresti and Min for the difference
    of two runs, by bootstrap for BLEU and chrF of translations. Whether one of two is better, McNemar's exact test
    says, and of translations a paired bootstrap. BLEU and chrF compare with the texts as they are, and tell sacrebleu's
    signatures. Captions are compared with all of an image's: BLEU-1 to BLEU-4 and CIDEr-D, without intervals.

    Example: dlkit evaluate runs/lenet_digits-1 runs/mlp_digits-1 --split validation
    """  # fmt: skip
    tables = _Tables(per_class, confusion, reliability)
    operands, file = opt.runs_and_file(models, {".png": png}, verb="evaluate")
    check_writable(output)
    setting = Setting(
        split=split, weights=weights, data=data, data_dir=data_dir, batch_size=batch_size, limit=limit, on_bad=on_bad,
        source=source, target=target,
        decode={
            "decode.beams": beam, "decode.length_norm": length_norm, "decode.alpha": alpha, "decode.max_len": max_len
        },
        lowercase=lowercase, mirror=mirror, own_words=own_words, shuffle_images=shuffle_images, constant=constant,
    )  # fmt: skip
    if ensemble and (own := tables.asked or opt.given({"--output": output, "--own-words": own_words})):
        raise not_together(own)
    first, *others = _checked(operands, setting, tables, picture=png and not ensemble, output=output)
    if data is None and limit is None:
        for run in (first, *others):
            if few := run.recipe["train"].get("limit"):
                console.note(f"{run.path} was trained with `--limit {few}`, and its figures are of so many examples")
    drawn = "evaluation" if len(operands) == 1 else "comparison"
    path = None
    if png:
        path = new_file(file, "ensemble") if ensemble else picture_path(first, drawn, file)
    runtime.import_tensorflow()
    if ensemble:
        _ensemble(operands, setting, devices, picture=path)
    elif len(operands) > 1:
        _compare(operands, setting, devices, picture=path)
    else:
        _evaluate(operands[0], setting, devices, tables, picture=path, output=output)


def _checked(
    operands: list[str], setting: Setting, tables: _Tables, *, picture: bool, output: Path | None
) -> list[runs.Run]:
    """The runs. Says what is wrong before TensorFlow takes its time."""
    from dlkit.recipe import resolve_decode

    opened = [runs.open_run(text) for text in operands]
    one_run = tables.asked or opt.given({"--output": output})
    if picture and (TASKS[opened[0].task].classifies or TASKS[opened[0].task].data_kind == "captions"):
        one_run = one_run or "--png"
    if one_run and len(opened) > 1:
        raise UsageError(f"{one_run} is about one run, and here are {len(opened)}", "name one run")
    asked = [About(tables.asked, "classes", lambda task: task.classifies)] if tables.asked else []
    asked += [about_writing("--output")] if output else []
    for run in opened:
        task = TASKS[run.task]
        if picture and task.data_kind == "corpus":
            raise UsageError(
                f"there is nothing to draw of what is tested of {run.path}, a run of {task.title}",
                f"leave out --png; `dlkit plot {run.shown}` draws how it was trained",
            )
        check_about([*asked, *setting.asked.values()], run)
        if task.generates:
            resolve_decode(run.recipe["decode"], flags=setting.decode, path=run.path / "recipe.toml")
    return opened


# ------------------------------------------------------------------------------------------------------------- one run


def _evaluate(
    operand: str,
    setting: Setting,
    devices: str,
    tables: _Tables,
    *,
    picture: Path | None,
    output: Path | None,
) -> None:
    from dlkit.train.run_evaluation import evaluate_run

    of_captions = TASKS[runs.open_run(operand).task].data_kind == "captions"
    keep = partial(_draw_captions, setting, picture) if picture and of_captions else None
    with writer(output) if output else nullcontext() as write:
        result = evaluate_run(operand, setting, devices=devices, write=write, keep=keep)
    if picture and not of_captions:
        _draw([result], picture)
    files = {"picture": picture, "output": output}
    if console.settings.json:
        console.data_json(result | {name: str(path) for name, path in files.items() if path})
        return
    _tell(result)
    rows = []
    for name, title in _titles(result).items():
        interval, count = result["intervals"].get(name), result["examples"]
        of_all = f"{round(result[name] * count):,} of {count:,}" if interval and name not in POINTS | PLAIN else ""
        rows.append((title, _value(name, result[name]), _interval(name, interval) if interval else "", of_all))
    console.table(["metric", "value", "95 % interval", "count"], rows, right=["value", "95 % interval", "count"])
    if TASKS[result["task"]].classifies:
        _print_classes(result, tables)
    _tell_signatures(result)
    if "by_length" in result:
        _print_by_length(result["by_length"])
    if "mse_by_length" in result:
        _print_mse_by_length([result])
    for name, path in files.items():
        if path:
            console.note(f"{name} {path}")


def _tell(result: Mapping[str, Any]) -> None:
    """What was evaluated, on what, and how outputs were searched for."""
    also = ", averaged with mirror images" if result.get("mirrored") else ""
    also += ", images shuffled" if result.get("shuffled_images") else ""
    console.note(f"{result['checkpoint']}, {result['weights']} weights, {_examples(result)}{also}")
    for remark in result.get("remarks", ()):
        console.note(remark)
    if unknown := result.get("unknown"):
        console.note(f"unknown: {unknown:.2%} of the tokens, of whose text nothing is foretold")
    if "constant" in result:
        console.note(f"one caption for all images, of the training data: {console.safe(result['constant'])}")
    if search := result.get("search"):
        beams, norm = search["beams"], search["length_norm"]
        norm = f"length norm {norm}" + (f" with alpha {search['alpha']:g}" if norm == "gnmt" else "")
        how = f"{beams} beams, {norm}" if beams > 1 else "greedy"
        console.note(f"search {how}, at most {search['max_len']} tokens")


def _tell_signatures(result: Mapping[str, Any]) -> None:
    for name, signature in result.get("signatures", {}).items():
        console.note(f"{OF_TRANSLATIONS[name]:<4} {signature}")


def _print_by_length(records: Sequence[Mapping[str, Any]]) -> None:
    """A row for each range of lengths, after an empty line."""
    titles = {"exact": "exact", "bleu": "BLEU", "chrf": "chrF", "length_ratio": "length ratio"}
    titles = {name: title for name, title in titles.items() if any(record[name] is not None for record in records)}
    columns = ["words of reference", "sentences", *titles.values()]
    rows = [
        (_words(record), f"{record['sentences']:,}", *(_value(name, record[name]) for name in titles))
        for record in records
    ]
    console.data("")
    console.table(columns, rows, right=columns)


def _print_mse_by_length(results: Sequence[Mapping[str, Any]]) -> None:
    """A row for each range of lengths, a column for each run, after an empty line."""
    of_runs = ["mse"] if len(results) == 1 else [f"mse, {result['run']}" for result in results]
    columns = ["steps", "sequences", *of_runs]
    parts = zip(*(result["mse_by_length"] for result in results), strict=True)
    rows = [
        (_words(part[0]), f"{part[0]['examples']:,}", *(_value("mse", record["mse"]) for record in part))
        for part in parts
    ]
    console.data("")
    console.table(columns, rows, right=columns)


def _words(record: Mapping[str, Any]) -> str:
    low, high = record["shortest"], record["longest"]
    return f"{low} to {high}" if low < high else f"{low}"


def _titles(result: Mapping[str, Any]) -> dict[str, str]:
    """The metrics of a result in their order, key -> title."""
    task = TASKS[result["task"]]
    names = {name: name for name in task.metrics} | (OF_CLASSES if task.classifies else OF_TRANSLATIONS)
    if task.data_kind == "sequences":
        names |= OF_NUMBERS | {"accuracy": "accuracy"}
    if task.data_kind == "captions":
        names = {"loss": "loss", "own_words_loss": OF_TRANSLATIONS["own_words_loss"]} | OF_CAPTIONS
    return {name: title for name, title in names.items() if name in result}


def _examples(result: Mapping[str, Any]) -> str:
    return f"{result['examples']:,} examples of {result['data']}, {result['split']}"


def _title(result: Mapping[str, Any]) -> str:
    """The same over a picture, where there is no room for a path."""
    from dlkit.probe.pictures import own_name

    return _examples({**result, "data": own_name(result["data"])})


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name in POINTS | {"length_ratio"}:
        return f"{value:.2f}"
    return f"{value:.4f}" if name in PLAIN else _percent(value)


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f} %"


def _interval(name: str, interval: Sequence[float]) -> str:
    if name in PLAIN:
        return "{:.4f} to {:.4f}".format(*interval)
    return "{:.2f} to {:.2f}".format(*interval) if name in POINTS else _range(interval)


def _range(interval: Sequence[float]) -> str:
    return "{:.2f} to {:.2f} %".format(*(100 * limit for limit in interval))


def _print_classes(result: Mapping[str, Any], tables: _Tables) -> None:
    """What there is to say class by class, each table after an empty line."""
    records = result["classes"]
    shares = ["precision", "recall", "f1"]
    if tables.per_class or (tables.per_class is None and len(records) <= FEW_CLASSES):
        rows = [(r["class"], *(_percent(r[key]) for key in shares), f"{r['support']:,}") for r in records]
        columns = ["class", "precision", "recall", "F1", "support"]
        console.data("")
        console.table(columns, rows, right=columns[1:])
    if result["most_confused"]:
        rows = [(r["class"], r["predicted"], f"{r['count']:,}", _percent(r["share"])) for r in result["most_confused"]]
        columns = ["true class", "taken for", "count", "share of the class"]
        console.data("")
        console.table(columns, rows, right=columns[2:])
    if tables.reliability:
        columns = ["confidence", "examples", "mean confidence", "accuracy"]
        rows = [
            (
                _range((r["above"], r["up_to"])),
                f"{r['examples']:,}",
                _percent(r["confidence"]),
                _percent(r["accuracy"]),
            )
            for r in result["reliability"]
        ]
        console.data("")
        console.table(columns, rows, right=columns)
    if tables.confusion:
        _print_confusion([r["class"] for r in records], result["confusion"])


def _print_confusion(classes: list[str], matrix: list[list[int]]) -> None:
    """A row for each true class. Where names are long the columns have numbers, which stand before the rows' names."""
    headings, labels = classes, classes
    if max(map(len, classes)) > 4:
        headings = [str(at) for at in range(len(classes))]
        labels = [f"{at} {name}" for at, name in enumerate(classes)]
    cells = [[f"{count}" if count else "." for count in row] for row in matrix]
    widest = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    if max(map(len, labels)) + sum(widest) + 2 * len(classes) > console.width("stdout"):
        hint = "`--png` draws it, `| less -S` shows it, --json has it"
        console.warn(f"the confusion matrix of {len(classes)} classes is wider than this terminal: {hint}")
        return
    console.data("")
    rows = [(label, *row) for label, row in zip(labels, cells, strict=True)]
    console.table(["true", *headings], rows, right=headings)


def _draw_captions(setting: Setting, path: Path, task: Any, written: Any) -> None:
    """Evenly spaced images of the split, each with its caption and one that a person wrote."""
    import numpy as np

    from dlkit.probe import captions, pictures

    above = "what the run says"
    if setting.shuffle_images:
        above = "what the run says of another image"
    elif setting.constant:
        above = "one training caption"
    rows = np.unique(np.linspace(0, len(written.outputs) - 1, min(len(written.outputs), 24)).astype(np.int64))
    figure = captions.page(
        task.data.splits[setting.split].images.fetch(rows),
        [(written.outputs[row], written.references[row][0]) for row in rows.tolist()],
        title=f"{pictures.own_name(task.options['name'])}, {setting.split}: above {above}, below what a person said",
    )
    pictures.save(figure, path)


def _draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A classifier's mistakes; or of translators how good they are by length."""
    from dlkit.probe import pictures

    classifies = TASKS[results[0]["task"]].classifies
    if TASKS[results[0]["task"]].data_kind == "sequences":
        pictures.save(_picture_of_sequences(results), path)
        return
    pictures.save(_picture_of_classes(results[0]) if classifies else _picture_by_length(results), path)


def _picture_of_classes(result: Mapping[str, Any]) -> "Figure":
    import numpy as np

    from dlkit.metrics import Reliability
    from dlkit.probe import classification

    bins = Reliability(*(np.array([bin_[key] for bin_ in result["reliability"]]) for key in Reliability._fields))
    figures = ", ".join(f"{title} {_value(name, result[name])}" for name, title in _titles(result).items())
    return classification.picture(
        np.array(result["confusion"]), [r["class"] for r in result["classes"]], bins,
        name=result["run"], title=_title(result), subtitle=figures,
    )  # fmt: skip


def _picture_by_length(results: Sequence[Mapping[str, Any]]) -> "Figure":
    from dlkit.probe import translation

    name, scale = ("bleu", 1) if "bleu" in results[0] else ("exact", 100)
    values = {
        result["run"]: [math.nan if record[name] is None else scale * record[name] for record in result["by_length"]]
        for result in results
    }
    return translation.by_length(
        [(record["shortest"], record["longest"]) for record in results[0]["by_length"]], values,
        measure=OF_TRANSLATIONS.get(name, f"{name}, %"), title=_title(results[0]),
    )  # fmt: skip


def _picture_of_sequences(results: Sequence[Mapping[str, Any]]) -> "Figure":
    from dlkit.probe import sequences
    from dlkit.train.sequence_quality import curve

    first = results[0]
    name = next(name for name in ("mse", "recalled", "accuracy") if name in first)
    scale, unit = (1, "mean squared error") if name == "mse" else (100, f"{name}, %")
    memoryless = first["memoryless"].get(name, first.get("mean_mse"))
    parts = [result.get("mse_by_length", []) for result in results]
    return sequences.picture(
        {
            result["run"]: [
                (step, scale * value)
                for step, value in curve(runs.open_run(result["run"]).metrics(), name, result["weights"])
            ]
            for result in results
        },
        {result["run"]: scale * result[name] for result in results},
        measure=unit, title=_title(first), logarithmic=name == "mse",
        memoryless=None if memoryless is None else scale * memoryless,
        points=first.get("points", []) if len(results) == 1 else [],
        lengths=[(record["shortest"], record["longest"]) for record in parts[0]],
        by_length={
            result["run"]: [record["mse"] for record in part]
            for result, part in zip(results, parts, strict=True) if part
        },
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- several runs


def _ensemble(operands: list[str], setting: Setting, devices: str, *, picture: Path | None) -> None:
    from dlkit.cli.ensemble import tell
    from dlkit.train.ensembles import evaluate_ensemble

    tell(evaluate_ensemble(operands, setting, devices=devices), picture=picture)


def _compare(operands: list[str], setting: Setting, devices: str, *, picture: Path | None) -> None:
    from dlkit.train.comparison import compare_runs

    compared = compare_runs(operands, setting, devices=devices)
    results = compared["runs"]
    verdict = _verdict(compared["paired"], operands) if "paired" in compared else ""
    if picture:
        _draw(results, picture)
    if console.settings.json:
        more = {"verdict": verdict, "picture": str(picture or "")}
        console.data_json(compared | {key: value for key, value in more.items() if value})
        return
    for result in results:
        _tell(result)
    rows = []
    for name, title in _titles(results[0]).items():
        ranges = [f" ({_interval(name, r['intervals'][name])})" if name in r["intervals"] else "" for r in results]
        rows.append((title, *(_value(name, r[name]) + of for r, of in zip(results, ranges, strict=True))))
    console.table(["metric", *operands], rows)
    if (only := compared.get("comparable")) is not None:
        why = "They divide texts into different tokens"
        if only:
            console.note(f"{why}: of these figures only {', '.join(only)} can be compared.")
        else:
            odd = "some of them unknown" if any(r["unknown"] for r in results) else "and some alter the texts"
            console.note(f"{why}, {odd}, so none of these figures can be compared.")
    _tell_signatures(results[0])
    if "by_length" in results[0]:
        _compare_by_length(results)
    if "mse_by_length" in results[0]:
        _print_mse_by_length(results)
    if verdict:
        _print_paired(compared["paired"], operands, TASKS[results[0]["task"]].per_example[0])
        console.note(verdict)
        console.note("This is about these weights on these examples: other seeds may give another order.")
    if picture:
        console.note(f"picture {picture}")


def _compare_by_length(results: Sequence[Mapping[str, Any]]) -> None:
    """A row for each range of lengths, a column for each run."""
    name = "bleu" if "bleu" in results[0] else "exact"
    columns = ["words of reference", "sentences", *(f"{OF_TRANSLATIONS.get(name, name)}, {r['run']}" for r in results)]
    parts = zip(*(result["by_length"] for result in results), strict=True)
    rows = [
        (_words(part[0]), f"{part[0]['sentences']:,}", *(_value(name, record[name]) for record in part))
        for part in parts
    ]
    console.data("")
    console.table(columns, rows, right=columns)


def _print_paired(paired: Mapping[str, Any], names: Sequence[str], metric: str) -> None:
    """The counts behind McNemar's test of `metric`, or the bootstrap's difference in BLEU; with the p-value."""
    if "both_right" in paired:
        low, high = (100 * limit for limit in paired["interval"])
        rows = [
            ("both right", f"{paired['both_right']:,}"),
            (f"only {names[0]} right", f"{paired['only_first']:,}"),
            (f"only {names[1]} right", f"{paired['only_second']:,}"),
            ("both wrong", f"{paired['both_wrong']:,}"),
            (f"difference in {metric}", f"{100 * paired['difference']:+.2f} % ({low:+.2f} to {high:+.2f} %)"),
            ("p-value (McNemar, exact)", f"{paired['p_value']:.3g}"),
        ]
    elif paired.get("measure") == "mse":
        low, high = paired["interval"]
        rows = [
            ("difference in mse", f"{paired['difference']:+.4f} ({low:+.4f} to {high:+.4f})"),
            ("p-value (paired errors)", f"{paired['p_value']:.3g}"),
        ]
    else:
        rows = [
            ("difference in BLEU", f"{paired['difference']:+.2f}"),
            ("p-value (paired bootstrap)", f"{paired['p_value']:.3g}"),
        ]
    console.data("")
    console.table(["on the same examples", "value"], rows)


def _verdict(paired: Mapping[str, Any], names: Sequence[str]) -> str:
    """Which run is better, in one sentence."""
    if paired.get("measure") == "mse":
        better, chance = paired["better"], f"{abs(paired['difference']):.2g} in mse (p = {paired['p_value']:.2g})."
        if better is None:
            return f"Neither is shown to be better: they are apart by {chance}"
        return f"{names[better]} is better: by {chance}"
    if "both_right" not in paired:
        return _verdict_by_bleu(paired, names)
    first, second, better = paired["only_first"], paired["only_second"], paired["better"]
    if first + second == 0:
        return "Neither is better: they are right on the same examples."
    disagree = f"of {first + second:,} examples on which one alone is right, {names[0]} has {first:,} and {names[1]}"
    chance = f"{disagree} {second:,} (p = {paired['p_value']:.2g})."
    return f"Neither is shown to be better: {chance}" if better is None else f"{names[better]} is better: {chance}"


def _verdict_by_bleu(paired: Mapping[str, Any], names: Sequence[str]) -> str:
    gap, better = abs(paired["difference"]), paired["better"]
    if gap == 0:
        return "Neither is better: they have the same BLEU."
    chance = f"(p = {paired['p_value']:.2g}, paired bootstrap)."
    if better is None:
        return f"Neither is shown to be better: they are {gap:.2f} BLEU apart {chance}"
    return f"{names[better]} is better: by {gap:.2f} BLEU {chance}"
