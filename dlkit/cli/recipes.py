"""`dlkit recipes`: list, show and copy what a run is made of."""

from pathlib import Path
from typing import Annotated

import typer

from dlkit import console
from dlkit.cli.grammar import App
from dlkit.cli.options import complete_recipe

app = App("List, show and copy recipes.")

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
        rows.append((name, model, data, next(iter(recipe.introduction(path)), "")))
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
        Path | None, typer.Argument(metavar="[FILE]", show_default=False, help="By default here, under its own name.")
    ] = None,
) -> None:
    """Copy a recipe to a file of your own, to change it.

    Example: dlkit recipes copy lenet_digits mine.toml
    """
    from dlkit import recipe
    from dlkit.errors import UsageError

    source = recipe.find(name)
    target = target or Path(source.name)
    if target.is_dir():
        target /= source.name
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UsageError(f"{target} exists", f"name another file: `dlkit recipes copy {name} FILE`") from None
    model = recipe.read(target).get("model", {}).get("name", "MODEL")
    if console.settings.json:
        console.data_json({"recipe": source.stem, "file": str(target)})
    console.note(f"copied to {target}")
    console.note(f"next: dlkit train {model} --recipe {target}")


app.add(list_)
app.add(show)
app.add(copy)
