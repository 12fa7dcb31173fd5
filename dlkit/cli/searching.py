"""What `dlkit search` does and says: checks what is asked for, shows the trials, and tells what they teach."""

import csv
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit import console, durable, models, runs, signals
from dlkit import recipe as recipes
from dlkit.cli.live import amount, metric
from dlkit.cli.search import TRIALS
from dlkit.cli.training import resolve
from dlkit.errors import DlkitError, Interrupted, UsageError
from dlkit.tasks import TASKS
from dlkit.train.search import keys as checks
from dlkit.train.search import study as studies
from dlkit.train.search.effects import Effect, KeyEffects, effects, importances
from dlkit.train.search.loop import Search
from dlkit.train.search.space import EXAMPLES, Space, grid_points, parse
from dlkit.train.search.study import Plan, Pruner, Result, Sampler, best_of, results
from dlkit.train.search.trials import Processes

SHOWN = 10  # trials of the last table
WATCHED = 14  # trials of the live one
# What makes trials shorter than a training is to be: not in the command that trains the best again.
LENGTH = ("train.epochs", "train.steps", "train.limit", "train.max_time")


@dataclass(frozen=True)
class Question:
    """What is asked for on the command line, see `dlkit search --help`."""

    operands: Sequence[str]
    data: str | None
    recipe: str | None
    sets: list[str]
    data_dir: Path | None
    epochs: float | None
    steps: int | None
    limit: int | None
    trials: int | None
    sampler: Sampler | None
    refine: int
    prune: Pruner
    first_look: int
    seed: int

    @property
    def model(self) -> str | None:
        """The operand that is no space.

        Raises:
            dlkit.errors.UsageError: there are several.
        """
        names = [operand for operand in self.operands if "=" not in operand]
        if len(names) > 1 and names[1] in models.targets():
            raise UsageError(f"two models, {names[0]} and {names[1]}", "`model.name={...}` searches among models")
        if len(names) > 1:
            raise UsageError(f"{names[1]} has no space to search", f"write `{names[1]}=SPACE`, {EXAMPLES}")
        if names and names[0].partition(".")[0] in recipes.SECTIONS and names[0] not in models.targets():
            raise UsageError(f"{names[0]} has no space to search", f"write `{names[0]}=SPACE`, {EXAMPLES}")
        return names[0] if names else None


@dataclass(frozen=True)
class Options:
    """How this process works on a search.

    Args:
        jobs: trials at a time.
        devices: of each.
        png: whether to draw a picture at the end.
        seconds: after which it stops; None for never.
    """

    jobs: int
    devices: str
    png: bool
    seconds: float | None


def seconds_of(text: str) -> float:
    """The seconds of a time limit.

    Raises:
        dlkit.errors.UsageError: it is no time.
    """
    if not re.fullmatch(r"\d+(\.\d+)?[smh]", text):
        raise UsageError(f"--time-limit must be a time such as 90s, 10m or 2h, not {text}", "`--time-limit 2h`")
    return recipes.seconds(text)


def begin(question: Question, options: Options, *, runs_dir: Path, name: str | None, storage: str | None) -> int:
    """Begins a search, or joins the one that the storage holds."""
    plan, stem = _planned(question)
    study, plan, folder = studies.create(runs_dir, plan, stem=stem, name=name, storage=storage)
    return _work(Search(study, plan, _trainer(folder, options), folder, display=_Shown(plan), jobs=options.jobs,
                        read=checks.read), options, storage=storage)  # fmt: skip


def resume(folder: Path, options: Options, *, trials: int | None, storage: str | None) -> int:
    """Goes on with a search; what it was asked for is its own."""
    study, plan = studies.open_search(folder, storage, trials=trials)
    return _work(Search(study, plan, _trainer(folder, options), folder, display=_Shown(plan), jobs=options.jobs,
                        read=checks.read), options, storage=storage)  # fmt: skip


def _trainer(folder: Path, options: Options) -> Processes:
    return Processes(folder.absolute() / "recipe.toml", devices=options.devices, jobs=options.jobs)


# --------------------------------------------------------------------------------------------------- what is asked for


