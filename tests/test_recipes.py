"""Every shipped recipe: complete, valid to the last option, and honest about where its figures come from."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from command_lines import check

from dlkit import recipe
from dlkit.train.start import complete

FILES = sorted(recipe.folder().rglob("*.toml"))
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_there_are_recipes_and_beside_them_what_readme_shows_of_a_result():
    assert {"lenet_digits", "mlp_digits", "resnet20_digits", "seq2seq_reverse"} <= set(recipe.names())
    others = {path.name for path in recipe.folder().rglob("*") if path.suffix != ".toml"}
    assert others == set(re.findall(r"\]\(recipes/([^)]*\.png)\)", README))
    assert recipe.names() == sorted(path.stem for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_named_after_what_it_trains(path):
    resolved = recipe.resolve(recipe_path=path)
    name = recipe.default_name(resolved.model.name, resolved.data.name)
    # Named after model and data, so that `dlkit train MODEL --data DATA` finds it; or after data and purpose.
    assert path.stem == name or path.stem in {"cifar10_fast", "reverse_sampling"}
    assert complete(resolved, {}).model.name == resolved.model.name, "the builder takes all its options"
    assert resolved.sources["train.lr"] == "recipe"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_introduces_itself(path):
    head = "\n".join(recipe.introduction(path))
    assert f"dlkit train {recipe.resolve(recipe_path=path).model.name}" in head
    assert re.search(r"[A-Z]\w+.* (19|20)\d\d", head), "the paper"
    assert "--set" in head, "one override"
    measured = re.search(r"Measured: .*\d.*\s\d+ s[\s,].*cores", head, re.DOTALL)
    assert measured or "not measured" in head
    assert not set(re.findall(r"\b[A-Z]{5,}\b", head)) - {"CIFAR", "MNIST"}, "a placeholder"


def commands(head):
    """The commands in the lines of a head, without what is said of them; a backslash joins two lines."""
    lines = re.sub(r"\\\n", "", "\n".join(head)).splitlines()
    return [
        shlex.split(found[1].replace("$fold", "3"))
        for line in lines
        if (found := re.match(r"(?:for .*; do )?dlkit (.*?)(?:; done|\s{2,}|$)", line))
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_command_of_a_head_is_one_with_its_options_and_keys(path):
    found = commands(recipe.introduction(path))
    assert [words[0] for words in found].count("train") > 1
    for words in found:
        check(words)


def results():
    """The rows of README's table of results."""
    table = README.partition("| recipe | test part |")[2].partition("\n\n")[0]
    return table.splitlines()[2:]


def divided(text, figures, names):
    """What a text says of each of the recipes: of one figure for each of them in their order, else of any of them."""
    starts = [found.start() for found in re.finditer(figures, text)]
    if len(starts) != len(names):
        return [(names, text)]
    cuts = [0, *starts[1:], len(text)]
    return [([name], text[slice(*part)]) for name, part in zip(names, pairwise(cuts), strict=True)]


def figures(result, names):
    """The figures of a result, each with the recipes that it may be of: in `rnn`: 0.16, that recipe, else the row's."""
    for clause in re.split("[;()]", result):
        own, plain = re.findall(r"`([\w-]+)`:", clause) or names, re.sub("`.*?`", "", clause)
        for of, text in divided(plain, r"(?<![\d.,])\d+\.\d+", own):
            for found in re.finditer(r"(\w+ )?(?<![\w.,-])(\d+(?:,\d{3})*(?:\.\d+)?)(?![\w-])( (?:\w+|%))?", text):
                before, figure, after = (part or "" for part in found.groups())
                # Any head has a 3 somewhere, but not `3 seeds`.
                yield of, figure if len(figure) > 1 else f"{figure}{after}" if after else f"{before}{figure}"


def times(text, names):
    """The times of a cell as least and most seconds that are so rounded, each with the recipes that it may be of."""
    text = re.sub(r"(\d+) and (\d+) (s|min)\b", r"\1 \3 and \2 \3", text)
    form = r"(\d+) h(?: (\d+) min)?|(?:(\d+) to )?(\d+) (s|min)\b"
    for of, part in divided(text, form, names):
        for hours, minutes, least, most, unit in re.findall(form, part):
            if hours:
                seconds = 3600 * int(hours) + 60 * int(minutes or 0)
                yield of, seconds - (30 if minutes else 300), seconds + (30 if minutes else 300)
            else:
                size = 60 if unit == "min" else 1
                yield of, size * (int(least or most) - 0.5), size * (int(most) + 0.5)


def test_what_readme_says_of_a_recipe_is_said_at_its_own_head():
    rows = results()
    assert len(rows) > 15
    heads = {name: " ".join(recipe.introduction(recipe.folder() / f"{name}.toml")) for name in recipe.names()}
    for row in rows:
        told, _, result, time = (cell.strip() for cell in row.strip("|").split("|"))
        named = [name for name in re.findall(r"`([\w-]+)`", told) if name in heads]
        found = list(figures(result, named))
        assert found, row
        for of, figure in found:
            form = rf"(?<![\d.,]){re.escape(figure)}(?!\d)"
            assert any(re.search(form, heads[name]) for name in of), f"{figure} of {of}"
        found = list(times(time, named))
        assert found, row
        for of, least, most in found:
            measured = [
                int(number.replace(",", "")) * {"s": 1, "min": 60}[unit]
                for name in of
                for number, unit in re.findall(r"([\d,]+) (s|min)\b", heads[name])
            ]
            assert any(least <= seconds <= most for seconds in measured), f"{least} to {most} s of {of}: {measured}"


def test_a_figure_is_looked_for_at_the_head_that_it_is_said_of():
    result = "mse 0.0007 and 0.0005 (`rnn`: 0.1664; a guess: 0.1667), mean of 2 seeds, beam 5"
    assert list(figures(result, ["lstm", "gru"])) == [
        (["lstm"], "0.0007"), (["gru"], "0.0005"), (["rnn"], "0.1664"), (["lstm", "gru"], "0.1667"),
        (["lstm", "gru"], "2 seeds"), (["lstm", "gru"], "beam 5"),
    ]  # fmt: skip
    assert list(times("113 and 75 s of work", ["lstm", "gru"])) == [(["lstm"], 112.5, 113.5), (["gru"], 74.5, 75.5)]
    assert list(times("2 h 10 min and 2 h, 20 to 25 s", ["net"])) == [
        (["net"], 7770, 7830), (["net"], 6900, 7500), (["net"], 19.5, 25.5)
    ]  # fmt: skip


def test_the_four_nets_of_degradation_differ_in_nothing_but_the_net():
    """He et al. 2015, section 4.2: plain and residual, 20 and 56 layers."""
    recipes = [recipe.resolve(recipe_path=f"{name}_cifar10") for name in ("resnet20", "plain20", "plain56", "resnet56")]
    for other in recipes[1:]:
        assert set(recipes[0].diff(other)) == {"model.name"}
