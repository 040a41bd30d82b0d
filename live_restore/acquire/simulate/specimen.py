"""How the specimen looks through the microscope: expected photons per pixel, before any camera.

Receives a `Specimen` (or a seed to grow one) and the optics; hands on photon maps, one structure at a time as through
one filter set. It does not know noise, counts or time.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from live_restore.acquire.simulate.cells import Cell, Nucleus, Outline, Specimen, Spots, grow_specimen
from live_restore.acquire.simulate.optics import Optics

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
Kind = Literal["nuclei", "mitochondria", "filaments", "vesicles"]

KINDS: tuple[Kind, ...] = ("nuclei", "mitochondria", "filaments", "vesicles")
# Emission peaks of the usual dyes, µm: Hoechst, MitoTracker Red, a green fluorescent protein, a far-red dye.
WAVELENGTHS_UM: dict[Kind, float] = {"nuclei": 0.461, "mitochondria": 0.599, "filaments": 0.509, "vesicles": 0.668}
# Where one would focus a single plane: mid-nucleus, or the flat part of the cell. µm above the coverslip.
_FOCUS_UM: dict[Kind, float] = {"nuclei": 3.0, "mitochondria": 1.2, "filaments": 0.9, "vesicles": 1.2}
# Dye that is not bound, per µm³ of cytoplasm.
CYTOPLASM: dict[Kind, float] = {"nuclei": 0.02, "mitochondria": 0.35, "filaments": 0.7, "vesicles": 0.5}
_MIDDLE_UM = 2.4
# What glass and medium shine with, as a fraction of the peak.
_BACKGROUND = 0.02
_NUCLEUS_STEP_UM = 0.3


def example_field(
    seed: int,
    shape: tuple[int, ...] = (512, 512),
    kind: Kind = "mitochondria",
    pixel_size_um: float = 0.1,
    peak_photons: float = 100.0,
    z_step_um: float = 0.3,
    na: float = 1.2,
) -> FloatArray:
    """Render a field of cells; the same arguments give the same photons.

    Parameters
    ----------
    seed : int
        Which cells.
    shape : tuple of int, (Y, X) or (Z, Y, X)
        One plane in focus, or a stack about the middle of the cells.
    kind : {"nuclei", "mitochondria", "filaments", "vesicles"}
    pixel_size_um : float
        In Y and X.
    peak_photons : float
        Photons per pixel that one pixel in a thousand exceeds.
    z_step_um : float
        Between the planes of a stack.
    na : float
        Numerical aperture of the water objective.

    Returns
    -------
    ndarray, the given shape, float32
        Expected photons per pixel.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not rendered; choose from {', '.join(KINDS)}")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shape {shape} must be (Y, X) or (Z, Y, X), 1 or more each")
    height, width = shape[-2:]
    specimen = grow_specimen(seed, (height * pixel_size_um, width * pixel_size_um))
    optics = Optics(na=na, wavelength_um=WAVELENGTHS_UM[kind])
    dye = render(specimen, kind, (height, width), pixel_size_um, _heights(shape, kind, z_step_um), optics)  # (Z, Y, X)
    scaled = dye * ((1 - _BACKGROUND) / np.percentile(dye, 99.9)) + _BACKGROUND
    photons: FloatArray = (peak_photons * scaled).astype(np.float32).reshape(shape)
    return photons


def _heights(shape: tuple[int, ...], kind: Kind, z_step_um: float) -> DoubleArray:
    if len(shape) == 2:
        return np.array([_FOCUS_UM[kind]])
    return np.asarray(_MIDDLE_UM + z_step_um * (np.arange(shape[0]) - (shape[0] - 1) / 2), np.float64)


def render(
    specimen: Specimen,
    kind: Kind,
    shape: tuple[int, int],
    pixel_size_um: float,
    heights_um: DoubleArray,
    optics: Optics,
) -> FloatArray:
    """Render one structure of a specimen, focused at each height.

    Parameters
    ----------
    specimen : Specimen
    kind : {"nuclei", "mitochondria", "filaments", "vesicles"}
    shape : tuple of int, (Y, X)
    pixel_size_um : float
    heights_um : ndarray, (Z,), float64
        Focal planes above the coverslip.
    optics : Optics

    Returns
    -------
    ndarray, (Z, Y, X), float32
        Dye as it is seen, in proportion to photons; the same dye gives the same value at every pixel size.
    """
    canvas = _Canvas(shape, pixel_size_um, heights_um, optics)
    for cell in specimen.cells:
        _paint(canvas, cell, kind)
    return canvas.develop()


