"""`dlkit caption`, and what `train`, `evaluate`, `summarize` and `--init-from` make of captions: one tiny run."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dlkit import cli, runs
from dlkit.cli.evaluate import _draw_captions
from dlkit.data.scenes import scene
from dlkit.data.shapes import draw
from dlkit.probe import captions, pictures
from dlkit.runs import named_variables
from dlkit.tasks.task import open_task
from dlkit.train.setting import Setting

DATA = ("--set", "data.train=900", "--set", "data.validation=20", "--set", "data.test=60", "--set", "data.noise=0")
SIZE = 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has seen some scenes, so that it tells one image from another; and image files of the test split."""
    folder = tmp_path_factory.mktemp("caption")
    code = cli.main([
        "train", "captioner_attention", "--data", "synthetic:shapes", *DATA, "--epochs", "3", "--batch-size", "32",
        "--set", "model.encoder=airbench", "--set", "model.encoder_options={width=8, whitening=false}",
        "--set", "model.width=48", "--set", "model.context_to=readout", "--lr", "0.005",
        "--runs-dir", str(folder), "--name", "run", "-q",
    ])  # fmt: skip
    assert code == 0
    for index in range(3):
        shown = scene("test", index)
        Image.fromarray(draw(shown.first, SIZE, shown.second)).save(folder / f"{index}.png")
    return folder


def rows(result):
    assert result.code == 0, result.err
    return [line.split("\t") for line in result.out.splitlines()]


def test_a_line_for_each_file_and_each_of_a_folder(dlkit, trained):
    files = [str(trained / f"{index}.png") for index in range(3)]
    found = rows(dlkit("caption", *files, "--model", str(trained / "run")))
    assert [row[0] for row in found] == files
    assert all(row[1].startswith("a ") for row in found)
    assert rows(dlkit("caption", str(trained), "--model", str(trained / "run"), "--batch-size", "2")) == found
    assert rows(dlkit("caption", *files, "--runs-dir", str(trained))) == found


def test_the_options_of_a_search(dlkit, trained):
    run, file = ("--model", str(trained / "run")), str(trained / "0.png")
    found = rows(dlkit("caption", file, *run, "--n-best", "3", "--scores", "--beam", "4"))
    assert len(found) == 3
    scores = [float(score) for _, score, _ in found]
    assert scores == sorted(scores, reverse=True)
    drawn = rows(dlkit("caption", file, *run, "--sample", "--seed", "3", "--n-best", "5", "--temperature", "2"))
    assert len({text for _, text in drawn}) > 1
    assert drawn == rows(dlkit("caption", file, *run, "--sample", "--seed", "3", "--n-best", "5", "--temperature", "2"))
    ((_, begun),) = rows(dlkit("caption", file, *run, "--prefix", "a large gray ring"))
    assert begun.startswith("a large gray ring")
    ((_, short),) = rows(dlkit("caption", file, *run, "--max-len", "4"))
    assert len(short.split()) <= 3
    twice = rows(dlkit("caption", file, *run, *run, "--scores"))
    assert twice == rows(dlkit("caption", file, *run, "--scores")), "the mean of twice the same is the same"


def test_json_has_all_there_is(dlkit, trained):
    file, missing = str(trained / "0.png"), str(trained / "none.png")
    result = dlkit("caption", missing, file, "--model", str(trained / "run"), "--json", "--align")
    assert result.code == 3
    bad, good = map(json.loads, result.out.splitlines())
    assert bad["file"] == missing
    assert "no such file" in bad["error"]
    assert good["grid"] == [4, 4]
    (best,) = good["hypotheses"]
    assert best["text"] == good["caption"]
    assert len(best["looked"]) == len(best["tokens"]) - 1
    assert all(0 <= row < 4 and 0 <= column < 4 for row, column in best["looked"])
    assert best["score"] == pytest.approx(best["log_probability"] / len(best["tokens"]))


