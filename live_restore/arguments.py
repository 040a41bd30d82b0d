"""The arguments of the command line: words that a person typed, turned into paths, channels and bytes.

Receives text; hands on values, or an error that shows how it is written. It does not know which command asks.
"""

import re
from pathlib import Path

_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def split_model(text: str) -> tuple[tuple[str, ...] | None, str]:
    """``DAPI=a`` to (("DAPI",), "a"), ``a`` to (None, "a")."""
    channels, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, text
    if not channels.strip() or not path.strip():
        raise ValueError(f"--model '{text}' lacks a channel or a package; write CHANNEL=PACKAGE, or the package alone")
    return tuple(name.strip() for name in channels.split("+")), path.strip()


def package_path(text: str) -> Path:
    """Take a path, or the name of a bundled model."""
    from live_restore.models.registry import bundled_folder

    path, bundled = Path(text), bundled_folder() / text
    return bundled if not path.exists() and bundled.exists() else path


def byte_size(text: str | None, option: str) -> int | None:
    """``4GB`` to 4e9."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if not match:
        raise ValueError(f"{option} '{text}' is no size; write for example 4GB or 500MB")
    return int(float(match[1]) * _BYTES[match[2]])


def check_figure(path: Path) -> None:
    """Refuse what cannot be drawn before the long work, not after it."""
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"a figure is .png or .pdf, not '{path.name}'")
    path.parent.mkdir(parents=True, exist_ok=True)
