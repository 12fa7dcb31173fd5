"""`dlkit export` of a Transformer that is made by hand to copy its input, word by word: its answers are known."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ctranslate2
import numpy as np
import pytest

from dlkit import recipe, runs
from dlkit.cli import main
from dlkit.data.tokenizer import CharacterTokenizer, SubwordTokenizer, WordTokenizer
from dlkit.models.transformer import transformer
from dlkit.tasks.translator import save_tokenizers
from dlkit.train import checkpoints

TEXTS = ["le chat dort", "un chat noir", "", "le </s> dort", "chat"]
LENGTH = 24


def copier(vocabulary):
    """The weights of a net whose source and target have one feature for each word and one for each position.

    Each target position looks at the source position of its number and says the word that it finds there. What norms
    do to such features leaves the greatest the greatest.
    """
    width = vocabulary + LENGTH
    options = {"layers": 1, "decoder_layers": 1, "width": width, "ffn": 4, "heads": 1, "norm": "pre", "biases": False}
    options |= {"positions": "learned", "max_length": LENGTH, "tied": "none"}
    shapes = runs.named_variables(transformer(vocabulary, vocabulary, **options))
    noise = np.random.default_rng(0)  # since nobody quantizes a matrix of zeros
    weights = {path: noise.normal(path.endswith("gamma"), 0.01, v.shape) for path, v in shapes.items()}
    features = np.eye(width)
    words, positions = features[:vocabulary], features[vocabulary:]
    weights["source_embedding/embeddings"] = words / np.sqrt(width)
    weights["source_positions/table"] = weights["target_positions/table"] = positions
    weights["decoder_block1_cross_attention/query_kernel"] = 30 * positions.T @ positions
    weights["decoder_block1_cross_attention/key_value_kernel"] = np.hstack([positions.T @ positions, words.T @ words])
    weights["decoder_block1_cross_attention/output_kernel"] = features
    weights["transformer/head_words"] = 3 * words
    return options, {path: array.astype(np.float32) for path, array in weights.items()}


def make(path, source, target):
    """A run of the copier, without any training."""
    options, weights = copier(source.size)
    overrides = [(f"model.{key}", json.dumps(value), "set") for key, value in options.items()]
    (path / "checkpoints").mkdir(parents=True)
    resolved = recipe.resolve("transformer", "tatoeba", overrides=[*overrides, ("decode.max_len", str(LENGTH), "set")])
    (path / "recipe.toml").write_text(resolved.to_toml())
    arguments = {"source_vocabulary": source.size, "target_vocabulary": target.size}
    info = {"format": 1, "task": "translation", "recipe": "x", "data": {}, "model_arguments": arguments}
    (path / "run.json").write_text(json.dumps(info))
    save_tokenizers(path, (source, target))
    checkpoints.write(path / "checkpoints" / "step-7", {"weights": weights}, {"step": 7})


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


def translated(folder, *lines):
    """What the folder's own program says, in a process of its own, without dlkit and TensorFlow."""
    banned = "import sys; sys.modules.update(dict.fromkeys(('dlkit', 'tensorflow', 'keras')));"
    code = f"{banned} import runpy; runpy.run_path({str(folder / 'translate.py')!r})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", "-c", code],
        input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


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
    assert dlkit("export", str(run), "--to", "ctranslate2", "-o", "out", "--quantization", "int8").code == 1
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
