"""`dlkit summarize`: what is printed, in which form, and which mistakes are explained."""

import csv
import io
import json
import re

import pytest

from dlkit import recipe, runs
from dlkit.cli.summarize import _markdown


def records(text):
    return list(csv.DictReader(io.StringIO(text)))


def markdown_tables(text):
    """The tables of a markdown text as lists of rows of cells, after checking that each one is whole."""
    tables = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        if not lines[0].startswith("|"):
            continue
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
        assert len({len(row) for row in cells}) == 1
        assert all(re.fullmatch(r" -{3,}:? ", cell) for cell in cells[1])
        tables.append([[cell.strip() for cell in row] for row in [cells[0], *cells[2:]]])
    return tables


def test_alexnet_explained(dlkit):
    result = dlkit("summarize", "alexnet", "--explain")
    assert result.code == 0
    assert "11*11*3*96 + 96 = 34,944" in result.out
    assert "55*55*11*11*3*96 = 105,415,200" in result.out
    assert "43,713,331,200 weights" in result.out
    assert "62,378,344" in result.out
    assert "1,135.3 M multiply-adds = 2,270.5 M FLOPs (1 multiply-add = 2 FLOPs)" in result.out
    assert re.search(r"most parameters: dense1 60\.5%", result.out)
    assert "published: 60 million (the paper, of two groups), here +4.0%" in result.out
    assert result.out.startswith("alexnet  224x224x3 -> 1000, stem 11x11/4\n")


def test_the_paper_agrees_or_by_how_much_it_does_not(dlkit):
    assert "published: 11,689,512 (torchvision), the same" in dlkit("summarize", "resnet18").out
    assert "published: 0.27 million (the paper, table 6), the same" in dlkit("summarize", "resnet20").out
    assert (
        "published: 60,000 (the paper, whose C3 is not fully connected), here +2.8%" in dlkit("summarize", "lenet").out
    )


def test_json_holds_the_exact_numbers(dlkit):
    report = json.loads(dlkit("summarize", "vgg16", "--json", "--batch-size", "32", "--optimizer", "sgd").out)
    assert (report["parameters"], report["multiply_adds"], report["flops"]) == (
        138_357_544, 15_470_264_320, 30_940_528_640,
    )  # fmt: skip
    assert report["training_bytes"]["optimizer"] == 4 * 138_357_544
    assert report["training_bytes"]["activations"] == 32 * report["activation_bytes"]
    assert sum(layer["parameters"] for layer in report["layers"]) == 138_357_544
    assert report["paper"]["parameters"] == "138 million"
    assert next(iter(report["most_parameters"])) == "dense1"
    fields = [layer["receptive_field"] for layer in report["layers"]]
    assert (fields[0], max(f for f in fields if f != "all"), fields[-1]) == (1, 212, "all")


def test_json_of_several_models_is_a_list(dlkit):
    both = json.loads(dlkit("summarize", "lenet", "mlp", "--json").out)
    assert [report["model"] for report in both] == ["lenet", "mlp"]
    compared = json.loads(dlkit("summarize", "lenet", "--compare", "--json").out)
    assert compared[0]["parameters"] == 61_706
    assert "layers" not in compared[0]


@pytest.mark.parametrize("form", ["table", "csv", "markdown"])
@pytest.mark.parametrize("model", ["lenet", "resnet20", "seq2seq"])
def test_nothing_is_a_question_mark(dlkit, model, form):
    result = dlkit("summarize", model, "--format", form, "--explain")
    assert result.code == 0
    assert "?" not in result.out
    assert "None" not in result.out


def test_csv_is_csv(dlkit):
    layers = records(dlkit("summarize", "lenet", "mlp", "--format", "csv", "--explain").out)
    conv = layers[1]
    assert (conv["model"], conv["name"], conv["type"], conv["output"]) == ("lenet", "conv1", "conv 5/1", "28x28x6")
    assert eval(conv["trainable_arithmetic"]) == int(conv["trainable"]) == 5 * 5 * 6 + 6
    assert eval(conv["multiply_adds_arithmetic"]) == int(conv["multiply_adds"]) == 28 * 28 * 5 * 5 * 6
    assert int(conv["dense_weights"]) == 32 * 32 * 28 * 28 * 6
    by_model = {
        name: sum(int(row["parameters"]) for row in layers if row["model"] == name) for name in ("lenet", "mlp")
    }
    assert by_model == {"lenet": 61_706, "mlp": 1024 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10}


def test_markdown_is_markdown(dlkit):
    layers, explained = markdown_tables(dlkit("summarize", "lenet", "--format", "markdown", "--explain").out)
    assert layers[0][:4] == ["layer", "type", "output", "trainable"]
    assert layers[2][:4] == ["conv1", "conv 5/1", "28x28x6", "156"]
    assert layers[-1][:4] == ["total", "", "", "61,706"]
    assert explained[1][:2] == ["conv1", r"5\*5\*1\*6 + 6 = 156"]


def test_a_bar_in_a_name_does_not_end_a_cell():
    assert _markdown(["a|b", "c"]) == r"| a\|b | c |"


