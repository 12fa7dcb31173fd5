"""`dlkit predict`: the classes of image files."""

from pathlib import Path
from typing import Annotated

import typer

from dlkit import console, runs, runtime
from dlkit.cli import options as opt
from dlkit.errors import DataError


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: opt.RunModel = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes to name for each image.")] = 1,
    runs_dir: opt.RunsDir = opt.RUNS_DIR,
) -> None:
    """Say what is in images.

    Example: dlkit predict photo.png --model runs/lenet_digits-1 --top 3
    """
    run = opt.run_or_newest(model, "image_classification", runs_dir)
    runs.open_run(run)  # before TensorFlow takes its time
    runtime.import_tensorflow()
    from dlkit.tasks.image_classification import Classifier

    classifier = Classifier(run)
    unread: DataError | None = None
    for path in images:
        try:
            classes = classifier(path, top=top)
        except DataError as failure:  # the other images are still worth an answer
            if len(images) == 1:
                raise
            console.error(failure)
            unread = failure
            continue
        if console.settings.json:
            console.data_json({"file": str(path), "classes": classes})
        else:
            shares = "  ".join(f"{entry['class']} {100 * entry['probability']:.1f} %" for entry in classes)
            console.data_row([str(path), shares])
    if unread:
        raise typer.Exit(unread.code)
