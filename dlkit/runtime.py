"""The only place that starts TensorFlow: quiet import, devices and strategy, precision, seeds."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlkit import console, signals
from dlkit.errors import DlkitError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf
    from numpy.typing import NDArray


def memory() -> int | None:
    """The bytes of memory that this process may use, or None when the system does not tell."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return min([total, *_memory_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _memory_limits(groups: Path, mounted: Path) -> Iterator[int]:
    """The limits of a container, a batch job or a service: of each group that this process is in and of those above.

    Args:
        groups: the file that says in which groups it is, lines `0::/path` and, of the older form, `4:memory:/path`.
        mounted: where their files are. In a container that is the container's own group, whatever the path says, so
            folders of the path may be missing.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, _, group = line.partition(":")
        controllers, _, path = group.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, name = (mounted / "memory", "memory.limit_in_bytes") if controllers else (mounted, "memory.max")
        own = folder / path.lstrip("/")
        for place in [own, *own.parents][: len(own.parts) - len(folder.parts) + 1]:
            with suppress(OSError, ValueError):  # "max" when a group has none
                yield int((place / name).read_text())


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """The threads that one operation of TensorFlow is spread over."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or processors())


PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float64": "float64"}


def one_thread_each() -> int:
    """Gives every operation of TensorFlow one thread; returns how many can then be worked on side by side.

    That is for work of many parts that need nothing of each other. It has to come before TensorFlow computes anything:
    later, and where a GPU computes, nothing is changed and there is one worker.
    """
    return threads() if divide_threads(1) else 1


def divide_threads(of_one: int) -> bool:
    """Spreads an operation of TensorFlow over so many threads, and lets as many operations run side by side as fit.

    Small operations gain nothing from more threads, and a training step has many that do not wait for each other, such
    as the two products behind the gradient of a product. It has to come before TensorFlow computes anything: later, and
    where a GPU computes or all threads are asked for, nothing is changed and the answer is False.
    """
    import tensorflow as tf

    count = threads()
    if of_one >= count or tf.config.list_physical_devices("GPU"):
        return False
    try:
        tf.config.threading.set_intra_op_parallelism_threads(of_one)
        tf.config.threading.set_inter_op_parallelism_threads(count // of_one)
    except RuntimeError:
        return False
    return True


_stderr: list[int] = []  # where standard error goes while native chatter is held


def free_stderr() -> None:
    """Lets what is written to standard error be seen again: for other threads, which have to speak before the end."""
    for descriptor in _stderr:
        os.dup2(descriptor, 2)


@contextmanager
def _native_chatter_held() -> Iterator[None]:
    """Holds what native code writes to file descriptor 2, and replays it when the body fails.

    TF_CPP_MIN_LOG_LEVEL does not silence the lines that TensorFlow writes before its logging is set up.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # started without a stderr: nothing to hold
        yield
        return
    with tempfile.TemporaryFile() as held:
        _stderr.append(saved)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # an interrupt explains itself
            os.dup2(saved, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            _stderr.remove(saved)
            os.close(saved)


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras without their chatter (with it under `--verbose`); a second call does nothing.

    Raises:
        dlkit.errors.UsageError: the environment asks Keras for another backend, or Keras has been imported with one.
        dlkit.errors.DlkitError: TensorFlow cannot be imported.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise UsageError(
            f"KERAS_BACKEND is {backend}, and dlkit runs on tensorflow",
            "unset it (`unset KERAS_BACKEND`) or set it to tensorflow",
        )
    if "keras" in sys.modules:
        _refuse_other_backend()
        if "tensorflow" in sys.modules:
            return
    os.environ["KERAS_BACKEND"] = "tensorflow"  # above a user's ~/.keras/keras.json
    os.environ.setdefault("HDF5_PLUGIN_PATH", "disable")  # before h5py loads: no native code beside a data file
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # a prediction does not take the whole GPU
    try:
        with signals.deferred():
            if console.settings.verbose:
                import keras
                import tensorflow as tf
            else:
                os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
                with _native_chatter_held():
                    import keras
                    import tensorflow as tf

                    tf.get_logger().setLevel("ERROR")
    except ImportError as failure:
        raise DlkitError(f"TensorFlow cannot be imported: {failure}", "`dlkit doctor` looks at the installation") from (
            failure
        )
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def _refuse_other_backend() -> None:
    import keras

    if (backend := keras.config.backend()) != "tensorflow":
        raise UsageError(
            f"Keras has been imported with the backend {backend}, and dlkit runs on tensorflow",
            "set KERAS_BACKEND to tensorflow before Keras is imported",
        )


@dataclass(frozen=True)
class Devices:
    """Where a computation runs.

    Args:
        strategy: the distribution strategy; the default one for a single device.
        description: in a few words for people, such as "CPU, 2 threads".
        rank: number of this process, 0 unless several train together.
        processes: how many they are.
        replicas: number of devices over all processes.
        local_replicas: number of devices of this process.
        on_gpu: whether they are GPUs.
    """

    strategy: "tf.distribute.Strategy"
    description: str
    rank: int = 0
    processes: int = 1
    replicas: int = 1
    local_replicas: int = 1
    on_gpu: bool = False

    @property
    def is_chief(self) -> bool:
        """Whether this process prepares data and writes the run folder."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in at least one process; every process has to ask, at the same point of its work."""
        if self.processes == 1:
            return flag
        import tensorflow as tf

        flags = self.strategy.run(lambda: tf.constant(float(flag)))
        return bool(self.strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None) > 0)

    def sum(self, counts: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """The sum of what each process has counted; every process has to ask, at the same point of its work."""
        if self.processes == 1:
            return counts
        import tensorflow as tf

        of_devices = self.strategy.run(lambda: tf.constant(counts))  # each device of a process has its counts
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, of_devices, axis=None).numpy() // self.local_replicas


