"""Which devices are chosen, and what is refused in one line."""

import dataclasses
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import runtime, workers
from dlkit.errors import UsageError

CHIEF = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
WORKERS = {"worker": ["a:1", "b:1", "c:1"]}


def config(cluster, job, index):
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


@pytest.mark.parametrize(
    ("cluster", "job", "index", "rank"),
    [
        (CHIEF, "chief", 0, 0),
        (CHIEF, "worker", 0, 1),
        (CHIEF, "worker", 1, 2),
        (dict(reversed(CHIEF.items())), "worker", 0, 1),  # the order of the jobs says nothing
        (WORKERS, "worker", 0, 0),
        (WORKERS, "worker", "2", 2),  # TensorFlow takes a text, too
    ],
)
def test_the_rank_in_a_cluster_is_that_of_tensorflow(cluster, job, index, rank):
    from tensorflow.python.distribute import multi_worker_util

    found = runtime.process_of(config(cluster, job, index))
    assert (found.rank, len(found.addresses)) == (rank, 3)
    assert found.addresses[rank] == cluster[job][int(index)]
    assert found.names[rank] == ("the chief" if job == "chief" else f"worker {index}")
    assert multi_worker_util.id_in_cluster(cluster, job, int(index)) == rank
    assert multi_worker_util.worker_count(cluster, job) == 3
    assert runtime.Devices(None, "", rank, 3).is_chief == multi_worker_util.is_chief(cluster, job, int(index))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "has no cluster"),
        ("{}", "has no cluster"),
        ('{"cluster": {}}', "has no cluster"),
        ('{"cluster": "a:1"}', "has no cluster"),
        ('{"cluster": {"worker": []}}', "has no list of addresses for the job worker"),
        ('{"cluster": {"worker": "a:1"}}', "has no list of addresses for the job worker"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}', "has a job ps: dlkit knows chief and worker"),
        (config({"worker": ["a:1", "b"]}, "worker", 0), "has an address that is not host:port: b"),
        (config({"worker": ["a:1", ":2"]}, "worker", 0), "has an address that is not host:port: :2"),
        (config({"worker": ["a:1", "b:0"]}, "worker", 0), "has an address that is not host:port: b:0"),
        (config({"worker": ["a:1", "b:65536"]}, "worker", 0), "has an address that is not host:port: b:65536"),
        (config({"chief": ["a:1"], "worker": ["a:1"]}, "worker", 0), "has the address a:1 twice"),
        (config({"chief": ["a:1", "b:1"]}, "chief", 1), "has more than one chief"),
        (json.dumps({"cluster": WORKERS}), "has a task that is none of the cluster's: null"),
        (config(WORKERS, "chief", 0), "has a task that is none of the cluster's: "),
        (config(WORKERS, "worker", -1), "has a task that is none of the cluster's: "),
        (config(WORKERS, "worker", True), "has a task that is none of the cluster's: "),
        (config(WORKERS, "worker", 3), "has no task worker/3: there are 3"),
    ],
)
def test_a_malformed_cluster_is_one_line(monkeypatch, text, problem):
    with pytest.raises(UsageError) as mistake:
        runtime.process_of(text)
    assert mistake.value.message.startswith(f"TF_CONFIG {problem}")
    assert "\n" not in mistake.value.message
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="TF_CONFIG"):
        runtime.devices()


@pytest.mark.parametrize("request_", ["cpu:1", "cpu:2", "gpu:1"])
def test_the_devices_of_a_worker_are_not_counted(monkeypatch, request_):
    monkeypatch.setenv("TF_CONFIG", config(WORKERS, "worker", 0))
    with pytest.raises(UsageError, match=f"--devices {request_}: of several workers each has one CPU or all"):
        runtime.devices(request_)


def test_other_commands_and_a_cluster_of_one_are_no_cluster(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config(WORKERS, "worker", 1))
    assert runtime.devices("cpu:2", alone=True).processes == 1
    monkeypatch.setenv("TF_CONFIG", config({"worker": ["a:1"]}, "worker", 0))
    assert runtime.devices("cpu:2").processes == 1


