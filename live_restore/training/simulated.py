"""Low light from high-light images alone: `SimulatedSource`, for those who have no pairs.

Receives high-light images on the disk and what to simulate; hands on cuts of low and target in network units, with fresh
noise in every cut. It does not know which cut is wanted, nor networks.

Two ways, by what is known of the camera that took the images:

- *Its offset and gain*: counts are turned into electrons, and for every electron lots are drawn whether the low image has it.
  The low image then has exact shot noise, however noisy the high one is; the target is made of the electrons that the low
  image has *not* got, so that no noise is on both sides and none is learned.
- *Nothing*: the image, over its darkest pixels, is taken for the expected light, and noise is drawn for it. What noise it has
  is then taken for structure, so images should be as good as one has them.

Blur needs the expected light as well, and blurs away the noise of the high image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from live_restore.acquire.simulate.camera import build_camera
from live_restore.errors import PairError
from live_restore.intensity import IntensityRange, measure_percentiles
from live_restore.pairs.moved import Window
from live_restore.records.pairs import Pair
from live_restore.training.fields import Field, check_alike, check_pixels, read_pixel_size
from live_restore.training.options import Scaling, Simulate
from live_restore.training.range_table import RangeTable, even_sample
from live_restore.training.signal_map import map_signal
from live_restore.training.sources import place_of
from live_restore.training.streamed import StreamedImages
from live_restore.training.targets import Pixels
from live_restore.training.thinning import as_counts

FloatArray = NDArray[np.float32]

_PEAK_PERCENT, _DARK_PERCENT = 99.9, 0.1
# A Gaussian is cut off after so many sd.
_BLUR_REACH = 4.0
# At most this part of an image's electrons becomes the low image; the rest is the target.
_MOST_TAKEN = 0.5
_SENSOR_PX, _SENSOR_SEED = 512, 700_000
# Light levels, backgrounds and blurs for which the range of an image is measured beforehand.
_LEVELS, _BACKGROUNDS, _BLURS = 7, 3, 3
# Light levels of each image that enter one frozen range.
_FROZEN_DRAWS = 8
_UINT16 = np.dtype(np.uint16)


@dataclass(frozen=True, slots=True, eq=False)
class _Exposure:
    """What was drawn for one low image: photons in the peak, background in parts of that, blur from 0 to 1."""

    peak_photons: float
    background: float
    blur: float


@dataclass(frozen=True, slots=True, eq=False)
class _Light:
    """The light of one image.

    Attributes
    ----------
    pair : Pair
    dark, peak : float
        What is no light, and the brightest, in counts of the high image.
    """

    pair: Pair
    dark: float
    peak: float


class SimulatedSource:
    """Low light made up from high light.

    Parameters
    ----------
    images : sequence of Pair
        High-light images; only ``high`` is read.
    simulate : Simulate
    scaling : Scaling
    n_dim : {2, 3}
    memory_mb : int
        For images that must be decoded before they are cut.
    frozen : IntensityRange, optional
        As for `PairSource`.

    Raises
    ------
    PairError
        If an image cannot be learned from, or not all of them together.
    """

    def __init__(
        self,
        images: Sequence[Pair],
        simulate: Simulate,
        scaling: Scaling | None = None,
        *,
        n_dim: int = 2,
        memory_mb: int = 1024,
        frozen: IntensityRange | None = None,
    ) -> None:
        scaling = scaling or Scaling()
        self._images = StreamedImages(memory_mb << 20)
        self._simulate = simulate
        self._percentiles = scaling.low_percentile, scaling.high_percentile
        self._sensor = _Sensor(simulate)
        self.fields: tuple[Field, ...] = ()
        self.frozen: IntensityRange | None = None
        self._lights: list[_Light] = []
        self._tables: list[RangeTable] = []
        pooled = [self._look_at(image) for image in images]
        check_alike(self.fields, n_dim)
        if scaling.mode == "frozen":
            self.frozen = frozen or measure_percentiles(np.concatenate(pooled)[None], *self._percentiles)

    def cut(self, number: int, window: Window, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Expose a part of a field at any of the light levels, and cut low and target from that."""
        light = self._lights[number]
        exposure = self._draw_exposure(light, rng)
        range_ = self.frozen or self._range_of(number, exposure)
        pixels = self._images.open(light.pair.high)
        if self._counts_electrons and not self._simulate.blurs:
            low_e, target_e = self._divide(pixels[window], light, exposure, rng)
        else:
            expected = exposure.peak_photons * self._simulate.quantum_efficiency
            sharp = _in_peaks(pixels[window], light) + exposure.background
            soft = self._blurred(pixels, window, light, exposure.blur) + exposure.background
            low_e, target_e = rng.poisson(expected * soft).astype(np.float32), expected * sharp
        low, target = self._sensor.read(low_e, rng), self._sensor.mean(target_e)
        return range_.scale(low[None])[0], range_.scale(target[None])[0]

    def _range_of(self, number: int, exposure: _Exposure) -> IntensityRange:
        """Give the range that the whole low image would have."""
        root = sqrt(exposure.peak_photons)
        found = self._tables[number].at(exposure.blur, root, exposure.background)
        offset = self._simulate.offset_adu
        return IntensityRange(offset + root * found.low, offset + root * found.high)

    @property
    def _counts_electrons(self) -> bool:
        return self._simulate.high_gain_adu_per_e is not None

    def _look_at(self, pair: Pair) -> FloatArray:
        """Take an image up; give a sample of low images of it at light levels as they will be drawn."""
        pixels = self._images.read(pair.high)
        check_pixels(f"the image '{pair.name}'", pixels)
        light = self._light_of(pair, pixels)
        window = tuple(slice(0, side) for side in pixels.shape)
        blurs = np.linspace(0, 1, _BLURS if self._simulate.blurs else 1)
        samples = [even_sample(self._blurred(pixels, window, light, float(blur))).astype(np.float32) for blur in blurs]
        rng = np.random.default_rng(0)

        def read(blur: float, root: float, background: float) -> FloatArray:
            sample = samples[round(blur * (len(samples) - 1))]
            electrons = root**2 * self._simulate.quantum_efficiency * (sample + background)
            return self._sensor.read(rng.poisson(electrons).astype(np.float32), rng)

        def measure(blur: float, root: float, background: float) -> IntensityRange:
            found = measure_percentiles(read(blur, root, background)[None], *self._percentiles)
            # light and its noise, over the square root of light, lie on a straight line
            offset = self._simulate.offset_adu
            return IntensityRange((found.low - offset) / root, (found.high - offset) / root)

        roots = np.geomspace(sqrt(self._simulate.photons[0]), sqrt(self._most(light)), _LEVELS)
        backgrounds = np.linspace(0, self._background, _BACKGROUNDS if self._background else 1)
        table = RangeTable([blurs, roots, backgrounds], measure)
        field = Field(pair.name, pair.channel, place_of(pair), pixels.shape, read_pixel_size(pair), map_signal(pixels))
        self.fields, self._lights, self._tables = (*self.fields, field), [*self._lights, light], [*self._tables, table]
        drawn = [self._draw_exposure(light, rng) for _ in range(_FROZEN_DRAWS)]
        return np.concatenate([read(each.blur, sqrt(each.peak_photons), each.background)[::_FROZEN_DRAWS] for each in drawn])

    def _light_of(self, pair: Pair, pixels: Pixels) -> _Light:
        dark, peak = np.percentile(pixels, (_DARK_PERCENT, _PEAK_PERCENT))
        dark = dark if self._simulate.high_offset_adu is None else self._simulate.high_offset_adu
        if not peak > dark:
            raise PairError(
                f"the image '{pair.name}' has no light: its brightest pixels have {peak:g} counts, the dark has {dark:g}; "
                "correct high_offset_adu in [simulate], or take the image out"
            )
        light = _Light(pair, float(dark), float(peak))
        self._check_enough(light)
        return light

    def _check_enough(self, light: _Light) -> None:
        if self._counts_electrons and self._most_photons(light) < self._simulate.photons[0]:
            raise PairError(
                f"the image '{light.pair.name}' has {self._most_photons(light) / _MOST_TAKEN:.3g} photons in its brightest "
                f"pixels, too few to simulate {self._simulate.photons[0]:g} from: at most half may be used; lower photons in "
                "[simulate], or take the image out"
            )

    def _most_photons(self, light: _Light) -> float:
        """Say which light level takes half of an image's electrons."""
        gain = self._simulate.high_gain_adu_per_e or 1.0
        return _MOST_TAKEN * (light.peak - light.dark) / gain / self._simulate.quantum_efficiency

    def _most(self, light: _Light) -> float:
        """Say the highest light level of an image."""
        most = self._simulate.photons[1]
        return min(most, self._most_photons(light)) if self._counts_electrons else most

    @property
    def _background(self) -> float:
        """Largest background; where the camera's offset is known, so is the background."""
        return 0.0 if self._counts_electrons else self._simulate.background

    def _draw_exposure(self, light: _Light, rng: np.random.Generator) -> _Exposure:
        photons = np.exp(rng.uniform(np.log(self._simulate.photons[0]), np.log(self._most(light))))
        background, blur = rng.random(2)
        return _Exposure(float(photons), float(background) * self._background, float(blur))

    def _divide(
        self, pixels: Pixels, light: _Light, exposure: _Exposure, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Divide the electrons of an image between low and target; both as of the low image's light."""
        gain = self._simulate.high_gain_adu_per_e or 1.0
        electrons = (pixels.astype(np.float32) - np.float32(light.dark)) / np.float32(gain)
        taken = exposure.peak_photons * self._simulate.quantum_efficiency * gain / (light.peak - light.dark)
        whole = np.maximum(np.rint(electrons), 0)
        low = rng.binomial(whole.astype(np.int64), taken).astype(np.float32)
        return low, (electrons - low) * np.float32(taken / (1 - taken))

    def _blurred(self, pixels: Pixels, window: Window, light: _Light, blur: float) -> FloatArray:
        """Give the light of a window, in parts of the peak, blurred; with the pixels around it that this needs."""
        if not self._simulate.blurs:
            return _in_peaks(pixels[window], light)
        across, along = (a + blur * (b - a) for a, b in (self._simulate.blur_px, self._simulate.blur_z_px))
        widths = [along, across, across][-pixels.ndim :]
        reach = [int(np.ceil(_BLUR_REACH * width)) for width in widths]
        outer = tuple(
            slice(max(0, part.start - far), min(side, part.stop + far))
            for part, far, side in zip(window, reach, pixels.shape, strict=True)
        )
        soft = gaussian_filter(_in_peaks(pixels[outer], light), widths, mode="nearest", truncate=_BLUR_REACH)
        inner = tuple(slice(a.start - o.start, a.stop - o.start) for a, o in zip(window, outer, strict=True))
        return np.asarray(soft[inner], np.float32)


class _Sensor:
    """The simulated camera: electrons to counts, at a random part of its sensor."""

    def __init__(self, simulate: Simulate) -> None:
        self._even = [np.float32(x) for x in (simulate.offset_adu, simulate.gain_adu_per_e, simulate.read_noise_e)]
        self._maps: tuple[FloatArray, ...] = ()
        if simulate.pattern:
            camera = build_camera(_SENSOR_SEED, (_SENSOR_PX, _SENSOR_PX))
            offset, gain, read_noise = self._even
            # the offset's pattern is one of electrons, before the gain
            per_gain = gain / np.median(camera.gain_adu_per_e)
            self._maps = (
                offset + per_gain * (camera.offset_adu - np.median(camera.offset_adu)),
                per_gain * camera.gain_adu_per_e,
                read_noise / np.median(camera.read_noise_e) * camera.read_noise_e,
            )

    def read(self, electrons: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Read electrons, (..., Y, X), with read noise; whole counts of 16 bits, float32."""
        noise = rng.standard_normal(electrons.shape, np.float32)
        offset, gain, read_noise = self._part(electrons.shape, rng) if self._maps else self._even
        return as_counts(offset + gain * (electrons + read_noise * noise), _UINT16)

    def mean(self, electrons: FloatArray) -> FloatArray:
        """Give the counts of electrons on an even sensor without noise."""
        offset, gain, _ = self._even
        return np.asarray(offset + gain * electrons, np.float32)

    def _part(self, shape: tuple[int, ...], rng: np.random.Generator) -> Sequence[FloatArray]:
        """Take the maps of a random part of the sensor, which repeats itself; of a list of pixels, of random ones."""
        if len(shape) == 1:
            places = (int(rng.integers(_SENSOR_PX**2)) + np.arange(shape[0])) % _SENSOR_PX**2
            return [each.reshape(-1)[places] for each in self._maps]
        starts = [int(rng.integers(max(1, _SENSOR_PX - side + 1))) for side in shape[-2:]]
        if max(shape[-2:]) <= _SENSOR_PX:
            part = tuple(slice(start, start + side) for start, side in zip(starts, shape[-2:], strict=True))
            return [each[part] for each in self._maps]
        down, across = (np.arange(side) % _SENSOR_PX for side in shape[-2:])
        return [each[np.ix_(down, across)] for each in self._maps]


def _in_peaks(pixels: Pixels, light: _Light) -> FloatArray:
    """Give the light of pixels in parts of the image's peak; none is negative."""
    parts = (pixels.astype(np.float32) - np.float32(light.dark)) / np.float32(light.peak - light.dark)
    return np.asarray(np.maximum(parts, 0), np.float32)
