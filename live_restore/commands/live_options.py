"""Options that commands of the live path share, and what they do with them.

Receives what the user typed; hands on keys, and what the restore process answers. Everything is imported
when it is needed. How errors become sentences is in `live_restore.cli`.
"""

import _thread
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from live_restore.wire.messages import Answer, Command
    from live_restore.wire.security import ClientKeys


ENDPOINT = "tcp://127.0.0.1:5757"
ANSWER_S = 5.0
# A child whose parent is gone has so long to finish what it accepted.
_PARENT_S = 120.0

WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True, help="End when standard input closes.")]
Address = Annotated[str, typer.Option("--address", help="Where the restore process listens.")]
Keys = Annotated[
    Path | None, typer.Option("--keys", help="Folder of keys, see live-restore keys; needed for anything but this machine.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Hardware configuration, e.g. hardware_configs/demo.toml.")]
Precision = Annotated[
    Literal["f32", "bf16", "f16", "int8", "auto"] | None,
    typer.Option(help="Arithmetic of the network. [dim]default: what the configuration says, else auto[/]"),
]
Tolerate = Annotated[bool, typer.Option("--tolerate", help="Take that precision even if its certificate is out of bounds.")]
Engine = Annotated[
    str | None,
    typer.Option(help="A name from live-restore engines, or auto. [dim]default: what the configuration says, else auto[/]"),
]


def client_keys(folder: Path | None) -> "ClientKeys | None":
    """Read a client's keys, if a folder was named."""
    from live_restore.wire.security import ClientKeys

    return None if folder is None else ClientKeys.read(folder)


def asked_of(address: str, keys: Path | None, command: "Command", timeout_s: float) -> "Answer":
    """Ask the restore process; a refusal is an error."""
    from live_restore.errors import WireError
    from live_restore.wire.messages import Answer
    from live_restore.wire.sockets import Caller

    with Caller(address, client_keys(keys)) as caller:
        said = caller.ask(command, timeout_s)
    if not isinstance(said, Answer) or said.refused:
        raise WireError(getattr(said, "refused", "") or f"the restore process at {address} answered something else")
    return said


def interrupt() -> None:
    """End this process as Ctrl-C would, and surely after a while."""
    _thread.interrupt_main()
    time.sleep(_PARENT_S)
    os._exit(1)
