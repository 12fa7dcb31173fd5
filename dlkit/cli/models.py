"""`dlkit models`: what can be built."""

import ast
from itertools import zip_longest

from dlkit import console
from dlkit.source import tree_of


def models() -> None:
    """List the models, task by task.

    Example: dlkit models
    """
    from dlkit import models as table
    from dlkit.tasks import TASKS

    rows = [(name, table.task_of(name), about(table.targets()[name][1])) for name in table.names()]
    order = [*TASKS, *(task for _, task, _ in rows)]
    rows.sort(key=lambda row: order.index(row[1]))  # stable: within a task as in the table
    if console.settings.json:
        console.data_json([{"name": name, "task": task, "about": text} for name, task, text in rows])
        return
    titled = [(name, TASKS[task].title if task in TASKS else task, text) for name, task, text in rows]
    console.table(["model", "task", "about"], titled)


def about(target: str) -> str:
    """The first line of the docstring of a function, else of its module, read from the source without importing it.

    The docstring of a `partial` is the text right below the line that gives it a name.

    Args:
        target: "module:function"; empty text for a module outside of dlkit, whose package would have to be imported.
    """
    module, _, name = target.partition(":")
    tree = tree_of(module) if module.startswith("dlkit.") else None
    if tree is None:
        return ""
    text = _docstring(tree.body, name) or ast.get_docstring(tree) or ""
    return text.partition("\n")[0].rstrip(".")


def _docstring(body: list[ast.stmt], name: str) -> str | None:
    for pair in zip_longest(body, body[1:]):
        match pair:
            case ast.FunctionDef(name=made) as function, _ if made == name:
                return ast.get_docstring(function)
            case ast.Assign(targets=[ast.Name(id=made)]), ast.Expr(value=ast.Constant(value=str(text))) if made == name:
                return text
    return None
