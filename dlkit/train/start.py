"""From a recipe, or from a run folder, to a loop that is ready to go: the only place where all parts meet."""

import fnmatch
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import keras

from dlkit import __version__, console, durable, models, runs, runtime, workers
from dlkit.cluster import ALONE, Peers
from dlkit.data.images import ImageData, check_division
from dlkit.errors import CheckpointError, DataError, DlkitError, UsageError, nearest
from dlkit.recipe import Recipe, TrainSection
from dlkit.runtime import Devices
from dlkit.tasks import TASKS
from dlkit.tasks.task import Task, open_as_trained
from dlkit.train import checkpoints
from dlkit.train.clipping import Clipping
from dlkit.train.loop import Display, Loop, Progress, length_of, rates
from dlkit.train.optimizers import optimizer
from dlkit.train.progressive import accept_sizes
from dlkit.train.step import TrainingStep
from dlkit.values import check_call, defaults_of

Result = TypeVar("Result")


@dataclass(frozen=True)
class Prepared:
    """All that is needed before the first step.

    Args:
        recipe: the resolved recipe, the model's options with their defaults.
        task: the task, its data not loaded until needed.
        model: with fresh weights, built in the scope of the strategy.
        devices: where it runs.
        peers: the other processes that train the model.
    """

    recipe: Recipe
    task: Task
    model: keras.Model
    devices: Devices
    peers: Peers = ALONE


