"""Which devices are chosen, and what is refused in one line."""

import json

import keras
import pytest

from dlkit import runtime
from dlkit.errors import UsageError

CHIEF = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
WORKERS = {"worker": ["a:1", "b:1", "c:1"]}


def config(cluster, job, index):
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


@pytest.mark.parametrize(
    ("cluster", "job", "index", "place"),
    [
        (CHIEF, "chief", 0, 0),
        (CHIEF, "worker", 0, 1),
        (CHIEF, "worker", 1, 2),
        (dict(reversed(CHIEF.items())), "worker", 0, 1),  # the order of the jobs says nothing
        (WORKERS, "worker", 0, 0),
        (WORKERS, "worker", "2", 2),  # TensorFlow takes a text, too
    ],
)
def test_the_place_in_a_cluster_is_that_of_tensorflow(monkeypatch, cluster, job, index, place):
    from tensorflow.python.distribute import multi_worker_util

    assert runtime.cluster_place(config(cluster, job, index)) == (place, 3)
    assert multi_worker_util.id_in_cluster(cluster, job, int(index)) == place
    assert multi_worker_util.worker_count(cluster, job) == 3
    assert runtime.Devices(None, "", place, 3).is_chief == multi_worker_util.is_chief(cluster, job, int(index))


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
        runtime.cluster_place(text)
    assert mistake.value.message.startswith(f"TF_CONFIG {problem}")
    assert "\n" not in mistake.value.message
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="TF_CONFIG"):
        runtime.devices()


@pytest.mark.parametrize("request_", ["cpu", "cpu:2", "gpu"])
def test_devices_are_not_chosen_twice(monkeypatch, request_):
    monkeypatch.setenv("TF_CONFIG", config(WORKERS, "worker", 0))
    with pytest.raises(UsageError, match="exclude each other"):
        runtime.devices(request_)


@pytest.mark.parametrize(
    "request_", ["auto:7", "auto:", "cpu:", "cpu:0", "cpu:-1", "cpu:1.5", "gpu:x", "tpu", "", "CPU"]
)
def test_what_is_no_request(request_):
    with pytest.raises(UsageError, match="unknown devices"):
        runtime.devices(request_)


@pytest.mark.parametrize(("request_", "count"), [("cpu", 1), ("cpu:1", 1), ("cpu:2", 2)])
def test_one_machine_has_all_replicas(request_, count):
    found = runtime.devices(request_)
    assert (found.replicas, found.local_replicas, found.workers, found.is_chief) == (count, count, 1, True)
    assert not found.on_gpu


def test_keras_with_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UsageError, match="imported with the backend jax"):
        runtime.import_tensorflow()
