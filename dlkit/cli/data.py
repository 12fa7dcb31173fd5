"""`dlkit data`: what there is to learn from."""

from dlkit import console
from dlkit.cli.grammar import App
from dlkit.cli.models import about

app = App("List the datasets that models are trained on.")


def list_() -> None:
    """List the datasets.

    Example: dlkit data list
    """
    from dlkit import data

    rows = [(name, about(data.targets()[name])) for name in data.names()]
    if console.settings.json:
        console.data_json([{"name": name, "about": text} for name, text in rows])
    else:
        console.table(["dataset", "about"], rows)


app.add(list_)
