"""The doctor looks at the wire: the address of the restore process, the page's port, keys, and what a round trip takes.

Receives a situation; hands on findings. It speaks the wire's own messages and no other.
"""

import socket
import statistics
import threading
import time

from live_restore.doctor.findings import Finding, Situation, ok, problem, warning
from live_restore.errors import WireError
from live_restore.wire.messages import Answer, Beat, Command
from live_restore.wire.security import ClientKeys, ServerKeys, encryption_available
from live_restore.wire.sockets import Caller, Listener

PAGE_PORT = 8757
_PATIENCE_S = 2.0
_TRIPS = 200


def address(situation: Situation) -> list[Finding]:
    """Whether a restore process could listen there, or does already."""
    try:
        keys = ServerKeys.read(situation.keys) if situation.keys else None
        with Listener(situation.address, keys):
            return [ok("address", f"{situation.address} is free for a restore process")]
    except WireError as refused:
        if "in use" not in str(refused):
            found, _, cure = str(refused).partition("; " if "; " in str(refused) else ": ")
            return [problem("address", found, cure or "give another address with --address")]
    return [_who_is_there(situation)]


def _who_is_there(situation: Situation) -> Finding:
    try:
        keys = ClientKeys.read(situation.keys) if situation.keys else None
        with Caller(situation.address, keys) as caller:
            answer = caller.ask(Command("status"), _PATIENCE_S)
    except WireError as silent:
        found = f"{situation.address} is taken by a program that does not answer as a restore process does: {silent}"
        return problem("address", found, "end that program, or give another address with --address")
    server = answer.said.get("server", {}) if isinstance(answer, Answer) else {}
    said = ", ".join(f"{name} {server[name]}" for name in ("pid", "software", "state") if name in server)
    return ok("address", f"a restore process already answers at {situation.address} ({said or 'it says nothing of itself'})")


def page(_: Situation) -> list[Finding]:
    """Whether a viewer could serve its page at the usual port."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PAGE_PORT)) == 0:
            cure = "look at it, or give `live-restore view` another one with --port"
            return [warning("page", f"port {PAGE_PORT} is in use, perhaps by a viewer that still runs", cure)]
    return [ok("page", f"port {PAGE_PORT} is free for the viewer")]


def encryption(situation: Situation) -> list[Finding]:
    """Look at what it takes to go beyond this machine."""
    if not encryption_available():
        cure = "install it anew from PyPI: pip install --force-reinstall pyzmq"
        return [warning("encryption", "this pyzmq was built without CURVE: the wire cannot leave this machine", cure)]
    if situation.keys is None:
        return [ok("encryption", "CURVE is available; no keys are needed on one machine")]
    try:
        authorized = len(ServerKeys.read(situation.keys).authorized)
    except WireError as missing:
        found, _, cure = str(missing).partition("; ")
        return [problem("encryption", found, cure)]
    return [ok("encryption", f"CURVE is available; {situation.keys} lets {authorized} client(s) in")]


def round_trip(_: Situation) -> list[Finding]:
    """Say something to ourselves a few hundred times."""
    try:
        trips_ms = sorted(trip * 1000 for trip in measured_trips_s())
    except WireError as refused:
        cure = "let the firewall or virus scanner allow Python to talk to this machine itself (127.0.0.1)"
        return [problem("round trip", f"this machine cannot talk to itself: {refused}", cure)]
    return [judge_trips(trips_ms)]


def judge_trips(trips_ms: list[float]) -> Finding:
    """Say whether round trips, sorted, are as quick as they should be."""
    p50, p99 = statistics.median(trips_ms), trips_ms[int(0.99 * len(trips_ms))]
    found = f"a word and its answer take {p50:.2f} ms (p50), {p99:.2f} ms (p99) over loopback"
    if p50 > 2:
        cure = "exclude Python from the firewall's or virus scanner's inspection of 127.0.0.1, and close what is busy"
        return warning("round trip", f"{found}; less than 1 ms is usual", cure)
    return ok("round trip", found)


def measured_trips_s(trips: int = _TRIPS) -> list[float]:
    """Measure round trips of small messages between two threads, in s."""
    done, taken = threading.Event(), []
    with Listener("tcp://127.0.0.1:0") as listener, Caller(listener.address) as caller:

        def answer() -> None:
            while not done.is_set():
                for client, message in listener.receive(100):
                    if isinstance(message, Beat | Command):
                        listener.send(client, Answer() if isinstance(message, Command) else message)

        thread = threading.Thread(target=answer, name="doctor's other end", daemon=True)
        thread.start()
        try:
            caller.ask(Command("status"), _PATIENCE_S)
            for _ in range(trips):
                begun = time.perf_counter()
                caller.send(Beat())
                while not caller.receive(100):  # empty also where only the connection had something to tell
                    if time.perf_counter() - begun > _PATIENCE_S:
                        raise WireError(f"no answer within {_PATIENCE_S:g} s")
                taken.append(time.perf_counter() - begun)
        finally:
            done.set()
            listener.wake()
            thread.join(_PATIENCE_S)
    return taken
