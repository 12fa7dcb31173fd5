"""`dlkit models`: what can be built."""

import ast
from importlib.util import find_spec
from pathlib import Path

from dlkit import console


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

    Args:
        target: "module:function"; empty text for a module outside of dlkit, whose package would have to be imported.
    """
    module, _, name = target.partition(":")
    spec = find_spec(module) if module.startswith("dlkit.") else None
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_bytes())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    text = (ast.get_docstring(functions[0]) if functions else None) or ast.get_docstring(tree) or ""
    return text.partition("\n")[0].rstrip(".")
