"""Lessons: pairs whose high image is what the student is to learn, the truth and the teacher's image mixed.

Receives pairs, low-light images without a partner, and a teacher; hands on pairs that training learns from as from any others.
The teacher sees every whole image once; what it made of it is kept as a file until the student is done, so that an interrupted
training goes on with the same. It does not know the student.

The truth is fitted to the counts of the low image, and so is the teacher's image; their mean, weighed, is what is learned. The
truth has noise of its own, and detail that nobody can find in the low image: what the teacher makes of it has neither, and a
student learns it in fewer steps. Where the exposures lie apart, the border that only low shows is left to the teacher.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import PairError
from live_restore.pairs.moved import cut_moved, overlap_window
from live_restore.records.names import TIFF_SUFFIXES, natural_key, stem
from live_restore.records.pair_positions import positions_in_names, split_positions
from live_restore.records.pairs import Pair, file_sha256, read_volume
from live_restore.training.checked import Saying
from live_restore.training.fields import read_pixel_size
from live_restore.training.held_out import spread
from live_restore.training.material import Chosen, choose
from live_restore.training.options import TrainingOptions
from live_restore.training.targets import fit_counts
from live_restore.training.teacher import Teacher
from live_restore.training.teachers_worth import filters_gain_db, weigh

FloatArray = NDArray[np.float32]

# The weight of a teacher to whom filters add nothing; measured, see docs/distilling.md.
FULL_WEIGHT = 1.0
# So many pairs tell what a teacher is worth; so often it is told how far it is.
_WEIGHED = 8
_SPEAK_S = 15.0


class Lessons:
    """What is learned from whom.

    Parameters
    ----------
    teacher : Teacher
    weight : float or None
        Of the teacher in what is learned, 0 to 1; the rest is the truth. None: as much as it is worth, see
        `live_restore.training.teachers_worth`. Images without truth are the teacher's alone.
    images : sequence of Path
        Low-light images without partner, or folders of them.
    folder : Path
        Where the teacher's images are kept.

    Attributes
    ----------
    judged : tuple of Pair
        By which the student is judged; known when it was chosen what is learned, as is
    weight : float
        What the teacher's weight was.
    """

    def __init__(self, teacher: Teacher, weight: float | None, images: Sequence[Path], folder: Path) -> None:
        self.teacher, self._wanted, self._images, self._folder = teacher, weight, images, folder
        self.judged: tuple[Pair, ...] = ()
        self.weight = 1.0 if weight is None else weight
        self._made, self._spoke = 0, 0.0
        self._said: Saying = lambda _: None

    def choose(self, folders: Sequence[Path], options: TrainingOptions, held_out_from: Sequence[Path], said: Saying) -> Chosen:
        """Choose pairs as training does, and put what is to be learned in the place of their high images.

        Raises
        ------
        PairError
            If there is nothing to learn from, or nothing to judge by that the teacher has not seen.
        """
        chosen = choose(folders, options, held_out_from, said) if folders else self._without_truth(options)
        named = bool(options.pairs.held_out or held_out_from)
        chosen = _unseen(chosen, self.teacher.inheritance.learned_from, named)
        extra, notes = self._extra(chosen) if folders else ([], [])
        said(f"{self.teacher.name} restores {len(chosen.train) + len(extra)} image(s), each once")
        self._said, self._spoke = said, time.monotonic()
        try:
            if folders:
                self._weigh(chosen.train)
            train = [self._lesson(pair, bool(folders)) for pair in chosen.train] + [self._lesson(pair, False) for pair in extra]
            held_out = chosen.held_out if folders else tuple(self._lesson(pair, False) for pair in chosen.held_out)
        finally:
            self.teacher.close()
        self.judged = held_out
        notes = [*chosen.notes, *notes, self._note(len(chosen.train), len(extra), bool(folders))]
        return replace(chosen, train=tuple(train), held_out=held_out, notes=tuple(notes))

    def _extra(self, chosen: Chosen) -> tuple[list[Pair], list[str]]:
        """Choose the images without partner that nobody is judged by."""
        judged = {file_sha256(pair.low) for pair in chosen.held_out}
        single = self._single()
        extra = [pair for pair in single if file_sha256(pair.low) not in judged]
        left = len(single) - len(extra)
        return extra, [f"{left} image(s) without partner are left out: the student is judged by them"] if left else []

    def _weigh(self, pairs: Sequence[Pair]) -> None:
        """Measure what the teacher is worth beside the truth, if nobody said it."""
        if self._wanted is not None:
            return
        gains = []
        for pair in (pairs[place] for place in spread(len(pairs), _WEIGHED)):
            low, high = pair.read()
            kept = overlap_window(low.shape, pair.shift_px)
            gains.append(filters_gain_db(low[kept], self._taught(pair)[kept], cut_moved(high, kept, pair.shift_px)))
        self.weight = weigh(gains, FULL_WEIGHT)
        known = f"filters of the low images add {sum(gains) / len(gains):.2f} dB to the teacher's"
        self._said(f"{known}: its weight is {self.weight:g} beside the truth, on {len(gains)} pair(s)")

    def _single(self) -> tuple[Pair, ...]:
        """List images without partner as pairs of which both are the same file."""
        files = sorted({file for place in self._images for file in _tiffs(place)}, key=natural_key)
        names = [stem(file) for file in files]
        positions, _ = positions_in_names(names)
        channel = self.teacher.inheritance.channel or ""
        return tuple(
            Pair(name, file, file, channel=channel, position=positions[name]) for name, file in zip(names, files, strict=True)
        )

    def _without_truth(self, options: TrainingOptions) -> Chosen:
        single = self._single()
        if not single:
            raise PairError("there is nothing to learn from; give pairs, or low-light images, or both")
        split = split_positions(single, options.pairs.held_out_fraction)
        train, held_out = (tuple(pair for pair in split if pair.split == side) for side in ("train", "held-out"))
        return Chosen(train, held_out)

    def _note(self, pairs: int, extra: int, truth: bool) -> str:
        teacher = f"'{self.teacher.name}', graph sha256 {self.teacher.sha256}"
        if not truth:
            return f"taught by {teacher} alone: there was no truth to learn from, and none to judge by but its own images"
        more = f", and from {extra} image(s) without partner by the teacher alone" if extra else ""
        return f"taught by {teacher}, whose weight was {self.weight:g} beside the truth of {pairs} pair(s){more}"

    def _lesson(self, pair: Pair, truth: bool) -> Pair:
        """Put the image that is to be learned in the place of the high one; made once, then found."""
        weight = self.weight if truth else 1.0
        path = self._path(pair, repr(weight), file_sha256(pair.high), repr(pair.shift_px)) if weight < 1 else self._path(pair)
        if not path.exists():
            image = self._taught(pair)
            if weight < 1:
                write_image(path, _mixed(pair, image, weight))
        said: dict[str, Any] = {**pair.said, "pixel_size_um": self._pixel_size_um(pair)}
        channel = pair.channel or self.teacher.inheritance.channel or ""
        return replace(pair, high=path, shift_px=(), said=said, channel=channel)

    def _taught(self, pair: Pair) -> FloatArray:
        """Give the teacher's image; it is asked once."""
        path = self._path(pair)
        if not path.exists():
            write_image(path, self.teacher.restore(read_volume(pair.low)))
            self._made += 1
            if time.monotonic() - self._spoke > _SPEAK_S:
                self._spoke = time.monotonic()
                self._said(f"{self._made} images were restored by the teacher")
        return read_volume(path)

    def _path(self, pair: Pair, *words: str) -> Path:
        told = " ".join([file_sha256(pair.low), self.teacher.sha256, *words])
        return self._folder / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.tif"

    def _pixel_size_um(self, pair: Pair) -> list[float | None]:
        said = read_pixel_size(pair)
        inherited = self.teacher.inheritance.pixel_size_um
        if any(said) or inherited is None:
            return list(said)
        return [None] * (3 - len(inherited)) + list(inherited)