def test_pictures(dlkit, trained, tmp_path):
    files = [str(trained / f"{index}.png") for index in range(3)]
    for options in ([], ["--align"]):
        picture = tmp_path / f"{len(options)}.png"
        result = dlkit("caption", *files, "--model", str(trained / "run"), "--png", str(picture), *options)
        assert result.code == 0, result.err
        with Image.open(picture) as image:
            assert np.asarray(image.convert("RGB")).std() > 20
    assert all("," in row[2] for row in rows(result))


def test_an_image_on_standard_input(dlkit, trained, monkeypatch):
    content = (trained / "1.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    ((name, text),) = rows(dlkit("caption", "-", "--model", str(trained / "run")))
    assert name == "-"
    assert [[str(trained / "1.png"), text]] == rows(
        dlkit("caption", str(trained / "1.png"), "--model", str(trained / "run"))
    )


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--beam", "2", "--sample"], 2, "--beam searches and --sample draws"),
        (["--beam", "2", "--n-best", "3"], 2, "--n-best 3 of 2 beams"),
        (["--top-k", "2"], 2, "--top-k is for sampling"),
        (["--min-len", "9", "--max-len", "3"], 2, "--min-len 9 is more than --max-len 3"),
        (["--min-len", "999"], 2, "--min-len 999 is more than the 16 tokens"),
        (["--png", "x.jpg"], 2, "x.jpg has no name for a picture"),
        (["--prefix", "a " * 50], 2, "the prefix has 50 tokens"),
        (["--prefix", "a crimson ring"], 2, "not in the vocabulary of the run: crimson"),
        (["--model", "captioner"], 2, "captioner is a model without weights"),
    ],
)
def test_mistakes_are_one_line(dlkit, trained, options, code, message):
    result = dlkit(
        "caption",
        str(trained / "0.png"),
        *(() if "--model" in options else ("--model", str(trained / "run"))),
        *options,
    )
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert "hint: " in result.err


# ------------------------------------------------------------------------------------------------------------ evaluate


def evaluated(dlkit, *arguments):
    result = dlkit("evaluate", *map(str, arguments), "--json", "-q")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_shuffled_images_give_lower_scores(dlkit, trained, tmp_path):
    run, output = trained / "run", tmp_path / "said.txt"
    own = evaluated(dlkit, run, "--beam", 2, "-o", output, "--own-words")
    blind = evaluated(dlkit, run, "--beam", 2, "--shuffle-images")
    assert own["examples"] == 60
    assert own["search"]["beams"] == 2
    assert own["accuracy"] > blind["accuracy"] + 0.02
    assert own["loss"] < blind["loss"]
    assert own["loss"] < own["own_words_loss"], "what it drew itself is not what comes before the true word"
    assert (blind["shuffled_images"], "shuffled_images" in own) == (True, False)
    said = output.read_text().splitlines()
    assert len(said) == 60
    assert own["exact"] == np.mean([text == scene("test", index).caption for index, text in enumerate(said)])


@pytest.fixture(scope="module")
def photos(trained):
    """Scenes as files, with two captions each that people could have written."""
    folder = trained.parent / "photos"
    folder.mkdir(exist_ok=True)
    lines = []
    for index in range(12):
        shown = scene("test", index)
        Image.fromarray(draw(shown.first, SIZE, shown.second)).save(folder / f"{index}.png")
        lines += [f"{index}.png\t{text}\n" for text in (shown.caption.capitalize(), f"{shown.caption} again")]
    (folder / "captions.txt").write_text("".join(lines))
    return folder


def test_other_captions_are_scored_by_bleu_and_cider(dlkit, trained, photos, tmp_path):
    run = trained / "run"
    found = evaluated(dlkit, run, "--data", photos)
    assert found["examples"] == 12, "a folder without splits is tested on as a whole"
    assert 100 >= found["bleu_1"] >= found["bleu_2"] >= found["bleu_3"] >= found["bleu"] >= 0
    assert found["cider"] >= 0
    assert "nrefs:2" in found["signatures"]["bleu"]
    result = dlkit("evaluate", str(run), "--data", str(photos), "--png", str(tmp_path / "page.png"))
    assert result.code == 0, result.err
    assert [title in result.out for title in ("BLEU-1", "BLEU-4", "CIDEr-D", "exact")] == [True] * 4
    assert (tmp_path / "page.png").stat().st_size > 10_000
    both = evaluated(dlkit, run, run, "--data", photos)
    assert both["paired"]["difference"] == 0


