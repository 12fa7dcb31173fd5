"""Every shipped recipe: complete, valid to the last option, and honest about where its figures come from."""

import re
from pathlib import Path

import pytest

from dlkit import recipe
from dlkit.train.start import complete

FILES = sorted(recipe.folder().rglob("*"))


def test_there_are_recipes_and_nothing_else_lies_beside_them():
    assert {"lenet_digits", "mlp_digits", "resnet20_digits", "seq2seq_reverse"} <= set(recipe.names())
    assert [path.name for path in FILES if path.suffix != ".toml"] == []
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
    measured = re.search(r"Measured: .*\d.* \d+ s .*cores", head, re.DOTALL)
    assert measured or "not measured" in head
    assert not set(re.findall(r"\b[A-Z]{5,}\b", head)) - {"CIFAR", "MNIST"}, "a placeholder"


def results():
    """The rows of README's table of results."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    table = readme.partition("| recipe | test part |")[2].partition("\n\n")[0]
    return table.splitlines()[2:]


def test_what_readme_says_of_a_recipe_is_said_at_its_head():
    rows = results()
    assert len(rows) > 15
    for row in rows:
        told, _, result, _ = (cell.strip() for cell in row.strip("|").split("|"))
        named = [name for name in re.findall(r"`([\w-]+)`", told + result) if name in recipe.names()]
        assert named, row
        heads = " ".join(" ".join(recipe.introduction(recipe.folder() / f"{name}.toml")) for name in named)
        for figure in re.findall(r"\d+\.\d+", result):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", heads), f"{figure} of {named}"


def test_the_four_nets_of_degradation_differ_in_nothing_but_the_net():
    """He et al. 2015, section 4.2: plain and residual, 20 and 56 layers."""
    recipes = [recipe.resolve(recipe_path=f"{name}_cifar10") for name in ("resnet20", "plain20", "plain56", "resnet56")]
    for other in recipes[1:]:
        assert set(recipes[0].diff(other)) == {"model.name"}