def test_local_workers_share_the_gpus_out(monkeypatch):
    gpus = ["gpu 0", "gpu 1", "gpu 2", "gpu 3", "gpu 4"]
    processes = [runtime.process_of(config(WORKERS, "worker", index)) for index in range(3)]
    two = [runtime.process_of(config({"worker": ["a:1", "b:1"]}, "worker", index)) for index in range(2)]
    assert runtime._share(gpus, processes[1]) == gpus, "another machine has GPUs of its own"
    monkeypatch.setattr(workers, "launcher", lambda: "somebody")
    assert [runtime._share(gpus, process) for process in processes] == [["gpu 0"], ["gpu 1"], ["gpu 2"]]
    assert [runtime._share(gpus, process) for process in two] == [gpus[:2], gpus[2:4]]
    with pytest.raises(UsageError, match="--workers 3: 2 GPUs found"):
        runtime._share(gpus[:2], processes[0])


@pytest.mark.parametrize(
    "request_", ["auto:7", "auto:", "cpu:", "cpu:0", "cpu:-1", "cpu:1.5", "gpu:x", "tpu", "", "CPU"]
)
def test_what_is_no_request(request_):
    with pytest.raises(UsageError, match="unknown devices"):
        runtime.devices(request_)


@pytest.mark.parametrize(("request_", "count"), [("cpu", 1), ("cpu:1", 1), ("cpu:2", 2)])
def test_one_machine_has_all_replicas(request_, count):
    found = runtime.devices(request_)
    assert (found.replicas, found.local_replicas, found.processes, found.is_chief) == (count, count, 1, True)
    assert not found.on_gpu


def test_a_sum_has_the_counts_of_a_process_once_however_many_devices_it_has():
    one_of_two = dataclasses.replace(runtime.devices("cpu:2"), processes=2)  # the other has counted nothing
    counts = np.array([[3, 0], [5, 2**40]], np.int64)
    np.testing.assert_array_equal(one_of_two.sum(counts), counts)


def test_keras_with_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UsageError, match="imported with the backend jax"):
        runtime.import_tensorflow()


def test_a_pure_precision_is_that_of_the_weights_too():
    for pure, weights in ((False, "float32"), (True, "bfloat16")):
        with runtime.precision("bfloat16", pure=pure):
            layer = keras.layers.Dense(2)
        layer.build((None, 3))
        assert (layer.compute_dtype, layer.kernel.dtype) == ("bfloat16", weights)
    assert keras.config.dtype_policy().name == "float32"


GIB = 2**30


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/\n", {"memory.max": str(3 * GIB)}, 3 * GIB),  # a container that sees itself as the root
        (
            "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n",
            {
                "system.slice/memory.max": "max",
                "system.slice/slurmstepd.scope/job_7/memory.max": str(4 * GIB),
                "system.slice/slurmstepd.scope/job_7/step_0/memory.max": str(5 * GIB),
                "system.slice/slurmstepd.scope/job_8/memory.max": str(GIB),
            },
            4 * GIB,
        ),
        (
            "5:cpu,cpuacct:/small\n4:memory:/slurm/uid_0/job_7\n1:name=systemd:/small\n0::/\n",
            {
                "memory/slurm/uid_0/job_7/memory.limit_in_bytes": str(2 * GIB),
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/small/memory.limit_in_bytes": str(GIB),
            },
            2 * GIB,
        ),
        ("4:memory:/docker/0a1b\n", {"memory/memory.limit_in_bytes": str(6 * GIB)}, 6 * GIB),
        ("0::/../../outside\n", {"memory.max": str(7 * GIB)}, 7 * GIB),
        ("nonsense\n", {}, None),
    ],
)
def test_the_memory_that_a_batch_job_may_use(tmp_path, groups, files, limit):
    (tmp_path / "cgroup").write_text(groups)
    mounted = tmp_path / "mounted"
    for name, content in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(content + "\n")
    unlimited = 2**60
    found = runtime._memory_limits(tmp_path / "cgroup", mounted)
    assert min((each for each in found if each < unlimited), default=None) == limit
    assert list(runtime._memory_limits(tmp_path / "nothing", mounted)) == []


