"""What the camera would see: the dish at one place, height and moment through one filter set, as dye per pixel.

Receives stage position, focus and specimen time; hands on images in proportion to photons, and keeps the last ones, so that
a frame whose truth is asked for is not rendered twice. It does not know light, exposure, noise or counts.

The rendering is that of `live_restore.acquire.simulate.specimen` made quick enough for a time-lapse: thick things become points
widened by the blur, nuclei are grown once and then turned and cut, whatever is smooth is computed on a coarse grid.
"""

from collections import OrderedDict
from dataclasses import replace
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.special import ndtr

from live_restore.acquire.simulate.cells import Nucleus
from live_restore.acquire.simulate.dish import Dish
from live_restore.acquire.simulate.living import LivingCell, Lobe, Pose, ShownNucleus
from live_restore.acquire.simulate.optics import Optics
from live_restore.acquire.simulate.specimen import CYTOPLASM, WAVELENGTHS_UM, Kind, chromatin

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

_COARSE_UM = 0.4
_NUCLEUS_UM = np.array([0.25, 0.12, 0.12])  # voxels of a grown nucleus
# Half the radius of a tube, the standard deviation of its cross-section along one axis.
_TUBE_SIGMA_UM: dict[Kind, float] = {"nuclei": 0.05, "mitochondria": 0.11, "filaments": 0.015, "vesicles": 0.02}
_KEPT_MOMENTS = 4
_KEPT_BYTES = 64 * 2**20


class Scene:
    """A dish under an objective.

    Parameters
    ----------
    dish : Dish
    shape : tuple of int, (Y, X)
        Pixels of the sensor.
    pixel_size_um : float
    optics : Optics
        Its wavelength is replaced by that of each structure's dye.
    """

    def __init__(self, dish: Dish, shape: tuple[int, int], pixel_size_um: float, optics: Optics) -> None:
        self.dish, self.shape, self.pixel_size_um = dish, shape, pixel_size_um
        self._optics = {kind: replace(optics, wavelength_um=length) for kind, length in WAVELENGTHS_UM.items()}
        self._moments: OrderedDict[tuple[Kind, float, float, float], _Moment] = OrderedDict()
        self._lock = Lock()

    def dye(self, kind: Kind, at_um: tuple[float, float, float], time_s: float) -> FloatArray:
        """See one structure.

        Parameters
        ----------
        kind : {"nuclei", "mitochondria", "filaments", "vesicles"}
        at_um : tuple of float
            Middle of the picture in the dish, x and y, and height of the focal plane above the glass.
        time_s : float
            Of the specimen.

        Returns
        -------
        ndarray, (Y, X), float32, read-only
            Dye as it is seen, in proportion to photons.
        """
        x, y, z = at_um
        with self._lock:
            return self._moment(kind, x, y, time_s).plane(z)

    def _moment(self, kind: Kind, x: float, y: float, time_s: float) -> "_Moment":
        key = (kind, x, y, time_s)
        if key not in self._moments:
            if len(self._moments) >= _KEPT_MOMENTS:
                self._moments.popitem(last=False)
            self._moments[key] = self._render(kind, np.array([y, x]), time_s)
        self._moments.move_to_end(key)
        return self._moments[key]

    def _render(self, kind: Kind, middle_um: DoubleArray, time_s: float) -> "_Moment":
        corner = middle_um - np.array(self.shape) * self.pixel_size_um / 2
        moment = _Moment(kind, self.shape, self.pixel_size_um, corner, self._optics[kind])
        for cell in self.dish.cells_in(corner, 2 * middle_um - corner):
            moment.add(cell, cell.pose(time_s))
        moment.close()
        return moment


