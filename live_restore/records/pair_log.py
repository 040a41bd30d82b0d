"""The pair log: writes low and high-light images of the same field so that nothing is lost and other software reads them.

Receives pairs and what was measured on them; hands on the folder that `live_restore.records.pairs` describes. Both files of a
pair are written under temporary names, put in place together, and then said in one line that the disk has: a process that is
killed loses no pair whose line is there. It does not know how a pair is judged.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from live_restore import __version__
from live_restore.errors import PairError
from live_restore.records.json_lines import JsonLines, plain
from live_restore.records.json_lines import rewrite_lines as replace_lines
from live_restore.records.pair_files import PixelSize, TakenPair, check_name, pair_name, replace_json, temporary, write_both
from live_restore.records.pair_positions import held_out_at_once
from live_restore.records.pairs import CARD, LINES, REJECTED, Pair, Split, joined_sha256

__all__ = ["Judgement", "PairLog", "PixelSize", "TakenPair", "pair_name", "rewrite_lines"]


class Judgement(Protocol):
    """What was measured on a pair; `live_restore.pairs.quality.PairFacts` is one."""

    @property
    def reason(self) -> str:
        """Why the pair is not accepted; empty if it is."""

    @property
    def shift_px(self) -> tuple[float, ...]:
        """([z,] y, x), empty where it was not measured."""

    def as_json(self) -> dict[str, Any]:
        """Say everything in what JSON can hold."""


class PairLog:
    """A folder of pairs, begun now and added to pair by pair; used from one thread.

    Parameters
    ----------
    folder : Path
        Where folders of pairs are kept; it is made.
    name : str
        Of this one; if it is taken, ``NAME_2`` and so on.
    card : mapping
        What is known beforehand, as JSON: instrument, camera calibration, light levels, plan.

    Attributes
    ----------
    folder : Path
        The folder of this log.
    pairs : list of Pair
        Written so far.

    Raises
    ------
    PairError
        If the name is not fit for a folder, or the disk refuses.
    """

    def __init__(self, folder: Path, name: str, card: Mapping[str, Any] | None = None) -> None:
        check_name(name)
        self.pairs: list[Pair] = []
        self._card = dict(card or {})
        self._hashes: dict[str, tuple[str, str]] = {}
        self._judged: list[dict[str, Any]] = []
        self._positions: dict[str, Split] = {}
        self._begun_s = time.time()
        try:
            self.folder = _made(folder, name)
            for side in ("low", "high"):
                (self.folder / side).mkdir()
            self._write_card(finished=False)
        except OSError as error:
            raise PairError(f"no pairs can be kept in {folder}: {error.strerror or error}; choose another folder") from error
        self._lines = JsonLines(self.folder / LINES)

    def write(self, taken: TakenPair, facts: Judgement) -> Pair:
        """Write one pair; when this returns, it is safe on the disk.

        A rejected pair goes to ``rejected/low`` and ``rejected/high``, where no other software looks.

        Raises
        ------
        PairError
            If there is such a name already, the images are no counts, or the disk is full; then nothing of it is left.
        """
        self._check(taken)
        where = self.folder / REJECTED if facts.reason else self.folder
        split = "" if facts.reason else self._side(taken.position)
        files = {side: where / side / f"{taken.name}.tif" for side in ("low", "high")}
        try:
            hashes = write_both(taken, files)
            line = self._line(taken, facts, files, hashes, split)
            self._lines.append(line, durable=True)
        except OSError as error:
            _remove(chain(files.values(), map(temporary, files.values())))
            raise PairError(
                f"pair '{taken.name}' cannot be written: {error.strerror or error}; "
                f"the {len(self.pairs)} pairs before it are safe in {self.folder}; make room and go on in a new folder"
            ) from error
        pair = Pair(
            taken.name,
            files["low"],
            files["high"],
            channel=taken.channel,
            position=taken.position,
            split=split,
            accepted=not facts.reason,
            reason=facts.reason,
            shift_px=facts.shift_px,
            said=line,
        )
        self._keep(pair, hashes, line["facts"])
        return pair

    def finish(self, **said: Any) -> dict[str, Any]:
        """Write the dataset card and close the log.

        Parameters
        ----------
        said : mapping
            Further words for the card.

        Returns
        -------
        dict
            The card.

        Raises
        ------
        PairError
            If the disk refuses.
        """
        self._lines.close()
        self._card |= said
        try:
            return self._write_card(finished=True)
        except OSError as error:
            raise PairError(f"{self.folder / CARD} cannot be written: {error.strerror or error}; the pairs are safe") from error

    def close(self) -> None:
        """Close the log as it is; a second time is fine."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self, taken: TakenPair) -> None:
        check_name(taken.name)
        if taken.name.lower() in {pair.name.lower() for pair in self.pairs}:
            raise PairError(f"there is a pair '{taken.name}' in {self.folder} already; give every pair a name of its own")
        for side, pixels in (("low", taken.low), ("high", taken.high)):
            if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3) or not pixels.size:
                raise PairError(
                    f"the {side} image of '{taken.name}' is {pixels.dtype} of shape {pixels.shape}; "
                    "pairs are kept as raw counts, uint8 or uint16, ([Z,] Y, X)"
                )

    def _side(self, position: str) -> Split:
        if position not in self._positions:
            self._positions[position] = "held-out" if held_out_at_once(len(self._positions)) else "train"
        return self._positions[position]

    def _line(
        self, taken: TakenPair, facts: Judgement, files: Mapping[str, Path], hashes: tuple[str, str], split: Split
    ) -> dict[str, Any]:
        line: dict[str, Any] = {
            "name": taken.name,
            "channel": taken.channel,
            "position": taken.position,
            "repeat": taken.repeat,
            "split": split,
            "accepted": not facts.reason,
            "reason": facts.reason,
            "shift_px": facts.shift_px,
            **{side: path.relative_to(self.folder).as_posix() for side, path in files.items()},
            "low_sha256": hashes[0],
            "high_sha256": hashes[1],
            "shape": taken.low.shape,
            "pixel_size_um": taken.pixel_size_um,
            "dose_ratio": taken.dose_ratio,
            "facts": facts.as_json(),
            "written_unix_s": round(time.time(), 3),
            "said": taken.said,
        }
        plain_line: dict[str, Any] = plain(line)
        return plain_line

    def _keep(self, pair: Pair, hashes: tuple[str, str], judged: dict[str, Any]) -> None:
        self.pairs.append(pair)
        if pair.accepted:
            self._hashes[pair.name] = hashes
            self._judged.append(judged)

    def _write_card(self, *, finished: bool) -> dict[str, Any]:
        accepted = [pair for pair in self.pairs if pair.accepted]
        reasons = [pair.reason for pair in self.pairs if not pair.accepted]
        card = plain(
            {
                "name": self.folder.name,
                **self._card,
                "finished": finished,
                "pairs": len(self.pairs),
                "accepted": len(accepted),
                "rejected": len(reasons),
                "channels": {name: sum(p.channel == name for p in accepted) for name in sorted({p.channel for p in accepted})},
                "positions": {side: sum(s == side for s in self._positions.values()) for side in ("train", "held-out")},
                "medians": _medians(self._judged),
                "pairs_sha256": joined_sha256(self._hashes.values()),
                "software": f"live_restore {__version__}",
                "begun_unix_s": round(self._begun_s, 3),
                "written_unix_s": round(time.time(), 3),
            }
        )
        replace_json(self.folder / CARD, card)
        return dict(card)


