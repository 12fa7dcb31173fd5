"""Command lines that stand in texts for people: read as the command line reads them, and nothing runs."""

from functools import cache

import typer

from dlkit import models, recipe, recipe_keys
from dlkit.cli import app
from dlkit.cli.options import recipe_flags
from dlkit.experiments import EXPERIMENTS, options_of
from dlkit.probe.views import VIEWS
from dlkit.train.search import keys, space
from dlkit.train.start import complete


def parsed(words):
    """The name of a command and what its parameters are given."""
    command, names = whole(), []
    while hasattr(command, "commands"):
        name, *words = words
        names.append(name)
        command = command.commands[name]
    return " ".join(names), command.make_context(names[-1], list(words)).params


@cache
def whole():
    """All commands."""
    return typer.main.get_command(app)


def check(words):
    """Fails where there is no such command, option or choice, or no such view, experiment, model or key."""
    verb, given = parsed(words)
    sets = [text.partition("=")[::2] for text in given.get("sets") or ()]
    match verb:
        case "experiment":
            assert given["name"] in EXPERIMENTS
            assert {key for key, _ in sets} <= set(options_of(given["name"]))
        case "summarize":
            assert set(given["model"]) <= set(models.names())
        case "inspect":
            assert given["what"] in VIEWS
            check_recipe(given, sets, also="transformer_tatoeba")
        case "train" | "ensemble":
            check_recipe(given, sets)
        case "search" if given["operands"]:
            model, *spaces = given["operands"]
            keys.check(space.parse(spaces), lambda values: recipe.resolve(model, overrides=sources(values.items())))


def check_recipe(given, sets, *, also=None):
    """A model that is no run has a recipe with the data, the options and the keys that are set."""
    model = given["model"]
    if model in {None, also} or model.startswith("runs/"):
        return
    resolved = recipe.resolve(
        model, given["data"], recipe_path=given.get("recipe"), overrides=sources(sets), flags=recipe_flags(given)
    )
    complete(resolved, {})
    known = {key.key for key in recipe_keys.keys(resolved.model.name, resolved.data.name)}
    assert {key for key, _ in sets} <= known


def sources(pairs):
    """Pairs of keys and texts as what `--set` says."""
    return [(key, text, "set") for key, text in pairs]
