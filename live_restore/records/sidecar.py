"""The sidecar: the restored volumes of a run, beside its raw dataset, while it runs and after.

Receives volumes by key, in any order; hands on one OME-Zarr group per position, and a journal of the volumes that are
safely on disk. What the journal names can be read, whatever happened since. It does not know who restored the volumes.
"""

import json
from collections.abc import Iterable, KeysView, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.frames import VolumeKey
from live_restore.records.file_lock import FileLock
from live_restore.records.images import PARTIAL
from live_restore.records.json_lines import JsonLines, plain, rewrite_lines
from live_restore.records.runs import JOURNAL, read_journal, volume_words
from live_restore.records.sidecar_zarr import SidecarGroup, Spacing, Staged, land, position_of

_LOCK = "writer.lock"
_NAME, _SUFFIX = "restored", ".ome.zarr"
# Headers come from elsewhere: beyond these nobody images, and a reader would meet an absurd axis.
_MOST_TIMES, _MOST_CHANNELS, _MOST_POSITIONS, _LONGEST_NAME = 10_000_000, 64, 10_000, 200

Said = Mapping[str, Any]


class Sidecar:
    """The restored volumes of a run, opened for writing; one process at a time, one thread at a time.

    Parameters
    ----------
    folder : Path
        The run folder; it exists.
    pixel_size_um : tuple of float or None
        (z, y, x) of the restored pixels; also an attribute, for the groups that are begun from then on.
    frame_interval_s : float or None
        Seconds from one time point to the next.
    provenance : mapping
        What made the pixels, JSON; kept inside every group.
    positions, channels : sequence of str
        What is planned, where that is known; others may come. With a single position its group is ``restored.ome.zarr``.

    Raises
    ------
    ImageError
        If another process writes there, or a group is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pixel_size_um: Spacing = (None, None, None),
        frame_interval_s: float | None = None,
        provenance: Mapping[str, Any] | None = None,
        positions: Sequence[str] = (),
        channels: Sequence[str] = (),
    ) -> None:
        import ome_writers  # noqa: F401  now, and not while the first volume waits

        self.folder = folder
        self.pixel_size_um, self._interval_s = pixel_size_um, frame_interval_s
        self._provenance = plain(provenance or {})
        self._positions, self._channels = list(positions), list(dict.fromkeys(channels))
        self._lock = FileLock(folder / _LOCK, f"the sidecar in {folder}")
        try:
            self._groups = _open_groups(folder)
            self._written = dict.fromkeys(_readable(folder, self._groups))  # a set that keeps the order
            for position, group in self._groups.items():
                group.sweep({(key.time, key.channel) for key in self._written if key.position == position})
        except BaseException:
            self._lock.close()
            raise
        self._journal = JsonLines(folder / JOURNAL)
        self._touched: set[str] = set()

    @property
    def written(self) -> KeysView[VolumeKey]:
        """The volumes that are safely on disk; a view that follows. What was said of each is in the journal alone."""
        return self._written.keys()

    @property
    def paths(self) -> dict[str, Path]:
        """The OME-Zarr group of each position."""
        return {position: group.path for position, group in self._groups.items()}

    def write(self, key: VolumeKey, volume: NDArray[np.float32], said: Said | None = None) -> Path:
        """Write one volume and what is to be said of it; safely on disk when this returns.

        Parameters
        ----------
        key : VolumeKey
            Not written yet, and not of high light.
        volume : ndarray, (Z, Y, X), float32
            Of the same shape at every time point and in every channel of a position.
        said : mapping
            Model, engine, intensity range, trust, ...: JSON. ``frames`` (int): from how many raw frames;
            ``live`` (bool): False where it was restored afterwards.

        Returns
        -------
        Path
            The group it is in.

        Raises
        ------
        ImageError
            If it does not fit what is there, or is there already.
        OSError
            If the disk is full or refuses; then the volume counts as never written.
        """
        (refused,) = self.write_all([(key, volume, said or {})])
        if refused is not None:
            raise refused
        return self._groups[key.position].path

    def write_all(self, volumes: Sequence[tuple[VolumeKey, NDArray[np.float32], Said]]) -> list[Exception | None]:
        """Write several volumes as `write` does; the disk is waited for once, not for each.

        Returns
        -------
        list
            Per volume what kept it from being written, as `write` would raise it; None: it is safely on disk.
        """
        refused: list[Exception | None] = [None] * len(volumes)
        staged: dict[int, Staged] = {}
        for number, (key, volume, said) in enumerate(volumes):
            refused[number] = self._refusal(key, volume, said)
        passed = [number for number, reason in enumerate(refused) if reason is None]
        self._reach(volumes[number][0] for number in passed)  # a volume that is refused must not stretch the axis T
        for number in passed:
            key, volume, _ = volumes[number]
            try:
                if any(volumes[other][0] == key for other in staged):
                    raise ImageError(f"{key} is restored already; a volume is written once")
                staged[number] = self._group(key, volume).stage(key.time, key.channel, volume)
            except Exception as reason:  # of one volume; the others get their turn
                refused[number] = reason
        for number, why in zip(staged, land(list(staged.values())), strict=True):
            refused[number] = why
        self._tell([volumes[number] for number in staged if refused[number] is None], staged, refused)
        return refused

    def _reach(self, keys: Iterable[VolumeKey]) -> None:
        """Let the axes T of the groups that are there reach as far as these volumes."""
        latest: dict[str, int] = {}
        for key in keys:
            latest[key.position] = max(key.time, latest.get(key.position, 0))
        for position, time in latest.items():
            if position in self._groups and time <= _MOST_TIMES:
                with suppress(OSError):  # whoever needs the room is refused it again, by name
                    self._groups[position].reach(time)

    def _tell(
        self,
        written: Sequence[tuple[VolumeKey, NDArray[np.float32], Said]],
        staged: Iterable[int],
        refused: list[Exception | None],
    ) -> None:
        """Name in the journal what is on disk; where that is refused, nothing of it counts as written."""
        lines = []
        for key, volume, said in written:
            stored = {"planes": len(volume), "low": float(volume.min()), "high": float(volume.max())}
            lines.append({**volume_words(key), **stored, "said": dict(said)})
        try:
            self._journal.append_all(lines, durable=True)
        except Exception as reason:  # the disk is full
            for number in staged:
                refused[number] = refused[number] or reason
            return
        for key, _, _ in written:
            self._written[key] = None
            self._touched.add(key.position)

    def read(self, key: VolumeKey) -> NDArray[np.float32]:
        """Read a volume that was written, (Z, Y, X).

        Raises
        ------
        ImageError
            If it was not, or cannot be read.
        """
        if key not in self._written:
            raise ImageError(f"{self.folder} holds no restored volume of {key}; backfill restores what is missing")
        return self._groups[key.position].read(key.time, key.channel)

    def close(self) -> None:
        """Say in the groups what is known now, and let others write; a second time is fine."""
        try:
            lines = read_journal(self.folder) if self._touched else {}
            for position in sorted(self._touched):
                self._complete(position, lines)
            self._touched.clear()
        finally:
            self._journal.close()
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _refusal(self, key: VolumeKey, volume: NDArray[np.float32], said: Said) -> Exception | None:
        """Say why one volume cannot be written, whatever the others are; None if it can, as far as one knows before."""
        try:
            self._check(key, volume)
            json.dumps(plain(said), allow_nan=False)  # one that has no JSON would refuse the lines of all
        except Exception as reason:
            return reason
        group = self._groups.get(key.position)
        return None if group is None else self._misfit(key, volume, group)

    def _check(self, key: VolumeKey, volume: NDArray[np.float32]) -> None:
        if volume.dtype != np.float32 or volume.ndim != 3 or not volume.size:
            raise ValueError(f"a restored volume is float32, (Z, Y, X); this is {volume.dtype} of shape {volume.shape}")
        if key.light == "high":
            raise ValueError(f"{key} is a reference, which is not restored")
        if not 0 <= key.time <= _MOST_TIMES:
            raise ImageError(f"time {key.time} is outside 0..{_MOST_TIMES}; number the time points from 0")
        for kind, name in (("position", key.position), ("channel", key.channel)):
            if not (0 < len(name) <= _LONGEST_NAME and name.isprintable()):
                raise ImageError(f"{kind} {name[:40]!r} is no name of 1 to {_LONGEST_NAME} printable characters; rename it")
        if key in self._written:
            raise ImageError(f"{key} is restored already; a volume is written once")

    def _group(self, key: VolumeKey, volume: NDArray[np.float32]) -> SidecarGroup:
        """Give the group of a position, made with its first volume."""
        group = self._groups.get(key.position)
        if group is None:
            group = self._groups[key.position] = self._create(key, volume)
        refused = self._misfit(key, volume, group)
        if refused is not None:
            raise refused
        return group

    def _misfit(self, key: VolumeKey, volume: NDArray[np.float32], group: SidecarGroup) -> ImageError | None:
        """Say why a volume cannot be one of a group."""
        size = (volume.shape[0], volume.shape[1], volume.shape[2])
        if group.size != size:
            return ImageError(
                f"{key} has the shape (Z, Y, X) {size}, but the restored volumes of position {key.position} have "
                f"{group.size}; record stacks of different sizes as positions or runs of their own"
            )
        if key.channel not in group.channels and len(group.channels) >= _MOST_CHANNELS:
            return ImageError(f"channel '{key.channel}' would be number {len(group.channels) + 1}; {_MOST_CHANNELS} at most")
        return None

    def _create(self, key: VolumeKey, volume: NDArray[np.float32]) -> SidecarGroup:
        if len(self._groups) >= _MOST_POSITIONS:
            raise ImageError(f"position '{key.position}' would be number {len(self._groups) + 1}; {_MOST_POSITIONS} at most")
        channels = self._channels if key.channel in self._channels else [*self._channels, key.channel]
        path = self.folder / self._name(key.position)
        size = (volume.shape[0], volume.shape[1], volume.shape[2])
        return SidecarGroup.create(path, key.position, channels, size, self.pixel_size_um, self._interval_s, self._provenance)

    def _name(self, position: str) -> str:
        """File name for a position: different from all others, also where capitals do not count, and fit for Windows."""
        taken = {group.path.name.lower() for group in self._groups.values()}
        single = self._positions == [position] or (not self._positions and position == "0")
        clean = "".join("_" if c in '<>:"/\\|?*' else c for c in position).strip(" .")[:80] or "position"
        first, number = _NAME if single else f"{_NAME}_{clean}", 1
        name = f"{first}{_SUFFIX}"
        while name.lower() in taken or (self.folder / name).exists():
            number += 1
            name = f"{first}_{number}{_SUFFIX}"
        return name

    def _complete(self, position: str, journal: Mapping[VolumeKey, Mapping[str, Any]]) -> None:
        lines = sorted((key, line) for key, line in journal.items() if key.position == position)
        extremes: dict[str, tuple[float, float]] = {}
        for key, line in lines:
            low, high = line.get("low"), line.get("high")
            if isinstance(low, float) and isinstance(high, float):
                least, most = extremes.get(key.channel, (low, high))
                extremes[key.channel] = min(low, least), max(high, most)
        said = [{**volume_words(key), **line["said"]} for key, line in lines]
        self._groups[position].complete(extremes, said)


def _open_groups(folder: Path) -> dict[str, SidecarGroup]:
    groups = {}
    for path in sorted(folder.glob(f"{_NAME}*{_SUFFIX}")):
        position = None if PARTIAL in path.name else position_of(path)
        if position is not None:
            groups[position] = SidecarGroup(path)
    return groups


def _readable(folder: Path, groups: Mapping[str, SidecarGroup]) -> dict[VolumeKey, dict[str, Any]]:
    """Keep the lines of the journal whose group is still there: what somebody moved away is to be restored again."""

    def is_there(key: VolumeKey) -> bool:
        group = groups.get(key.position)
        return group is not None and key.channel in group.channels and key.time < group.times

    lines = read_journal(folder)
    kept = {key: line for key, line in lines.items() if is_there(key)}
    if len(kept) < len(lines):  # before a new group of the old name makes them look true
        rewrite_lines(folder / JOURNAL, kept.values())
    return kept
