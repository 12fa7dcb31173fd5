"""dlkit: the command-line toolkit for learning, teaching and using deep learning.

Importing this package loads no TensorFlow; `build` and `load` do when they are called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

__version__ = "0.1.0"
__all__ = ["__version__", "build", "load"]


def build(name: str, **options: Any) -> "keras.Model":
    """Builds the model that the names table calls `name`, with fresh weights.

    Args:
        name: a name of `dlkit models`, such as `resnet18`.
        **options: the builder's own arguments, such as `classes=10` or `norm="none"`.

    Raises:
        dlkit.errors.UsageError: the name or an option is unknown, or a value has the wrong type.

    Example:
        >>> model = dlkit.build("resnet18", classes=10)
    """
    from dlkit import models

    return models.build(name, **options)


def load(checkpoint: str) -> "keras.Model":
    """Rebuilds the model of a run with its trained weights.

    Args:
        checkpoint: a run (`runs/x`: its best weights) or one of its checkpoints (`runs/x@last`, `runs/x@step-1200`).

    Raises:
        dlkit.errors.DlkitError: there is no such run, or the checkpoint is damaged or does not fit the model.

    Example:
        >>> model = dlkit.load("runs/lenet_digits-1@best")
    """
    from dlkit import runs

    return runs.load_model(checkpoint)