class _Canvas:
    """Collects dye on every focal plane, weighted by how well it is in focus, and the dye of all depths for the haze.

    Wider than the picture by `margin` pixels, so that what lies just outside still shines in.
    """

    def __init__(self, shape: tuple[int, int], pixel_size_um: float, heights_um: DoubleArray, optics: Optics) -> None:
        self.pixel_size_um, self.heights_um, self.optics = pixel_size_um, heights_um, optics
        self.margin = int(np.ceil(2 * optics.haze_um / pixel_size_um))
        height, width = (side + 2 * self.margin for side in shape)
        self.planes = np.zeros((len(heights_um), height, width), np.float32)
        self.total = np.zeros((height, width), np.float32)

    def in_focus(self, heights_um: DoubleArray) -> DoubleArray:
        """How much of the dye at these heights each plane sees, per µm, nothing from beyond 4 sigma; (N,) to (Z, N)."""
        sigma = self.optics.axial_sigma_um
        away = (self.heights_um[:, None] - heights_um) / sigma
        seen = np.exp(-0.5 * away * away) / (sigma * np.sqrt(2 * np.pi))
        return np.where(np.abs(away) < 4, seen, 0)

    def window(self, centre_um: DoubleArray, reach_um: float) -> tuple[slice, slice]:
        """Rows and columns of the square about a (y, x) position, cut at the edges of the canvas."""
        starts = np.floor((centre_um - reach_um) / self.pixel_size_um).astype(int) + self.margin
        stops = np.ceil((centre_um + reach_um) / self.pixel_size_um).astype(int) + self.margin
        (y0, x0), (y1, x1) = np.maximum(starts, 0), np.maximum(stops, 0)
        return slice(int(y0), int(y1)), slice(int(x0), int(x1))

    def positions_um(self, window: tuple[slice, slice]) -> DoubleArray:
        """Pixel centres of a window, (Y, X, 2)."""
        sides = [
            (np.arange(*rows.indices(size)) - self.margin + 0.5) * self.pixel_size_um
            for rows, size in zip(window, self.total.shape, strict=True)
        ]
        return np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)

    def develop(self) -> FloatArray:
        """Blur what was collected and cut the margin off; (Z, Y, X), float32."""
        lateral_px = self.optics.lateral_sigma_um / self.pixel_size_um
        sharp = gaussian_filter(self.planes, (0, lateral_px, lateral_px))
        hazy = self.optics.haze * gaussian_filter(self.total, self.optics.haze_um / self.pixel_size_um)
        inside = slice(self.margin, -self.margin)
        picture: FloatArray = (sharp + hazy)[:, inside, inside]
        return picture


def _paint(canvas: _Canvas, cell: Cell, kind: Kind) -> None:
    _paint_cytoplasm(canvas, cell.outline, cell.nucleus, CYTOPLASM[kind])
    if kind == "nuclei":
        _paint_nucleus(canvas, cell.nucleus)
    elif kind == "vesicles":
        _paint_spots(canvas, cell.vesicles)
    else:
        paths = cell.mitochondria if kind == "mitochondria" else cell.filaments
        _paint_spots(canvas, paths.as_spots(max(0.05, 0.6 * canvas.pixel_size_um)))


def _paint_spots(canvas: _Canvas, spots: Spots) -> None:
    filled = _filled(spots, canvas.pixel_size_um)
    at = filled.centres_um[:, 1:] / canvas.pixel_size_um + canvas.margin - 0.5  # (N, 2), pixels
    height, width = canvas.total.shape
    inside = np.all((at >= 0) & (at < (height - 1, width - 1)), axis=1)
    at, amounts = at[inside], filled.amounts[inside] / canvas.pixel_size_um**2
    _splat(canvas.total, at, amounts)
    for plane, seen in zip(canvas.planes, canvas.in_focus(filled.centres_um[inside, 0]), strict=True):
        sharp = seen > 0
        _splat(plane, at[sharp], (amounts * seen)[sharp])


def _filled(spots: Spots, pixel_size_um: float) -> Spots:
    """Fill balls with points, few or many by their size in pixels; balls below 60 nm stay one point."""
    largest_um = spots.radii_um.max(initial=0)
    if largest_um < 0.06:
        return spots
    number = 12 if largest_um < 3 * pixel_size_um else 80
    turns = np.arange(number) * np.pi * (3 - 5**0.5)  # the golden angle: no two points line up
    heights = 1 - 2 * (np.arange(number) + 0.5) / number
    across = np.sqrt(1 - heights**2)
    distances = np.cbrt((np.arange(number) * 7 % number + 0.5) / number)  # evenly through the volume
    pattern = distances[:, None] * np.column_stack([heights, across * np.cos(turns), across * np.sin(turns)])  # (P, 3)
    centres = spots.centres_um[:, None] + spots.radii_um[:, None, None] * pattern  # (N, P, 3)
    return Spots(centres.reshape(-1, 3), np.repeat(spots.radii_um, number), np.repeat(spots.amounts / number, number))


