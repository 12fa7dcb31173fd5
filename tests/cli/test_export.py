"""`dlkit export` of a Transformer that is made by hand to copy its input, word by word: its answers are known."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ctranslate2
import pytest
from copying_net import LENGTH, make

from dlkit import recipe, runs
from dlkit.cli import main
from dlkit.data.tokenizer import CharacterTokenizer, SubwordTokenizer, WordTokenizer

TEXTS = ["le chat dort", "un chat noir", "", "le </s> dort", "chat"]


def both_sides(tokenizer):
    return tokenizer, tokenizer


TOKENIZERS = {
    "unigram": lambda: both_sides(SubwordTokenizer.train([*TEXTS, *"/dehilnorstu<>"], kind="unigram", size=40)),
    "word": lambda: both_sides(WordTokenizer(["le", "chat", "dort", "un", "noir"])),
    "char": lambda: both_sides(CharacterTokenizer("</>acdehilnorstu ", lower=True)),
    # The same text in other letters, so the same pieces in the same order: what is copied is translated.
    "two": lambda: tuple(SubwordTokenizer.train([text], kind="bpe", size=40) for text in ("aaa bb c", "xxx yy z")),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run folders by the kind of their tokenizers."""
    folder = tmp_path_factory.mktemp("runs")
    for kind, train in TOKENIZERS.items():
        make(folder / kind, *train())
    return folder


@pytest.fixture
def run(dlkit, made, tmp_path):
    shutil.copytree(made / "unigram", tmp_path / "run")
    return Path("run")


def translated(folder, *lines, content=None):
    """What the folder's own program says, in a process of its own, without dlkit and TensorFlow."""
    content = "".join(f"{line}\n" for line in lines).encode() if content is None else content
    banned = "import sys; sys.modules.update(dict.fromkeys(('dlkit', 'tensorflow', 'keras')));"
    code = f"{banned} import runpy; runpy.run_path({str(folder / 'translate.py')!r})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        input=content, capture_output=True, check=False,
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )  # fmt: skip
    assert done.stderr == b""
    return done.stdout.decode().split("\n")[:-1]


@pytest.mark.parametrize(
    ("kind", "lines", "answers"),
    [
        ("unigram", TEXTS, TEXTS),
        ("word", [*TEXTS, "le chien"], [*TEXTS[:3], "le <unk> dort", "chat", "le <unk>"]),
        ("char", ["Le Chat", "a  b?"], ["le chat", "a  <unk><unk>"]),
        ("two", ["c bb aaa", "a b"], ["z yy xxx", "x y"]),
    ],
)
def test_the_folder_translates_by_itself(dlkit, made, kind, lines, answers):
    result = dlkit("export", str(made / kind), "--to", "ctranslate2", "-o", "out")
    assert (result.code, result.out) == (0, "out\n")
    assert "next: python out/translate.py" in result.err
    assert translated(Path("out"), *lines) == answers


# A mark of UTF-8, control characters, a carriage return within a line, another line end of Unicode, and no line feed at
# the end.
ODD = "\ufeffle\x0bchat\nun\x85chat\x00noir\r\n\nchat\rdort\nle\u2028chat".encode()


@pytest.mark.parametrize("kind", ["unigram", "word"])
def test_odd_characters_are_what_dlkit_takes_them_for(dlkit, made, kind):
    assert dlkit("export", str(made / kind), "--to", "ctranslate2", "-o", "out").code == 0
    Path("odd.txt").write_bytes(ODD)
    ours = dlkit("translate", "--model", str(made / kind), "--file", "odd.txt", "-q")
    assert ours.code == 0
    assert ours.out.split("\n")[:-1] == ["le chat", "un chat noir", "", "chat dort", "le chat"]
    assert translated(Path("out"), content=ODD) == ours.out.split("\n")[:-1]


def test_what_is_no_text_and_what_is_too_long_lose_no_line(dlkit, made):
    assert dlkit("export", str(made / "word"), "--to", "ctranslate2", "-o", "out").code == 0
    lines = translated(Path("out"), content=b"chat\n\xff\n" + b"chat " * 100 + b"\nnoir\n")
    assert lines == ["chat", "<unk>", " ".join(["chat"] * (LENGTH - 1)), "noir"]


@pytest.mark.parametrize(
    ("decode", "expected"),
    [
        ([], {"beam_size": 5, "length_penalty": 1.0}),
        (["decode.beams=2", 'decode.length_norm="none"'], {"beam_size": 2, "length_penalty": 0.0}),
        (['decode.length_norm="gnmt"', "decode.alpha=0.9"], {"beam_size": 5, "length_penalty": 0.9}),
    ],
)
def test_it_searches_as_the_run_does(dlkit, tmp_path, decode, expected):
    """What CTranslate2 makes of the length is measured: it scores as we do, except by `gnmt`, which it has not."""
    make(tmp_path / "run", *TOKENIZERS["word"](), *decode, certainty=1)
    assert dlkit("export", "run", "--to", "ctranslate2", "-o", "out").code == 0
    (line,) = (line for line in Path("out/translate.py").read_text().splitlines() if line.startswith("search = "))
    search = json.loads(line.removeprefix("search = "))
    assert search == expected | {"min_decoding_length": 0, "max_decoding_length": LENGTH, "max_input_length": LENGTH}
    translator = ctranslate2.Translator("out", intra_threads=1)
    (theirs,) = translator.translate_batch([["le", "chat", "dort"]], return_scores=True, **search)
    ours = json.loads(dlkit("translate", "le chat dort", "--model", "run", "--json").out)["hypotheses"][0]
    assert ours["log_probability"] < -0.05
    assert ours["tokens"] == [*theirs.hypotheses[0], "</s>"]
    divisor = 4**0.9 if "gnmt" in str(decode) else ours["log_probability"] / ours["score"]
    assert theirs.scores[0] == pytest.approx(ours["log_probability"] / divisor, abs=1e-5)


