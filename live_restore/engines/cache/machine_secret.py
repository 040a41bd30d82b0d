"""The secret of this machine: 32 random bytes in the user's configuration folder, made when they are first needed.

Receives a folder; hands on the bytes. What is sealed with them was made here, by this user. It does not know what is sealed.
"""

import os
import secrets
from pathlib import Path

from live_restore.engines.cache.user_folders import config_folder
from live_restore.errors import EngineError

FILE = "engine_cache.secret"
_BYTES = 32


def machine_secret(folder: Path | None = None) -> bytes:
    """Read the secret, or make it.

    Parameters
    ----------
    folder : Path, optional
        Default: the user's configuration folder.

    Returns
    -------
    bytes
        32 of them, the same in every process of this user.

    Raises
    ------
    EngineError
        If it can be neither read nor made, or the file holds something else.
    """
    file = (folder or config_folder()) / FILE
    try:
        if not file.exists():
            _make(file)
        words = file.read_text(encoding="ascii", errors="replace").strip()
    except OSError as refused:
        raise EngineError(
            f"the secret that tells this machine's engines from others cannot be kept in {file} ({refused.strerror}), so "
            "engines are built anew at every start; give yourself the right to write there"
        ) from refused
    try:
        secret = bytes.fromhex(words)
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise EngineError(f"{file} does not hold a secret of {_BYTES} bytes; delete it, and all engines are built again")
    return secret


def _make(file: Path) -> None:
    """Put a new secret in place whole, unless another process was first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(secrets.token_hex(_BYTES))
        _publish(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _publish(partial: Path, file: Path) -> None:
    try:
        os.link(partial, file)  # fails where the name is taken, on every platform
    except FileExistsError:
        return
    except OSError:  # a file system without links; whoever is last wins, and all read what is there in the end
        partial.replace(file)