def _splat(plane: FloatArray, at: DoubleArray, amounts: DoubleArray) -> None:
    """Share every point between the four pixels around it; `at` is (N, 2) pixels, all of them inside."""
    corner = at.astype(np.intp)
    fy, fx = (at - corner).T
    flat, first, width = plane.reshape(-1), corner @ (plane.shape[1], 1), plane.shape[1]
    np.add.at(flat, first, (amounts * (1 - fy) * (1 - fx)).astype(np.float32))
    np.add.at(flat, first + 1, (amounts * (1 - fy) * fx).astype(np.float32))
    np.add.at(flat, first + width, (amounts * fy * (1 - fx)).astype(np.float32))
    np.add.at(flat, first + width + 1, (amounts * fy * fx).astype(np.float32))


def _paint_nucleus(canvas: _Canvas, nucleus: Nucleus) -> None:
    window = canvas.window(nucleus.centre_um[1:], 1.1 * float(nucleus.radii_um[1:].max()))
    flat = canvas.positions_um(window)  # (Y, X, 2)
    reach = 1.1 * nucleus.radii_um[0]
    heights = nucleus.centre_um[0] + np.arange(-reach, reach, _NUCLEUS_STEP_UM)
    seen = canvas.in_focus(heights) * _NUCLEUS_STEP_UM  # (Z, slices)
    for height, weights in zip(heights, seen.T, strict=True):
        positions = np.concatenate([np.full((*flat.shape[:2], 1), height), flat], axis=-1)  # (Y, X, 3)
        out = np.linalg.norm(nucleus.within(positions), axis=-1)  # (Y, X)
        dye = nucleus.brightness / (1 + np.exp(np.clip((out - 1) / 0.025, -60, 60)))
        canvas.total[window] += dye * _NUCLEUS_STEP_UM
        # the texture is costly: only where it will be seen
        if weights.any():
            dye[out < 1.1] *= chromatin(nucleus, nucleus.within(positions[out < 1.1]))
            canvas.planes[:, *window] += weights[:, None, None] * dye


def chromatin(nucleus: Nucleus, within: DoubleArray) -> DoubleArray:
    """Say how much denser than on average it is: clumps, a denser rim, dark nucleoli.

    Parameters
    ----------
    nucleus : Nucleus
    within : ndarray, (N, 3), float64
        Positions in its own axes, in units of its radii.

    Returns
    -------
    ndarray, (N,), float64
    """
    own_um = within * nucleus.radii_um
    strengths = np.linalg.norm(nucleus.waves_per_um, axis=1) ** -0.6
    strengths *= np.sqrt(2 / np.sum(strengths**2))  # a texture of variance 1
    density = np.exp(0.5 * np.cos(own_um @ nucleus.waves_per_um.T + nucleus.phases_rad) @ strengths)
    density *= 1 + 0.4 * np.exp(-(((1 - np.linalg.norm(within, axis=-1)) / 0.1) ** 2))
    for *place, radius in nucleus.nucleoli:
        distance = np.linalg.norm(own_um - np.array(place) * nucleus.radii_um, axis=-1)
        density *= 1 - 0.7 * np.exp(-((distance / radius) ** 4))
    return np.asarray(density)


def _paint_cytoplasm(canvas: _Canvas, outline: Outline, nucleus: Nucleus, dye: float) -> None:
    """Unbound dye: a slab from the coverslip up, thick beside the nucleus, thin towards the edge."""
    window = canvas.window(outline.centre_um, 1.8 * outline.radius_um)
    flat = canvas.positions_um(window)  # (Y, X, 2)
    depth = np.clip(outline.depth_um(flat), 0, None)  # (Y, X)
    away = np.linalg.norm(flat - nucleus.centre_um[1:], axis=-1)
    thick = (1 - np.exp(-depth)) * (0.8 + 3.0 * np.exp(-((away / 7.0) ** 2)))
    for low, high in ((0.0, 0.8), (0.8, 1.6), (1.6, 2.7), (2.7, 3.8)):
        amount = dye * np.clip(thick - low, 0, high - low)
        canvas.total[window] += amount
        canvas.planes[:, *window] += canvas.in_focus(np.array([(low + high) / 2]))[:, :, None] * amount
