"""The pairs of a folder: low and high-light images of the same field under the same name.

Receives a folder, written by `live_restore.records.pair_log` or by anybody else; hands on its pairs, which read their
pixels when asked. It does not know how a pair is judged, nor what learns from it.

::

    pairs/NAME/
      low/ID.tif          raw counts, uint16, OME-TIFF, ([Z,] Y, X): what CSBDeep, CAREamics and 3D-RCAN read as it is
      high/ID.tif         the same field, plenty of light
      rejected/low/…      pairs that failed the check (kept, but out of the way of other software)
      pairs.jsonl         one line per pair
      card.json           the dataset card

A folder of other origin has two sub-folders of TIFF files, low and high (or GT), and nothing else that is needed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError, PairError
from live_restore.records.json_lines import read_lines
from live_restore.records.names import TIFF_SUFFIXES, natural_key, stem
from live_restore.records.pair_positions import positions_in_names

Counts = NDArray[np.uint16]
Pixels = NDArray[Any]
Split = Literal["train", "held-out", ""]

LINES, CARD, REJECTED = "pairs.jsonl", "card.json", "rejected"
# How the two sub-folders may be called, whatever the case: ours and CSBDeep's, 3D-RCAN's.
_FOLDERS = (("low", "high"), ("low", "gt"), ("raw", "gt"))
_CHUNK_BYTES = 1 << 20
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """One field at low and at high light.

    Attributes
    ----------
    name : str
        The stem of both files.
    low, high : Path
    channel : str
        Empty where nobody said.
    position : str
        The place of the stage; pairs of one position never stand on both sides of a split.
    split : {"train", "held-out", ""}
        Empty where nobody said.
    accepted : bool
    reason : str
        Why it was not accepted; empty if it was.
    shift_px : tuple of float
        ([z,] y, x): what lies at r in low lies at r + shift in high. Empty where it was not measured.
    said : mapping
        The whole line of ``pairs.jsonl``; empty for folders of other origin.
    """

    name: str
    low: Path
    high: Path
    channel: str = ""
    position: str = ""
    split: Split = ""
    accepted: bool = True
    reason: str = ""
    shift_px: tuple[float, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> tuple[Pixels, Pixels]:
        """Read both images, low first.

        Returns
        -------
        low, high : ndarray, ([Z,] Y, X), uint8, uint16 or float32
            As they are in the files, of any shape; whole numbers of other widths and real ones become float32.

        Raises
        ------
        PairError
            If a file is gone, damaged, or holds more than one volume of one channel.
        """
        return read_volume(self.low), read_volume(self.high)


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs of a folder.

    Attributes
    ----------
    folder : Path
    pairs : tuple of Pair
        Accepted or not, in order of their names.
    card : mapping
        The dataset card; empty for folders of other origin.
    notes : tuple of str
        What had to be supposed or passed over, in words for the user.
    """

    folder: Path
    pairs: tuple[Pair, ...]
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[Pair, ...]:
        """The pairs to learn from."""
        return tuple(pair for pair in self.pairs if pair.accepted)

    def of(self, channel: str | None = None, split: Split | None = None) -> tuple[Pair, ...]:
        """Choose accepted pairs by channel and by side of the split; None chooses all."""
        return tuple(
            pair
            for pair in self.accepted
            if (channel is None or pair.channel == channel) and (split is None or pair.split == split)
        )


def read_pairs(folder: Path, position: str | None = None) -> PairSet:
    """Read which pairs a folder holds, without their pixels.

    Parameters
    ----------
    folder : Path
        One that a `PairLog` wrote, or any with sub-folders low and high.
    position : str or None
        For folders of other origin: a regular expression whose one group is the position in a name. None: what stands
        before the last ``_`` or ``-``, if several names share it.

    Returns
    -------
    PairSet
        A file without its partner, and two files of one name, are pairs that are not accepted, with the reason. Files that
        no line of a pair log mentions are no pairs: an acquisition was killed while it wrote them, or somebody laid them
        beside a folder that was checked; a note names them.

    Raises
    ------
    PairError
        If there is no folder, no low and high in it, or no pair in those.
    """
    if not folder.is_dir():
        raise PairError(f"{folder} is no folder; give the one that has the sub-folders low and high")
    lines = read_lines(folder / LINES)
    found = _logged(folder, lines) if lines else _foreign(folder, position)
    if not found.pairs:
        raise PairError(f"{folder} holds no pair; a pair is a TIFF in low and one of the same name in high")
    return found


def read_volume(path: Path) -> Pixels:
    """Read the one volume of one channel that a file holds, ([Z,] Y, X), uint8, uint16 or float32.

    Raises
    ------
    PairError
    """
    from live_restore.records.images import open_images

    if not path.is_file():
        raise PairError(f"{path} is gone; restore it, or take its pair out of {LINES}")
    try:
        images = open_images(path)
        with images[0] as image:
            _check_one_volume(path, len(images), image.info.times, len(image.info.channels))
            volume = image.volume(0, 0)
    except ImageError as error:
        raise PairError(str(error)) from error
    pixels = volume[0] if len(volume) == 1 else volume  # ([Z,] Y, X)
    return pixels if pixels.dtype in (np.uint8, np.uint16, np.float32) else pixels.astype(np.float32)


def _check_one_volume(path: Path, positions: int, times: int, channels: int) -> None:
    for number, what in ((positions, "positions"), (times, "time points"), (channels, "channels")):
        if number > 1:
            raise PairError(f"{path} holds {number} {what}; save each as a file of its own, ([Z,] Y, X)")


