"""`dlkit predict` on a net whose answer is known, and hostile names on their way to the terminal."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import types
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from dlkit import recipe, runs
from dlkit.cli import doctor, main
from dlkit.data.tokenizer import CONTROL
from dlkit.train import checkpoints, start


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An mlp on 8x8 digits without weights but the head's biases: it says 3, then 5, then any other."""
    prepared = start.prepare(
        recipe.resolve("mlp", overrides=[("data.size", "8", "set"), ("model.hidden", "[2]", "set")])
    )
    info = {
        "task": "image_classification",
        "data": prepared.task.info,
        "model_arguments": prepared.task.model_arguments(),
    }
    run = runs.create(tmp_path_factory.mktemp("runs"), prepared.recipe, info)
    arrays = {path: np.zeros(v.shape, np.float32) for path, v in runs.named_variables(prepared.model).items()}
    arrays["head/bias"][[3, 5]] = np.log([6, 2])
    checkpoints.write(run.path / "checkpoints" / "step-1", {"weights": arrays}, {"step": 1})
    run.point("best", "step-1")
    return run


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "zero.png")
    return tmp_path / "zero.png"


def test_the_probabilities_are_the_softmax(run, image, capsys):
    """The biases are log 6, log 2 and eight times 0: 6/16, 2/16 and 1/16."""
    assert main(["predict", str(image), "--model", str(run.path), "--top", "3", "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["file"] == str(image)
    assert [entry["class"] for entry in result["classes"]] == ["3", "5", "0"]
    assert [entry["probability"] for entry in result["classes"]] == pytest.approx([6 / 16, 2 / 16, 1 / 16])


def test_one_line_an_image_in_order(run, image, capsys):
    assert main(["predict", str(image), str(image), "--model", f"{run.path}@best"]) == 0
    assert capsys.readouterr().out == f"{image}\t3 37.5 %\n" * 2


def test_without_a_model_the_newest_run_is_named(run, image, capsys):
    assert main(["predict", str(image), "--runs-dir", str(run.path.parent)]) == 0
    out, error = capsys.readouterr()
    assert out == f"{image}\t3 37.5 %\n"
    assert f"{run.path} (the newest run)" in error


@pytest.mark.parametrize("command", ["predict", "caption"])
def test_a_folder_of_runs_beside_a_named_run_is_refused(run, image, capsys, command):
    assert main([command, str(image), "--model", str(run.path), "--runs-dir", str(run.path.parent)]) == 2
    assert capsys.readouterr().err == (
        "error: --runs-dir takes the newest run, and --model names one\nhint: give one of them\n"
    )


@pytest.mark.parametrize("operands", [["zero.png", "-"], ["-", "zero.png"], ["-", "-"]])
def test_standard_input_stands_alone(run, capsys, operands):
    assert main(["predict", *operands, "--model", str(run.path)]) == 2
    assert capsys.readouterr().err == (
        "error: `-`, standard input, is named beside other images\nhint: `-` stands alone; ./- is a file\n"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [("missing.png", None), ("broken.png", b"\x89PNG\r\n\x1a\n"), ("text.png", b"hello"), ("empty.png", b"")],
)
def test_a_file_that_is_no_image(run, tmp_path, capsys, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["predict", str(tmp_path / name), "--model", str(run.path)]) == 3
    error = capsys.readouterr().err
    assert name in error
    assert error.startswith("error: ")


def test_an_image_that_cannot_be_read_does_not_keep_the_others_from_an_answer(run, image, capsys):
    assert main(["predict", str(image), "missing.png", str(image), "--model", str(run.path)]) == 3
    out, error = capsys.readouterr()
    assert out == f"{image}\t3 37.5 %\n" * 2
    assert error == "error: no such file: missing.png\n" or error.startswith("error: no such file: missing.png\nhint: ")


@pytest.mark.parametrize("piped", [False, True])
def test_what_is_too_long_for_the_name_of_a_file_is_no_file(run, capsys, monkeypatch, piped):
    name = "x" * 300
    if piped:
        on_stdin(monkeypatch, name.encode() + b"\n")
    assert main(["predict", "-" if piped else name, "--model", str(run.path)]) == 3
    assert capsys.readouterr().err.startswith(f"error: no such file: {name}\nhint: the path counts from")


@pytest.fixture(scope="module")
def gray(tmp_path_factory):
    """An mlp that tells ten grays apart: of the levels 0, 28, ... 252 it says the number.

    Its hidden unit is s = 9 * the mean pixel / 255, which is about k for level 28 k, and logit k is 20 (2 k s - k^2):
    the nearest k wins.
    """
    prepared = start.prepare(
        recipe.resolve("mlp", overrides=[("data.size", "8", "set"), ("model.hidden", "[1]", "set")])
    )
    info = prepared.task.info
    given = {"task": "image_classification", "data": info, "model_arguments": prepared.task.model_arguments()}
    run = runs.create(tmp_path_factory.mktemp("runs"), prepared.recipe, given)
    number = np.arange(10)
    arrays = {
        "dense1/kernel": np.full((64, 1), 9 * info["std"][0] / 64),
        "dense1/bias": np.full(1, 9 * info["mean"][0]),
        "head/kernel": 40.0 * number[np.newaxis],
        "head/bias": -20.0 * number**2,
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    checkpoints.write(run.path / "checkpoints" / "step-1", {"weights": arrays}, {"step": 1})
    run.point("best", "step-1")
    return run.path


def gray_image(path, number, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), 28 * number, np.uint8)).save(path)
    return path


def on_stdin(monkeypatch, content, *, terminal=False):
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stream)


