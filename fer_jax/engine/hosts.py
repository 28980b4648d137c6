"""How the processes of a run over several hosts meet, compare what they were given, and end together.

`jax.distributed` aborts a process that misses another one or loses it: SIGABRT and a stack trace, and for a process
that never starts or a wrong number of processes no word on which. So before JAX starts, every process connects to
process 0 on the coordinator's port. Each of these connections stays open and carries one line at most: that its
sender is done, or why it failed. A connection that closes without one means a lost process. Then all processes end,
each with one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from fer_jax.engine.mesh import told_by_main
from fer_jax.errors import UserError, differences, first_line, some
from fer_jax.parsing import whole_number

PATIENCE = 50  # seconds to wait for all processes at the start
LONGEST_PATIENCE = 86_400  # seconds: a day
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}  # a host that is down is noticed after 30 s
JAX_LIMITS: dict[str, Any] = {"heartbeat_timeout_seconds": 100, "shutdown_timeout_seconds": 60}
SHOWN = 6  # differences or missing processes named in a message
ADDRESS_BYTES = 320  # a host name has 253 bytes at most
HELLO, WELCOME, DONE = "fer_jax", "welcome", "done"  # lines of the protocol; any other line says what failed
START = "check that every process was started, each with its own --process_id"
AGAIN = "start the same command on every host: it resumes from the newest checkpoint"


@contextlib.contextmanager
def join(
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    automatic: bool = False,
    patience: float = PATIENCE,
) -> Iterator[bool]:
    """Runs the `with` block as one of several processes; yields whether there are several.

    An exception in the block, or the loss of a process, ends all of them with a status other than 0.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: number of processes.
        process_id: which of them this is, from 0.
        automatic: let JAX find the processes, on a TPU pod or under a cluster manager.
        patience: seconds to wait for the others.

    Raises:
        UserError: if the arguments are incomplete, contradictory or differ between processes, or one does not come.
    """
    _check(coordinator, num_processes, process_id, automatic, patience)
    if automatic:
        _initialize(patience)
        process_id, num_processes = jax.process_index(), jax.process_count()
    if num_processes < 2:
        yield False
        return
    listener, host, port = None, *coordinator.rpartition(":")[::2]
    if process_id == 0:
        listener = _listen(0 if automatic else int(port))
    if automatic:
        own = f"{_own_address()} {listener.getsockname()[1]}" if listener else ""
        host, port = told_by_main(own.encode().ljust(ADDRESS_BYTES)).decode().split()
    if listener:
        sockets = _accept(listener, num_processes, patience)
    else:
        sockets = {0: _call(host, int(port), process_id, num_processes, patience)}
    with Peers(process_id, num_processes, sockets):
        if not automatic:
            where = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
            _initialize(patience, **where)
        yield True


def agree(what: str, facts: Mapping[str, Any], advice: str) -> None:
    """Raises UserError on all processes if `facts` (plain JSON values) differ between them, naming the fields."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    text = json.dumps(facts).encode()
    lengths = np.ravel(multihost_utils.process_allgather(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(int(lengths.max())), np.uint8)
    told = [json.loads(bytes(row)) for row in np.asarray(multihost_utils.process_allgather(padded))]
    for number, theirs in enumerate(told):
        if changed := differences(theirs, told[0]):
            raise UserError(
                f"process {number} of {len(told)} differs from process 0 in its {what} "
                f"({some(changed, SHOWN, '; ')}): {advice}"
            )


class Peers:
    """Connections between process 0 and each of the others; in the `with` block, the failure of one ends all.

    Args:
        number: of this process.
        count: of all processes.
        sockets: connections by the number of the other process: all others in process 0, and 0 in the others.
    """

    def __init__(self, number: int, count: int, sockets: Mapping[int, socket.socket]):
        self._number, self._count, self._sockets = number, count, sockets
        self._done, self._ending = False, threading.Lock()
        for other in sockets:
            threading.Thread(target=self._watch, args=(other,), name=f"watches process {other}", daemon=True).start()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if error is None or isinstance(error, SystemExit):
            self._done = True
            self._tell(DONE)
            return
        # This error may be the consequence of another process's, which the watcher then reports: it goes first.
        time.sleep(0.5 if isinstance(error, (UserError, KeyboardInterrupt)) else 3.0)
        name = f"process {self._number} of {self._count}"
        if isinstance(error, UserError):
            self._end(f"error: {error}", f"{name} stopped: {error}", 2)
        elif isinstance(error, KeyboardInterrupt):
            words = "interrupted; the same command resumes from the newest checkpoint"
            self._end(words, f"{name} was interrupted", 130)
        else:
            self._end("".join(traceback.format_exception(error)), f"{name} stopped: {first_line(error)}", 1)

    def _watch(self, other: int) -> None:
        """Waits until the process `other` is done, has failed, or is lost."""
        said = ""
        with contextlib.suppress(OSError):
            said = _read_line(self._sockets[other])
        if said and said != DONE:
            time.sleep(1.0)  # processes that fail for the same reason each print it themselves
        if said == DONE or self._done:
            return
        lost = f"process {other} of {self._count} is lost: it was killed, or its host or the network failed; {AGAIN}"
        self._end(f"error: {said or lost}", said or lost, 2)

    def _end(self, words: str, told: str, status: int) -> None:
        """Prints `words` and ends this process; the others are told why."""
        with self._ending:  # the first thread ends the process, and no other gets beyond this line
            sys.stdout.flush()
            os.write(2, f"{words}\n".encode())
            self._tell(told)
            if self._number == 0:  # JAX aborts a process that loses process 0, with a stack trace: 0 leaves last
                deadline = time.monotonic() + 5
                for sock in self._sockets.values():
                    with contextlib.suppress(OSError):
                        sock.settimeout(max(0.1, deadline - time.monotonic()))
                        while sock.recv(1024):
                            pass
            os._exit(status)  # at a normal exit JAX would wait for the other processes

    def _tell(self, line: str) -> None:
        for sock in self._sockets.values():
            _send_line(sock, line)


def _check(coordinator: str, num_processes: int, process_id: int, automatic: bool, patience: float) -> None:
    """Raises UserError for options that are incomplete or contradict each other."""
    if not 0 < patience <= LONGEST_PATIENCE:
        raise UserError(f"--patience={patience:g}: give 1 to {LONGEST_PATIENCE} seconds")
    if automatic and (coordinator or num_processes or process_id != -1):
        raise UserError(
            "--distributed finds the processes by itself: leave it out, or leave out --coordinator, --num_processes "
            "and --process_id"
        )
    if not coordinator and (num_processes > 1 or process_id > 0):
        raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT, the address of process 0")
    if not coordinator:
        return
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--coordinator={coordinator} needs --num_processes and --process_id (0 to num_processes-1); "
            f"got {num_processes} and {process_id}"
        )
    host, _, port = coordinator.rpartition(":")
    if not (host and whole_number(port, 1, (1 << 16) - 1)):
        raise UserError(f"--coordinator={coordinator}: give HOST:PORT, such as 10.0.0.1:1234, ports from 1 to 65535")