def _planned(question: Question) -> tuple[Plan, str]:
    """The plan of a new search, checked against the recipe, and how runs of the recipe are called.

    Raises:
        dlkit.errors.DlkitError: a space that is none, an unknown key, a wrong value, options that do not go together.
    """
    spaces = parse(operand for operand in question.operands if "=" in operand)
    model = question.model
    if not spaces:
        raise UsageError("nothing is to be searched", f"name keys of the recipe with their spaces, {EXAMPLES}")
    flags = {
        "train.epochs": question.epochs, "train.steps": question.steps, "train.limit": question.limit,
        "data.dir": question.data_dir, "train.select": "best",
    }  # fmt: skip
    if any(recipes.parse_override(text)[0] == "train.select" for text in question.sets):
        raise UsageError(f"train.select cannot be set: {checks.NOT_SEARCHED['train.select']}", "leave it out")
    given = {key: value for key, value in flags.items() if value is not None}

    def resolved(values: Mapping[str, str]) -> recipes.Recipe:
        sets = [*question.sets, *(f"{key}={text}" for key, text in values.items())]
        return resolve(model, question.data, question.recipe, sets, given)

    for space in spaces:
        try:
            recipes.parse_override(f"{space.key}=?")
        except UsageError as failure:  # the key names no section
            raise UsageError(failure.message.removeprefix("--set "), failure.hint) from None
    base = checks.check(spaces, resolved)
    sampler, trials = _sampled(question, spaces)
    task = TASKS[base.task]
    monitor = base.train.monitor or task.monitor
    plan = Plan(
        spaces=tuple(spaces), trials=trials, sampler=sampler, prune=question.prune, first_look=question.first_look,
        refine=question.refine, seed=question.seed, metric=monitor, direction=task.metrics[monitor],
        recipe=runs.anchored(base).to_toml(), command=tuple(_command(question, model)),
    )  # fmt: skip
    return plan, base.name


def _sampled(question: Question, spaces: Sequence[Space]) -> tuple[Sampler, int]:
    """The sampler and the number of trials."""
    pointed = [space for space in spaces if space.points]
    sampler = question.sampler or ("grid" if pointed else "random")
    if question.refine and sampler != "random":
        raise UsageError(f"--refine is for random values, and the sampler is {sampler}", "leave one of them out")
    if sampler == "grid":
        if whole := next((space for space in spaces if space.kind != "choice" and not space.points), None):
            raise UsageError(f"{whole.key}={whole} has no points for a grid", f"such as `{whole.key}={whole}/5`")
        points = len(grid_points(spaces, checks.read))
        if question.trials not in {None, points}:
            raise UsageError(f"the grid has {points} points, and --trials says {question.trials}", "leave --trials out")
        return sampler, points
    if pointed:
        raise UsageError(f"{pointed[0].key}={pointed[0]} is a grid, and the sampler is {sampler}", "`--sampler grid`")
    trials = question.trials or TRIALS
    if trials <= question.refine:
        raise UsageError(f"{trials} trials are too few for {question.refine + 1} rounds", "a round needs one at least")
    return sampler, trials


def _command(question: Question, model: str | None) -> list[str]:
    """The command that trains at full length, without the keys that are searched."""
    options = {"--data": question.data, "--recipe": question.recipe, "--data-dir": question.data_dir}
    sets = [text for text in question.sets if recipes.parse_override(text)[0] not in LENGTH]
    words = ["dlkit", "train"] + ([model] if model else [])
    words += [word for flag, value in options.items() if value is not None for word in (flag, str(value))]
    return words + [word for text in sets for word in ("--set", text)]


# ------------------------------------------------------------------------------------------------------ while it works