def rewrite_lines(pairs: Sequence[Pair], folder: Path, facts: Mapping[str, Judgement]) -> None:
    """Say anew which pairs of a folder are accepted, in one step; files stay where they are.

    Parameters
    ----------
    pairs : sequence of Pair
        All of them, as they are judged now.
    folder : Path
    facts : mapping
        By name; what was said of a pair before stays otherwise.

    Raises
    ------
    PairError
        If the disk refuses; then the folder is as it was.
    """
    lines = []
    for pair in pairs:
        line = {**pair.said, "name": pair.name, "channel": pair.channel, "position": pair.position, "split": pair.split}
        line |= {"accepted": pair.accepted, "reason": pair.reason, "shift_px": pair.shift_px}
        line |= {side: path.relative_to(folder).as_posix() for side, path in (("low", pair.low), ("high", pair.high))}
        line |= {"facts": facts[pair.name].as_json()} if pair.name in facts else {}
        lines.append(line)
    try:
        replace_lines(folder / LINES, lines)
    except OSError as error:
        raise PairError(f"{folder / LINES} cannot be written: {error.strerror or error}; nothing was changed") from error


def _remove(paths: chain[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _made(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = folder / (name if number == 1 else f"{name}_{number}")
        with suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("counting never ends")


def _medians(judged: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Give the median of every figure that is a number."""
    names = sorted({name for said in judged for name in said})
    columns = {name: [said[name] for said in judged if isinstance(said.get(name), (int, float))] for name in names}
    return {name: round(statistics.median(values), 4) for name, values in columns.items() if values}