def complete(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """Checks the model's options against its builder and fills in the defaults.

    Args:
        recipe: a resolved recipe.
        given: the arguments that follow from the data; a recipe cannot set them.

    Raises:
        dlkit.errors.UsageError: an unknown option, a wrong value, or one that follows from the data.
    """
    function = models.builder(recipe.model.name)
    for key in given:
        if key in recipe.model.options:
            raise UsageError(f"model.{key} follows from the data", "leave it out")
    checked = check_call(function, recipe.model.options, where="model")
    options = {key: value for key, value in (defaults_of(function) | checked).items() if key not in given}
    sources = dict(recipe.sources) | {f"model.{key}": "default" for key in options if key not in checked}
    return replace(recipe, model=recipe.model.model_copy(update={"options": options}), sources=sources)


def prepare(
    recipe: Recipe,
    *,
    devices: str = "auto",
    alone: bool = False,
    run: runs.Run | None = None,
    peers: Peers = ALONE,
) -> Prepared:
    """Starts TensorFlow, opens the data and builds the model.

    Args:
        recipe: a resolved recipe.
        devices: what `runtime.devices` takes.
        alone: whether this process works by itself, whatever TF_CONFIG says; else it must have met its peers.
        run: the run to go on with; None for a new one.
        peers: the other processes that do the same.

    Raises:
        dlkit.errors.DlkitError: the peers have other devices; else as `build` and as opening the data.
    """
    runtime.import_tensorflow()
    settings = recipe.train
    if settings.op_threads:
        runtime.divide_threads(settings.op_threads)
    where = runtime.devices(devices, alone=alone)
    # Each process takes it for granted that the others have what it has: their sums would never be complete.
    peers.agree(
        {"the kind of devices": "GPU" if where.on_gpu else "CPU", "the number of devices": where.local_replicas},
        "all machines need the same kind and number: `--devices` and CUDA_VISIBLE_DEVICES choose them",
    )
    # A dataset of another package may draw, and training and its resumption must open the same one.
    runtime.set_seed(settings.seed, deterministic=settings.deterministic)
    files_of = run or _begun_from(recipe)
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UsageError("TensorBoard is not installed", "`pip install 'dlkit-tf[tensorboard]'`")
    task = _open(recipe, run, files_of)
    with peers.chief_first():
        task.obtain()  # the others find it there; to decode it is for all of them at once
    if run is not None:
        try:
            _ = task.data
        except UsageError as failure:  # other classes, or images of another size
            raise _changed(run, f": {failure.message}") from None
    else:
        task.check_settings(settings)  # a run that has begun goes on as it is
        _check_division(recipe, task)
    return build(recipe, task, where, peers)


def build(recipe: Recipe, task: Task, devices: Devices, peers: Peers = ALONE) -> Prepared:
    """Builds the model of a recipe; its fresh weights follow from the seed, whatever opening the data has drawn.

    Args:
        recipe: a resolved recipe.
        task: the recipe's.
        devices: where the model is to run.
        peers: the other processes that do the same.

    Raises:
        dlkit.errors.UsageError: an option of the model is wrong, or the model does not fit what it is to train on, or
            how.
        dlkit.errors.DataError: some of the training examples are too long for it, or cannot be read.
    """
    settings = recipe.train
    if devices.processes > 1:
        counts = _in_each(lambda: task.count(rank=devices.rank, processes=devices.processes), devices, peers)
        if counts is not None:
            task.take_counts(devices.sum(counts))
    arguments = task.model_arguments()  # opens the data, which may draw
    recipe = complete(recipe, arguments)
    runtime.set_seed(settings.seed, deterministic=settings.deterministic)
    runtime.set_precision(settings.precision)
    with devices.strategy.scope():
        model = models.build(recipe.model.name, **arguments, **recipe.model.options)
    task.check_model(model)
    accept_sizes(task, model, settings)
    if devices.processes > 1 and task.first_carry(model, 1):
        raise UsageError("the state is carried by the devices of one process", "`--set data.carry=false`")
    return Prepared(recipe, task.for_model(model), model, devices, peers)


def _open(recipe: Recipe, run: runs.Run | None, files_of: runs.Run | None) -> Task:
    """The task of a recipe, with what a run has stored of its data, and the files of that run or of another."""
    return open_as_trained(
        recipe.task,
        {"name": recipe.data.name, "dir": recipe.data.dir, "augment": recipe.data.augment, **recipe.data.options},
        recipe.train,
        max_len=recipe.decode.max_len,
        info=run.info["data"] if run else None,
        folder=files_of.path if files_of else None,
    )


def planned_rates(recipe: Recipe, run: runs.Run | None = None) -> tuple[list[float], int]:
    """The learning rate of each update that a training would make, and the number of updates in an epoch.

    Args:
        recipe: a resolved recipe.
        run: the run that it is of; None when there is none yet.

    Raises:
        dlkit.errors.UsageError: the schedule follows from what training measures, or its settings do not fit.
        dlkit.errors.DataError: the data, which say how long an epoch is, are missing or damaged.
    """
    if recipe.train.schedule == "plateau":
        raise UsageError(
            "the plateau schedule follows from what training measures",
            "after a training `dlkit plot RUN --metric lr` draws it",
        )
    length = length_of(recipe.train, _open(recipe, run, run or _begun_from(recipe)))
    options = defaults_of(models.builder(recipe.model.name)) | recipe.model.options
    rate = rates(recipe.train, length.steps, width=_width(options))
    return [rate(step) for step in range(length.steps)], length.steps_per_epoch


def _width(options: Mapping[str, Any]) -> int | None:
    """The width of a model, which the Noam schedule looks at."""
    width = options.get("width")
    return width if isinstance(width, int) else None


def _begun_from(recipe: Recipe) -> runs.Run | None:
    """The run of the same task whose weights a new one starts from: they mean what they do with its tokenizers alone.

    Raises:
        dlkit.errors.UsageError: other tokenizers are asked for.
    """
    if recipe.train.init_from is None:
        return None
    run = runs.open_run(recipe.train.init_from)
    if run.task != recipe.task:
        return None
    for key in TASKS[recipe.task].in_files:
        if recipe.sources.get(key) in {"set", "flag"}:
            raise UsageError(f"{key} is settled by the tokenizer of {recipe.train.init_from}", "leave it out")
    return run


def freeze(model: keras.Model, patterns: list[str]) -> list[str]:
    """Stops the training of every layer whose name matches a pattern such as `stage1_*`; returns their names.

    Raises:
        dlkit.errors.UsageError: a pattern matches no layer with weights, or nothing is left to train.
    """
    layers = [layer for layer in model._flatten_layers(include_self=False) if layer.weights]
    frozen = []
    for pattern in patterns:
        matching = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
        if not matching:
            match = nearest(pattern, [layer.name for layer in layers])
            raise UsageError(
                f"--freeze {pattern} matches no layer of {model.name}",
                f"did you mean `{match}`?" if match else "`dlkit summarize` lists the layers",
            )
        for layer in matching:
            layer.trainable = False
            frozen.append(layer.name)
    if not model.trainable_variables:
        raise UsageError("every layer is frozen: there is nothing to train", "freeze fewer layers")
    return frozen


def load_initial(model: keras.Model, source: str) -> list[str]:
    """Takes over the weights of another run; the last layer may be another one (fine-tuning with a new head).

    Args:
        model: the model to fill.
        source: a run or a checkpoint.

    Returns:
        The names of the variables that stay fresh.

    Raises:
        dlkit.errors.CheckpointError: more than the last layer differs.
    """
    run = runs.open_run(source)
    path = runs.find_checkpoint(run, runs.split_operand(source)[1])
    arrays = checkpoints.read(path, "ema" if checkpoints.has(path, "ema") else "weights")
    variables = runs.named_variables(model)
    if run.task == "image_classification" and hasattr(model, "encoder_name"):
        return _load_encoder(model, source, str(run.recipe["model"]["name"]), arrays)
    fits = {name for name, v in variables.items() if name in arrays and arrays[name].shape == tuple(v.shape)}
    fresh = [name for name in variables if name not in fits]
    head = next(layer for layer in reversed(model.layers) if layer.weights)
    in_head = {variable.path for variable in head.weights}
    misfits = [name for name in fresh if name not in in_head] + [name for name in arrays if name not in variables]
    if misfits:
        raise CheckpointError(
            f"{source} does not fit {model.name}: {misfits[0]}"
            + (f" and {len(misfits) - 1} more differ" if len(misfits) > 1 else " differs"),
            f"only the last layer ({head.name}) may differ; the run is of {run.recipe['model']['name']}",
        )
    for name in fits:
        variables[name].assign(arrays[name])
    return fresh


def _load_encoder(model: Any, source: str, name: str, arrays: checkpoints.Arrays) -> list[str]:
    """Takes over a trained image net as the encoder of a captioner; all else stays fresh.

    Raises:
        dlkit.errors.CheckpointError: it is another net, or has other options.
    """
    variables, encoder = runs.named_variables(model), runs.named_variables(model.encoder)
    if name != model.encoder_name:
        raise CheckpointError(
            f"{source} is of {name}, and the encoder is {model.encoder_name}", f"add `--set model.encoder={name}`"
        )
    wrong = [path for path, v in encoder.items() if path not in arrays or arrays[path].shape != tuple(v.shape)]
    if wrong:
        raise CheckpointError(
            f"{source} does not fit the encoder {name}: {wrong[0]} differs",
            "give the encoder the run's options in model.encoder_options, and images of the same size and channels",
        )
    for path, variable in encoder.items():
        variable.assign(arrays[path])
    return [path for path in variables if path not in encoder]


def _first_weights(prepared: Prepared) -> list[str]:
    """Gives the model what it begins with besides what was drawn: another run's weights, or what follows from the data.

    Returns:
        The names of the variables that stay fresh beside another run's.
    """
    source = prepared.recipe.train.init_from
    if source:
        return load_initial(prepared.model, source)
    prepared.task.adapt(prepared.model)
    return []


def training_step(prepared: Prepared) -> TrainingStep:
    """The update that the recipe asks for."""
    settings = prepared.recipe.train
    rule = optimizer(
        settings.optimizer, momentum=settings.momentum, nesterov=settings.nesterov, beta1=settings.beta1,
        beta2=settings.beta2, epsilon=settings.epsilon, weight_decay=settings.weight_decay,
    )  # fmt: skip
    return TrainingStep(
        prepared.task, prepared.model, rule, prepared.devices,
        clipping=Clipping(settings.clip_norm, settings.clip_value), accumulate=settings.accumulate,
        smoothing=settings.label_smoothing, ema=settings.ema, seed=settings.seed,
    )  # fmt: skip


def _check_watching(recipe: Recipe, task: Task) -> None:
    """Raises a UsageError when what is asked for looks at a validation split, and there is none.

    A recipe may monitor a metric of other data: only who writes that in the command line is told.
    """
    if "validation" in task.splits:
        return
    settings = recipe.train
    by_hand = recipe.sources.get("train.monitor") in {"set", "flag"}
    for key, asked in {
        "train.schedule=plateau": settings.schedule == "plateau",
        "train.patience": settings.patience is not None,
        "train.monitor": settings.monitor is not None and by_hand,
    }.items():
        if asked:
            raise UsageError(
                f"{key} looks at the validation split, and {recipe.data.name} has none",
                "leave it out, or let data.validation hold some of the training data out",
            )


def _check_division(recipe: Recipe, task: Task) -> None:
    """Raises a UsageError when a user asks for a division of images that are divided already."""
    if isinstance(task.data, ImageData):
        options, sources = recipe.data.options, recipe.sources
        asked = {key: options[key] for key in options if sources.get(f"data.{key}") in {"set", "flag"}}
        check_division(task.data, asked)


def new_loop(prepared: Prepared, display: Display, *, folder: Path | None, name: str | None = None) -> Loop:
    """A loop for a new run.

    Args:
        prepared: what `prepare` returned.
        display: who shows it.
        folder: where runs lie; None to write nothing (a dry run).
        name: the run's name.

    Raises:
        dlkit.errors.UsageError: it cannot be trained as the recipe says.
    """
    recipe, task, model = prepared.recipe, prepared.task, prepared.model
    _check_watching(recipe, task)
    fresh = _first_weights(prepared)
    if recipe.train.init_from:
        console.note(f"weights from {recipe.train.init_from}" + (f"; fresh: {', '.join(fresh)}" if fresh else ""))
    freeze(model, recipe.train.freeze)
    # All that can be wrong is found before the run's name is claimed.
    loop = _loop(prepared, None, training_step(prepared), display, Progress())
    fingerprint = _fingerprint(prepared) if folder is not None else ""
    prepared.peers.agree({"the checksum of the data": fingerprint[:12]}, "all machines need the same data")
    if folder is not None and prepared.devices.is_chief:
        loop.run = runs.create(
            folder,
            recipe,
            {
                "task": recipe.task,
                "attempt": 1,
                "command": ["dlkit", *sys.argv[1:]],
                "versions": versions(),
                "devices": prepared.devices.description,
                "threads": runtime.threads(),
                "resumes": resumption(recipe.train, prepared.devices, runtime.threads()),
                "data": task.info,
                "fingerprint": fingerprint,
                "model_arguments": task.model_arguments(),
                "parameters": model.count_params(),
            },
            name=name,
            prepare=task.save,
        )
        runs.lock(loop.run)
        prepared.peers.announce(str(loop.run.path))
    return loop


def resumed_loop(run: runs.Run, prepared: Prepared, display: Display) -> Loop:
    """A loop that goes on from the newest whole checkpoint of a run, or from the start when it has none.

    Raises:
        dlkit.errors.DataError: the data is not what the run began with.
        dlkit.errors.CheckpointError: the optimizer's state does not fit.
    """
    if _fingerprint(prepared) != run.info.get("fingerprint"):
        raise _changed(run)
    chief = prepared.devices.is_chief
    if chief:
        runs.lock(run)
        durable.sweep(run.path)
        durable.sweep(run.path / "checkpoints")
        prepared.peers.announce(str(run.path))
    path = runs.newest_whole(run)
    prepared.peers.agree(
        {"the run's newest checkpoint": path.name if path else "none"},
        "all machines need the run on a file system that they share",
    )
    if path is None:
        _first_weights(prepared)
    freeze(prepared.model, prepared.recipe.train.freeze)
    step = training_step(prepared)
    attempt = int(run.info.get("attempt", 1)) + 1
    if chief:
        as_before = resumption(prepared.recipe.train, prepared.devices, run.info.get("threads", 0))
        run = run.update_info(attempt=attempt, resumes=as_before)
    progress = Progress(attempt=attempt)
    if path is None:
        console.warn(f"{run.path} has no whole checkpoint: starting from its beginning")
    else:
        where = str(path)
        runs.load_weights(prepared.model, checkpoints.read(path, "weights"), where=where)
        slots = checkpoints.read(path, "optimizer")
        checkpoints.check_names(step.slot_shapes(), slots, what="optimizer state", where=where)
        averages = checkpoints.read(path, "ema") if step.ema else {}
        expected = {name: tuple(v.shape) for name, v in step.variables.items()} if step.ema else {}
        checkpoints.check_names(expected, averages, what="averaged weights", where=where)
        step.restore_slots(slots, averages)
        if checkpoints.has(path, "carry"):
            step.carry = checkpoints.read(path, "carry")
        state = checkpoints.read_state(path)
        known = {item.name for item in fields(Progress)} - {"attempt"}
        progress = replace(progress, **{key: value for key, value in state.items() if key in known})
        # A kill may have come between the checkpoint and the pointers to it.
        best = checkpoints.name_of(progress.best_step) if progress.best_step is not None else None
        if chief:
            run.point("last", path.name)
            if best in run.checkpoints():
                run.point("best", best)
    return _loop(prepared, run if chief else None, step, display, progress)


def _fingerprint(prepared: Prepared) -> str:
    """The checksum of the data, all of which can be read: of several processes each has tried its part of them.

    Raises:
        dlkit.errors.DataError: some cannot be read, by this process or by another.
    """
    return _in_each(prepared.task.fingerprint, prepared.devices, prepared.peers)


def _in_each(work: Callable[[], Result], devices: Devices, peers: Peers) -> Result:
    """Runs `work` in each process; a DataError in one ends all.

    Raises:
        dlkit.errors.DataError: some data cannot be read, by this process or by another.
    """
    failure: DataError | None = None
    try:
        found = work()
    except DataError as damage:
        failure = damage
    if devices.any(failure is not None):
        shared = peers.share(failure)
        peers.say_goodbye()
        raise peers.ending(shared)
    return found


def _changed(run: runs.Run, how: str = "") -> DataError:
    return DataError(
        f"the training data of {run.path} has changed since it began{how}",
        "put back what was there, or start a new run, with `--init-from` to keep the weights",
    )


def _loop(prepared: Prepared, run: runs.Run | None, step: TrainingStep, display: Display, progress: Progress) -> Loop:
    recipe = prepared.recipe
    return Loop(
        run, recipe.train, prepared.task, prepared.model, step, prepared.devices, display,
        width=_width(recipe.model.options), progress=progress, peers=prepared.peers,
    )  # fmt: skip


def resumption(settings: TrainSection, devices: Devices, began_with: int) -> str:
    """How near a resumed run comes to one that was never interrupted.

    Args:
        settings: the recipe's [train] section.
        devices: where it goes on.
        began_with: the number of threads when the run began.
    """
    exact = settings.deterministic and devices.replicas == 1 and not devices.on_gpu and began_with == runtime.threads()
    if exact:
        return "bit for bit"
    # Sums in another order differ in their last digits, and training lets that grow, in float32 more than in float64.
    return "within 1e-5" if settings.precision == "float64" else "up to rounding"


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    import platform

    import numpy as np
    import tensorflow as tf

    return {
        "dlkit": __version__, "python": platform.python_version(), "tensorflow": tf.__version__,
        "keras": keras.__version__, "numpy": np.__version__,
    }  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What training is expected to take, before TensorFlow's own needs.

    Args:
        multiply_adds: of one example.
        memory: bytes on each device: weights, gradients, optimizer slots, the activations of a micro-batch of its rows.
    """

    multiply_adds: int
    memory: int


def expected(prepared: Prepared) -> Cost:
    """Estimates from the summary of the model what training takes.

    Raises:
        dlkit.errors.DlkitError: it is more than the machine has; the hint names a number of micro-batches that fits.
    """
    from dlkit.summary import summarize

    settings, devices = prepared.recipe.train, prepared.devices
    summary = summarize(prepared.model, prepared.task.example_inputs(), precision=settings.precision)

    def memory(accumulate: int) -> int:
        rows = math.ceil(prepared.task.rows(settings.batch_size) / accumulate / devices.replicas)
        return summary.training_memory(batch_size=rows, optimizer=settings.optimizer).total

    needed, there = memory(settings.accumulate), runtime.memory()
    # On a CPU nothing fails in time: the operating system kills the process when memory runs out.
    sharing = devices.replicas if workers.launcher() else devices.local_replicas
    if there and not devices.on_gpu and needed * sharing > there:
        largest = prepared.task.rows(settings.batch_size) // devices.replicas
        parts = (2**power for power in range(1, largest.bit_length()))
        fits = next((count for count in parts if memory(count) * sharing <= there // 2), None)
        size, unit = settings.batch
        raise DlkitError(
            f"training {prepared.recipe.model.name} with {size:,} {unit} per update takes about "
            f"{needed * sharing / 1e9:.1f} GB, and this machine has {there / 1e9:.1f} GB",
            f"`--accumulate {fits}` makes the same update from {size // fits:,} {unit} at a time"
            if fits
            else "the model alone does not fit: choose a smaller one",
        )
    return Cost(summary.multiply_adds, needed)