class _Shown:
    """Shows the trials: a table that lives on a terminal, a line for each that has ended elsewhere."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.told: set[int] = set()  # numbers of those that have ended
        self.waited: list[int] = []
        self.table: console.LiveTable | None = None

    def show(self, found: Sequence[Result]) -> None:
        """Draws the table anew, or tells what has ended since."""
        if self.table is not None:
            self.table.update(_rows(found[-WATCHED:], self.plan), self._summary(found))
            return
        ended = [each for each in found if each.state != "running"]
        for each in ended:
            if each.number not in self.told:
                self.told.add(each.number)
                console.note(self._line(each, found))

    def waiting(self, numbers: Sequence[int]) -> None:
        """Says once for which trials of others it waits."""
        if list(numbers) != self.waited:
            self.waited = list(numbers)
            some = "trial" if len(numbers) == 1 else "trials"
            console.note(f"waits for {some} {', '.join(map(str, numbers))}, which other processes train")

    def _line(self, each: Result, found: Sequence[Result]) -> str:
        values = "  ".join(f"{key} {_cell(key, each, self.plan)}" for key in each.values)
        score = metric(self.plan.metric, each.score) if each.score is not None else ""
        told = each.reason if each.state == "failed" else score
        best = best_of(found, self.plan)
        mark = "  (the best so far)" if best is not None and best.number == each.number else ""
        return f"trial {each.number}  {each.state}  {told}  {values}{mark}"

    def _summary(self, found: Sequence[Result]) -> str:
        best = best_of(found, self.plan)
        text = f"{_counts(found)} of {self.plan.trials}"
        if best is not None and best.score is not None:
            text += f"; best: trial {best.number}, {metric(self.plan.metric, best.score)}"
        return text


def _columns(plan: Plan) -> list[str]:
    rounds = ["round"] if plan.refine else []
    return ["trial", *rounds, *(space.key for space in plan.spaces), plan.metric, "epochs", "state"]


def _rows(found: Sequence[Result], plan: Plan) -> list[list[str]]:
    rows = []
    for each in found:
        rounds = [str(each.round)] if plan.refine else []
        values = [_cell(space.key, each, plan) for space in plan.spaces]
        score = "" if each.score is None else metric(plan.metric, each.score).rpartition(" ")[2]
        epochs = amount(each.figures["epochs"]) if "epochs" in each.figures else ""
        state = f"failed: {each.reason}" if each.state == "failed" else each.state
        rows.append([str(each.number), *rounds, *values, score, epochs, state])
    return rows


def _cell(key: str, each: Result, plan: Plan) -> str:
    space = next(space for space in plan.spaces if space.key == key)
    return space.text(each.values[key]) if key in each.values else "-"


def _counts(found: Sequence[Result]) -> str:
    states = [each.state for each in found]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no trial"


def _work(search: Search, options: Options, *, storage: str | None) -> int:
    """Trains, and tells what came of it.

    Args:
        search: on what.
        options: how.
        storage: as the user gave it.

    Raises:
        dlkit.errors.DlkitError: the first trials all fail alike; trials.csv has them.
        dlkit.errors.Interrupted: a signal came; what was trained is saved.
    """
    plan, display = search.plan, search.display
    assert isinstance(display, _Shown)
    folder = Path(_short(search.folder))
    before = results(search.study, plan, search.folder)
    display.told = {each.number for each in before if each.state != "running"}
    _introduce(search, folder, before)
    columns, table = _columns(plan), folder / "trials.csv"
    with ExitStack() as stack:
        received = stack.enter_context(signals.noted())
        if console.is_terminal() and not console.settings.quiet:
            display.table = stack.enter_context(console.LiveTable(columns, right=columns[:-1]))
        seconds = float("inf") if options.seconds is None else options.seconds
        try:
            reason = search.run(lambda: len(received), seconds=seconds)
        except DlkitError:
            write_csv(table, results(search.study, plan, search.folder), plan)
            raise
    found = results(search.study, plan, search.folder)
    write_csv(table, found, plan)
    words = ["dlkit", "search", "--resume", str(folder)]
    if storage is not None and (masked := studies.without_password(storage)) != storage:
        words += ["--storage", masked]  # the folder does not keep the password
    again = f"`{shlex.join(words)}` goes on"
    if reason == "interrupted":
        open_ones = sum(each.state == "running" for each in found)
        saved = f", {open_ones} saved on their way" if open_ones else ""
        done = f"{len(found) - open_ones} of {plan.trials} trials are done{saved}"
        raise Interrupted(f"interrupted, {done}", again, received[0])
    if reason == "time is up":
        console.note(f"time is up: {again}")
    _report(search, found, folder, table, reason=reason, png=options.png)
    return 0


def _short(path: Path) -> str:
    """A folder as the user would name it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _introduce(search: Search, folder: Path, before: Sequence[Result]) -> None:
    plan = search.plan
    goes = "lower" if plan.direction == "lower" else "higher"
    how = {"random": "at random", "grid": "all points of a grid", "tpe": "by TPE, where good ones were"}[plan.sampler]
    if plan.refine:
        how += f", in {plan.refine + 1} rounds from coarse to fine"
    pruning = {
        "median": "when worse than the median", "halving": "unless among the best third", "none": "never",
    }[plan.prune]  # fmt: skip
    after = f", after {plan.first_look} evaluation{'s' * (plan.first_look > 1)}" if plan.prune != "none" else ""
    console.labelled([
        ("search", f"{folder}" + (f" ({_counts(before)} so far)" if before else "")),
        ("space", "  ".join(f"{space.key}={space}" for space in plan.spaces)),
        ("trials", f"{plan.trials}, {how}; stopped early {pruning}{after}"),
        ("score", f"the best {plan.metric} on the validation split, {goes} is better; the test split chooses nothing"),
    ])  # fmt: skip


# --------------------------------------------------------------------------------------------------------- what it says