def set_precision(precision: str) -> None:
    """Sets the Keras policy that layers built from now on compute in.

    `bfloat16` keeps the weights in float32 and multiplies in bfloat16 (mixed precision).
    """
    import keras

    keras.config.set_dtype_policy(PRECISIONS[precision])


@contextmanager
def precision(name: str, *, pure: bool = False) -> Iterator[None]:
    """Layers that are built inside the block compute in this precision, whatever is set around it.

    Args:
        name: see `set_precision`.
        pure: whether the weights are of this precision, too: for models that are not trained.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name if pure else PRECISIONS[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def set_seed(seed: int, *, deterministic: bool = False) -> None:
    """Seeds what draws at build time (weights); everything in training draws statelessly from the seed instead.

    Args:
        seed: any non-negative integer.
        deterministic: also ask TensorFlow for operations that give the same bits every time, at some cost in speed.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def _physical(kind: str) -> list[Any]:
    import tensorflow as tf

    return list(tf.config.list_physical_devices(kind))


def devices(request: str = "auto", *, alone: bool = False) -> Devices:
    """Chooses the devices and the strategy; must come before TensorFlow touches a device.

    Args:
        request: `auto` (all GPUs, else the CPU), `cpu`, `gpu`, `gpu:N` for the first N GPUs, or `cpu:N` for the CPU as
            N logical devices, which shows on any laptop what several devices do.
        alone: whether this process works by itself, whatever TF_CONFIG says.

    Several processes work together when TF_CONFIG says so; each then takes all of its devices, or with `--workers` its
    share of the GPUs.

    Raises:
        dlkit.errors.UsageError: the request is malformed, there are fewer such devices, or TF_CONFIG is wrong.
        dlkit.errors.DlkitError: another program has the port of this process.
    """
    import tensorflow as tf

    if not re.fullmatch(r"auto|(cpu|gpu)(:0*[1-9][0-9]*)?", request):
        raise UsageError(f"unknown devices: {request}", "one of auto, cpu, gpu, gpu:N, cpu:N")
    kind, _, count_text = request.partition(":")
    here = Process() if alone else process()
    together = len(here.addresses) > 1
    if together and count_text:
        raise UsageError(
            f"--devices {request}: of several workers each has one CPU or all of its GPUs",
            f"leave :{count_text} out; CUDA_VISIBLE_DEVICES chooses the GPUs of a machine",
        )
    gpus = _physical("GPU")
    if kind == "gpu" and len(gpus) < int(count_text or 1):
        found = f"{len(gpus)} found" if gpus else "no GPU found"
        raise UsageError(f"--devices {request}: {found}", "use `--devices auto`; `dlkit doctor` lists the devices")
    if kind == "cpu" or not gpus:
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        name = f"CPU, {threads()} thread{'s' * (threads() > 1)}"
        if together:
            return _cluster(here, name)
        count = int(count_text or 1) if kind == "cpu" else 1
        if count == 1:
            return Devices(tf.distribute.get_strategy(), name)
        names = _split_cpu(count)
        strategy = tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice())
        description = f"CPU as {count} devices, {threads()} threads"
        return Devices(strategy, description, replicas=count, local_replicas=count)
    chosen = gpus[: int(count_text)] if count_text else _share(gpus, here)
    tf.config.set_visible_devices(chosen, "GPU")
    model = tf.config.experimental.get_device_details(chosen[0]).get("device_name", "GPU")
    count = len(chosen)
    description = f"{count} x {model}" if count > 1 else model
    if together:
        return _cluster(here, description, on_gpu=True)
    if count == 1:
        return Devices(tf.distribute.get_strategy(), description, on_gpu=True)
    strategy = tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(count)])
    return Devices(strategy, description, replicas=count, local_replicas=count, on_gpu=True)