@pytest.mark.parametrize(
    ("setting", "above"),
    [
        ({}, "above what the run says, below"),
        ({"shuffle_images": True}, "above what the run says of another image, below"),
        ({"constant": True}, "above one training caption, below"),
    ],
)
def test_the_page_of_examples_says_what_its_captions_are(monkeypatch, tmp_path, setting, above):
    titles = []
    monkeypatch.setattr(captions, "page", lambda images, texts, title: titles.append(title))
    monkeypatch.setattr(pictures, "save", lambda figure, path: None)
    task = open_task("captioning", {"name": "synthetic:shapes", "train": 2, "validation": 2, "test": 2})
    said = SimpleNamespace(outputs=["a", "b"], references=task.references("test"))
    _draw_captions(Setting(split="test", **setting), tmp_path / "page.png", task, said)
    assert above in titles[0]


def test_one_caption_for_all_images(dlkit, trained, tmp_path):
    output = tmp_path / "said.txt"
    found = evaluated(dlkit, trained / "run", "--constant", "-o", output)
    assert set(output.read_text().splitlines()) == {found["constant"]}
    assert found["constant"] in {scene("train", index).caption for index in range(900)}
    assert "loss" not in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mirror"], "--mirror is about classes of images"),
        (["--source", "en", "--data", "synthetic:shapes"], "--source is about translations"),
        (["--constant", "--beam", "3"], "--beam is about what the run writes"),
        (["--constant", "--shuffle-images"], "--shuffle-images is about what the run writes"),
        (["--constant", "--own-words"], "--own-words is about what the run writes"),
        (["--confusion"], "--confusion is about classes"),
    ],
)
def test_options_of_other_tasks_are_refused(dlkit, trained, options, message):
    result = dlkit("evaluate", str(trained / "run"), *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


# ------------------------------------------------------------------------------------------- encoders of trained runs


def test_the_encoder_comes_from_a_trained_image_run(dlkit, tmp_path):
    small = ("--epochs", "0.1", "-q", "--runs-dir", str(tmp_path))
    images = ("--set", "data.train=60", "--set", "data.validation=10", "--set", "data.test=10")
    assert dlkit("train", "lenet", "--data", "synthetic:shapes", *images, *small, "--name", "net").code == 0
    begin = (
        "train",
        "captioner",
        "--data",
        "synthetic:shapes",
        *images,
        *small,
        "--init-from",
        str(tmp_path / "net"),
        "--set",
        "model.encoder_options={}",
    )
    wrong = dlkit(*begin, "--set", "model.encoder=resnet20")
    assert wrong.code == 4
    assert "is of lenet, and the encoder is resnet20" in wrong.err
    options = (
        "--set",
        "model.encoder=lenet",
        "--set",
        "model.width=8",
        "--freeze",
        "conv*",
        "--freeze",
        "dense*",
        "--name",
        "begun",
    )
    done = dlkit(*begin, *options)
    assert done.code == 0, done.err
    net, begun = (named_variables(runs.load_model(tmp_path / name)) for name in ("net", "begun"))
    shared = [path for path in net if not path.startswith("head/")]
    assert len(shared) == 8
    for path in shared:
        np.testing.assert_array_equal(begun[path].numpy(), net[path].numpy())


def test_the_summary_of_a_name_and_of_a_run(dlkit, trained):
    named = dlkit("summarize", "captioner_attention", "--input", "64x48x3", "--classes", "100", "--json")
    assert named.code == 0, named.err
    found = json.loads(named.out)
    assert found["input"][0] == [64, 48, 3]
    assert {layer["name"]: layer for layer in found["layers"]}["words"]["output"][-1] == 100
    result = dlkit("summarize", str(trained / "run"))
    assert result.code == 0, result.err
    assert "attention" in result.out
