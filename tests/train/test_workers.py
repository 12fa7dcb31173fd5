"""`--workers`: processes that are started, stopped and killed together, and train as one."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlkit import runs, workers
from dlkit.cli import main
from dlkit.data.folders import divide, list_images
from dlkit.errors import DlkitError
from dlkit.train import checkpoints

# In float64 the order of the sums does not show; the steps are so many that there is time to stop them.
SETTINGS = [
    "--batch-size", "20", "--limit", "50", "--seed", "3", "--steps", "400", "--precision", "float64", "--clip-norm",
    "0.5", "--set", "model.hidden=[8]", "--set", "model.norm=batch", "--set", "model.dropout=0.3", "--set",
    "data.size=8", "--set", "train.checkpoint_every=20", "--set", "train.evaluate_every=70", "--set",
    "train.log_every=100",
]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert main(["train", "mlp", "--runs-dir", str(folder), "--name", "x", *SETTINGS, "-q"]) == 0
    return runs.open_run(folder / "x")


def assert_same(path, alone):
    run = runs.open_run(path)
    assert run.checkpoints()[-1] == alone.checkpoints()[-1] == "step-400"
    of_validation = [
        {line["step"]: line["loss"] for line in each.metrics() if line["kind"] == "evaluation"} for each in (run, alone)
    ]
    assert of_validation[0] == pytest.approx(of_validation[1], rel=1e-9)
    for group in ("weights", "optimizer"):
        ours, theirs = (checkpoints.read(each.path / "checkpoints" / "step-400", group) for each in (run, alone))
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            np.testing.assert_allclose(ours[name], array, rtol=1e-6, atol=1e-9, err_msg=name)
    return run


def test_two_workers_train_as_one_process_although_a_port_is_taken(alone, tmp_path, monkeypatch, capfd):
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.delenv(name, raising=False)  # they would stand above the share of a worker
    free = workers._free_ports
    chosen = []
    with socket.create_server(("127.0.0.1", 0)) as other_program:

        def ports(count):
            chosen.append(free(count) if chosen else [*free(count - 1), other_program.getsockname()[1]])
            return chosen[-1]

        monkeypatch.setattr(workers, "_free_ports", ports)
        assert workers.train(["train", "mlp", "--runs-dir", str(tmp_path), "--name", "x", *SETTINGS], 2) == 0
    assert len(chosen) == 2
    run = assert_same(tmp_path / "x", alone)
    assert os.listdir(tmp_path) == ["x"], "only the chief writes"
    assert run.info["devices"].startswith("2 workers x CPU")
    assert run.info["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
    output = capfd.readouterr()
    assert output.out == ""
    assert len([line for line in output.err.splitlines() if line.startswith("recipe ")]) == 1, "only the chief speaks"
    assert output.err.count("test accuracy") == 1
    assert "error" not in output.err


def start(*arguments):
    """Starts `dlkit train` in a group of processes of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "dlkit", "train", *arguments, "--workers", "2", "-q"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_step(process, run, step):
    """Waits for a checkpoint of a later step than `step`, and returns the processes that train, the chief first."""
    deadline = time.monotonic() + 120
    while not any(found > step for found in checkpoints.steps(run / "checkpoints")):
        assert time.monotonic() < deadline, "no checkpoint"
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return children(process)


def children(process):
    """The processes that it has started, the first one first."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(map(int, listed.read_text().split()))


def wait_for_children(process):
    """Waits until both workers are started, and a moment more: TensorFlow is then being imported."""
    deadline = time.monotonic() + 120
    while len(children(process)) < 2:
        assert time.monotonic() < deadline, "no workers"
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.2)


def is_running(pid):
    """Whether there is such a process, and not only its exit code, which nobody may have asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ended(process, trained_in, *, within=0):
    """The exit code and what was said, once no process is left of it, or so many seconds later."""
    try:
        out, error = process.communicate(timeout=60)
        deadline = time.monotonic() + within
        while any(map(is_running, trained_in)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(is_running, trained_in))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert out == ""
    on_one_processor = "warning: --workers 2 on 1 processor"
    return process.returncode, [line for line in error.splitlines() if not line.startswith(on_one_processor)]