def told(out):
    """The file and the class of each line."""
    return [tuple(line.rpartition(" ")[0].rpartition(" ")[0].split("\t")) for line in out.splitlines()]


def test_many_images_are_answered_in_order_whatever_the_batch(gray, tmp_path, capsys):
    """150 images of sizes and grays in turn, 3 of them spoilt; two batches and a bit, or 50, or one."""
    paths = [gray_image(tmp_path / f"{at}.png", at * 7 % 10, size=8 + at % 5) for at in range(150)]
    for at in (5, 64, 149):
        paths[at].write_bytes(b"spoilt")
    for batch_size in (64, 3, 1000):
        arguments = ["--batch-size", str(batch_size), "--model", str(gray), "--json"]
        assert main(["predict", *map(str, paths), *arguments]) == 3
        out, error = capsys.readouterr()
        lines = [json.loads(line) for line in out.splitlines()]
        assert [line["file"] for line in lines] == list(map(str, paths))
        for at, line in enumerate(lines):
            if at in {5, 64, 149}:
                assert line.keys() == {"file", "error"}
                assert line["error"].startswith(str(paths[at]))
            else:
                assert [guess["class"] for guess in line["classes"]] == [str(at * 7 % 10)]
        assert error.count("error: ") == 3


def test_folders_are_searched_in_the_order_of_their_names(gray, tmp_path, capsys):
    root = tmp_path / "photos"
    for name, number in [
        ("2.PNG", 2),
        ("10.png", 1),
        ("sub10/a.png", 4),
        ("sub2/deep/b.png", 5),
        ("sub2/a.png", 6),
        ("sub/z.png", 8),
    ]:
        gray_image(root / name, number)
    for name in (".hidden.png", ".cache/c.png"):
        gray_image(root / name, 9)
    (root / "notes.txt").write_text("not an image")
    (root / "sub2" / "up").symlink_to("..")  # a circle
    alone = gray_image(tmp_path / "alone.png", 7)
    assert main(["predict", str(alone), str(root), "--model", str(gray)]) == 0
    assert told(capsys.readouterr().out) == [
        (str(alone), "7"),
        *((str(root / name), said) for name, said in [("2.PNG", "2"), ("10.png", "1")]),
        (str(root / "sub" / "z.png"), "8"),
        *((str(root / "sub2" / name), said) for name, said in [("a.png", "6"), ("deep/b.png", "5")]),
        (str(root / "sub10" / "a.png"), "4"),
    ]


def test_a_link_in_a_circle_is_told_and_does_not_end_the_rest(gray, tmp_path, capsys):
    (tmp_path / "a.png").symlink_to("a.png")
    gray_image(tmp_path / "b.png", 3)
    assert main(["predict", str(tmp_path), "--model", str(gray)]) == 3
    out, error = capsys.readouterr()
    assert told(out) == [(str(tmp_path / "b.png"), "3")]
    assert error.startswith(f"error: {tmp_path / 'a.png'} ")