def pairs_sha256(pairs: PairSet | Iterable[Pair]) -> str:
    """Hash the files of the accepted pairs, whatever their order and names; read from disk, not from the log."""
    chosen = pairs.accepted if isinstance(pairs, PairSet) else [pair for pair in pairs if pair.accepted]
    return joined_sha256((file_sha256(pair.low), file_sha256(pair.high)) for pair in chosen)


def joined_sha256(hashes: Iterable[tuple[str, str]]) -> str:
    """Join the hashes of pairs of files, low and high, into one that does not depend on their order."""
    return hashlib.sha256("\n".join(sorted(f"{low} {high}" for low, high in hashes)).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash a file, piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _logged(folder: Path, lines: Sequence[Mapping[str, Any]]) -> PairSet:
    """Take the pairs that the log says; the last line of a name counts, as a check writes a later one."""
    by_name = {str(line["name"]): line for line in lines if isinstance(line.get("name"), str)}
    pairs = [_told(folder, line) for line in by_name.values()]
    said = {path.resolve() for pair in pairs for path in (pair.low, pair.high)}
    taken_here = any("written_unix_s" in line for line in lines)
    return PairSet(folder, _ordered(pairs), _card(folder), _strangers(folder, said, taken_here))


def _told(folder: Path, line: Mapping[str, Any]) -> Pair:
    files = {side: folder / str(line.get(side) or f"{side}/{line['name']}.tif") for side in ("low", "high")}
    reason = str(line.get("reason") or "")
    split = cast("Split", line["split"] if line.get("split") in ("train", "held-out") else "")
    shift = tuple(float(value) for value in line.get("shift_px") or ())
    pair = Pair(
        str(line["name"]),
        files["low"],
        files["high"],
        channel=str(line.get("channel") or ""),
        position=str(line.get("position") or ""),
        split=split,
        accepted=bool(line.get("accepted", True)) and not reason,
        reason=reason,
        shift_px=shift,
        said=line,
    )
    gone = [path.relative_to(folder).as_posix() for path in files.values() if not path.is_file()]
    if gone and pair.accepted:
        why = f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone; restore the file or leave the pair out"
        return replace(pair, accepted=False, reason=why)
    return pair


def _strangers(folder: Path, said: set[Path], taken_here: bool) -> tuple[str, ...]:
    """Name the files of low and high that no line mentions."""
    sides = [side for name in ("low", "high", "gt", "raw") if (side := _subfolder(folder, name))]
    strange = [path.relative_to(folder).as_posix() for side in sides for path in _tiffs(side) if path.resolve() not in said]
    if not strange:
        return ()
    if taken_here:
        return (f"{_named(strange)}: no line in {LINES}; the acquisition was killed while writing them, so they are left out",)
    return (f"{_named(strange)}: came after a check wrote {LINES}, so they are left out; remove {LINES}, and check again",)


def _foreign(folder: Path, position: str | None) -> PairSet:
    low_folder, high_folder = _sides(folder)
    low, twice = _by_name(low_folder)
    high, twice_high = _by_name(high_folder)
    names = sorted(low.keys() | high.keys(), key=lambda name: natural_key(Path(name)))
    positions, note = positions_in_names(names, position)
    pairs = []
    for name in names:
        files = low.get(name, low_folder / f"{name}.tif"), high.get(name, high_folder / f"{name}.tif")
        reason = _lonely(name, low.keys(), high.keys(), (low_folder.name, high_folder.name))
        reason = (twice | twice_high).get(name, "") or reason
        pairs.append(Pair(name, *files, position=positions[name], accepted=not reason, reason=reason))
    return PairSet(folder, tuple(pairs), _card(folder), (note,) if note and len(pairs) > 1 else ())


def _lonely(name: str, low: Iterable[str], high: Iterable[str], folders: tuple[str, str]) -> str:
    for here, there, (mine, other) in ((low, high, folders), (high, low, folders[::-1])):
        if name in here and name not in there:
            return f"'{name}' is in {mine}, but not in {other}; give both the same name, or take it out"
    return ""


def _by_name(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Give the files of a folder by name, and what is wrong with names that several of them have."""
    found: dict[str, list[Path]] = {}
    for path in _tiffs(folder):
        found.setdefault(stem(path), []).append(path)
    twice = {
        name: f"{len(paths)} files of {folder.name} are called '{name}': {_named([p.name for p in paths])}; keep one"
        for name, paths in found.items()
        if len(paths) > 1
    }
    return {name: paths[0] for name, paths in found.items()}, twice


def _sides(folder: Path) -> tuple[Path, Path]:
    for low_name, high_name in _FOLDERS:
        low, high = _subfolder(folder, low_name), _subfolder(folder, high_name)
        if low and high:
            return low, high
    within = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and (child / LINES).is_file()]
    if within:
        raise PairError(f"{folder} holds {len(within)} folders of pairs, {_named(within)}; give one of them")
    raise PairError(f"{folder} has no sub-folders low and high (or low and GT) with TIFF files of the same names")


def _subfolder(folder: Path, name: str) -> Path | None:
    return next((child for child in sorted(folder.iterdir()) if child.is_dir() and child.name.lower() == name), None)


def _tiffs(folder: Path) -> list[Path]:
    files = (child for child in folder.iterdir() if child.is_file() and not child.name.startswith("."))
    return sorted((file for file in files if file.name.lower().endswith(TIFF_SUFFIXES)), key=natural_key)


def _card(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _ordered(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple(sorted(pairs, key=lambda pair: natural_key(Path(pair.name))))


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
