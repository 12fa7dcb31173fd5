"""The processes of a cluster, here as threads of one: they meet, wait, agree and part, and miss those that are gone."""

import gc
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dlkit import cluster, runtime, signals, workers
from dlkit.cli import main
from dlkit.errors import DivergedError, DlkitError, Stopped, UsageError


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def tf_config(addresses, index):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


@pytest.fixture
def met():
    """So many processes that have met."""
    started = []

    def meet(count):
        addresses = free_addresses(count)
        peers = [cluster.Peers(runtime.process_of(tf_config(addresses, index))) for index in range(count)]
        started.extend(peers)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(cluster.Peers.meet, peers))
        return peers

    yield meet
    for peers in started:
        peers._parted = True
    for peers in started:
        peers.close()


def kill(peers):
    """The system breaks the connections of a process that is killed."""

    def abort():
        for writer in [*peers._out.values(), *peers._accepted]:
            writer.transport.abort()

    peers._parted = True  # a dead process does not speak
    peers._loop.call_soon_threadsafe(abort)


class Ends:
    """What would have ended this process: (message, hint, exit code)."""

    def __init__(self):
        self.found, self.arrived = [], threading.Semaphore(0)

    def exit(self, code):
        self.found[-1] += (code,)
        self.arrived.release()

    def wait(self, count):
        for _ in range(count):
            assert self.arrived.acquire(timeout=10)
        return self.found


@pytest.fixture
def ends(monkeypatch):
    ends = Ends()
    monkeypatch.setattr(cluster.os, "_exit", ends.exit)
    monkeypatch.setattr(cluster.console, "error", lambda error: ends.found.append((error.message, error.hint)))
    monkeypatch.setattr(cluster, "GRACE", 0.0)
    return ends


@pytest.mark.parametrize("count", [2, 3])
def test_the_chief_is_first(count, met, ends):
    order = []

    def work(peers):
        with peers.chief_first():
            if peers.is_chief:
                assert not waiting.wait(0.2), "the others wait"
            order.append(peers.process.rank)
            waiting.set()
        peers.say_goodbye()

    waiting = threading.Event()
    peers = met(count)
    started = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, peers))
    assert time.monotonic() - started < 20, "all have said goodbye, so nobody waits in vain"
    assert order[0] == 0
    assert sorted(order) == list(range(count))
    assert ends.found == []


def test_what_differs_ends_all(met, ends):
    chief, worker, other = met(3)
    settings = {"train.lr": 0.1, "train.milestones": (2, 3), "train.freeze": []}
    for peers in (chief, other):
        peers.agree(settings, "the same everywhere")
    with pytest.raises(DlkitError, match=r"train\.lr is 0\.2 here and 0\.1 for the chief") as failure:
        worker.agree(settings | {"train.lr": 0.2}, "the same everywhere")
    worker.fail(failure.value)
    line = f"worker 1 ({worker.process.addresses[1]}) failed: train.lr is 0.2 here and 0.1 for the chief"
    assert ends.wait(2) == [(line, "the same everywhere", 1)] * 2


@pytest.mark.parametrize(
    ("failure", "message", "code"),
    [
        (DivergedError("training diverged"), "training diverged", 5),
        (KeyboardInterrupt(), "interrupted", 130),
        (Stopped(signal.SIGTERM), "interrupted", 143),
    ],
)
def test_a_failure_has_the_same_exit_code_everywhere(met, ends, failure, message, code):
    chief, _ = met(2)
    chief.fail(failure)
    assert ends.wait(1) == [(f"worker 0 ({chief.process.addresses[0]}) failed: {message}", "", code)]


def test_a_worker_stops_when_the_process_that_started_it_is_gone(met, monkeypatch):
    ours, theirs = socket.socketpair()
    launchers = iter([theirs])  # of the first to ask; the other one stands by itself
    monkeypatch.setattr(workers, "launcher", lambda: next(launchers, None))
    received = []
    with theirs, signals.handled(lambda number, _: received.append(number), [signal.SIGUSR1]):
        met(2)
        assert received == []
        ours.close()
        deadline = time.monotonic() + 10
        while not received and time.monotonic() < deadline:
            time.sleep(0.01)
    assert received == [signal.SIGUSR1]


@pytest.mark.parametrize("seconds", [12, 600])
def test_a_machine_that_answers_no_more_is_missed_in_time(met, monkeypatch, seconds):
    """The system asks at a quarter of the time, three times, and breaks what nobody has confirmed at its end."""
    monkeypatch.setenv("DLKIT_WORKER_TIMEOUT", str(seconds))
    for peers in met(2):
        connections = [writer.get_extra_info("socket") for writer in [*peers._out.values(), *peers._accepted]]
        assert len(connections) == 2, "one in each direction"
        for connection in connections:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            quarter = seconds // 4
            for name, value in {"TCP_KEEPIDLE": quarter, "TCP_KEEPINTVL": quarter, "TCP_KEEPCNT": 3,
                                "TCP_USER_TIMEOUT": seconds * 1000}.items():  # fmt: skip
                if hasattr(socket, name):
                    assert connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value, name