def _share(gpus: list[Any], here: "Process") -> list[Any]:
    """The GPUs of this process: all, unless `--workers` has put several processes on this machine."""
    from dlkit import workers

    if not workers.launcher():
        return gpus
    count = len(here.addresses)
    if len(gpus) < count:
        found = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)} found"
        raise UsageError(f"--workers {count}: {found}", "`--devices cpu` trains on the CPU")
    each = len(gpus) // count
    return gpus[here.rank * each :][:each]


def _split_cpu(count: int) -> list[str]:
    import tensorflow as tf

    cpu = _physical("CPU")[0]
    existing = tf.config.get_logical_device_configuration(cpu) or []
    if len(existing) < count:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError as failure:
            raise UsageError(
                f"cannot split the CPU now: {failure}", "choose the devices before anything runs"
            ) from None
    return [f"CPU:{index}" for index in range(count)]


class Process(NamedTuple):
    """A process among those that train together; by default it is alone.

    Args:
        rank: its number, 0 for the chief.
        addresses: `host:port` of all of them, in this order.
        names: what TF_CONFIG calls them.
    """

    rank: int = 0
    addresses: tuple[str, ...] = ("",)
    names: tuple[str, ...] = ("the chief",)

    @property
    def is_chief(self) -> bool:
        """Whether this process prepares data, writes and speaks."""
        return self.rank == 0


def process() -> Process:
    """What TF_CONFIG says that this process is.

    Raises:
        dlkit.errors.UsageError: TF_CONFIG is wrong.
    """
    config = os.environ.get("TF_CONFIG")
    return process_of(config) if config else Process()


def process_of(config: str) -> Process:
    """The process that a TF_CONFIG is for, among those that train together.

    The task of a job `chief` comes first; without one, the first worker is the chief.

    Args:
        config: the text of TF_CONFIG.

    Raises:
        dlkit.errors.UsageError: the text does not say so.

    Example:
        >>> process_of('{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}')
        Process(rank=1, addresses=('a:1', 'b:1'), names=('the chief', 'worker 0'))
    """

    def wrong(problem: str) -> UsageError:
        form = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        return UsageError(f"TF_CONFIG {problem}", f"it has the form {form}")

    try:
        content = json.loads(config)
    except ValueError as failure:
        raise wrong(f"is not JSON: {failure}") from None
    cluster = content.get("cluster") if isinstance(content, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        raise wrong("has no cluster")
    for job, tasks in cluster.items():
        if job not in {"chief", "worker"}:
            raise wrong(f"has a job {job}: dlkit knows chief and worker")
        if not isinstance(tasks, list) or not tasks or not all(isinstance(address, str) for address in tasks):
            raise wrong(f"has no list of addresses for the job {job}")
        for address in tasks:
            if not re.fullmatch(r".+:0*[1-9]\d{0,4}", address) or int(address.rpartition(":")[2]) > 65535:
                raise wrong(f"has an address that is not host:port: {address}")
    if len(cluster.get("chief", [])) > 1:
        raise wrong("has more than one chief")
    match content.get("task"):
        case {"type": str(job), "index": int() | str() as index} if job in cluster and str(index).isdecimal():
            if int(index) >= len(cluster[job]):
                raise wrong(f"has no task {job}/{index}: there are {len(cluster[job])}")
        case task:
            raise wrong(f"has a task that is none of the cluster's: {json.dumps(task)}")
    chief, workers = cluster.get("chief", []), cluster.get("worker", [])
    addresses = (*chief, *workers)
    if repeated := next((address for address in addresses if addresses.count(address) > 1), None):
        raise wrong(f"has the address {repeated} twice")
    names = ("the chief",) * len(chief) + tuple(f"worker {number}" for number in range(len(workers)))
    return Process(int(index) + len(chief) * (job == "worker"), addresses, names)


def _cluster(here: Process, description: str, *, on_gpu: bool = False) -> Devices:
    import tensorflow as tf
    from tensorflow.python.distribute import collective_all_reduce_strategy
    from tensorflow.python.eager import context

    # TensorFlow would end a process whose peers have slept for ten seconds; dlkit.cluster knows better who is gone.
    context.context().configure_coordination_service(service_type="")
    collective_all_reduce_strategy.CollectiveAllReduceExtended._enable_check_health = False
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.UnknownError as failure:
        if "Could not start gRPC server" not in failure.message:
            raise
        raise port_taken(here) from None
    processes, replicas = len(here.addresses), strategy.num_replicas_in_sync
    return Devices(
        strategy,
        f"{processes} workers x {description}",
        here.rank,
        processes,
        replicas=replicas,
        local_replicas=replicas // processes,  # TensorFlow wants as many on each
        on_gpu=on_gpu,
    )


def port_taken(here: Process) -> BaseException:
    """What to raise when another program has the port of this process."""
    from dlkit import workers

    if workers.launcher():
        return SystemExit(workers.PORT_TAKEN)
    port = here.addresses[here.rank].rpartition(":")[2]
    return DlkitError(
        f"port {port} of this machine is taken: TF_CONFIG gives it to {here.names[here.rank]}",
        "choose another port, or wait for the program to end that has it",
    )
