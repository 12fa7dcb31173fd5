"""The processes that train together: that all of them are there, and what becomes of them.

TensorFlow waits without end for a worker that never comes, and when one dies the others hang in a sum that is never
complete. So every process connects to every other before TensorFlow starts, at the addresses of TF_CONFIG, and these
connections stay as long as it trains. Over them a process says why it fails, or goodbye. When one breaks off without
either, the process behind it is gone: then this one ends with one line, whatever native code its main thread is stuck
in. The operating system breaks the connection of a process that is killed at once, and that of a machine that answers
no more when its timeout is over. A process that is only stopped, or a machine that sleeps, is waited for.

TensorFlow's server takes over the port afterwards: connections hold a port, but only a listener keeps others from it.
Nobody is asked for a password here or there, so all this is for networks whose members trust each other.
"""

import asyncio
import errno
import json
import os
import queue
import re
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from dlkit import __version__, console, runtime, workers
from dlkit.errors import DataError, DlkitError, UsageError, interrupted
from dlkit.runtime import Process

TIMEOUT = "DLKIT_WORKER_TIMEOUT"
SECONDS = 40
# What fails in all processes alike, such as a loss that is not finite, each of them is to say itself.
GRACE = 1.0
LONGEST_MESSAGE = 2**22


def timeout() -> int:
    """How many seconds the processes wait for one that does not come or does not answer.

    Raises:
        dlkit.errors.UsageError: the environment variable is not a number of seconds.
    """
    text = os.environ.get(TIMEOUT, str(SECONDS))
    if not re.fullmatch(r"0*[1-9]\d{0,5}", text):
        raise UsageError(f"{TIMEOUT} is not a number of seconds: {text}", "such as 600")
    return int(text)