@pytest.mark.parametrize("form", ["table", "csv", "markdown"])
def test_compare_has_a_row_for_each_model(dlkit, form):
    out = dlkit("summarize", "resnet18", "lenet", "--compare", "--format", form).out
    if form == "csv":
        assert [row["trainable"] for row in records(out)] == ["11689512", "61706"]
    elif form == "markdown":
        (table,) = markdown_tables(out)
        assert [row[0] for row in table] == ["model", "resnet18", "lenet"]
    else:
        lines = [line.split() for line in out.splitlines()]
        assert lines[1][:4] == ["resnet18", "224x224x3", "7x7/2", "11,689,512"]
        assert lines[2][:4] == ["lenet", "32x32x1", "5x5/1", "61,706"]


def test_depth_groups_layers_and_keeps_totals(dlkit):
    whole = json.loads(dlkit("summarize", "resnet18", "--json").out)
    for depth in (1, 2, 3):
        grouped = json.loads(dlkit("summarize", "resnet18", "--json", "--max-depth", str(depth)).out)
        assert {key: grouped[key] for key in whole if key != "layers"} == {
            key: whole[key] for key in whole if key != "layers"
        }
        assert sum(layer["flops"] for layer in grouped["layers"]) == whole["flops"]
    names = [line.split()[0] for line in dlkit("summarize", "resnet18", "--max-depth", "1").out.splitlines()[2:9]]
    assert names == ["image", "stem", "stage1", "stage2", "stage3", "stage4", "pool"]


def test_the_stem_for_small_images_shows(dlkit):
    result = dlkit("summarize", "resnet18", "--input", "32x32x3", "--classes", "10")
    assert result.out.startswith("resnet18  32x32x3 -> 10, stem 3x3/1\n")
    assert "parameters: 11,173,962 and 9,600 statistics" in result.out


def test_options_of_the_builder(dlkit):
    report = json.loads(
        dlkit("summarize", "alexnet", "--set", "model.groups=2", "--set", "model.lrn=none", "--json").out
    )
    assert (report["parameters"], report["multiply_adds"]) == (60_965_224, 724_406_816)
    assert not [layer for layer in report["layers"] if "norm" in layer["type"]]


def test_bfloat16_halves_the_activations_only(dlkit):
    single, half = (
        json.loads(dlkit("summarize", "lenet", "--precision", precision, "--json").out)["training_bytes"]
        for precision in ("float32", "bfloat16")
    )
    assert half["activations"] * 2 == single["activations"]
    assert half["weights"] == single["weights"]


def test_a_sequence_model(dlkit):
    report = json.loads(dlkit("summarize", "seq2seq", "--input", "10", "--classes", "50", "--json").out)
    lstm = 4 * 128 * (128 + 128)
    assert report["multiply_adds"] == 10 * 4 * lstm + 10 * 128 * 50  # two layers in the encoder, two in the decoder
    assert (report["input"], report["output"]) == ([[10], [10]], [10, 50])


def test_what_a_net_says_that_it_sees(dlkit):
    arguments = ["summarize", "tagger_cnn", "--input", "40", "--classes", "5"]
    report = json.loads(dlkit(*arguments, "--json").out)
    assert report["receptive_field"] == 31
    assert [layer["receptive_field"] for layer in report["layers"]][-2:] == [None, 31]
    result = dlkit(*arguments)
    (head,) = (line.split() for line in result.out.splitlines() if line.startswith("head "))
    assert head[-1] == "31"
    assert "an output sees 31 positions of its input" in result.err
    compared = dlkit(*arguments, "tcn_lm", "--compare").out.splitlines()
    assert [line.split()[-1] for line in compared[:3]] == ["sees", "31", "125"]


def test_a_run(dlkit, tmp_path):
    resolved = recipe.resolve("lenet", overrides=[("model.norm", "batch", "set")])
    info = {"task": "image_classification", "data": {}, "model_arguments": {"input_shape": [28, 28, 1], "classes": 7}}
    run = runs.create(tmp_path / "runs", resolved, info)
    report = json.loads(dlkit("summarize", "runs/lenet_digits-1@best", "--json").out)
    assert (report["model"], report["input"], report["output"]) == (f"runs/{run.name}@best", [28, 28, 1], [7])
    assert report["statistics"] > 0
    assert report["paper"]["title"].startswith("LeCun")
    assert dlkit("summarize", "runs/lenet_digits-1", "--classes", "3").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resnet81"], 2, "did you mean `resnet18`?"),
        (["lenet", "--input", "32x32"], 2, "not of the form HxWxC"),
        (["lenet", "--input", "0x32x1"], 2, "not of the form HxWxC"),
        (["lenet", "--input", "8x8x1"], 2, "lenet needs images of at least"),
        (["seq2seq", "--input", "3x4"], 2, "not of the form N"),
        (["lenet", "--set", "model.nrom=none"], 2, "did you mean `model.norm`?"),
        (["lenet", "--set", "train.lr=1"], 2, "train.lr does not change a model"),
        (["lenet", "--format", "html"], 2, "--format must be one of table, csv, markdown"),
        (["lenet", "--max-depth", "0"], 2, "--max-depth"),
        (["lenet", "mlp", "--compare", "--explain"], 2, "--explain is about layers"),
        (["lenet", "mlp", "--compare", "--max-depth", "1"], 2, "--max-depth is about layers"),
        (["lenet", "--json", "--format", "csv"], 2, "exclude each other"),
        (["runs/none"], 3, "no run runs/none"),
        ([], 2, "MODEL"),
    ],
)
def test_mistakes_are_explained(dlkit, arguments, code, message):
    result = dlkit("summarize", *arguments)
    assert result.code == code
    assert message in result.err
    assert result.out == ""
    assert "Traceback" not in result.err
