"""The processes of a run over several hosts: how they meet, see that they agree, and learn that one of them is gone.

JAX has a coordinator and heartbeats of its own, but where somebody is missing it ends the process from inside, with a
stack trace and after minutes. So the processes first meet here, over plain sockets on the coordinator's port, and the
lines between process 0 and each of the others stay open: a line that breaks, or is silent, is a process that is gone,
and one that fails says why before it leaves. Then everyone ends, with one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from fer_jax.config.fields import differences
from fer_jax.engine.mesh import told_by_main
from fer_jax.errors import UserError, first_line

PATIENCE = 50  # seconds for all processes to come
LONGEST_PATIENCE = 86_400  # seconds: a day
BEAT = 2.0  # seconds between signs of life
SILENT = 10  # beats in a row without one: then a process is gone
JAX_NOTICES = 300  # seconds until JAX's own heartbeat ends a process: long, as it counts those of a suspended one too
FAREWELL = 60  # seconds that JAX waits at the end for the others to end as well
SHOWN = 6
ADDRESS = 320  # bytes: the longest name of a host has 253
START = "check that all of them were started, each with its own --process_id"
AGAIN = "start the same command on every host: it goes on from the last checkpoint"


def join(
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    automatic: bool = False,
    patience: float = PATIENCE,
) -> contextlib.AbstractContextManager[Any]:
    """Joins this process to the others of the run. On a pod or under a cluster manager, `automatic` suffices.

    Args:
        coordinator: host:port of process 0.
        num_processes: processes in all.
        process_id: which of them this is, from 0.
        automatic: let JAX ask its cluster environment.
        patience: seconds to wait for the others.

    Returns:
        What to run the work inside of: a failure there, or that of another process, ends all of them.

    Raises:
        UserError: if the description is incomplete, says two things or differs between processes, or somebody does not
            come.
    """
    if not 0 < patience <= LONGEST_PATIENCE:  # nan is no time either: whoever waits for it waits for ever
        raise UserError(f"--patience={patience:g}: give 1 to {LONGEST_PATIENCE} seconds")
    if not (coordinator or automatic):
        if num_processes > 1 or process_id > 0:
            raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT, which is process 0's")
        return contextlib.nullcontext()
    if automatic:
        given = {
            "--coordinator": bool(coordinator),
            "--num_processes": num_processes != 0,
            "--process_id": process_id != -1,
        }
        if named := [option for option, there in given.items() if there]:
            raise UserError(
                f"{', '.join(named)} beside --distributed, with which JAX finds the processes by itself: leave out the "
                "one or the other"
            )
        return _join_cluster(patience)
    if not (num_processes > 0 and 0 <= process_id < num_processes):
        raise UserError(
            f"--coordinator={coordinator} needs --num_processes and --process_id (0 to num_processes-1); "
            f"got {num_processes} and {process_id}"
        )
    host, colon, port = coordinator.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise UserError(f"--coordinator={coordinator}: give HOST:PORT, such as 10.0.0.1:1234, ports from 1 to 65535")
    if process_id == 0:
        lines = _receive(int(port), num_processes, patience)
    else:
        lines = {0: _call(host, int(port), num_processes, process_id, patience)}
    company = Company(process_id, num_processes, lines)
    with company.refusing():
        _initialize(patience, coordinator_address=coordinator, num_processes=num_processes, process_id=process_id)
    return company


def agree(what: str, facts: Mapping[str, Any], advice: str) -> None:
    """Refuses, on all processes, facts (plain JSON values) that are not the same on all of them, naming the fields."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    text = json.dumps(facts).encode()
    lengths = np.ravel(multihost_utils.process_allgather(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(int(lengths.max())), np.uint8)
    told = [json.loads(bytes(row)) for row in np.asarray(multihost_utils.process_allgather(padded))]
    for number, theirs in enumerate(told):
        changed = differences(theirs, told[0])
        if changed:
            more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            raise UserError(
                f"process {number} of {len(told)} has {what} that process 0 has not "
                f"({'; '.join(changed[:SHOWN])}{more}): {advice}"
            )


class Company:
    """The lines between process 0 and each of the others; inside its `with` block all live or end together.

    Args:
        number: of this process.
        count: of all.
        lines: open connections by the other end's number: to all from process 0, to process 0 from the others.
    """

    def __init__(self, number: int, count: int, lines: Mapping[int, socket.socket]):
        self._number, self._count, self._lines = number, count, dict(lines)
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._watchers = [
            threading.Thread(target=self._watch, args=(n,), name=f"watches process {n}", daemon=True) for n in lines
        ]
        for watcher in (*self._watchers, threading.Thread(target=self._beat, name="beats", daemon=True)):
            watcher.start()

    def __enter__(self) -> Company:
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if error is None or isinstance(error, SystemExit):
            self._leaving.set()
            self._tell({"done": self._number})
            return
        # What broke here may be the answer to a loss elsewhere, of which the watcher knows more: it speaks first.
        time.sleep(0.5 if isinstance(error, (UserError, KeyboardInterrupt)) else 3.0)
        if isinstance(error, UserError):
            self.leave(str(error), f"error: {error}", 2)
        if isinstance(error, KeyboardInterrupt):
            self.leave("interrupted", "interrupted; the same command goes on from the last save", 130)
        self.leave(first_line(error), "".join(traceback.format_exception(error)).rstrip(), 1)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Tells the others of what fails inside the `with` block, which raises it here."""
        try:
            yield
        except UserError as error:
            self._leaving.set()
            self._tell({"failed": str(error), "process": self._number})
            raise

    def leave(self, reason: str, words: str, status: int) -> None:
        """Ends this process with `words` and `status`; the others are told the reason and end as well."""
        with self._lock:  # whoever speaks first; the other never returns from here
            self._leaving.set()
            self._say(words)
            self._tell({"failed": reason, "process": self._number})
            # JAX ends whoever loses process 0, with words of its own: it leaves last.
            end = time.monotonic() + 5
            while self._number == 0 and time.monotonic() < end and any(w.is_alive() for w in self._others_watched()):
                time.sleep(0.05)
            os._exit(status)  # JAX would wait at the door for processes that will not come

    def _others_watched(self) -> list[threading.Thread]:
        return [w for w in self._watchers if w is not threading.current_thread()]

    def _watch(self, other: int) -> None:
        """Reads what the process `other` says until it is done, fails, or is gone."""
        line, heard, silent = self._lines[other], b"", 0
        ready = selectors.DefaultSelector()  # `select` knows no descriptor above 1023
        ready.register(line, selectors.EVENT_READ)
        while silent < SILENT:  # beats are counted, not seconds: this process may have been suspended itself
            if not ready.select(BEAT):
                silent += 1
                continue
            silent = 0
            try:
                data = line.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            *said, heard = (heard + data).split(b"\n")
            for message in map(json.loads, filter(None, said)):
                if "done" in message:
                    return
                if "failed" in message:
                    self._hear(message)
        if not self._leaving.is_set():
            reason = f"process {other} of {self._count} is gone: killed, or its host or the network failed"
            with self._lock:
                self._say(f"error: {reason}; {AGAIN}")
                self._tell({"failed": reason, "process": other, "gone": True}, but=other)
                os._exit(2)

    def _hear(self, message: dict[str, Any]) -> None:
        """Ends because another process does; one that fails by itself, as all do that disagree, says so itself."""
        self._tell(message, but=message["process"])
        time.sleep(0 if "gone" in message else 1.0)
        if self._leaving.is_set():
            return
        what = message["failed"]
        if "gone" not in message:
            what = f"process {message['process']} of {self._count} stopped: {what}"
        with self._lock:
            self._say(f"error: {what}; {AGAIN}" if "gone" in message else f"error: {what}")
            os._exit(2)

    def _beat(self) -> None:
        while not self._leaving.wait(BEAT):
            self._tell({"alive": self._number})

    def _tell(self, message: Mapping[str, Any], but: int = -1) -> None:
        data = json.dumps(message).encode() + b"\n"
        if self._number and "done" not in message and message.get("process", self._number) != self._number:
            return  # only process 0 has lines to all
        for other, line in self._lines.items():
            if other != but:
                with contextlib.suppress(OSError):  # who does not hear is gone, and its watcher knows
                    line.sendall(data)

    @staticmethod
    def _say(words: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            os.write(2, words.encode() + b"\n")  # at once: JAX may be about to end this process itself


def _join_cluster(patience: float) -> contextlib.AbstractContextManager[Any]:
    """Joins the processes of a pod or of a cluster manager, which JAX finds."""
    _initialize(patience)
    count, number = jax.process_count(), jax.process_index()
    if count == 1:
        return contextlib.nullcontext()
    server, address = None, b""
    if number == 0:
        server = _listen(0)
        address = f"{_own_address()} {server.getsockname()[1]}".encode()
    host, port = told_by_main(address.ljust(ADDRESS)).decode().split()
    try:
        if server is not None:
            return Company(number, count, _receive(int(port), count, patience, server))
        return Company(number, count, {0: _call(host, int(port), count, number, patience)})
    except UserError as error:
        raise UserError(f"{error} (the hosts must reach each other on any port)") from error


def _initialize(patience: float, **where: Any) -> None:
    """Starts JAX's own coordination; ends the process with one line where that never comes to an end."""
    met = threading.Event()

    def give_up() -> None:
        if not met.wait(patience):  # a moment later JAX would end this process, with a stack trace
            os.write(2, f"error: the processes of this run did not meet within {patience:.0f} s; {START}\n".encode())
            os._exit(2)

    threading.Thread(target=give_up, name="gives up", daemon=True).start()
    try:
        jax.distributed.initialize(
            **where,
            initialization_timeout=int(patience) + 10,
            heartbeat_timeout_seconds=JAX_NOTICES,
            shutdown_timeout_seconds=FAREWELL,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of this run did not meet: {first_line(error)}; {START}") from error
    finally:
        met.set()


def _receive(port: int, count: int, patience: float, server: socket.socket | None = None) -> dict[int, socket.socket]:
    """Process 0: waits for all others to call; returns the connections by their numbers."""
    lines: dict[int, socket.socket] = {}

    def refuse(why: str) -> None:
        for line in lines.values():
            with contextlib.suppress(OSError):
                line.sendall(json.dumps({"refused": why}).encode() + b"\n")
        raise UserError(why)

    end = time.monotonic() + patience
    with server or _listen(port) as door:
        while len(lines) < count - 1:
            door.settimeout(max(0.01, end - time.monotonic()))
            try:
                line, _ = door.accept()
            except TimeoutError:
                missing = [str(n) for n in range(1, count) if n not in lines]
                shown = ", ".join(missing[:SHOWN]) + (f" and {n} more" if (n := len(missing) - SHOWN) > 0 else "")
                which = f"process {shown}" if len(missing) == 1 else f"processes {shown}"
                refuse(f"{which} of {count} did not come within {patience:.0f} s; {START}")
            try:
                hello = json.loads(_one_line(line, 5.0))
                number, theirs, waited = hello["process"], hello["count"], hello["waited"]
            except (OSError, ValueError, KeyError, TypeError):  # no process of ours
                line.close()
                continue
            end = min(end, time.monotonic() + patience - waited)  # nobody waits longer than asked to
            taken = number in lines
            lines[-1 if taken else number] = line
            if theirs != count:
                refuse(f"process {number} was started with --num_processes={theirs}, process 0 with {count}; {START}")
            if taken or not 0 < number < count:
                refuse(f"two processes were started with --process_id={number}; {START}")
    for line in lines.values():
        line.sendall(b'{"welcome": true}\n')
    return lines


def _call(host: str, port: int, count: int, number: int, patience: float) -> socket.socket:
    """Any other process: calls process 0 until it answers; returns the connection."""
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        if waited > patience:
            raise UserError(
                f"no process 0 answers at {host}:{port} for {patience:.0f} s; start the same command there with "
                "--process_id=0, or correct --coordinator"
            )
        try:
            line = socket.create_connection((host, port), timeout=min(5.0, patience))
        except OSError:
            time.sleep(0.2)
            continue
        hello = {"process": number, "count": count, "waited": waited}
        try:
            line.sendall(json.dumps(hello).encode() + b"\n")
            answer = json.loads(_one_line(line, patience - waited + 5) or b"{}")
        except (OSError, ValueError):
            answer = {}
        if "welcome" in answer:
            return line
        line.close()
        if "refused" in answer:
            raise UserError(answer["refused"])
        time.sleep(0.2)  # the end of an earlier run on this port; ours may still come


def _one_line(line: socket.socket, seconds: float) -> bytes:
    """Reads up to the end of a line, byte by byte: what follows is the watcher's."""
    line.settimeout(max(0.1, seconds))
    data = b""
    while not data.endswith(b"\n") and (byte := line.recv(1)) and len(data) < 4096:
        data += byte
    line.settimeout(None)
    return data


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on port {port} ({error.strerror or error}); give another one in --coordinator"
        ) from error


def _own_address() -> str:
    """The address of this host towards others."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # of the documentation's network: nothing is sent
        return probe.getsockname()[0]
    return socket.gethostname()
