"""The command line as such: names, options, streams, exit codes, and one line for every mistake."""

import errno
import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys

import pytest
import typer

from dlkit import __version__, cli, console, errors, recipe
from dlkit.cli import options
from dlkit.cli.grammar import taking_common_options
from dlkit.cli.train import train

VERBS = [command.name for command in cli.app.registered_commands]
GROUPS = [group.name for group in cli.app.registered_groups]


def mistake(result, code=2):
    """The message and the hint of a command line that failed with just these two lines."""
    assert result.code == code
    assert result.out == ""
    lines = result.err.splitlines()
    assert lines[0].startswith("error: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert len(lines) <= 2
    return lines[0].removeprefix("error: "), "".join(lines[1:]).removeprefix("hint: ")


# -------------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ("modles", "unknown command: modles", "did you mean `dlkit models`?"),
        ("trian lenet", "unknown command: trian", "did you mean `dlkit train`?"),
        ("data lsit", "unknown command: data lsit", "did you mean `dlkit data list`?"),
        ("runs zzz", "unknown command: runs zzz", "`dlkit runs --help` lists all"),
        ("train --epoch 3", "unknown option: --epoch", "did you mean `--epochs`?"),
        ("--versoin", "unknown option: --versoin", "did you mean `--version`?"),
        ("models -x", "unknown option: -x", "`dlkit models --help` shows how"),
        ("train lenet --epochs many", "--epochs must be a number, not many", "`dlkit train --help` shows how"),
        ("train lenet --steps 1.5", "--steps must be an integer, not 1.5", "`dlkit train --help` shows how"),
        ("train lenet --lr", "--lr needs a value", "`dlkit train --help` shows how"),
        ("models --json=3", "--json takes no value", "`dlkit models --help` shows how"),
        ("evaluate", "RUN is missing", "`dlkit evaluate --help` shows how"),
        ("evaluate runs/x --weights rw", "--weights must be one of auto, raw, ema, not rw", "did you mean `raw`?"),
        ("models one two", "too many arguments: one two", "`dlkit models --help` shows how"),
        ("evaluate lenet", "lenet is a model without weights", "train it, then name its run"),
        ("train lenett", "unknown model: lenett", "did you mean `lenet`? `dlkit models` lists all"),
        ("train lenet --data digitz", "unknown dataset: digitz", "did you mean `digits`? `dlkit data list` lists all"),
        ("train lenet --recipe nope", "unknown recipe: nope", "`dlkit recipes list` shows all"),
        ("train lenet --set train.lrr=1", "unknown key: train.lrr", "did you mean `train.lr`?"),
        ("train lenet --set lr=1", "--set lr names no section", "did you mean `train.lr`?"),
        ("train lenet --set train.monitor=acuracy", "unknown metric: acuracy", "did you mean `accuracy`?"),
        ("train lenet --precision float16", 'train.precision must be one of float32, bfloat16, float64, not "float16"',
         "did you mean `bfloat16`?"),
        ("train lenet --lr=-1", "train.lr must be a number above 0, not -1.0", ""),
        ("train lenet --epochs 1 --steps 1", "train.epochs and train.steps exclude each other", "give one of them"),
    ],
)  # fmt: skip
def test_a_mistake_of_usage_is_one_line_and_a_hint(dlkit, arguments, message, hint):
    got = mistake(dlkit(*arguments.split()))
    assert got[0] == message
    assert got[1].startswith(hint)


def test_a_model_option_is_checked_when_the_model_is_built(dlkit):
    result = dlkit("train", "lenet", "--set", "model.nrom=none", "--dry-run")
    assert mistake(result) == ("unknown key: model.nrom", "did you mean `model.norm`?")