def test_a_run_that_is_stopped_and_killed_goes_on_to_the_same_weights(alone, tmp_path):
    run = tmp_path / "x"
    stopped = start("mlp", "--runs-dir", str(tmp_path), "--name", "x", *SETTINGS)
    two = wait_for_step(stopped, run, 0)
    assert len(two) == 2
    os.killpg(stopped.pid, signal.SIGTERM)  # workers hear of it from who started them, as SIGUSR1
    code, lines = ended(stopped, two)
    last = checkpoints.steps(run / "checkpoints")[-1]
    assert (code, lines) == (
        143,
        [
            f"error: interrupted after step {last}, saved in {run}",
            f"hint: `dlkit train --resume {run}` goes on from there",
        ],
    )

    killed = start("--resume", str(run))
    two = wait_for_step(killed, run, last)
    os.kill(two[0], signal.SIGKILL)
    assert ended(killed, two) == (
        1,
        [
            "error: worker 0 (the chief) of 2 was killed by SIGKILL, perhaps for want of memory",
            f"hint: `dlkit train --resume {run} --workers 2` goes on from its last checkpoint",
        ],
    )

    assert main(["train", "--resume", str(run), "-q"]) == 0  # by itself, which is another number of workers
    assert_same(run, alone)


def test_workers_save_and_end_when_the_process_that_started_them_is_killed(tmp_path):
    run = tmp_path / "x"
    process = start("mlp", "--runs-dir", str(tmp_path), "--name", "x", *SETTINGS)
    two = wait_for_step(process, run, 0)
    process.kill()
    code, lines = ended(process, two, within=20)
    last = checkpoints.steps(run / "checkpoints")[-1]
    assert last < 400, "they did not train on to the end"
    assert (code, lines[0]) == (-signal.SIGKILL, f"error: interrupted after step {last}, saved in {run}")
    assert checkpoints.damage(run / "checkpoints" / f"step-{last}") is None


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_image_that_one_worker_cannot_read_ends_all_when_the_chief_has_saved(tmp_path, monkeypatch, capfd, split):
    """The chief takes longer to save than is given to those that hang on when another has failed."""
    script = str(Path(__file__).with_name("damaged_worker.py"))
    seconds = 2.0
    monkeypatch.setattr(workers, "STRAGGLERS", seconds / 2)
    monkeypatch.setattr(workers, "command", lambda arguments: [sys.executable, script, split, str(seconds), *arguments])
    run = tmp_path / "x"
    arguments = ["train", "mlp", "--runs-dir", str(tmp_path), "--name", "x", *SETTINGS]
    arguments += ["--set", "train.checkpoint_every=99", "--set", "train.evaluate_every=4"]
    assert workers.train(arguments, 2) == 3
    step = {"train": 9, "validation": 12}[split]  # an epoch has 3 batches: after 3 epochs, and after 4
    assert runs.open_run(run).checkpoints() == [f"step-{step}"]
    assert checkpoints.damage(run / "checkpoints" / f"step-{step}") is None
    error, hint = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error", "hint"))]
    assert re.fullmatch(r"error: worker 1 \(127\.0\.0\.1:\d+\) failed: cat\.png is damaged or cut short", error)
    assert hint.startswith(f"hint: step {step} is saved: ")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_image_that_another_worker_decodes_ends_all_before_there_is_a_run(tmp_path, capfd, split):
    """Each worker decodes every second image, of those that are trained on and of the others."""
    draw = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "photos" / ("test" if number < 10 else "train") / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    second = tmp_path / "photos" / divide(list_images(tmp_path / "photos").files)[split][1].path
    second.write_bytes(second.read_bytes()[:-400])
    arguments = ["train", "mlp", "--data", str(tmp_path / "photos"), "--runs-dir", str(tmp_path / "runs")]
    assert workers.train([*arguments, "--set", "model.hidden=[4]", "--steps", "5"], 2) == 3
    error, hint = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error", "hint"))]
    named = rf"error: worker 1 \(127\.0\.0\.1:\d+\) failed: {re.escape(str(second))} is damaged or cut short"
    assert re.match(named, error)
    assert "`--on-bad skip` leaves them out" in hint
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------------------- what needs no TensorFlow