def test_the_memory_is_that_of_the_machine_or_the_least_limit(monkeypatch):
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(runtime, "_memory_limits", lambda groups, mounted: iter([]))
    assert runtime.memory() == there
    monkeypatch.setattr(runtime, "_memory_limits", lambda groups, mounted: iter([2**62, 7 * 2**20]))
    assert runtime.memory() == 7 * 2**20


class GPUs:
    """Three GPUs that TensorFlow believes in, and what was chosen of them."""

    def __init__(self, monkeypatch):
        self.visible = None
        self.mirrored = []
        devices = [f"physical {number}" for number in range(3)]
        monkeypatch.setattr(runtime, "_physical", lambda kind: devices if kind == "GPU" else ["the CPU"])
        monkeypatch.setattr(tf.config, "set_visible_devices", self._see)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": f"model {gpu}"})
        monkeypatch.setattr(tf.distribute, "MirroredStrategy", self._mirror)

    def _see(self, devices, kind):
        assert kind == "GPU"
        self.visible = devices

    def _mirror(self, names):
        self.mirrored.append(names)
        return "a mirrored strategy"


@pytest.mark.parametrize(
    ("request_", "visible", "mirrored", "description"),
    [
        ("auto", 3, [["GPU:0", "GPU:1", "GPU:2"]], "3 x model physical 0"),
        ("gpu", 3, [["GPU:0", "GPU:1", "GPU:2"]], "3 x model physical 0"),
        ("gpu:2", 2, [["GPU:0", "GPU:1"]], "2 x model physical 0"),
        ("gpu:1", 1, [], "model physical 0"),
    ],
)
def test_all_gpus_are_used_unless_fewer_are_asked_for(monkeypatch, request_, visible, mirrored, description):
    gpus = GPUs(monkeypatch)
    found = runtime.devices(request_)
    assert gpus.visible == ["physical 0", "physical 1", "physical 2"][:visible]
    assert gpus.mirrored == mirrored
    assert found.strategy == ("a mirrored strategy" if mirrored else tf.distribute.get_strategy())
    assert (found.description, found.on_gpu) == (description, True)
    assert (found.replicas, found.local_replicas, found.processes) == (visible, visible, 1)


def test_a_cpu_is_used_with_gpus_beside_it_when_it_is_asked_for(monkeypatch):
    gpus = GPUs(monkeypatch)
    found = runtime.devices("cpu")
    assert gpus.visible == []
    assert (found.replicas, found.on_gpu, found.description.startswith("CPU, ")) == (1, False, True)


def test_more_gpus_than_there_are_is_one_line(monkeypatch):
    GPUs(monkeypatch)
    with pytest.raises(UsageError, match=r"--devices gpu:4: 3 found"):
        runtime.devices("gpu:4")


def test_one_thread_each_comes_before_anything_is_computed_or_not_at_all():
    script = """
from dlkit import runtime
runtime.import_tensorflow()
import tensorflow as tf
runtime.threads = lambda: 3
workers = runtime.one_thread_each()
threading = tf.config.threading
tf.zeros(1)
runtime.threads = lambda: 5
later = runtime.one_thread_each()
print(workers, later, threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.split() == ["3", "1", "1", "3"]


def test_a_recipe_says_over_how_many_threads_an_operation_is_spread():
    """Of 5 threads 2 for each operation, of which 2 fit; asked for more than there are, TensorFlow decides as ever."""
    script = """
import sys
from dlkit import recipe, runtime
runtime.threads = lambda: 5
from dlkit.train import start
start.prepare(recipe.resolve("mlp", "digits", flags={"train.limit": 8, "train.op_threads": int(sys.argv[1])}))
import tensorflow as tf
threading = tf.config.threading
print(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    for asked, found in (("2", ["2", "2"]), ("5", ["0", "0"])):
        command = [sys.executable, "-c", script, asked]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert ran.stdout.split() == found
