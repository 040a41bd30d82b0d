"""Names: of images after their files, of channels as files give them, and the order in which people count.

Receives what files say; hands on names that are printable, different, and fit for a file name. It opens nothing.
"""

import re
from collections.abc import Sequence
from pathlib import Path

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_SUFFIXES = tuple(f"{ome}{suffix}" for ome in (".ome", "") for suffix in (*TIFF_SUFFIXES, ".zarr"))


def stem(path: Path) -> str:
    """File name without the suffix of an image, simple or double (``.ome.tif``); other dots belong to the name."""
    found = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name.removesuffix(path.name[len(path.name) - len(found) :]) if found else path.name


def position_names(path: Path, positions: Sequence[str]) -> list[str]:
    """Name the images of one file: its stem, with the position appended if there are several."""
    if len(positions) == 1:
        return [stem(path)]
    # a position's name becomes part of a file name, also on Windows
    clean = ["".join("_" if c in '<>:"/\\|?*' or not c.isprintable() else c for c in name).strip(" .") for name in positions]
    return _distinct([f"{stem(path)}_{name or 'position'}" for name in clean], separator="_")


def channel_names(names: Sequence[object], count: int) -> tuple[str, ...]:
    """Make `count` printable, different names of what a file says; ``channel 0`` where it says nothing."""
    given = ["" if name is None else str(name) for name in names] if len(names) == count else [""] * count
    printable = ["".join(c if c.isprintable() else " " for c in name).strip() for name in given]
    return tuple(_distinct([name or f"channel {index}" for index, name in enumerate(printable)], separator=" "))


def _distinct(names: Sequence[str], separator: str) -> list[str]:
    """Give a number to names that occur twice, also if only their case differs: file names ignore it on Windows."""
    result: list[str] = []
    taken: set[str] = set()
    for name in names:
        candidate, number = name, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{name}{separator}{number}"
        taken.add(candidate.lower())
        result.append(candidate)
    return result


def natural_key(path: Path) -> list[tuple[bool, int, str]]:
    """Sorting key that counts: ``img2`` before ``img10``, whatever the case."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