class _Moment:
    """One structure at one place and moment, from which planes at any height can be had.

    Pixels of the fine grid are the camera's and a margin of the blur; those of the coarse grid are a whole number of camera
    pixels wide and reach as far as the haze does.
    """

    def __init__(self, kind: Kind, shape: tuple[int, int], pixel_um: float, corner_um: DoubleArray, optics: Optics) -> None:
        self.kind, self.shape, self.pixel_um, self.optics = kind, shape, pixel_um, optics
        tube = _TUBE_SIGMA_UM[kind]
        self.sigma_px = float(np.hypot(optics.lateral_sigma_um, tube)) / pixel_um
        self.sigma_z_um = float(np.hypot(optics.axial_sigma_um, tube))
        self.margin = int(np.ceil(3.5 * self.sigma_px))
        self.fine_corner_um = corner_um - self.margin * pixel_um
        self.fine_shape = (shape[0] + 2 * self.margin, shape[1] + 2 * self.margin)
        self.step = max(1, round(_COARSE_UM / pixel_um))
        self.coarse_um = self.step * pixel_um
        self.coarse_margin = int(np.ceil(2.5 * optics.haze_um / self.coarse_um))
        self.coarse_corner_um = corner_um - self.coarse_margin * self.coarse_um
        sides = [-(-side // self.step) + 2 * self.coarse_margin for side in shape]
        self.coarse_shape = (sides[0], sides[1])
        self.thickness = np.zeros(self.coarse_shape, np.float32)
        self.total = np.zeros(self.coarse_shape, np.float32)
        self.nuclei: list[ShownNucleus] = []
        self._points: list[NDArray[np.float32]] = []
        self._planes: OrderedDict[float, FloatArray] = OrderedDict()

    # ------------------------------------------------------------------ collecting

    def add(self, cell: LivingCell, pose: Pose) -> None:
        """Add a cell, if it can be seen."""
        if not any(self._reaches(lobe.outline.centre_um, 1.6 * lobe.outline.radius_um) for lobe in pose.lobes):
            return
        self._add_thickness(pose.lobes)
        points = cell.points(self.kind, pose)
        if len(points.amounts):
            self._points.append(np.column_stack([points.at_um, points.amounts]).astype(np.float32))
        if self.kind == "nuclei":
            found = cell.nuclei(pose)
            self.nuclei += [n for n in found if self._reaches(n.centre_um[1:], 1.15 * float(n.grown.radii_um.max()))]

    def _reaches(self, centre_um: DoubleArray, reach_um: float) -> bool:
        low, high = self.coarse_corner_um, self.coarse_corner_um + np.array(self.coarse_shape) * self.coarse_um
        return bool(np.all(centre_um > low - reach_um) and np.all(centre_um < high + reach_um))

    def close(self) -> None:
        """Sort what was collected, and spread the haze."""
        points = np.concatenate(self._points) if self._points else np.zeros((0, 4), np.float32)
        coarse = (points[:, 1:3] - self.coarse_corner_um.astype(np.float32)) / np.float32(self.coarse_um)
        inside = np.all((coarse >= 0) & (coarse < self.coarse_shape), axis=1)
        flat = coarse[inside].astype(np.intp) @ (self.coarse_shape[1], 1)
        summed = np.bincount(flat, points[inside, 3], minlength=self.total.size).reshape(self.coarse_shape)
        self.total += (summed / self.coarse_um**2).astype(np.float32)
        self.total += np.float32(CYTOPLASM[self.kind]) * self.thickness
        for nucleus in self.nuclei:
            volume = _grown(nucleus.grown)
            section = volume.sum(axis=0) * np.float32(_NUCLEUS_UM[0] / nucleus.scale**2 * nucleus.weight)
            _lay(self.total, section, nucleus, self.coarse_um, self.coarse_corner_um)
        self.haze = self.optics.haze * gaussian_filter(self.total, self.optics.haze_um / self.coarse_um, truncate=3)
        self._sort(points)

    def _sort(self, points: NDArray[np.float32]) -> None:
        """Keep the points that the fine grid sees, by height."""
        at = (points[:, 1:3] - self.fine_corner_um.astype(np.float32)) / np.float32(self.pixel_um) - np.float32(0.5)
        height, width = self.fine_shape
        inside = np.flatnonzero(np.all((at >= 0) & (at < (height - 1, width - 1)), axis=1))
        inside = inside[np.argsort(points[inside, 0])]
        at = at[inside]
        corner = at.astype(np.intp)
        self._fraction = at - corner
        self._first = corner @ (width, 1)
        self._heights_um = points[inside, 0].astype(np.float64)
        self._amounts = points[inside, 3] / np.float32(self.pixel_um**2)
        self._points = []

    def _add_thickness(self, lobes: tuple[Lobe, ...]) -> None:
        """Unbound dye: a slab from the glass up, thick beside the nucleus, thin towards the edge."""
        reach = 1.7 * max(lobe.outline.radius_um for lobe in lobes)
        centres = np.array([lobe.outline.centre_um for lobe in lobes])
        window = _window(centres.min(axis=0) - reach, centres.max(axis=0) + reach, self)
        flat = _positions_um(window, self)  # (Y, X, 2)
        if not flat.size:
            return
        slabs = []
        for lobe in lobes:
            depth = np.clip(lobe.outline.depth_um(flat), 0, None)
            away = np.linalg.norm(flat - lobe.core_um, axis=-1)
            slabs.append(lobe.thickness * (1 - np.exp(-depth)) * (0.8 + 3.0 * np.exp(-((away / 7.0) ** 2))))
        self.thickness[window] += np.max(slabs, axis=0)

    # ------------------------------------------------------------------ showing

    def plane(self, height_um: float) -> FloatArray:
        """Focus at a height; (Y, X), float32."""
        if height_um not in self._planes:
            if (len(self._planes) + 1) * self.total.itemsize * self.shape[0] * self.shape[1] > _KEPT_BYTES and self._planes:
                self._planes.popitem(last=False)
            plane = self._sharp(height_um)
            plane += self._smooth(height_um)
            plane.flags.writeable = False
            self._planes[height_um] = plane
        return self._planes[height_um]

    def _sharp(self, height_um: float) -> FloatArray:
        """Points and nuclei that are in focus, blurred."""
        canvas = self._splat(height_um)
        for nucleus in self.nuclei:
            section = self._section(nucleus, height_um)
            if section is not None:
                _lay(canvas, section, nucleus, self.pixel_um, self.fine_corner_um)
        gaussian_filter(canvas, self.sigma_px, output=canvas, truncate=3.5)
        inside = slice(self.margin, -self.margin)
        return np.ascontiguousarray(canvas[inside, inside])

    def _splat(self, height_um: float) -> FloatArray:
        """Share every point near the focal plane between the four pixels around it."""
        sigma = self.sigma_z_um
        low, high = np.searchsorted(self._heights_um, (height_um - 3.7 * sigma, height_um + 3.7 * sigma))
        away = (self._heights_um[low:high] - height_um) / sigma
        seen = self._amounts[low:high] * np.exp(-0.5 * away * away) / (sigma * np.sqrt(2 * np.pi))
        fy, fx = self._fraction[low:high].T
        first, width = self._first[low:high], self.fine_shape[1]
        top, bottom = seen * (1 - fy), seen * fy
        size = self.fine_shape[0] * width
        canvas = np.bincount(first, top * (1 - fx), size)
        canvas += np.bincount(first + 1, top * fx, size)
        canvas += np.bincount(first + width, bottom * (1 - fx), size)
        canvas += np.bincount(first + width + 1, bottom * fx, size)
        return canvas.astype(np.float32).reshape(self.fine_shape)

    def _section(self, nucleus: ShownNucleus, height_um: float) -> FloatArray | None:
        """Show what the focal plane sees of a nucleus, in the nucleus' own axes; None if it sees nothing."""
        volume, sigma = _grown(nucleus.grown), self.sigma_z_um
        step = _NUCLEUS_UM[0] * nucleus.scale
        heights = nucleus.centre_um[0] + step * (np.arange(len(volume)) - (len(volume) - 1) / 2)
        away = (heights - height_um) / sigma
        seen = np.where(np.abs(away) < 3.7, np.exp(-0.5 * away * away), 0) * step / (sigma * np.sqrt(2 * np.pi))
        if not seen.any():
            return None
        # dye does not get less when a nucleus is small
        seen *= nucleus.weight / nucleus.scale**3
        section: FloatArray = np.tensordot(seen.astype(np.float32), volume, axes=1)
        return section

    def _smooth(self, height_um: float) -> FloatArray:
        """Haze, and the unbound dye that is in focus; (Y, X)."""
        sigma = self.sigma_z_um
        slab = ndtr((self.thickness - height_um) / sigma) - ndtr(-height_um / sigma)
        coarse = (self.haze + CYTOPLASM[self.kind] * slab).astype(np.float32)
        rows, row_part = _between(self.shape[0], self.step, self.coarse_margin)
        columns, column_part = _between(self.shape[1], self.step, self.coarse_margin)
        tall = coarse[rows] * (1 - row_part[:, None]) + coarse[rows + 1] * row_part[:, None]  # (Y, coarse X)
        wide = np.ascontiguousarray(tall.T)
        wide = wide[columns] * (1 - column_part[:, None]) + wide[columns + 1] * column_part[:, None]  # (X, Y)
        return np.ascontiguousarray(wide.T)


@lru_cache(maxsize=64)
def _between(side: int, step: int, margin: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Between which coarse pixels the centre of every fine one lies, and where."""
    at = (np.arange(side) + 0.5) / step - 0.5 + margin
    low = np.floor(at).astype(np.intp)
    return low, (at - low).astype(np.float32)


def _window(low_um: DoubleArray, high_um: DoubleArray, moment: _Moment) -> tuple[slice, slice]:
    starts = np.floor((low_um - moment.coarse_corner_um) / moment.coarse_um).astype(int)
    stops = np.ceil((high_um - moment.coarse_corner_um) / moment.coarse_um).astype(int)
    (y0, x0), (y1, x1) = np.clip(starts, 0, moment.coarse_shape), np.clip(stops, 0, moment.coarse_shape)
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def _positions_um(window: tuple[slice, slice], moment: _Moment) -> DoubleArray:
    sides = [
        (np.arange(part.start, part.stop) + 0.5) * moment.coarse_um + corner
        for part, corner in zip(window, moment.coarse_corner_um, strict=True)
    ]
    return np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)


def _lay(canvas: FloatArray, section: FloatArray, nucleus: ShownNucleus, pixel_um: float, corner_um: DoubleArray) -> None:
    """Add a section of a nucleus to a canvas, moved and turned."""
    angle = nucleus.grown.angle_rad - nucleus.turned_rad
    c, s = np.cos(angle), np.sin(angle)
    voxel = _NUCLEUS_UM[1] * nucleus.scale
    middle = (nucleus.centre_um[1:] - corner_um) / pixel_um - 0.5  # pixels
    reach = np.hypot(*section.shape) / 2 * voxel / pixel_um
    low = np.clip(np.floor(middle - reach), 0, canvas.shape).astype(int)
    high = np.clip(np.ceil(middle + reach) + 1, 0, canvas.shape).astype(int)
    if np.any(high <= low):
        return
    matrix = np.array([[c, s], [-s, c]]) * pixel_um / voxel
    offset = (np.array(section.shape) - 1) / 2 - matrix @ (middle - low)
    shape = (int(high[0] - low[0]), int(high[1] - low[1]))
    canvas[low[0] : high[0], low[1] : high[1]] += affine_transform(section, matrix, offset, shape, order=1)


@lru_cache(maxsize=256)
def _grown(nucleus: Nucleus) -> FloatArray:
    """Grow a nucleus' dye in its own axes, (Z, Y, X) voxels of `_NUCLEUS_UM` about its centre."""
    half = np.ceil(1.15 * nucleus.radii_um / _NUCLEUS_UM).astype(int)
    sides = [np.arange(-h, h + 1) * v / r for h, v, r in zip(half, _NUCLEUS_UM, nucleus.radii_um, strict=True)]
    within = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).astype(np.float32)  # (Z, Y, X, 3)
    out = np.linalg.norm(within, axis=-1)
    dye = nucleus.brightness / (1 + np.exp(np.clip((out - 1) / 0.04, -60, 60)))
    inside = out < 1.12
    dye[~inside] = 0
    names = ("radii_um", "waves_per_um", "phases_rad", "nucleoli")
    quick = replace(nucleus, **{name: getattr(nucleus, name).astype(np.float32) for name in names})
    dye[inside] *= chromatin(quick, within[inside])
    single: FloatArray = np.asarray(dye, np.float32)
    return single