@pytest.mark.parametrize("victim", [0, 2])
def test_who_is_killed_is_missed_by_all(victim, met, ends):
    peers = met(3)
    kill(peers[victim])
    name = f"worker {victim} ({peers[0].process.addresses[victim]})"
    assert ends.wait(2) == [(f"{name} is gone: its connection broke", "start again", 1)] * 2


def test_the_survivor_knows_how_it_goes_on_and_tidies_up(met, ends):
    chief, worker = met(2)
    tidied = threading.Event()
    worker.before_the_end = tidied.set
    chief.announce("my runs/x")
    chief.agree({}, "")
    worker.agree({}, "")  # after what was said before
    kill(chief)
    [(_, hint, _)] = ends.wait(1)
    assert hint == "`dlkit train --resume 'my runs/x'` goes on from its last checkpoint"
    assert tidied.is_set()


def test_after_a_goodbye_nobody_is_missed(met, ends):
    peers = met(3)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(cluster.Peers.say_goodbye, peers))
    for each in peers[1:]:
        kill(each)  # while the chief evaluates
    peers[0].fail(DlkitError("the disk is full"))  # which concerns nobody any longer
    assert not ends.arrived.acquire(timeout=0.3)
    assert ends.found == []


def test_who_says_goodbye_waits_for_the_others(met, ends):
    chief, worker = met(2)
    parting = threading.Thread(target=worker.say_goodbye)
    parting.start()
    parting.join(0.2)
    assert parting.is_alive(), "the chief may be in a sum that needs the worker"
    chief.say_goodbye()
    parting.join(5)
    assert not parting.is_alive()


def test_alone_there_is_nothing_to_do():
    with cluster.together() as peers:
        assert peers.is_chief
        with peers.chief_first():
            pass
        peers.agree({"a": 1}, "")
        peers.announce("runs/x")
    assert cluster.ALONE.others == []


# -------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def place(monkeypatch):
    """Puts this process in a cluster."""
    monkeypatch.setenv("DLKIT_WORKER_TIMEOUT", "1")

    def put(addresses, index):
        monkeypatch.setenv("TF_CONFIG", tf_config(addresses, index))

    return put


def lines(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_does_not_come(place, capsys, index):
    addresses = free_addresses(2)
    place(addresses, index)
    assert main(["train", "mlp"]) == 1
    error, hint = lines(capsys)
    assert error == (f"error: worker {1 - index} ({addresses[1 - index]}) did not come within 1 s: connection refused")
    assert "DLKIT_WORKER_TIMEOUT=600" in hint


def test_who_is_interrupted_while_it_waits_ends_at_once_with_one_line(place, capsys, caplog, monkeypatch):
    monkeypatch.setenv("DLKIT_WORKER_TIMEOUT", "60")
    place(free_addresses(2), 0)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began = time.monotonic()
    try:
        assert main(["train", "mlp"]) == 130
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 20, "not the 60 s in which the other may come"
    gc.collect()
    assert lines(capsys)[0].startswith("error: interrupted")
    assert [record.message for record in caplog.records if "pending" in record.message] == []


def test_a_host_that_does_not_exist(place, capsys, monkeypatch):
    resolve = socket.getaddrinfo

    def at_once(host, *arguments, **options):  # a resolver may take its time
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", at_once)
    place([*free_addresses(1), "nowhere.invalid:2222", "elsewhere.invalid:2222"], 0)
    assert main(["train", "mlp"]) == 1
    assert lines(capsys)[0] == (
        "error: worker 1 (nowhere.invalid:2222) did not come within 1 s: the name of its host does not resolve;"
        " 2 are missing"
    )


def test_another_program_at_the_address(place, capsys):
    addresses = free_addresses(1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH\n")

        threading.Thread(target=serve, daemon=True).start()
        place([*addresses, f"127.0.0.1:{server.getsockname()[1]}"], 0)
        assert main(["train", "mlp"]) == 1
        server.shutdown(socket.SHUT_RDWR)
    assert "what answers there is no dlkit of this version with this TF_CONFIG" in lines(capsys)[0]


def test_the_port_of_this_process_is_taken(place, capsys):
    addresses = free_addresses(2)
    place(addresses, 1)
    port = addresses[1].rpartition(":")[2]
    with socket.create_server(("127.0.0.1", int(port))):
        assert main(["train", "mlp"]) == 1
    assert lines(capsys)[0] == f"error: port {port} of this machine is taken: TF_CONFIG gives it to worker 1"


def test_a_worker_that_does_not_see_the_run(place, capsys, tmp_path):
    place(["127.0.0.1:1", "127.0.0.1:2"], 1)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 3
    error, hint = lines(capsys)
    assert error.startswith(f"error: worker 1 does not see the run: no run {tmp_path / 'run'}")
    assert "share" in hint


@pytest.mark.parametrize("text", ["{", '{"cluster": {"worker": ["a:1", "b:1"]}}'])
def test_a_bad_tf_config(monkeypatch, capsys, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert main(["train", "mlp"]) == 2
    error, hint = lines(capsys)
    assert error.startswith("error: TF_CONFIG ")
    assert hint.startswith("hint: it has the form ")


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1e3", ""])
def test_a_bad_timeout(monkeypatch, text):
    monkeypatch.setenv("DLKIT_WORKER_TIMEOUT", text)
    with pytest.raises(UsageError, match="not a number of seconds"):
        cluster.timeout()
