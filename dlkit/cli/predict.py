"""`dlkit predict`: the classes of image files."""

from pathlib import Path
from typing import Annotated

import typer

from dlkit import console, runtime
from dlkit.cli import options as opt


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: opt.RunModel = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes to name for each image.")] = 1,
    runs_dir: opt.RunsDir = opt.RUNS_DIR,
) -> None:
    """Say what is in images.

    Example: dlkit predict photo.png --model runs/lenet_digits-1 --top 3
    """
    runtime.import_tensorflow()
    from dlkit.tasks.image_classification import predict_files

    for prediction in predict_files(images, model=opt.run_or_newest(model, "image_classification", runs_dir), top=top):
        if console.settings.json:
            console.data_json(prediction)
        else:
            classes = "  ".join(
                f"{entry['class']} {100 * entry['probability']:.1f} %" for entry in prediction["classes"]
            )
            console.data(f"{prediction['file']}\t{classes}")
