"""The material: which pairs are learned from, which are kept apart, and what all of them together are.

Receives folders of pairs and options; hands on a source to draw patches from and the held-out images to look at. It does not
know networks or losses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from live_restore.errors import PairError
from live_restore.intensity import IntensityRange
from live_restore.records.pair_positions import split_positions
from live_restore.records.pairs import Pair, pairs_sha256
from live_restore.restore.noise import CameraNoise
from live_restore.training.checked import Saying, check_foreign
from live_restore.training.fields import choose_pairs
from live_restore.training.held_out import LARGEST_CROP, HeldOut, HeldOutImage, spread
from live_restore.training.inputs import camera_in, open_source, read_folder
from live_restore.training.options import PairChoice, TrainingOptions
from live_restore.training.patches import fit_patches
from live_restore.training.sources import Source


@dataclass(frozen=True, slots=True)
class Chosen:
    """Pairs on both sides of the split; none of one position on both.

    Attributes
    ----------
    train, held_out : tuple of Pair
    notes : tuple of str
        What had to be supposed, in words for the user.
    cards : tuple of mapping
        Of the folders that have one.
    """

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    notes: tuple[str, ...] = ()
    cards: tuple[Mapping[str, Any], ...] = ()

    def sha256(self) -> str:
        """Hash the files of both sides, together with the side."""
        return pairs_sha256(self.train + self.held_out)

    @property
    def camera(self) -> CameraNoise | None:
        """The camera's noise as the first card says it."""
        return next((camera for card in self.cards if (camera := camera_in(card))), None)

    @property
    def channel(self) -> str | None:
        """The one channel of all pairs; None where there are several, or nobody said."""
        names = {pair.channel for pair in self.train}
        return names.pop() or None if len(names) == 1 else None


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a network is trained on and looked at with.

    Attributes
    ----------
    source, judged : Source
        Of the training pairs, and of the held-out ones that are looked at.
    looked_at : tuple of Pair
        Those.
    held_out : HeldOut
    options : TrainingOptions
        With patches that fit into the images.
    """

    source: Source
    judged: Source
    looked_at: tuple[Pair, ...]
    held_out: HeldOut
    options: TrainingOptions


def choose(
    folders: Sequence[Path], options: TrainingOptions, held_out_from: Sequence[Path] = (), said: Saying = lambda _: None
) -> Chosen:
    """Choose pairs from folders and split them by position.

    Parameters
    ----------
    folders : sequence of Path
    options : TrainingOptions
        `pairs.held_out` names positions; ``*`` and ``?`` stand for letters, ``067..079`` for all from one to the other.
    held_out_from : sequence of Path
        Folders whose pairs are only judged by; then all of `folders` are learned from.
    said : callable (sentence), optional
        Told which pairs are left out, and why.

    Raises
    ------
    PairError
        If a folder cannot be used, or one side is empty.
    """
    choice = options.pairs
    pairs, notes, cards = _read(folders, options, said)
    if held_out_from:
        judged, more, _ = _read(held_out_from, options, said)
        return Chosen(pairs, judged, notes + more, cards)
    if choice.held_out:
        apart = {_place(pair) for pair in pairs if _is_named(pair, choice.held_out)}
        pairs = tuple(replace(pair, split="held-out" if _place(pair) in apart else "train") for pair in pairs)
    else:
        pairs = split_positions(pairs, choice.held_out_fraction)
    train, held_out = (tuple(pair for pair in pairs if pair.split == side) for side in ("train", "held-out"))
    _check_sides(pairs, train, held_out, choice)
    return Chosen(train, held_out, notes, cards)


def dimensions(folders: Sequence[Path], options: TrainingOptions) -> Literal[2, 3]:
    """Say whether the pairs are images, 2, or stacks, 3; the first one that can be read tells.

    Raises
    ------
    PairError
        If none can be.
    """
    failed = ""
    for folder in folders:
        for pair in choose_pairs(read_folder(folder, options).pairs, options.pairs.channel):
            try:
                return 3 if pair.read()[1].ndim == 3 else 2
            except PairError as error:
                failed = failed or str(error)
    raise PairError(f"none of the pairs can be read; the first: {failed}")


def prepare(
    chosen: Chosen, options: TrainingOptions, camera: CameraNoise | None = None, frozen: IntensityRange | None = None
) -> Material:
    """Open the pairs; every file is read once, and what cannot be learned from is found before training.

    Parameters
    ----------
    chosen : Chosen
    options : TrainingOptions
    camera : CameraNoise, optional
    frozen : IntensityRange, optional
        For ``frozen`` scaling, a range that was measured before; None: it is measured on the training pairs.

    Raises
    ------
    PairError
        If a pair cannot be learned from.
    """
    n_dim, sampling = options.network.n_dim, options.sampling
    source = open_source(chosen.train, options, camera, frozen=frozen)
    looked_at = tuple(chosen.held_out[place] for place in spread(len(chosen.held_out)))
    judged = open_source(looked_at, options, camera, frozen=source.frozen, held_out=True)
    fitted = fit_patches(sampling.patches, source.fields, options.network.divisible_by)
    if fitted != sampling.patches:
        options = options.changed(sampling={"patches": fitted})
    held_out = cut_middles(judged, n_dim, options.network.divisible_by)
    return Material(source, judged, looked_at, held_out, options)


def cut_middles(source: Source, n_dim: int, divisible_by: int) -> HeldOut:
    """Cut the middle of every image of a source, as large as is looked at and as the network can take."""
    images = []
    for number, field in enumerate(source.fields):
        largest = (1,) * (len(field.shape) - n_dim) + LARGEST_CROP[n_dim]
        step = (1,) * (len(field.shape) - n_dim) + (divisible_by,) * n_dim
        sizes = [min(side, most) // by * by for side, most, by in zip(field.shape, largest, step, strict=True)]
        if not all(sizes):
            raise PairError(
                f"held-out pair '{field.name}' is {[*field.shape]} large; every side needs {divisible_by} pixels or more, "
                "as the network halves images"
            )
        corner = [(side - size) // 2 for side, size in zip(field.shape, sizes, strict=True)]
        window = tuple(slice(start, start + size) for start, size in zip(corner, sizes, strict=True))
        low, target = source.cut(number, window, np.random.default_rng(number))
        shape = tuple(sizes[-n_dim:])
        images.append(HeldOutImage(field.name, low.reshape(shape), target.reshape(shape)))
    return HeldOut(images)


def _read(
    folders: Sequence[Path], options: TrainingOptions, said: Saying
) -> tuple[tuple[Pair, ...], tuple[str, ...], tuple[Mapping[str, Any], ...]]:
    pairs: list[Pair] = []
    notes: list[str] = []
    cards: list[Mapping[str, Any]] = []
    for folder in folders:
        found = read_folder(folder, options)
        if options.pairs.check and options.simulate is None:
            found = check_foreign(found, options.fit, said)
        notes += found.notes
        cards += [found.card] if found.card else []
        kept = choose_pairs(found.pairs, options.pairs.channel)
        left = [pair for pair in found.pairs if not pair.accepted]
        if left:
            notes.append(
                f"{folder.name}: {len(left)} of {len(found.pairs)} pairs are left out, the first because {left[0].reason}"
            )
        pairs += kept
    return tuple(pairs), tuple(dict.fromkeys(notes)), tuple(cards)


def _place(pair: Pair) -> tuple[Path, str]:
    """Positions of different folders are different places."""
    return pair.low.parent, pair.position or pair.name


def _is_named(pair: Pair, patterns: Sequence[str]) -> bool:
    return any(_matches(name, pattern) for name in (pair.position, pair.name) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    first, dots, last = pattern.partition("..")
    return first <= name <= last if dots else fnmatchcase(name, pattern)


def _check_sides(pairs: Sequence[Pair], train: Sequence[Pair], held_out: Sequence[Pair], choice: PairChoice) -> None:
    positions = sorted({pair.position for pair in pairs})
    some = ", ".join(positions[:4])
    if not held_out:
        raise PairError(f"no position is called {' or '.join(choice.held_out)}; positions are {some}, ...")
    if not train:
        raise PairError(f"all {len(positions)} positions are held out ({some}); leave some to learn from")
