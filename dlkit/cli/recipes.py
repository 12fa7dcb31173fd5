"""`dlkit recipes`: list, show and copy what a run is made of, and list the keys that it can have."""

from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from dlkit import console
from dlkit.cli.files import check_writable
from dlkit.cli.grammar import App
from dlkit.cli.options import DataDir, complete_data, complete_model, complete_override, complete_recipe

app = App("List, show and copy recipes, and list their keys.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        show_default=False,
        autocompletion=complete_recipe,
        help="A name of `dlkit recipes list`, or a file.",
    ),
]


def list_() -> None:
    """List the recipes that come with dlkit.

    Example: dlkit recipes list
    """
    from dlkit import recipe

    rows = []
    for name in recipe.names():
        path = recipe.folder() / f"{name}.toml"
        content = recipe.read(path)
        model, data = (str(content.get(section, {}).get("name", "")) for section in ("model", "data"))
        rows.append((name, model, data, " ".join(takewhile(bool, recipe.introduction(path)))))
    columns = ["recipe", "model", "data", "about"]
    if console.settings.json:
        console.data_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        console.table(columns, rows)


def show(name: Name) -> None:
    """Print a recipe: its paper, how to run it, what was measured, and its values.

    Example: dlkit recipes show lenet_digits
    """
    from dlkit import recipe

    path = recipe.find(name)
    content = recipe.read(path)
    if console.settings.json:
        console.data_json({"recipe": path.stem, "about": recipe.introduction(path), **content})
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        console.data(line)


def copy(
    name: Name,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            show_default=False,
            help="A new file; by default here, under its own name.",
        ),
    ] = None,
) -> None:
    """Copy a recipe to a file of your own, to change it.

    Example: dlkit recipes copy lenet_digits mine.toml
    """
    from dlkit import recipe
    from dlkit.errors import UsageError, cannot_write

    source = recipe.find(name)
    target = target or Path(source.name)
    if target.is_dir():
        target /= source.name
    check_writable(target)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UsageError(f"{target} exists", f"name another file: `dlkit recipes copy {name} FILE`") from None
    except OSError as failure:
        raise cannot_write(target, failure) from None
    model = recipe.read(target).get("model", {}).get("name", "MODEL")
    if console.settings.json:
        console.data_json({"recipe": source.stem, "file": str(target)})
    console.note(f"copied to {target}")
    console.note(f"next: dlkit train {model} --recipe {target}")


def _complete_key(incomplete: str) -> list[str]:
    return complete_model(incomplete) + [word.removesuffix("=") for word in complete_override(incomplete)]


def keys(
    which: Annotated[
        str,
        typer.Argument(
            metavar="[PREFIX|MODEL]",
            show_default=False,
            autocompletion=_complete_key,
            help="Only the keys that begin so, such as train or train.plateau; or the options of this model.",
        ),
    ] = "",
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            autocompletion=complete_model,
            help="Also the options of this model, and no keys that its training does not read.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME", autocompletion=complete_data, help="Also the options of this dataset."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """List the keys of a recipe, for files and for `--set`: what each takes, its default, what it does.

    With a model the defaults are those of its task.

    Example: dlkit recipes keys train.l
    """
    from dlkit import models, recipe, recipe_keys
    from dlkit.errors import UsageError, unknown
    from dlkit.values import toml_value

    prefix = which
    if which in models.targets():
        model, prefix = which, "model."
    if data_dir is not None and data is None:
        raise UsageError("--data-dir is where a dataset lies, and none is named", "add --data NAME, or leave it out")
    known = recipe_keys.keys(model, data, data_dir=data_dir)
    found = [key for key in known if key.key.startswith(prefix)]
    if not found and model and (of_others := [key for key in recipe.all_keys() if key.startswith(which)]):
        task = models.task_of(model)
        if failure := next(filter(None, (recipe.why_ignored(key, task, model) for key in of_others)), None):
            raise failure
        owner = data if which.startswith("data.") else model
        if owner is None:
            raise UsageError(f"whether there is {which} depends on the data", "add --data NAME")
        raise UsageError(f"{owner} has no {which}", "leave it out")
    if not found:
        raise unknown("key", which, [*(key.key for key in known), *models.names()], "`dlkit recipes keys` lists all")
    if console.settings.json:
        console.data_json([vars(key) for key in found])
        return
    defaults = ["" if key.required else toml_value(key.default).strip('"') for key in found]
    rows = [(key.key, key.accepts, default, key.about) for key, default in zip(found, defaults, strict=True)]
    console.table(["key", "takes", "default", "about"], rows)
    for section, given in (("model", model), ("data", data)):
        if given is None and any(key.key.startswith(section) for key in found):
            console.note(f"`--{section} NAME` adds the options of that {section}")


app.add(list_)
app.add(keys)
app.add(show)
app.add(copy)