@pytest.mark.parametrize("arguments", [(), ("data",), ("recipes",), ("runs",)])
def test_a_group_without_a_command_shows_its_help_as_wrong_usage(dlkit, arguments):
    result = dlkit(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(" ".join(["Usage: dlkit", *arguments]))


# --------------------------------------------------------------------------------------------------------- help


def every_command():
    return [[verb] for verb in VERBS] + [[group, each.name] for group in GROUPS for each in subcommands(group)]


def subcommands(group):
    return next(info.typer_instance for info in cli.app.registered_groups if info.name == group).registered_commands


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_explains_itself(dlkit, words):
    result = dlkit(*words, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: dlkit {' '.join(words)} ")
    assert f"Example: dlkit {' '.join(words)}" in re.sub('echo "[^"]*" [|] ', "", " ".join(result.out.split()))
    assert dlkit(*words, "-h").out == result.out
    for option in ("--json", "-q, --quiet", "-v, --verbose", "--debug"):
        assert option in result.out


def test_the_verbs_are_those_of_the_design(dlkit):
    designed = ["train", "evaluate", "predict", "translate", "summarize", "inspect"]
    designed += ["models", "data", "recipes", "runs", "doctor"]
    assert set(designed) <= {*VERBS, *GROUPS}
    out = dlkit("--help").out
    assert all(f"\n  {verb} " in out for verb in designed)


def test_the_version(dlkit):
    assert dlkit("--version") == (0, f"dlkit {__version__}\n", "")


# ------------------------------------------------------------------------------------------------- common options


def test_common_options_stand_before_or_after_the_verb_and_last_for_one_command(dlkit):
    after = dlkit("models", "--json")
    assert json.loads(after.out)
    assert dlkit("--json", "models") == after
    assert not dlkit("models").out.startswith("[")


def test_a_function_sees_its_own_arguments_only():
    seen = []

    @taking_common_options
    def command(name: str, count: int = 1) -> None:
        seen.append((name, count, console.settings.quiet, console.settings.json))

    command(name="a", count=2, json=False, quiet=True, verbose=False, debug=False)
    assert seen == [("a", 2, True, False)]


def test_train_has_every_option_that_stands_for_a_key_of_the_recipe():
    offered = set(inspect.signature(train).parameters)
    assert set(options.KEYS) <= offered
    assert {key for key in options.KEYS.values() if key.startswith("train.")} <= set(recipe.all_keys())


def test_what_is_not_given_sets_no_key_of_the_recipe_and_a_zero_does():
    arguments = {"model": "lenet", "lr": None, "weight_decay": 0.0, "freeze": [], "deterministic": False}
    assert options.recipe_flags(arguments) == {"train.weight_decay": 0.0, "train.deterministic": False}


# ------------------------------------------------------------------------------------------------------- failures


@pytest.fixture
def failing(dlkit, monkeypatch):
    """Runs `dlkit models` with a failure in it."""

    def run(failure, *arguments):
        def broken():
            raise failure

        monkeypatch.setattr("dlkit.models.names", broken)
        return dlkit("models", *arguments)

    return run


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (errors.DlkitError("no"), 1, "no"),
        (errors.UsageError("no"), 2, "no"),
        (errors.DataError("no"), 3, "no"),
        (errors.CheckpointError("no"), 4, "no"),
        (errors.DivergedError("no"), 5, "no"),
        (errors.Interrupted("stopped", "", signal.SIGTERM), 143, "stopped"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "cannot write /x: no space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs"), 1, "cannot use /runs: permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 3, "cannot open x: no such file"),
        (OSError(errno.EIO, "Input/output error"), 1, "input/output error"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "broken pipe"),  # of a worker, say, and not of stdout
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero (internal)"),
        (RecursionError("deep\ndown"), 1, "RecursionError: deep down (internal)"),
    ],
)  # fmt: skip
def test_every_failure_is_one_line_with_its_code(failing, failure, code, message):
    assert mistake(failing(failure), code)[0] == message


def test_the_traceback_comes_with_debug_only(failing):
    assert mistake(failing(ValueError("odd")), 1)[1] == "run it again with --debug to see where"
    shown = failing(ValueError("odd"), "--debug")
    assert shown.err.startswith("Traceback (most recent call last):")
    assert shown.err.splitlines()[-2].startswith("error: ValueError: odd")


def test_a_hostile_name_in_a_mistake_is_written_out(dlkit):
    message, _ = mistake(dlkit("train", "lenet\x1b]0;owned\x07\u202e[x]"))
    assert message == r"unknown model: lenet\x1b]0;owned\x07\u202e[x]"


# -------------------------------------------------------------------------------------------------------- streams


def process(*arguments, **settings):
    return subprocess.run([sys.executable, "-m", "dlkit", *arguments], check=False, capture_output=True, **settings)


