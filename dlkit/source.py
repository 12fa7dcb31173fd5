"""Python source, read without importing it: the modules of models and experiments would start TensorFlow."""

import ast
from importlib.util import find_spec
from pathlib import Path


def tree_of(module: str) -> ast.Module | None:
    """The syntax tree of a module, from its source; None where there is none. Only its packages are imported.

    Example:
        >>> ast.get_docstring(tree_of("dlkit.source")).split(",")[0]
        'Python source'
    """
    spec = find_spec(module)
    return None if spec is None or spec.origin is None else ast.parse(Path(spec.origin).read_bytes())