def test_a_folder_without_images(gray, tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--model", str(gray)]) == 3
    assert capsys.readouterr().err.startswith(f"error: no images in {tmp_path}\n")


@pytest.mark.parametrize("operand", [["-"], []])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_standard_input_names_files(gray, tmp_path, capsys, monkeypatch, operand, end):
    paths = [gray_image(tmp_path / f"a {at} \u732b.png", at) for at in (3, 8)]
    content = end.join([*(os.fsencode(path) for path in paths), b"", b"missing.png", os.fsencode(paths[0])])
    on_stdin(monkeypatch, content)
    assert main(["predict", *operand, "--model", str(gray), "--batch-size", "2"]) == 3
    out, error = capsys.readouterr()
    assert told(out) == [(str(paths[0]), "3"), (str(paths[1]), "8"), (str(paths[0]), "3")]
    assert error.startswith("error: no such file: missing.png\n")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".webp"])
def test_standard_input_is_an_image(gray, tmp_path, capsys, monkeypatch, suffix):
    on_stdin(monkeypatch, gray_image(tmp_path / f"six{suffix}", 6, size=300).read_bytes())
    assert main(["predict", "-", "--model", str(gray)]) == 0
    assert told(capsys.readouterr().out) == [("-", "6")]


def test_an_image_that_is_cut_short_on_standard_input(gray, tmp_path, capsys, monkeypatch):
    on_stdin(monkeypatch, gray_image(tmp_path / "six.png", 6, size=300).read_bytes()[:90])
    assert main(["predict", "-", "--model", str(gray), "--json"]) == 3
    out, error = capsys.readouterr()
    assert error.startswith("error: standard input is damaged or cut short: ")
    assert json.loads(out) == {"file": "-", "error": error.splitlines()[0].removeprefix("error: ")}


def test_typed_names_are_answered_one_by_one(gray, tmp_path, capsys, monkeypatch):
    """The second line is asked for when the first is answered."""
    path = gray_image(tmp_path / "four.png", 4)
    seen = []

    def typed():
        for _ in range(2):
            seen.append(capsys.readouterr().out)
            yield os.fsencode(path) + b"\n"
        seen.append(capsys.readouterr().out)

    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=typed(), isatty=lambda: True))
    assert main(["predict", "-", "--model", str(gray)]) == 0
    assert [told(out) for out in seen] == [[], [(str(path), "4")], [(str(path), "4")]]


def test_without_images_on_a_terminal_the_usage_is_told(gray, capsys, monkeypatch):
    on_stdin(monkeypatch, b"", terminal=True)
    assert main(["predict", "--model", str(gray)]) == 2
    assert capsys.readouterr().err.startswith("error: IMAGE is missing\n")
    on_stdin(monkeypatch, b"")
    assert main(["predict", "--model", str(gray)]) == 0
    assert capsys.readouterr() == ("", "standard input is empty\n")


def test_a_reader_that_has_seen_enough_ends_it_quietly(gray, tmp_path):
    """The list never ends and its writer never stops: only `head` does."""
    path = gray_image(tmp_path / "one.png", 1)
    script = f"yes {path} | {sys.executable} -m dlkit predict --model {gray} | head -3"
    process = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{script}; echo ${{PIPESTATUS[1]}}"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert process.stdout == f"{path}\t1 100.0 %\n" * 3 + "0\n"
    assert process.stderr == ""


def test_from_python(gray, tmp_path):
    from dlkit.errors import DataError
    from dlkit.tasks.classifier import Classifier

    paths = [gray_image(tmp_path / f"{at}.png", at) for at in (2, 5)]
    classify = Classifier(gray)
    assert [guess["class"] for guess in classify(paths[0])] == ["2"]
    assert [guess["class"] for guess in classify(str(paths[1]), top=3)] in (["5", "4", "6"], ["5", "6", "4"])
    assert [[guess["class"] for guess in guesses] for guesses in classify(paths)] == [["2"], ["5"]]
    assert classify([]) == []
    with pytest.raises(DataError, match="no such file"):
        classify([paths[0], tmp_path / "missing.png"])


