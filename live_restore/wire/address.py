"""The address of a restore process: read, checked, and whether it can be reached from other machines.

Receives what somebody typed; hands on an address in ZeroMQ's spelling. It does not know sockets.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from live_restore.errors import WireError

ENDPOINT = "tcp://127.0.0.1:5757"

Purpose = Literal["serve", "call"]

_TCP = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|\*|[A-Za-z0-9._-]+):(?P<port>\d{1,5}|\*)")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a restore process listens.

    Attributes
    ----------
    text : str
        As ZeroMQ wants it; the name ``localhost`` is replaced by its number.
    host : str
        Name or number, ``*`` for every network card; empty for ``ipc``.
    port : int
        0 for any free one, and for ``ipc``.
    """

    text: str
    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if not self.host:
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:  # a name: who knows where it leads
            return False

    @property
    def ipv6(self) -> bool:
        """Whether it is an address of the sixth version of the protocol."""
        return ":" in self.host


def read_address(text: str) -> Address:
    """Read an address such as ``tcp://127.0.0.1:5757``, ``tcp://[::1]:5757``, ``tcp://localhost:0`` or ``ipc:///run/restore``.

    Raises
    ------
    WireError
        If it is none; the message shows how one is spelt.
    """
    if text.startswith("ipc://") and len(text) > len("ipc://"):
        return Address(text, "", 0)
    found = _TCP.fullmatch(text)
    if not found:
        raise WireError(f"{text!r} is no address; one looks like {ENDPOINT}")
    host = found["host"].strip("[]")
    port = 0 if found["port"] == "*" else int(found["port"])
    if port > 65535:
        raise WireError(f"{text!r} has the port {port}; ports end at 65535: one looks like {ENDPOINT}")
    host = "127.0.0.1" if host.lower() == "localhost" else host
    spelt = f"[{host}]" if ":" in host else host
    return Address(f"tcp://{spelt}:{port}", host, port)


def demand_keys(address: Address, keys: object, purpose: Purpose) -> None:
    """Refuse to go beyond this machine without encryption.

    Parameters
    ----------
    address : Address
    keys : object
        None where there are none.
    purpose : {"serve", "call"}

    Raises
    ------
    WireError
        With the cure.
    """
    if keys is not None or address.loopback:
        return
    tried = (
        "listening there would let every machine of the network in" if purpose == "serve" else "frames would go out unencrypted"
    )
    raise WireError(
        f"{address.text} is not an address of this machine alone, and {tried}: make keys with `live-restore keys FOLDER` and "
        f"give --keys FOLDER on both sides, or use {ENDPOINT}"
    )
