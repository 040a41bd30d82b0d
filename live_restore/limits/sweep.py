"""The sweep: every field at every light and blur, restored and measured.

Receives fields, a grid of light and blur, the camera's noise and a `Restorer`; hands on a `Sweep`, numbers by image, light and
blur. One stack is held at a time. It does not know what the numbers are for.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from live_restore.limits.light import Field, blurred, expose, for_shape
from live_restore.limits.measures import NAMES, Case, measure
from live_restore.restore.noise import CameraNoise
from live_restore.restorer import Restorer

DoubleArray = NDArray[np.float64]
Told = Callable[[int, int], None]

# Doubling from what nothing can be restored at to what needs no restoring.
USUAL_PHOTONS = tuple(2.0**power for power in range(-1, 10))
USUAL_BLUR_PX = (0.0, 0.75, 1.5, 2.25, 3.0)
# The map of light and blur has every other level of light if there are more than these.
_MOST_MAPPED = 7
# Of the time, what the series of light may take; the rest is for blur.
_LIGHT_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Grid:
    """What is tried.

    Attributes
    ----------
    photons : tuple of float
        Light levels, rising: photons per pixel that one pixel in a thousand of the sharp field exceeds.
    blur_px : tuple of float
        Sigmas of the blur, rising from 0.
    """

    photons: tuple[float, ...] = USUAL_PHOTONS
    blur_px: tuple[float, ...] = USUAL_BLUR_PX

    def __post_init__(self) -> None:
        """Refuse what no curve can be drawn of."""
        if len(self.photons) < 3 or min(self.photons) <= 0 or not _rising(self.photons):
            raise ValueError(f"light levels {_listed(self.photons)} do not make a curve; give 3 or more, above 0 and rising")
        if not self.blur_px or self.blur_px[0] != 0 or not _rising(self.blur_px):
            raise ValueError(f"widths of blur {_listed(self.blur_px)} do not make a curve; begin with 0, and let them rise")

    @property
    def mapped(self) -> tuple[int, ...]:
        """Which of the light levels are also blurred."""
        return tuple(range(len(self.photons)))[:: 2 if len(self.photons) > _MOST_MAPPED else 1]


def grid_of(photons: str | None, blur_px: str | None) -> Grid:
    """Read a grid from what a person typed, ``1,3,10``; None: as usual.

    Raises
    ------
    ValueError
        If it is no list of numbers, or makes no curve.
    """
    light = USUAL_PHOTONS if photons is None else _numbers("--photons", photons)
    return Grid(light, USUAL_BLUR_PX if blur_px is None else _numbers("--blur", blur_px))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise ValueError(f"{option} '{text}' is no list of numbers; write for example 1,3,10,30") from None


def _rising(values: Sequence[float]) -> bool:
    return all(before < after for before, after in pairwise(values))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "(none)"


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """What was measured.

    Attributes
    ----------
    grid : Grid
    names : tuple of str
        Of the images.
    foreground : ndarray, (images,), float64
        Mean photons of the specimen's pixels, for a peak of 1.
    numbers : dict of ndarray, (images, light, blur), float64
        By the names in `live_restore.limits.measures.NAMES`; NaN where nothing was measured.
    pixel_size_um : float or None
        Where all images have the same.
    seconds : float
    notes : tuple of str
        What was left out, in sentences.
    """

    grid: Grid
    names: tuple[str, ...]
    foreground: DoubleArray
    numbers: dict[str, DoubleArray]
    pixel_size_um: float | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def light(self, name: str) -> DoubleArray:
        """One measure of the sharp images by light, (images, light); only those whose series is complete."""
        series = self.numbers[name][:, :, 0]
        return series[np.isfinite(series).all(axis=1)]

    def blurs(self, name: str) -> DoubleArray:
        """One measure over the map, (images, mapped light, blur); only images of which all was measured."""
        mapped = self.numbers[name][:, list(self.grid.mapped)]
        return mapped[np.isfinite(mapped).all(axis=(1, 2))]


@dataclass(slots=True)
class _Watch:
    """When it must end, and whom to tell how far it is."""

    told: Told
    total: int
    seconds: float
    began_s: float = field(default_factory=time.perf_counter)
    done: int = 0

    @property
    def spent_s(self) -> float:
        return time.perf_counter() - self.began_s

    def step(self) -> None:
        self.done += 1
        self.told(self.done, self.total)

    def has(self, share: float, steps: int) -> bool:
        """Whether so many more steps fit into this share of the time, at the pace so far."""
        pace = self.spent_s / max(1, self.done)
        return self.spent_s + pace * steps <= share * self.seconds


def sweep(
    restorer: Restorer,
    fields: Sequence[Field],
    noise: CameraNoise,
    grid: Grid,
    *,
    seconds: float = np.inf,
    seed: int = 0,
    told: Told = lambda done, total: None,
) -> Sweep:
    """Restore every field at every light and blur, and measure.

    Parameters
    ----------
    restorer : Restorer
        Of one channel in and out, that keeps sizes.
    fields : sequence of Field
        At least one.
    noise : CameraNoise
    grid : Grid
    seconds : float
        What it may take, roughly: further images, and then blurs, are left out. The first image's series of light is always
        measured.
    seed : int
        Of the noise.
    told : callable (done, total)
        Called after every image restored.
    """
    shape = (len(fields), len(grid.photons), len(grid.blur_px))
    numbers = {name: np.full(shape, np.nan) for name in NAMES}
    work = _Watch(told, len(fields) * (len(grid.photons) + len(grid.mapped) * (len(grid.blur_px) - 1)), seconds)
    restorer.warm_up(_shape(fields[0]))

    def run(image: int, cells: Iterator[tuple[int, int]]) -> None:
        for light, blur in cells:
            case = take(restorer, fields[image], noise, grid, (image, light, blur), seed)
            for name, number in measure(case).items():
                numbers[name][image, light, blur] = number
            work.step()

    lit = 0
    for image in range(len(fields)):
        if image and not work.has(_LIGHT_SHARE if len(grid.blur_px) > 1 else 1.0, len(grid.photons)):
            break
        run(image, ((light, 0) for light in range(len(grid.photons))))
        lit += 1
    mapped, cells = 0, len(grid.mapped) * (len(grid.blur_px) - 1)
    while mapped < lit and cells and work.has(1.0, cells):
        run(mapped, ((light, blur) for light in grid.mapped for blur in range(1, len(grid.blur_px))))
        mapped += 1
    sizes = {one.pixel_size_um for one in fields}
    return Sweep(
        grid,
        tuple(one.name for one in fields[:lit]),
        np.array([one.foreground for one in fields[:lit]]),
        {name: series[:lit] for name, series in numbers.items()},
        sizes.pop() if len(sizes) == 1 else None,
        work.spent_s,
        tuple(_left_out(len(fields), lit, mapped if cells else lit, seconds)),
    )


def _left_out(images: int, lit: int, mapped: int, seconds: float) -> Iterator[str]:
    if lit < images:
        yield f"in {seconds / 60:.2g} minutes there was time for {lit} of {images} images; give more with --minutes"
    if mapped < lit:
        yield f"in {seconds / 60:.2g} minutes there was time to blur {mapped} of {lit} images; give more with --minutes"


def take(restorer: Restorer, one: Field, noise: CameraNoise, grid: Grid, place: tuple[int, int, int], seed: int = 0) -> Case:
    """Expose and restore a field at a place of the grid: number of the image, of the light and of the blur."""
    _, light, blur = place
    photons = np.float32(grid.photons[light]) * one.photons
    sent = blurred(photons, grid.blur_px[blur])
    camera = for_shape(noise, (photons.shape[1], photons.shape[2]))
    raw = expose(sent, camera, np.random.default_rng([seed, *place]))
    # every image on its own, whatever the range of the one before was
    restorer.reset()
    restored = restorer.restore(raw[None]).pixels[0]  # (Z, Y, X)
    return Case(photons, sent, raw, restored, camera)


def _shape(one: Field) -> tuple[int, int, int]:
    planes, height, width = one.photons.shape
    return planes, height, width