def _initialize(patience: float, **where: Any) -> None:
    """Starts JAX's coordination; ends the process with one line if it does not succeed within `patience` seconds."""
    met = threading.Event()

    def give_up() -> None:
        if not met.wait(patience):  # a little later JAX would abort
            os.write(2, f"error: the processes of this run did not meet within {patience:.0f} s; {START}\n".encode())
            os._exit(2)

    threading.Thread(target=give_up, daemon=True).start()
    try:
        jax.distributed.initialize(**where, initialization_timeout=int(patience) + 10, **JAX_LIMITS)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of this run did not meet: {first_line(error)}; {START}") from error
    finally:
        met.set()


def _accept(listener: socket.socket, count: int, patience: float) -> dict[int, socket.socket]:
    """Process 0: waits until all others have connected; returns the connections by process number."""
    sockets: dict[int, socket.socket] = {}
    deadline = time.monotonic() + patience
    with listener:
        while len(sockets) < count - 1:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                sock, _ = listener.accept()
            except TimeoutError:
                missing = [str(n) for n in range(1, count) if n not in sockets]
                _refuse(sockets.values(), f"missing after {patience:.0f} s: process {some(missing, SHOWN)} of {count}")
            try:
                hello, number, theirs = _read_line(sock, 5.0).split()
                number, theirs = int(number), int(theirs)
            except (OSError, ValueError):
                hello, number, theirs = "", 0, 0
            if hello != HELLO:  # something else that looks for open ports
                sock.close()
            elif theirs != count:
                fault = f"process {number} was started with --num_processes={theirs}, process 0 with {count}"
                _refuse([*sockets.values(), sock], fault)
            elif number in sockets or not 0 < number < count:
                _refuse([*sockets.values(), sock], f"two processes were started with --process_id={number}")
            else:
                sockets[number] = sock
    for sock in sockets.values():
        _keep_alive(sock)
        _send_line(sock, WELCOME)
    return sockets


def _call(host: str, port: int, number: int, count: int, patience: float) -> socket.socket:
    """Any other process: connects to process 0 until it answers; returns the connection."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        answer = ""
        with contextlib.suppress(OSError):  # not there yet, or the end of an earlier run on this port
            sock = socket.create_connection((host, port), timeout=5.0)
            _send_line(sock, f"{HELLO} {number} {count}")
            answer = _read_line(sock, patience + 5.0)  # process 0 answers when all have come, or too few
            if answer == WELCOME:
                _keep_alive(sock)
                return sock
            sock.close()
        if answer:
            raise UserError(answer)
        time.sleep(0.2)
    raise UserError(
        f"process 0 does not answer at {host}:{port} within {patience:.0f} s; start the same command there with "
        "--process_id=0, or correct --coordinator"
    )


def _refuse(sockets: Any, fault: str) -> None:
    for sock in sockets:
        _send_line(sock, f"{fault}; {START}")
    raise UserError(f"{fault}; {START}")


def _listen(port: int) -> socket.socket:
    both = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    try:
        return socket.create_server(("", port), **both)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on port {port} ({error.strerror or error}); give another one in --coordinator"
        ) from error


def _own_address() -> str:
    """The address by which other hosts reach this one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address reserved for documentation: nothing is sent
        return probe.getsockname()[0]
    return socket.gethostname()


def _keep_alive(sock: socket.socket) -> None:
    """Lets the system notice that the other host is down."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send_line(sock: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):  # the other process has ended, and its watcher knows
        sock.sendall(" ".join(line.split()).encode() + b"\n")


def _read_line(sock: socket.socket, seconds: float | None = None) -> str:
    """Reads a line, byte by byte: the rest is for another reader. Returns '' if the connection closes before."""
    sock.settimeout(seconds)
    data = b""
    while byte := sock.recv(1):
        if byte == b"\n":
            return data.decode(errors="replace")
        data += byte
    return ""