def test_a_graph_serves_batches_of_any_size(gray, tmp_path):
    from dlkit.tasks.classifier import Classifier

    paths = [gray_image(tmp_path / f"{at}.png", at) for at in (2, 5, 7)]
    classify = Classifier(gray)
    calls = []
    (net,) = classify._nets
    model = net.model
    net.model = lambda images, training: calls.append(images.shape) or model(images, training=training)
    for batch_size in (1, 2, 3):
        found = [guesses[0]["class"] for guesses in classify.each(paths, batch_size=batch_size)]
        assert found == ["2", "5", "7"]
    assert len(calls) == 1
    assert calls[0][0] is None


@pytest.mark.parametrize(("model", "code"), [("lenet", 2), ("runs/none", 3)])
def test_a_model_without_weights(image, capsys, model, code):
    assert main(["predict", str(image), "--model", model]) == code
    assert capsys.readouterr().err.count("\n") == 2


# ---------------------------------------------------------------------------------------- hostile names, every way out

# markup, path and brace characters; ESC, BEL, CSI, OSC, backspace; line ends; NUL, DEL; bidi overrides and isolates;
# zero-width space, byte order mark, line separator, a tag character, a byte that is no UTF-8; letters and marks drawn
# as nothing; a letter that is not ASCII
CHARACTERS = (
    "ab[]/\\:{}\x1b\x07\x9b\x9d\x08\r\n\t\x00\x7f\u202e\u2066\u2069\u200b\ufeff\u2028\U000e0041\udcff"
    "\u3164\u115f\ufe0f\u034f\U000e0100\u0142"
)
HOSTILE = st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=12)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def visible(text):
    """Whether each character but line ends and Rich's colours and cursor movements shows as itself.

    HOSTILE has no m, K, A or ? to pass as one of them.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m|\r?(\x1b\[(2K|1A|\?25[lh]))+", "", text).replace("\n", "")
    return all(
        unicodedata.category(character)[0] != "C" and character not in "\u2028\u2029\u3164\u115f\ufe0f\u034f\U000e0100"
        for character in plain
    )


def on_a_terminal(monkeypatch, *arguments):
    """Runs a command line on a simulated terminal, checks all that it says there, and returns its exit code."""
    out, error = Terminal(), Terminal()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", error)
        patched.setenv("TERM", "xterm-256color")
        code = main(list(arguments))
    assert visible(out.getvalue()), (arguments, out.getvalue())
    assert visible(error.getvalue()), (arguments, error.getvalue())
    assert "(internal)" not in error.getvalue(), error.getvalue()
    return code, out.getvalue(), error.getvalue()


def as_file_name(hostile):
    return hostile.replace("/", "-").replace("\0", "-")


def as_run_name(hostile):
    return as_file_name(hostile).replace("@", "-").replace("\\", "-").lstrip(".") or "x"


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile=HOSTILE)
def test_nothing_but_visible_text_reaches_the_terminal(run, image, tmp_path_factory, monkeypatch, hostile):
    """Class, file and run names with escapes, bidi and markup, through every command that prints them."""
    folder = tmp_path_factory.mktemp("hostile")
    classes = [f"{hostile}{index}" for index in range(10)]
    data = {**run.info["data"], "classes": classes}
    file_name, run_name = as_file_name(hostile), as_run_name(hostile)
    copied = folder / run_name
    shutil.copytree(run.path, copied)
    runs.open_run(copied).update_info(data=data, command=["dlkit", hostile])
    shutil.copy(image, folder / f"{file_name}.png")
    for arguments in (
        ["predict", str(folder / f"{file_name}.png"), "--model", str(copied), "--top", "10"],
        ["predict", str(folder / f"{file_name}-missing.png"), "--model", str(copied)],
        ["inspect", str(copied), "features", "--image", str(folder / f"{file_name}.png")],
        ["evaluate", str(copied), "--split", hostile],
        ["runs", "list", "--runs-dir", str(folder)],
        ["runs", "show", str(copied)],
        ["train", "lenet", "--name", hostile, "--runs-dir", str(folder / file_name), "--set", f"model.{hostile}=1"],
        ["train", hostile],
        ["summarize", hostile],
        ["translate", hostile, "--model", str(copied)],
    ):
        on_a_terminal(monkeypatch, *arguments)
        on_a_terminal(monkeypatch, *arguments, "--json")


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """A translator without weights but the bias of its first word, which is all that it says."""
    prepared = start.prepare(recipe.resolve("seq2seq"))
    info = {"task": "translation", "data": prepared.task.info, "model_arguments": prepared.task.model_arguments()}
    run = runs.create(tmp_path_factory.mktemp("runs"), prepared.recipe, info)
    prepared.task.save(run.path)
    arrays = {path: np.zeros(v.shape, np.float32) for path, v in runs.named_variables(prepared.model).items()}
    arrays["head/bias"][4] = 1
    checkpoints.write(run.path / "checkpoints" / "step-1", {"weights": arrays}, {"step": 1})
    run.point("best", "step-1")
    return run


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile=HOSTILE)
@example(hostile=CHARACTERS)
def test_what_succeeds_says_nothing_but_visible_text(echo, tmp_path_factory, monkeypatch, hostile):
    """Training with a bar, translation, comparison, recipes, completion and doctor, each with exit code 0."""
    folder = tmp_path_factory.mktemp("hostile") / as_file_name(hostile)
    runs_dir, name = folder / "runs", re.sub(r"[^ab\[\]:{}]", "-", hostile)  # what a new run may be called
    small = ["--set", "data.size=8", "--set", "data.augment=[]", "--set", "model.hidden=[2]", "--limit", "32"]
    code, _, error = on_a_terminal(
        monkeypatch, "train", "mlp", *small, "--steps", "1", "--runs-dir", str(runs_dir), "--name", name
    )
    assert code == 0, error
    assert "\x1b[?25l" in error, "a live bar hides the cursor"
    trained = (runs_dir / name).rename(runs_dir / as_run_name(hostile))  # but its folder can be renamed

    translator = folder / "translator"
    shutil.copytree(echo.path, translator)
    word = "".join(CONTROL.sub(" ", hostile).split()).encode(errors="replace").decode() or "x"
    tokenizer = json.loads((translator / "tokenizer.json").read_text())
    words = [f"{word}{index}" for index in range(len(tokenizer["words"]))]
    (translator / "tokenizer.json").write_text(json.dumps({**tokenizer, "words": words}))
    info = json.loads((translator / "run.json").read_text())
    del info["data"]["tokenizers"]  # it is another one now
    (translator / "run.json").write_text(json.dumps(info))

    unicode = hostile.replace("\udcff", "")  # all that TOML can hold
    other = recipe.resolve("mlp", overrides=[("train.freeze", [unicode], "set")])
    created = runs.create(runs_dir, other, runs.open_run(trained).info, name=f"{name}-2")
    shown = folder / f"{as_file_name(hostile)}.toml"
    comment = "".join(c for c in unicode if c >= " " and c != "\x7f")
    shown.write_text(f'# {comment}\n[model]\nname = "mlp"\n', encoding="utf-8")
    monkeypatch.setenv("TFDS_DATA_DIR", str(runs_dir))
    monkeypatch.setattr(doctor, "training", lambda: doctor.Finding("training", hostile))
    for arguments in (
        ["translate", hostile, "--model", str(translator), "--max-len", "3"],
        ["runs", "diff", str(trained), str(created.path)],
        ["recipes", "show", str(shown)],
        ["recipes", "copy", str(shown), str(folder / f"copy of {as_file_name(hostile)}.toml")],
        ["doctor", "--runs-dir", str(runs_dir)],
    ):
        for flags in ([], ["--json"]):
            if arguments[1] == "copy":
                Path(arguments[-1]).unlink(missing_ok=True)
            code, out, error = on_a_terminal(monkeypatch, *arguments, *flags)
            assert (code, bool(out)) == (0, True if arguments[1] != "copy" else bool(flags)), (arguments, error)

    monkeypatch.chdir(folder)
    with monkeypatch.context() as patched:
        patched.setenv("COMP_WORDS", "dlkit evaluate ")
        patched.setenv("COMP_CWORD", "2")
        patched.setenv("_TYPER_COMPLETE_ARGS", "dlkit evaluate ")
        for shell in ("bash", "zsh"):
            patched.setenv("_DLKIT_COMPLETE", f"complete_{shell}")
            on_a_terminal(patched)