def test_a_reader_that_has_seen_enough_is_no_failure():
    # The table of models is written line by line after head has closed the pipe.
    command = f"set -o pipefail; {{ sleep 0.1; {sys.executable} -m dlkit models; }} | true"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_console_script_survives_a_closed_or_narrow_stream(tmp_path):
    read, write = os.pipe()
    os.close(read)
    listing = [sys.executable, "-m", "dlkit", "models"]
    broken = subprocess.run(listing, check=False, stdout=write, stderr=subprocess.PIPE, text=True)
    assert (broken.returncode, broken.stderr) == (0, "")
    noting = [sys.executable, "-m", "dlkit", "runs", "list"]
    assert subprocess.run(noting, check=False, stdout=write, stderr=write, cwd=tmp_path).returncode == 0
    os.close(write)
    closed = subprocess.run(["bash", "-c", f"{sys.executable} -m dlkit models >&- 2>&-"], check=False)
    assert closed.returncode == 0
    ascii_only = process("train", "modèle\udcff", env={**os.environ, "PYTHONIOENCODING": "ascii"}, text=True)
    assert ascii_only.returncode == 2
    assert r"unknown model: mod\xe8le" in ascii_only.stderr


@pytest.fixture
def unread():
    """A file descriptor of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def test_training_goes_on_when_nobody_reads_stderr(unread, tmp_path, monkeypatch, capsys):
    small = ["--set", "data.size=8", "--set", "data.augment=[]", "--set", "model.hidden=[2]"]
    small += ["--limit", "32", "--steps", "2", "--name", "x"]
    with os.fdopen(os.dup(unread), "w", buffering=1) as nobody, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", nobody)
        assert cli.main(["train", "mlp", *small, "--runs-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert (tmp_path / "x" / "checkpoints" / "step-2" / "state.json").exists()


def test_the_exit_code_is_the_same_when_nobody_reads_stderr(unread):
    mistaken = [sys.executable, "-m", "dlkit", "modles"]
    done = subprocess.run(mistaken, check=False, stdout=subprocess.PIPE, stderr=unread)
    assert (done.returncode, done.stdout) == (2, b"")


def test_stdout_is_data_and_stderr_the_rest_and_no_colour_in_a_pipe():
    listed = process("data", "list")
    assert listed.stderr == b""
    assert b"\x1b" not in listed.stdout
    assert b"digits" in listed.stdout
    wrong = process("data", "lst")
    assert wrong.stdout == b""
    assert wrong.stderr.startswith(b"error: ")


# ------------------------------------------------------------------------------------------------------ completion


@pytest.fixture
def complete(monkeypatch, capsys, tmp_path):
    """What bash would be offered after these words, the last one unfinished."""
    monkeypatch.chdir(tmp_path)

    def offered(*words):
        monkeypatch.setenv("_DLKIT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["dlkit", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        capsys.readouterr()
        assert cli.main([]) == 0
        return capsys.readouterr().out.split()

    return offered


def make_run(folder, *checkpoints):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    for name in checkpoints:
        (folder / "checkpoints" / name).mkdir(parents=True)


def test_names_are_completed(complete, tmp_path, monkeypatch):
    make_run(tmp_path / "runs" / "lenet_digits-1", "step-900", "step-1200")
    make_run(tmp_path / "runs" / "evil\x1b[31m")
    (tmp_path / "runs" / "no_run").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "lenet_digits.toml").touch()
    monkeypatch.setattr("dlkit.recipe.folder", lambda: tmp_path / "recipes")
    assert complete("tr") == ["train", "translate"]
    assert complete("data", "p") == ["prepare"]
    assert complete("train", "vgg1") == ["vgg11", "vgg13", "vgg16", "vgg19"]
    assert complete("train", "lenet", "--data", "dig") == ["digits"]
    assert complete("train", "lenet", "--data", "cifar100") == ["cifar100", "cifar100_n"]
    assert complete("train", "--recipe", "le") == ["lenet_digits"]
    assert complete("recipes", "show", "") == ["lenet_digits"]
    assert complete("train", "lenet", "--set", "train.ep") == ["train.epochs=", "train.epsilon="]
    assert complete("train", "lenet", "--label") == ["--label-smoothing"]
    assert complete("evaluate", "") == ["runs/lenet_digits-1", "transformer_tatoeba"], "no name with control characters"
    assert complete("evaluate", "runs/lenet_digits-1@") == [
        f"runs/lenet_digits-1@{which}" for which in ("best", "last", "step-900", "step-1200")
    ]
    assert options.complete_model_or_run("le") == ["lenet"]


# ----------------------------------------------------------------------------------------------------------- time


def test_help_is_quick():
    code = "import sys, dlkit.cli; dlkit.cli.main(['--help']); sys.exit(bool({'pydantic', 'rich'} & set(sys.modules)))"

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # The aim is 0.3 s on an idle machine; processor time says it on a busy one, too.
    assert min(seconds() for _ in range(3)) < 0.4
