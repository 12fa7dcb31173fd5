"""`dlkit doctor`: whether this machine can do the work, and what it does it with."""

import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dlkit import console
from dlkit.cli import options as opt
from dlkit.errors import DlkitError

DISK_NEEDED = 1_000_000_000  # bytes: a few checkpoints of a large net
TRAINING_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: what was looked at.
        found: in words.
        wrong: whether the work cannot be done so.
        hint: what to do about it.
    """

    check: str
    found: str
    wrong: bool = False
    hint: str = ""


def doctor(runs_dir: opt.RunsDir = opt.RUNS_DIR) -> None:
    """Check this machine and try training on it.

    Versions, devices, threads, memory, disk and data, then up to five seconds of training. The exit code is 1 when
    something is wrong.

    Example: dlkit doctor
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("versions", versions),
        ("devices", devices),
        ("threads", threads),
        ("bfloat16", bfloat16),
        ("memory", memory),
        ("disk", lambda: disk(runs_dir)),
        ("data", data),
        ("prepared", prepared),
        ("training", training),
    ]
    findings = [_careful(name, check) for name, check in checks]
    wrong = [finding for finding in findings if finding.wrong]
    if console.settings.json:
        console.data_json({"ok": not wrong, "checks": [asdict(finding) for finding in findings]})
    else:
        rows = [("wrong" if finding.wrong else "ok", finding.check, finding.found) for finding in findings]
        console.table(["", "check", "found"], rows)
    if wrong:
        hints = "; ".join(finding.hint for finding in wrong if finding.hint)
        raise DlkitError(f"wrong here: {', '.join(finding.check for finding in wrong)}", hints)


def _careful(name: str, check: Callable[[], Finding]) -> Finding:
    """A check that breaks down has found something wrong."""
    try:
        return check()
    except DlkitError as failure:
        return Finding(name, failure.message, wrong=True, hint=failure.hint)
    except Exception as failure:
        if console.settings.debug:
            console.trace(failure)
        return Finding(name, f"{type(failure).__name__}: {failure}", wrong=True, hint="`--debug` shows where")


def versions() -> Finding:
    """The versions of what the results depend on; TensorFlow is imported to see whether it can be."""
    from dlkit import __version__, runtime

    runtime.import_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    known = {"dlkit": __version__, "python": platform.python_version(), "tensorflow": tf.__version__}
    known |= {"keras": keras.__version__, "numpy": np.__version__}
    text = ", ".join(f"{name} {version}" for name, version in known.items())
    # Before 3.15.1 a model file from a stranger could run code.
    unsafe = tuple(int(part) for part in re.findall(r"\d+", keras.__version__)[:3]) < (3, 15, 1)
    return Finding("versions", f"{text}; {platform.platform()}", unsafe, "upgrade keras to 3.15.1" if unsafe else "")


def devices() -> Finding:
    """What TensorFlow can compute on; an NVIDIA GPU that it cannot use is wrong."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    if not gpus and shutil.which("nvidia-smi") and Path("/dev/nvidia0").exists():
        hint = "install `dlkit-tf[gpu]` and check the driver"
        return Finding("devices", "CPU; the NVIDIA GPU is not used", wrong=True, hint=hint)
    return Finding("devices", ", ".join(names) if names else f"CPU ({platform.processor() or platform.machine()})")


def threads() -> Finding:
    """The processors that this process may use, and what limits TensorFlow to fewer threads."""
    from dlkit.runtime import processors

    limits = [name for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS") if name in os.environ]
    text = "".join(f"; {name}={os.environ[name]}" for name in limits)
    return Finding("threads", f"{processors()} of {os.cpu_count()} processors{text}")


def bfloat16() -> Finding:
    """Whether `--precision bfloat16` is faster here or only emulated."""
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        major, minor = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        native = [f"compute capability {major}.{minor}"] if major >= 8 else []
    else:
        info = Path("/proc/cpuinfo")  # Linux only; elsewhere nothing is known
        flags = set(info.read_text(errors="replace").split()) if info.exists() else set()
        native = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    return Finding("bfloat16", f"in hardware ({', '.join(native)})" if native else "emulated: slower than float32")


def memory() -> Finding:
    """The machine's memory, what of it is free, and what a container or a batch system leaves of it."""
    from dlkit import runtime

    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    text = f"{total / 1e9:.1f} GB"
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        text += f", {page * os.sysconf('SC_AVPHYS_PAGES') / 1e9:.1f} GB free"
    usable = runtime.memory()
    if usable is not None and usable < total:
        text += f"; this process may use {usable / 1e9:.1f} GB"
    return Finding("memory", text)


def disk(runs_dir: Path) -> Finding:
    """Whether runs can be written where they go, and how much fits."""
    place = runs_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        return Finding("disk", f"{place} cannot be written", wrong=True, hint="choose another folder with --runs-dir")
    text = f"{free / 1e9:.1f} GB free in {place}"
    return Finding("disk", text, free < DISK_NEEDED, "free some space" if free < DISK_NEEDED else "")


def data() -> Finding:
    """Whether the data that comes with dlkit is whole."""
    from dlkit.data.digits import read

    images, labels = read()
    whole = len(images) == len(labels) == 1797
    return Finding("data", f"digits: {len(images):,} images", not whole, "" if whole else "install dlkit again")


def prepared() -> Finding:
    """Which sets of TensorFlow Datasets are prepared, and where."""
    from dlkit.data import tfds_names

    folder = tfds_names.data_dir(None)
    return Finding("prepared", f"{folder}: {', '.join(tfds_names.prepared(folder)) or 'nothing yet'}")


def training() -> Finding:
    """Whether a small net learns: some seconds of LeNet on the digits, by plain gradient descent."""
    import keras
    import numpy as np
    import tensorflow as tf

    from dlkit import models
    from dlkit.data.digits import digits

    split = digits().splits["train"]
    pixels = split.fetch(np.arange(len(split))).astype(np.float32) / 255
    images, labels = tf.constant((pixels - pixels.mean()) / pixels.std()), tf.constant(split.labels)
    keras.utils.set_random_seed(0)
    model = models.build("lenet", input_shape=(32, 32, 1), classes=10)

    @tf.function
    def step(rows: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(tf.gather(images, rows), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(labels, rows), logits)
            loss = tf.reduce_mean(losses)
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.1 * gradient)
        return loss

    def rows_of(number: int) -> tf.Tensor:
        return tf.range(64 * number, 64 * (number + 1)) % len(labels)

    first = float(step(rows_of(0)))  # traces the graph: not in the time
    last, steps, started = first, 0, time.monotonic()
    while time.monotonic() - started < TRAINING_SECONDS and steps < 400:
        steps += 1
        last = float(step(rows_of(steps)))
    rate = 64 * steps / (time.monotonic() - started)
    text = f"lenet on digits: loss {first:.2f} -> {last:.2f} in {steps} steps, {rate:,.0f} images/s"
    learned = last < 0.5 * first
    return Finding("training", text, not learned, "" if learned else "`dlkit train lenet --debug` shows more")