def write_csv(path: Path, found: Sequence[Result], plan: Plan) -> None:
    """Writes all trials as a table, one a line."""
    columns = ["trial", "round", "state", *(space.key for space in plan.spaces), plan.metric]
    columns += ["evaluations", "epochs", "early_training_error", "gap", "reason", "run"]
    with durable.stream(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for each in found:
            values = [each.values.get(space.key, "") for space in plan.spaces]
            figures = [each.figures.get(name, "") for name in ("epochs", "early", "gap")]
            score = "" if each.score is None else each.score
            row = [each.number, each.round, each.state, *values, score, each.evaluations, *figures]
            writer.writerow([*row, each.reason, each.run])


def _report(search: Search, found: Sequence[Result], folder: Path, table: Path, *, reason: str, png: bool) -> None:
    plan = search.plan
    best = best_of(found, plan)
    shares = importances(search.study, plan)
    told = effects(plan.spaces, found, shares)
    again = _again(plan, best) if best else None
    picture = folder / "search.png" if png else None
    if picture:
        from dlkit.probe import pictures, search_pictures

        pictures.save(search_pictures.figure(found, told, plan, title=folder.name), picture)
    if console.settings.json:
        console.data_json({
            "search": str(folder), "reason": reason,
            "objective": {"metric": plan.metric, "direction": plan.direction, "split": "validation"},
            "spaces": {space.key: str(space) for space in plan.spaces},
            "trials": [vars(each) for each in found], "best": vars(best) if best else None, "command": again,
            "keys": [_record(each) for each in told], "csv": str(table),
            **({"picture": str(picture)} if picture else {}),
        })  # fmt: skip
        return
    columns = _columns(plan)
    ordered = sorted(
        (each for each in found if each.score is not None),
        key=lambda each: (each.state != "complete", plan.sign * (each.score or 0.0)),
    )
    console.table(columns, _rows(ordered[:SHOWN], plan), right=columns[:-1])
    console.note(f"{_counts(found)}" + (f"; the best {SHOWN} are above" if len(ordered) > SHOWN else ""))
    for each in [each for each in found if each.state == "failed"][:SHOWN]:
        console.note(f"trial {each.number} failed: {each.reason}")
    _tell_effects(told, plan)
    if best is not None and again is not None:
        words = f"trial {best.number}, {metric(plan.metric, best.score or 0.0)} on the validation split"
        console.labelled([
            ("best", words),
            ("again", f"{shlex.join(again)}   # at full length"),
            ("look", shlex.join(["dlkit", "evaluate", _short(Path(best.run))])),
            ("all", shlex.join(["dlkit", "runs", "list", "--runs-dir", str(folder)])),
        ])  # fmt: skip
    console.labelled([("table", str(table))] + ([("picture", str(picture))] if picture else []))


def _again(plan: Plan, best: Result) -> list[str]:
    sets = [word for key, value in best.values.items() for word in ("--set", f"{key}={value}")]
    return [*plan.command, *sets]


def _tell_effects(told: Sequence[KeyEffects], plan: Plan) -> None:
    if not any(each.importance is not None or each.early or each.gap for each in told):
        console.note("too few trials to say which keys matter" + (" in the first round" if plan.refine else ""))
        return
    console.data("")
    rows = [
        [
            each.key,
            "" if each.importance is None else f"{100 * each.importance:.0f} %",
            _effect(each.early),
            _effect(each.gap),
            each.acts_on,
        ]
        for each in told
    ]
    columns = ["key", "importance", "early training error", "gap", "acts on"]
    console.table(columns, rows, right=columns[1:4])
    console.note("importance: what tells the best third of the complete trials from all (PED-ANOVA), without interplay")
    console.note(
        "early training error, and gap between validation and training at the end: correlation ratio of their ranks"
        " between thirds of the key's values (0 to 1), p is how often chance does as well; r, Spearman's rank"
        " correlation, is above 0 when greater values come with a greater error"
    )
    if plan.refine:
        console.note("both of the first round alone: later ones draw every key near the best trial, idle ones, too")
    if plan.sampler == "tpe":
        console.note(
            "tpe draws every key near good trials, idle ones, too, which so may seem to act: --sampler random does not"
        )


def _effect(each: Effect | None) -> str:
    if each is None:
        return ""
    sign = "" if each.correlation is None else f" r {each.correlation:+.2f}"
    return f"{each.strength:.2f} p {each.chance:.3f}{sign}"


def _record(each: KeyEffects) -> dict[str, Any]:
    def of(one: Effect | None) -> dict[str, Any] | None:
        return vars(one) if one else None

    return {
        "key": each.key, "importance": each.importance, "early_training_error": of(each.early), "gap": of(each.gap),
        "acts_on": each.acts_on or None,
    }  # fmt: skip
