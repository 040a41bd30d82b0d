"""The two ends of the wire; the only file that knows ZeroMQ's sockets.

`Caller` is the end of the hook, a viewer or the command line, `Listener` that of the restore process. Both receive and hand
on messages; neither knows what they mean, nor what to drop when there are too many. Nothing here ever blocks for longer
than it was told to.
"""

import errno
import logging
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import zmq

from live_restore.errors import BadMessage, WireError
from live_restore.wire.address import ENDPOINT, Address, Purpose, demand_keys, read_address
from live_restore.wire.fields import LONGEST_HEADER
from live_restore.wire.messages import (
    LONGEST_FROM_CLIENTS,
    Answer,
    Ask,
    Command,
    Hello,
    Message,
    View,
    Welcome,
    decode,
    encode,
)
from live_restore.wire.pixels import LARGEST_FRAME, Buffer
from live_restore.wire.security import DOMAIN, ClientKeys, ServerKeys, admit
from live_restore.wire.waker import Waker

__all__ = ["ENDPOINT", "Caller", "Listener"]

_logger = logging.getLogger(__name__)

# Limits are in messages, and a message may be a frame of 8 MB: so few are let wait. Eight leave the sender, which keeps its
# own account of bytes, in charge of what is dropped; receipts, which are small, get more room.
_FRAMES_OUT = 8
_FRAMES_IN = 16
_ANSWERS = 64
# One turn of a receiving thread takes no more than this, so that it also gets to its other duties.
_MESSAGES_PER_TURN = 32
_RECONNECT_MS = 100
# A connection that ZeroMQ has not taken up again by then, it never will; or nobody is there, and calling anew does no harm.
_GIVEN_UP_MS = 1000
_HANDSHAKE_MS = 5000
# How long closing waits for what was just said (the end of a run, the answer to "stop").
_LINGER_MS = 500
# A cable that was pulled is noticed by silence. On one machine the system tells at once, and a stopped process is not gone.
_HEARTBEAT_MS, _SILENCE_MS = 2000, 10_000