def _mixed(pair: Pair, taught: FloatArray, weight: float) -> FloatArray:
    """Mix the truth into the teacher's image, both in the counts of the low one."""
    low, high = pair.read()
    if low.shape != high.shape:
        raise PairError(f"pair '{pair.name}': low is {[*low.shape]} large, high {[*high.shape]}; they must show the same")
    kept = overlap_window(low.shape, pair.shift_px)
    moved = cut_moved(high, kept, pair.shift_px)
    try:
        truth = fit_counts(low[kept], moved).apply(moved)
    except PairError as error:
        raise PairError(f"pair '{pair.name}': {error}") from error
    mixed = taught.copy()
    mixed[kept] = weight * taught[kept] + (1 - weight) * truth
    return mixed


def write_image(path: Path, image: FloatArray) -> None:
    """Write an image, ([Z,] Y, X), uncompressed, so that patches are cut from the disk; whole or not at all."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new.tif")
    tifffile.imwrite(draft, image, photometric="minisblack", metadata={"axes": "ZYX"[-image.ndim :]})
    os.replace(draft, path)


def _tiffs(place: Path) -> list[Path]:
    """List the low-light images of a folder, or of its sub-folder ``low``, or the one file."""
    if place.is_file():
        return [place]
    within = place / "low" if (place / "low").is_dir() else place
    files = [file for file in within.iterdir() if file.name.lower().endswith(TIFF_SUFFIXES)] if within.is_dir() else []
    if not files:
        raise PairError(f"{place} holds no TIFF file; give low-light images, or a folder of them")
    return files


def single_dimensions(place: Path) -> Literal[2, 3]:
    """Say whether low-light images without partner are images, 2, or stacks, 3; the first one tells.

    Raises
    ------
    PairError
        If there is none, or it cannot be read.
    """
    return 3 if read_volume(_tiffs(place)[0]).ndim == 3 else 2


def _unseen(chosen: Chosen, seen: frozenset[str], named: bool) -> Chosen:
    """Keep nobody to judge by whom the teacher has learned from: such positions are learned from, or left out.

    Raises
    ------
    PairError
        If none is left.
    """
    known = {_place(pair) for pair in chosen.held_out if file_sha256(pair.low) in seen}
    if not known:
        return chosen
    left = tuple(pair for pair in chosen.held_out if _place(pair) not in known)
    gone = tuple(pair for pair in chosen.held_out if _place(pair) in known)
    if not left:
        raise PairError(
            f"the teacher has learned from all {len(gone)} pairs that are held out, so they would flatter the student; "
            "name positions that it has not seen with --held-out, or give another folder with --held-out-from"
        )
    what = "left out" if named else "learned from instead"
    note = f"{len(gone)} held-out pair(s) are {what}: the teacher has learned from them"
    train = chosen.train if named else chosen.train + tuple(replace(pair, split="train") for pair in gone)
    return replace(chosen, train=train, held_out=left, notes=(*chosen.notes, note))


def _place(pair: Pair) -> tuple[Path, str]:
    return pair.low.parent, pair.position or pair.name