class Peers:
    """The other processes, as this one knows them. Without others everything here does nothing.

    Args:
        process: this one among them.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.others = [index for index in range(len(process.addresses)) if index != process.rank]
        self.before_the_end: Callable[[], object] = lambda: None
        """Tidies up the terminal when the process has to end from outside its main thread."""
        self._run: str | None = None
        self._limit = SECONDS
        self._told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._speaking = threading.Lock()  # whoever gets it tells how this process ends, and nobody else
        self._parted = False
        self._left: set[int] = set()
        self._all_left = threading.Event()
        self._trouble = dict.fromkeys(self.others, "no answer")
        # A connection for each direction: what we say goes out on those that we opened.
        self._out: dict[int, asyncio.StreamWriter] = {}
        self._in: set[int] = set()
        self._accepted: list[asyncio.StreamWriter] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that prepares data, writes and speaks."""
        return self.process.is_chief

    # ------------------------------------------------------------------------------------------------ the main thread

    def meet(self) -> None:
        """Waits until all processes are connected to each other.

        Raises:
            dlkit.errors.DlkitError: one of them does not come in time, or the port of this one is taken.
        """
        if not self.others:
            return
        self._limit = timeout()
        listener = self._listener()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dlkit-peers", daemon=True)
        self._thread.start()
        meeting = self._in_loop(self._meet(listener))
        try:
            meeting.result()
        finally:
            meeting.cancel()  # when interrupted; else it has come to its end

    @contextmanager
    def chief_first(self) -> Iterator[None]:
        """The body runs in the chief, and only when it is done there in the others."""
        if self.is_chief:
            yield
            self._tell(None)
        else:
            self._told.get()
            yield

    def agree(self, values: Mapping[str, Any], hint: str) -> None:
        """Makes sure that something is the same in all processes as in the chief.

        Args:
            values: what is compared, in words -> JSON values.
            hint: what to do when they differ.

        Raises:
            dlkit.errors.DlkitError: a value differs.
        """
        ours = json.loads(json.dumps(values, default=str))
        if self.is_chief:
            self._tell(ours)
            return
        theirs = self._told.get()
        for what in [*theirs, *ours]:
            if theirs.get(what) != ours.get(what):
                raise DlkitError(f"{what} is {ours.get(what)} here and {theirs.get(what)} for the chief", hint)

    def share(self, failure: DataError | None) -> DataError:
        """What fails in one process or several is told to all, so that the chief, too, can say it.

        Args:
            failure: of this process; None when it has none, and then another must have one.
        """
        if failure is not None:
            self._tell([f"{self._name()} failed: {failure.message}", failure.hint])
            return failure
        return DataError(*self._told.get())

    def ending(self, failure: DataError) -> BaseException:
        """What ends this process, after `say_goodbye`, for what was told to all: the chief says it for `--workers`.

        It may still be saving. A worker that failed by itself would make the launcher end it.
        """
        return failure if self.is_chief or not workers.launcher() else SystemExit(workers.LOST)

    def announce(self, run: str) -> None:
        """The chief says which run they train, so that any of them can say how it goes on."""
        self._run = run
        workers.report({"run": run})
        if self._loop:
            self._loop.call_soon_threadsafe(self._say, {"run": run})

    def say_goodbye(self) -> None:
        """Says goodbye and waits for that of the others: from here on the processes need each other no more."""
        if self._loop and not self._parted:
            self._speak()
            self._parted = True
            self._wait_for(self._say_last({"goodbye": True}))
            self._all_left.wait(self._limit)

    def fail(self, failure: BaseException) -> None:
        """Tells the others why this process ends before the work is done."""
        if not self._loop or self._parted:
            return
        if type(failure).__module__.startswith("tensorflow") and "ollective" in str(failure):
            time.sleep(1.5 * self._limit)  # a sum broke off: until it is known whose end that was, which ends this one
        self._speak()
        self._parted = True
        match failure:
            case DlkitError():
                known = failure
            case KeyboardInterrupt():
                known = interrupted(failure)
            case _:
                known = DlkitError(f"{type(failure).__name__}: {failure}".replace("\n", " "))
        message = f"{self._name()} failed: {known.message}"
        self._wait_for(self._say_last(_end_message(message, known.hint, known.code, GRACE)))

    def close(self) -> None:
        """Closes the connections, after `say_goodbye` or `fail`."""
        if self._loop and self._thread:
            self._wait_for(self._hang_up())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = None

    def _speak(self) -> None:
        """The main thread takes the last word; when it has been taken, this waits for the process to end."""
        self._speaking.acquire()

    def _tell(self, value: Any) -> None:
        if self._loop:
            self._loop.call_soon_threadsafe(self._say, {"value": value})

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        with suppress(TimeoutError):
            self._in_loop(work).result(timeout=3)

    # ------------------------------------------------------------------------------------------------------- meeting

    async def _meet(self, listener: socket.socket) -> None:
        if launcher := workers.launcher():
            self._watch(launcher)
        server = await asyncio.start_server(self._answer, sock=listener, limit=LONGEST_MESSAGE)
        try:
            async with asyncio.timeout(self._limit), asyncio.TaskGroup() as calls:
                for other in self.others:
                    calls.create_task(self._call(other))
                calls.create_task(self._all_have_called())
        except TimeoutError:
            raise self._absent() from None
        finally:
            server.close()

    def _listener(self) -> socket.socket:
        host, port = address_of(self.process.addresses[self.process.rank])
        local = host in {"localhost", "127.0.0.1"}
        try:
            if local or not socket.has_dualstack_ipv6():
                return socket.create_server(("127.0.0.1" if local else "", port))
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as failure:
            if failure.errno == errno.EADDRINUSE:
                raise runtime.port_taken(self.process) from None
            raise DlkitError(f"cannot use port {port} of TF_CONFIG: {failure.strerror}", "choose another") from None

    def _hello(self, caller: int, called: int) -> bytes:
        words = {"dlkit": __version__, "addresses": self.process.addresses, "caller": caller, "called": called}
        return json.dumps(words).encode() + b"\n"

    async def _call(self, other: int) -> None:
        """Connects to another process, again and again until it answers as the one that is meant."""
        host, port = address_of(self.process.addresses[other])
        while True:
            try:
                async with asyncio.timeout(5):
                    reader, writer = await asyncio.open_connection(host, port)
                    _break_when_silent(writer, self._limit)
                    writer.write(self._hello(self.process.rank, other))
                    if await reader.readline() == self._hello(other, self.process.rank):
                        self._out[other] = writer
                        return
                writer.close()
                self._trouble[other] = "what answers there is no dlkit of this version with this TF_CONFIG"
            except (OSError, ValueError) as failure:
                self._trouble[other] = _reason(failure)
            await asyncio.sleep(0.1)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody connects: perhaps one of the others."""
        self._accepted.append(writer)
        hello = b""
        with suppress(OSError, ValueError):
            async with asyncio.timeout(5):
                hello = await reader.readline()
        for other in self.others:
            if hello == self._hello(other, self.process.rank):
                _break_when_silent(writer, self._limit)
                writer.write(self._hello(self.process.rank, other))
                self._in.add(other)
                await self._hear(other, reader)
        writer.close()

    async def _all_have_called(self) -> None:
        while len(self._in) < len(self.others):
            await asyncio.sleep(0.02)

    def _absent(self) -> DlkitError:
        silent = [other for other in self.others if other not in self._out]
        deaf = [other for other in self.others if other not in self._in]
        first = (silent or deaf)[0]
        trouble = self._trouble[first] if silent else "it does not reach this one"
        more = f"; {len(silent or deaf)} are missing" if len(silent or deaf) > 1 else ""
        return DlkitError(
            f"{self._name(first)} did not come within {self._limit} s: {trouble}{more}",
            f"start it with the same TF_CONFIG, or look for a firewall; {TIMEOUT}=600 would wait for ten minutes",
        )

    # ------------------------------------------------------------------------------------- from the meeting to the end

    def _say(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        for writer in self._out.values():
            if not writer.is_closing():
                writer.write(line)

    async def _say_last(self, message: Mapping[str, Any]) -> None:
        self._say(message)
        for writer in self._out.values():
            with suppress(OSError):
                await writer.drain()

    async def _hang_up(self) -> None:
        for writer in [*self._out.values(), *self._accepted]:
            writer.close()
        if listening := asyncio.all_tasks() - {asyncio.current_task()}:
            _, pending = await asyncio.wait(listening, timeout=2)  # they come to the end of their connections
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _hear(self, other: int, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, ValueError):
            while line := await reader.readline():
                match json.loads(line):
                    case {"goodbye": True}:
                        self._leaves(other)
                        return
                    case {"end": [message, hint, code, grace]}:
                        await asyncio.sleep(grace)
                        self._end(message, hint, code)
                    case {"value": value}:
                        self._told.put(value)
                    case {"run": run}:
                        self._run = run
        again = "start again"
        if self._run:
            again = f"`dlkit train --resume {shlex.quote(self._run)}` goes on from its last checkpoint"
        self._end(f"{self._name(other)} is gone: its connection broke", again, 1)
        self._leaves(other)

    def _leaves(self, other: int) -> None:
        self._left.add(other)
        if len(self._left) == len(self.others):
            self._all_left.set()

    def _end(self, message: str, hint: str, code: int) -> None:
        """Ends this process with one line, unless it is ending by itself."""
        if self._parted or not self._speaking.acquire(blocking=False):
            return
        self._say(_end_message(message, hint, code, 0))  # so that they do not take this one for the culprit
        with suppress(Exception):
            self.before_the_end()
        if workers.launcher():
            workers.report({"end": [message, hint, code]})
            os._exit(workers.LOST)
        runtime.free_stderr()
        console.error(DlkitError(message, hint))
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    def _watch(self, launcher: socket.socket) -> None:
        """When the process that started the workers is gone, they stop and save."""

        def gone() -> None:
            asyncio.get_running_loop().remove_reader(launcher)
            os.kill(os.getpid(), signal.SIGUSR1)

        asyncio.get_running_loop().add_reader(launcher, gone)

    def _name(self, index: int | None = None) -> str:
        index = self.process.rank if index is None else index
        return f"{self.process.names[index]} ({self.process.addresses[index]})"


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[::1]:port`."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _break_when_silent(writer: asyncio.StreamWriter, seconds: int) -> None:
    """Lets the operating system break a connection whose other end answers no more, as after a power cut."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    pause = min(max(1, seconds // 4), 32_000)  # before it asks, and between its three questions
    options = {"TCP_KEEPIDLE": pause, "TCP_KEEPALIVE": pause, "TCP_KEEPINTVL": pause, "TCP_KEEPCNT": 3}
    for name, value in (options | {"TCP_USER_TIMEOUT": seconds * 1000}).items():
        if hasattr(socket, name):  # systems differ
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _end_message(message: str, hint: str, code: int, grace: float) -> dict[str, Any]:
    return {"end": [message, hint, code, grace]}


def _reason(failure: Exception) -> str:
    if isinstance(failure, socket.gaierror):
        return "the name of its host does not resolve"
    if isinstance(failure, TimeoutError):
        return "no answer"
    number = re.search(r"\[Errno (\d+)\]", str(failure))  # of asyncio, about all addresses that a name has
    return os.strerror(int(number[1])).lower() if number else "no answer"


ALONE = Peers(Process())


@contextmanager
def together() -> Iterator[Peers]:
    """The processes of TF_CONFIG meet, do the body, and tell each other how they end; without TF_CONFIG, this one.

    Raises:
        dlkit.errors.UsageError: TF_CONFIG is wrong.
        dlkit.errors.DlkitError: a process does not come.
    """
    peers = Peers(runtime.process())
    try:
        peers.meet()
        yield peers
    except BaseException as failure:
        peers.fail(failure)
        raise
    else:
        peers.say_goodbye()
    finally:
        peers.close()