_TURNED_AWAY = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
_EVENTS = int(_TURNED_AWAY | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
_ANSWER_TO: dict[type, type] = {Hello: Welcome, Ask: View, Command: Answer}


class _End:
    """What both ends share: a context of their own, one socket, a waker, and how messages leave and arrive."""

    def __init__(self, address: str, keys: object, purpose: Purpose) -> None:
        self._where = read_address(address)
        demand_keys(self._where, keys, purpose)
        self.address = self._where.text
        self.bad = 0
        self._context = zmq.Context()
        self._waker = Waker()

    def _open(self, kind: int, settings: dict[int, Any]) -> "zmq.Socket[bytes]":
        end: zmq.Socket[bytes] = self._context.socket(kind)
        end.setsockopt(zmq.LINGER, _LINGER_MS)
        end.setsockopt(zmq.IPV6, int(self._where.ipv6))
        end.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        if not self._where.loopback:
            end.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
            end.setsockopt(zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS)
        for option, value in settings.items():
            end.setsockopt(option, value)
        self._poller = zmq.Poller()
        self._poller.register(end, zmq.POLLIN)
        self._poller.register(self._waker.fileno(), zmq.POLLIN)
        return end

    def _wait(self, timeout_ms: int) -> dict[Any, int]:
        """Wait until something can be done; gives what, by socket."""
        ready = dict(self._poller.poll(max(0, timeout_ms)))
        if self._waker.fileno() in ready:
            self._waker.hear()
        return ready

    def _read(self, parts: Sequence[zmq.Frame], whose: str, longest_header: int) -> Message | BadMessage:
        try:
            return decode([part.buffer for part in parts], longest_header)
        except BadMessage as bad:
            self.bad += 1
            if self.bad & (self.bad - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood of them must not become one of the log
                _logger.warning("bad message no. %d, from %s: %s", self.bad, whose, bad)
            return bad

    def wake(self) -> None:
        """Make `receive` return; from any thread, in microseconds, without ever blocking."""
        self._waker.ring()

    def close(self) -> None:
        """Close the socket, waiting half a second at most for what was just said; closing twice is fine."""
        self._context.destroy()
        self._waker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _sent(end: "zmq.Socket[bytes]", parts: Sequence[Buffer]) -> bool:
    """Send all parts or none, without waiting; pyzmq copies only what is shorter than 64 KiB."""
    try:
        end.send_multipart(parts, zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return False
    except zmq.ZMQError as gone:
        if gone.errno == zmq.EHOSTUNREACH:
            return False
        raise
    return True


def _arrived(end: "zmq.Socket[bytes]") -> Iterator[list[zmq.Frame]]:
    """Take the messages that are there, one turn's worth at most, without copying them."""
    try:
        for _ in range(_MESSAGES_PER_TURN):
            yield end.recv_multipart(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return


class Caller(_End):
    """The end of the hook, a viewer or the command line; use it from one thread, `wake` excepted.

    It connects by itself, now or whenever the restore process comes up, and again whenever that comes back. What was said
    to a process that went away is gone: it never reaches the next one.

    Parameters
    ----------
    address : str
        Of the restore process.
    keys : ClientKeys or None
        Needed for any address but this machine's.

    Raises
    ------
    WireError
        If the address cannot be one, or needs keys.
    """

    def __init__(self, address: str = ENDPOINT, keys: ClientKeys | None = None) -> None:
        super().__init__(address, keys, "call")
        self._keys = keys
        self._kept: list[Message] = []
        self._connect()

    def _connect(self) -> None:
        settings: dict[int, Any] = {
            zmq.IMMEDIATE: 1,  # nothing is queued for a process that is not there
            zmq.ROUTING_ID: b"c" + uuid.uuid4().bytes,  # so that it is known again after the connection broke
            zmq.SNDHWM: _FRAMES_OUT,
            zmq.RCVHWM: _ANSWERS,
            zmq.RECONNECT_IVL: _RECONNECT_MS,
        }
        if self._keys is not None:
            settings |= {
                zmq.CURVE_SERVERKEY: self._keys.server,
                zmq.CURVE_PUBLICKEY: self._keys.public,
                zmq.CURVE_SECRETKEY: self._keys.secret,
            }
        self._socket = self._open(zmq.DEALER, settings)
        self._events = self._socket.get_monitor_socket(_EVENTS)
        self._poller.register(self._events, zmq.POLLIN)
        self._full = self._broken = self._turned_away = False
        self._called_s = time.monotonic()
        try:
            self._socket.connect(self.address)
        except zmq.ZMQError as refused:
            self.close()
            raise WireError(f"{self.address} cannot be called: {refused}; an address looks like {ENDPOINT}") from refused

    def send(self, message: Message) -> bool:
        """Say something, if it can go out now; never blocks.

        Pixels are not copied: they must stay as they are.

        Returns
        -------
        bool
            False where it did not go out: nobody is there, or what was said before has not gone out yet. After that,
            `receive` also returns as soon as there is room.

        Raises
        ------
        ValueError, TypeError
            If the message cannot be put on the wire at all, see `live_restore.wire.messages.encode`.
        """
        self._full = not _sent(self._socket, encode(message))
        return not self._full

    def receive(self, timeout_ms: int) -> list[Message]:
        """Take what has arrived, waiting at most that long for the first; empty too after `wake`.

        Bad messages are counted in `bad` and left out.
        """
        if self._kept:
            kept, self._kept = self._kept, []
            return kept
        self._poller.modify(self._socket, zmq.POLLIN | (zmq.POLLOUT if self._full else 0))
        if not self._wait(timeout_ms).get(self._socket, 0) & zmq.POLLIN:
            self._tend()
            self._full = False  # there is room, or time is up: the next `send` finds out
            return []
        read = [self._read(parts, "the restore process", LONGEST_HEADER) for parts in _arrived(self._socket)]
        return [message for message in read if not isinstance(message, BadMessage)]

    def _tend(self) -> None:
        """Call again after the connection broke.

        ZeroMQ does so by itself, but gives up for ever after a failed handshake or a broken protocol: a server that was
        started without keys, another program at the port. So it gets its chance, and then the address is called anew.
        """
        while self._events.poll(0):
            event = int.from_bytes(self._events.recv_multipart()[0][:2], sys.byteorder)  # zmq.utils.monitor would load asyncio
            self._broken = event != zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._turned_away = self._broken and (self._turned_away or bool(event & _TURNED_AWAY))
            if event == zmq.EVENT_DISCONNECTED and not self._turned_away:
                self._called_s = time.monotonic()
        patience_s = (_RECONNECT_MS if self._turned_away else _GIVEN_UP_MS) / 1000
        if self._broken and time.monotonic() - self._called_s >= patience_s:
            self._broken, self._called_s = False, time.monotonic()
            with suppress(zmq.ZMQError):  # it was given up
                self._socket.disconnect(self.address)
            self._socket.connect(self.address)

    def ask(self, message: Message, timeout_s: float) -> Message:
        """Say `Hello`, `Ask` or `Command` and wait for the answer.

        Other messages that come meanwhile are kept for `receive`.

        Returns
        -------
        Welcome, View or Answer

        Raises
        ------
        WireError
            If no answer comes in time; the message says whether anybody was there.
        ValueError
            If the message is not one that is answered.
        """
        wanted = _ANSWER_TO.get(type(message))
        if wanted is None:
            raise ValueError(f"{type(message).__name__} is not answered; ask with {', '.join(k.__name__ for k in _ANSWER_TO)}")
        deadline = time.monotonic() + timeout_s
        refusal = None if self.send(message) else self._insist(message, deadline)
        answer = self._await(wanted, deadline) if refusal is None else None
        if answer is not None:
            return answer
        # A late answer must not be taken for that to the next question: under another routing id it finds nobody.
        self._hang_up(linger_ms=0)
        self._connect()
        raise WireError(
            refusal
            or f"the process at {self.address} did not answer within {timeout_s:g} s; it is busy, or no restore process of "
            "this release: look at its window"
        )

    def _await(self, wanted: type, deadline: float) -> Message | None:
        """Wait for a message of this type, keeping the others."""
        kept, self._kept = self._kept, []
        answer = None
        while answer is None and (left_s := deadline - time.monotonic()) > 0:
            for message in self.receive(int(left_s * 1000) + 1):
                if answer is None and isinstance(message, wanted):
                    answer = message
                else:
                    kept.append(message)
        self._kept = kept
        return answer

    def _insist(self, message: Message, deadline: float) -> str | None:
        """Say it as soon as somebody is there; gives None, or why it could not be said until the deadline."""
        while (left_s := deadline - time.monotonic()) > 0:
            self._poller.modify(self._socket, zmq.POLLOUT)
            self._wait(min(int(left_s * 1000) + 1, _RECONNECT_MS))
            if self.send(message):
                return None
            self._tend()
        if self._turned_away:
            return (
                f"the process at {self.address} turned us away: its keys and ours do not belong together, or only one side "
                "has some; use one folder of `live-restore keys` on both sides (--keys FOLDER)"
            )
        return f"no restore process answers at {self.address}; start one with `live-restore serve`, or give its address"

    def _hang_up(self, linger_ms: int | None = None) -> None:
        self._socket.disable_monitor()
        self._events.close(linger=0)
        self._socket.close(linger=linger_ms)

    def close(self) -> None:
        """Close the socket, waiting half a second at most for what was just said; closing twice is fine."""
        if not self._socket.closed:
            self._hang_up()
        super().close()


class Listener(_End):
    """The end of the restore process; use it from one thread, `wake` excepted.

    Parameters
    ----------
    address : str
        With port 0 or ``*`` a free one is taken.
    keys : ServerKeys or None
        Needed for any address but this machine's. With keys every client must have one that is authorized.

    Attributes
    ----------
    address : str
        With the real port.
    bad : int
        Messages that broke the protocol.
    turned_away : int
        How often a client with a wrong key was not let in. It tries again ten times a second.

    Raises
    ------
    WireError
        If the address is in use, is not of this machine, or needs keys.
    """

    def __init__(self, address: str = ENDPOINT, keys: ServerKeys | None = None) -> None:
        super().__init__(address, keys, "serve")
        self.turned_away = 0
        self._authorized = keys.authorized if keys else frozenset()
        settings: dict[int, Any] = {
            zmq.ROUTER_MANDATORY: 1,  # who is gone is known to be gone
            zmq.ROUTER_HANDOVER: 1,  # who comes back is known again, even if the broken connection is not yet noticed
            zmq.SNDHWM: _ANSWERS,
            zmq.RCVHWM: _FRAMES_IN,
            zmq.MAXMSGSIZE: LARGEST_FRAME,
        }
        if keys is not None:
            settings |= {
                zmq.CURVE_SERVER: 1,
                zmq.CURVE_SECRETKEY: keys.secret,
                zmq.ZAP_DOMAIN: DOMAIN,
                zmq.ZAP_ENFORCE_DOMAIN: 1,  # nobody comes in unasked
            }
        self._socket = self._open(zmq.ROUTER, settings)
        self._door = self._open_door() if keys else None
        self._bind()

    def _open_door(self) -> "zmq.Socket[bytes]":
        """Open the inner door at which ZeroMQ asks whether a client may come in; it is answered in `receive`."""
        door: zmq.Socket[bytes] = self._context.socket(zmq.REP)
        door.setsockopt(zmq.LINGER, 0)
        door.bind("inproc://zeromq.zap.01")
        self._poller.register(door, zmq.POLLIN)
        return door

    def _bind(self) -> None:
        try:
            _refuse_to_take_over(self._where)
            self._socket.bind(self.address)
        except zmq.ZMQError as refused:
            self.close()
            raise WireError(_why_not_here(self._where, refused.errno, str(refused))) from refused
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def receive(self, timeout_ms: int) -> list[tuple[bytes, Message | BadMessage]]:
        """Take what has arrived, each with who said it, waiting at most that long for the first; empty too after `wake`.

        A bad message comes as the `BadMessage` that says why, and is counted in `bad`.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            ready = self._wait(timeout_ms)
            if self._door is not None and self._door in ready:
                self._answer(self._door)
            if self._socket in ready:
                break
            if not ready or self._waker.fileno() in ready:
                return []
            timeout_ms = int((deadline - time.monotonic()) * 1000)
        return [(parts[0].bytes, self._read(parts[1:], "a client", LONGEST_FROM_CLIENTS)) for parts in _arrived(self._socket)]

    def _answer(self, door: "zmq.Socket[bytes]") -> None:
        """Let in who may."""
        reply, admitted = admit(door.recv_multipart(), self._authorized)
        self.turned_away += not admitted
        door.send_multipart(reply)

    def send(self, client: bytes, message: Message) -> bool:
        """Say something to one client, if it can go out now; never blocks.

        Returns
        -------
        bool
            False where it did not go out: the client is gone, or does not read what it is sent.
        """
        return _sent(self._socket, [client, *encode(message)])


def _refuse_to_take_over(where: Address) -> None:
    """ZeroMQ takes an ``ipc`` address away from who listens there; so it is asked whether somebody does."""
    if where.text.startswith("ipc://") and hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(where.text.removeprefix("ipc://")) == 0:
                raise zmq.ZMQError(errno.EADDRINUSE)


def _why_not_here(where: Address, number: int | None, said: str) -> str:
    """Say why an address cannot be listened at."""
    if number == errno.EADDRINUSE:
        what = f"port {where.port} of {where.text}" if where.port else where.text
        return (
            f"{what} is in use, perhaps by a restore process that still runs: ask it with "
            "`live-restore status`, or give another port with --address"
        )
    if number == errno.EACCES:
        return f"the system does not let you listen at {where.text}; take a port from 1024 on, such as {ENDPOINT}"
    return f"this machine cannot listen at {where.text}: {said}; give one of its own addresses, such as {ENDPOINT}"