def test_by_default_it_lies_in_the_run_and_says_where_it_comes_from(dlkit, run):
    result = dlkit("export", f"{run}@step-7", "--to", "ctranslate2", "--json")
    folder = run / "export" / "ctranslate2"
    told = json.loads(result.out)
    assert told["folder"] == str(folder)
    assert told["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert {file.name for file in folder.iterdir()} == {
        "model.bin", "config.json", "shared_vocabulary.json", "tokenizer.json", "tokenizer.model", "translate.py",
        "dlkit.json",
    }  # fmt: skip
    about = json.loads((folder / "dlkit.json").read_text())
    assert (about["run"], about["checkpoint"], about["quantization"]) == ("run", "step-7", "float32")


def test_of_a_run_that_ships_it_lies_in_the_current_folder(dlkit, run, monkeypatch):
    monkeypatch.setattr(runs, "SHIPPED_FOLDER", Path())
    assert dlkit("export", str(run), "--to", "ctranslate2").out == "run_ctranslate2\n"
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("quantization", "share"), [("float16", 0.5), ("bfloat16", 0.5), ("int16", 0.5), ("int8", 0.25)]
)
def test_quantized_weights_take_less_and_an_export_is_replaced(dlkit, run, quantization, share):
    sizes = []
    for kind in ("float32", quantization):
        assert dlkit("export", str(run), "--to", "ctranslate2", "--quantization", kind, "-q").code == 0
        sizes.append((run / "export" / "ctranslate2" / "model.bin").stat().st_size)
    assert share < sizes[1] / sizes[0] < share + 0.15  # scales, and in integers the positions and norms as they are
    assert [file.name for file in (run / "export").iterdir()] == ["ctranslate2"]
    translator = ctranslate2.Translator(str(run / "export" / "ctranslate2"), intra_threads=1)
    tokens = ["▁", "l", "e"]
    assert translator.translate_batch([tokens])[0].hypotheses == [tokens]


def test_what_is_no_export_is_not_replaced(dlkit, run):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    Path("empty").mkdir()
    for place in ("mine", "mine/thesis.tex"):
        result = dlkit("export", str(run), "--to", "ctranslate2", "-o", place)
        assert result.code == 2
        assert f"{place} exists and is no export" in result.err
    assert [file.name for file in Path("mine").iterdir()] == ["thesis.tex"]
    assert dlkit("export", str(run), "--to", "ctranslate2", "-o", "empty", "-q").code == 0


def test_a_failure_leaves_the_earlier_export(dlkit, run, monkeypatch):
    assert dlkit("export", str(run), "--to", "ctranslate2", "-o", "out", "-q").code == 0
    before = {file.name: file.read_bytes() for file in Path("out").iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SubwordTokenizer, "save", full)
    result = dlkit("export", str(run), "--to", "ctranslate2", "-o", "out", "--quantization", "int8")
    assert result.code == 1
    assert result.err.splitlines()[-2:] == [
        "error: cannot write to out: No space left on device",
        "hint: free some space, or name a folder elsewhere with --output",
    ]
    assert {file.name: file.read_bytes() for file in Path("out").iterdir()} == before
    assert not list(Path().glob(".*"))


@pytest.mark.parametrize(
    ("model", "data"), [("seq2seq", None), ("seq2seq_attention", "synthetic:reverse"), ("lenet", None)]
)
def test_only_transformers(dlkit, run, model, data):
    (run / "recipe.toml").write_text(recipe.resolve(model, data).to_toml())
    result = dlkit("export", str(run), "--to", "ctranslate2")
    assert result.code == 2
    assert result.err.splitlines() == [
        f"error: run is a {model}, and CTranslate2 runs Transformers only",
        "hint: `dlkit train transformer` trains one",
    ]


def test_an_activation_that_the_other_side_has_not(dlkit, run):
    changed = recipe.resolve("transformer", "synthetic:reverse", flags={"model.activation": "relu_squared"})
    (run / "recipe.toml").write_text(changed.to_toml())
    result = dlkit("export", str(run), "--to", "ctranslate2")
    assert result.code == 2
    assert result.err.splitlines() == [
        "error: run has the activation relu_squared, and CTranslate2 knows relu and gelu",
        "hint: `--to bundle` writes any run",
    ]


def test_without_ctranslate2_the_extra_is_named(dlkit, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    result = dlkit("export", str(run), "--to", "ctranslate2")
    assert result.code == 2
    assert "dlkit-tf[export]" in result.err


def test_mistakes_are_explained():
    assert main(["export", "runs/none", "--to", "ctranslate2"]) == 3
    assert main(["export", "lenet", "--to", "ctranslate2"]) == 2
    assert main(["export", "runs/none", "--to", "onnx"]) == 2
    assert main(["export", "runs/none"]) == 2