def test_who_is_already_named_is_not_started(monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    assert main(["train", "mlp", "--workers", "2"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --workers starts all workers, and TF_CONFIG says that they are started",
        "hint: leave one of both",
    ]


def test_there_is_at_least_one_worker(capsys):
    assert main(["train", "mlp", "--workers", "0"]) == 2
    assert "--workers must be greater than or equal to 1" in capsys.readouterr().err


def test_a_mistake_is_told_once(monkeypatch, capfd):
    monkeypatch.setattr(workers, "processors", lambda: 3)
    assert main(["train", "mpl", "--workers", "3"]) == 2
    error, hint = capfd.readouterr().err.splitlines()
    assert error == "error: unknown model: mpl"
    assert "`mlp`" in hint


@pytest.mark.parametrize(("count", "warning"), [(2, ""), (33, "warning: --workers 33 on 2 processors: ")])
def test_more_workers_than_processors_are_warned_of_and_started(monkeypatch, capfd, count, warning):
    class Started(Exception):
        pass

    def start(arguments, number, stack):
        assert number == count
        raise Started

    monkeypatch.setattr(workers, "processors", lambda: 2)
    monkeypatch.setattr(workers, "_start", start)
    with pytest.raises(Started):
        workers.train(["train", "mlp"], count)
    err = capfd.readouterr().err
    assert err.startswith(warning)
    assert err.count("\n") == bool(warning)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_there_is_anything_to_save(tmp_path, number):
    """Ctrl-C and the end of a terminal reach all processes; they mean the one that was started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests run under `nohup`
    process = start("mlp", "--runs-dir", str(tmp_path), *SETTINGS)
    signal.signal(signal.SIGHUP, before)
    wait_for_children(process)
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)
    assert ended(process, []) == (128 + number, ["error: interrupted"])


def test_a_signal_to_one_worker_before_it_can_take_it(tmp_path):
    process = start("mlp", "--runs-dir", str(tmp_path), *SETTINGS)
    wait_for_children(process)
    began = time.monotonic()
    os.kill(children(process)[1], signal.SIGUSR1)
    assert ended(process, []) == (138, ["error: interrupted"])
    assert time.monotonic() - began < workers.STRAGGLERS  # the other one was told


@pytest.mark.parametrize(
    ("victim", "number", "message"),
    [
        (0, signal.SIGKILL, "worker 0 (the chief) of 2 was killed by SIGKILL, perhaps for want of memory"),
        (1, signal.SIGKILL, "worker 1 of 2 was killed by SIGKILL, perhaps for want of memory"),
        (1, signal.SIGSEGV, "worker 1 of 2 was killed by SIGSEGV"),
        (0, signal.SIGUSR1, "interrupted"),
    ],
)
def test_who_was_killed_and_how_the_run_goes_on(monkeypatch, victim, number, message):
    """The other one ends as a worker does that has lost one."""
    script = f"""
import json, os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
if index == 0:
    socket.socket(fileno=int(os.environ["{workers.LAUNCHER}"])).sendall(b'{{"run": "my runs/x"}}\\n')
if index == {victim}:
    os.kill(os.getpid(), {int(number)})
sys.exit({workers.LOST})
"""
    monkeypatch.setattr(workers, "command", lambda arguments: [sys.executable, "-c", script])
    with pytest.raises(DlkitError) as caught:
        workers.train(["train", "mlp"], 2)
    hint = "`dlkit train --resume 'my runs/x' --workers 2` goes on from its last checkpoint"
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.code == (138 if number == signal.SIGUSR1 else 1)


def test_when_no_port_is_free(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(workers, "ATTEMPTS", 2)
    with socket.create_server(("127.0.0.1", 0)) as other_program:
        port = other_program.getsockname()[1]
        monkeypatch.setattr(workers, "_free_ports", lambda count: [port, port + 1])
        assert main(["train", "mlp", "--workers", "2"]) == 1
    assert capfd.readouterr().err.splitlines()[0] == "error: cannot find 2 free ports on this machine"


def test_ports_are_free_and_differ():
    with socket.create_server(("127.0.0.1", 0)):
        ports = workers._free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
