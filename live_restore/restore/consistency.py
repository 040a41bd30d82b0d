"""One plane against its photons: the residual, and how far it is from noise in windows of several sizes.

Receives raw and restored counts of a plane, the camera's noise and the line that turns restored counts into electrons;
hands on, per size of window, z values. Holds its buffers for one shape of image, so that nothing of the image's size is
allocated per plane; use it from one thread. It does not decide what is too far.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.restore.hot_pixels import Places, standing_out
from live_restore.restore.noise import CameraNoise
from live_restore.restore.photon_fit import BLOCK, Line, block_means
from live_restore.restore.windows import EVEN_SHARE, PAD, Windows, bands, halve, inside

FloatArray = NDArray[np.float32]
Counts = NDArray[np.integer[Any]]


class Sensor:
    """What a pixel's counts mean, laid out for one shape of image.

    Maps of another shape (another region of the sensor) are replaced by their medians, and `why` says so.

    Parameters
    ----------
    noise : CameraNoise
    shape : tuple of int, (Y, X)
    """

    def __init__(self, noise: CameraNoise, shape: tuple[int, int]) -> None:
        self.noise, self.shape = noise, shape
        fits = noise.shape is None or noise.shape == shape
        self.why = noise.why
        if not fits:
            self.why = f"the camera's maps have {noise.shape} pixels and the image {shape}; their medians are used instead"
        self.typical_offset = float(np.median(noise.offset_adu))
        self.typical_per_count = float(1 / np.median(noise.gain_adu_per_e))
        self.typical_read_noise_e = float(np.median(noise.read_noise_e))
        variance = noise.dark_variance_e2
        self.typical_variance_e2 = float(np.median(variance))
        self.offset: Any = np.asarray(noise.offset_adu if fits else self.typical_offset, np.float32)
        self.per_count: Any = np.asarray(1 / np.asarray(noise.gain_adu_per_e) if fits else self.typical_per_count, np.float32)
        self.variance_e2: Any = np.asarray(variance if fits else self.typical_variance_e2, np.float32)
        self.hot: Places = np.flatnonzero(noise.hot) if fits and noise.hot is not None else np.zeros(0, np.intp)

    def electrons(self, raw: Counts, rows: slice | Places, out: FloatArray) -> FloatArray:
        """Turn rows of raw counts, a slice or numbers of them, into electrons."""
        np.subtract(raw[rows], _rows(self.offset, rows), out=out)
        np.multiply(out, _rows(self.per_count, rows), out=out)
        return out


def _rows(values: Any, rows: slice | Places) -> Any:
    return values[rows] if values.ndim else values


class Consistency:
    """The pyramid of windows over planes of one shape.

    Parameters
    ----------
    shape : tuple of int, (Y, X)
    levels : int
        How many sizes of window: sigma 1, 2, 4, ... pixels.
    """

    def __init__(self, shape: tuple[int, int], levels: int) -> None:
        self.shape = shape
        shapes = [shape]
        while len(shapes) < levels:
            shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
        self.levels = [Windows(level) for level in shapes]
        # electrons per pixel expected from the restored image, means over each level's blocks
        self.expected = [np.zeros(level, np.float32) for level in shapes]
        self.tenths = [np.zeros(level, np.int8) for level in shapes]
        # side of the blocks that the line is fitted to
        self.block = BLOCK if min(shape) >= BLOCK else 1
        self._bands = bands(shape)
        largest = (max(last - first for first, last in self._bands), shape[1])
        self._measured, self._variance, self._nothing = (np.zeros(largest, np.float32) for _ in range(3))
        self._square = np.zeros((shape[0] + 2 * PAD, shape[1] + 2 * PAD), np.float32)

    def blocks(
        self, raw: Counts, restored: FloatArray, sensor: Sensor, left_out: Places, every: int = 1, first: int = 0
    ) -> tuple[FloatArray, FloatArray]:
        """Block means of measured and of restored electrons, (N,) each, without the blocks of pixels that are left out.

        Parameters
        ----------
        raw, restored : ndarray, (Y, X)
            Counts.
        sensor : Sensor
        left_out : ndarray, (N,)
            Flat indices of pixels that are not judged.
        every, first : int
            Which rows of blocks: the first of them, and every how many.
        """
        height, width = self.shape[0] // self.block, self.shape[1] // self.block
        chosen = np.arange(first % min(every, height), height, every)
        usable = np.ones((height, width), np.bool_)
        rows_out, columns_out = (place // self.block for place in np.divmod(left_out, self.shape[1]))
        whole = (rows_out < height) & (columns_out < width)
        usable[rows_out[whole], columns_out[whole]] = False
        usable = usable[chosen]
        rows = (chosen[:, None] * self.block + np.arange(self.block)).reshape(-1)
        electrons = sensor.electrons(raw, rows, np.empty((rows.size, self.shape[1]), np.float32))
        measured, expected = self._means(electrons)[usable], self._means(restored[rows])[usable]
        return measured, (expected - np.float32(sensor.typical_offset)) * np.float32(sensor.typical_per_count)

    def _means(self, image: FloatArray) -> FloatArray:
        return image if self.block == 1 else block_means(image)

    def compare(self, raw: Counts, restored: FloatArray, sensor: Sensor, line: Line, left_out: Places) -> Places:
        """Fill every level's `z` and `strength` for a plane; the flat indices of pixels that stand out alone.

        Parameters
        ----------
        raw, restored : ndarray, (Y, X)
            Counts.
        sensor : Sensor
        line : Line
        left_out : ndarray, (N,)
            Flat indices of pixels that are not judged.
        """
        self._weigh(raw, restored, sensor, line)
        finest = self.levels[0]
        rows, columns = np.divmod(left_out, self.shape[1])
        self._leave_out((rows + PAD) * (self.shape[1] + 2 * PAD) + columns + PAD)
        alone, bright = standing_out(finest.residual, finest.weight, self._square)
        self._leave_out(bright)
        for fine, coarse in zip(self.levels[:-1], self.levels[1:], strict=True):
            halve(inside(fine.residual), inside(coarse.residual))
            halve(inside(fine.weight), inside(coarse.weight))
        for below, above in zip(self.expected[:-1], self.expected[1:], strict=True):
            halve(below, above)
            np.multiply(above, np.float32(0.25), out=above)
        for level in self.levels:
            level.measure()
        rows, columns = np.divmod(alone, self.shape[1] + 2 * PAD)
        return np.asarray((rows - PAD) * self.shape[1] + columns - PAD)

    def _weigh(self, raw: Counts, restored: FloatArray, sensor: Sensor, line: Line) -> None:
        """Fill the finest level with residuals and weights, 1 / variance, in electrons."""
        residual, weight = inside(self.levels[0].residual), inside(self.levels[0].weight)
        scale = np.float32(line.slope * sensor.typical_per_count)
        shift = np.float32(line.offset - line.slope * sensor.typical_offset * sensor.typical_per_count)
        for first, last in self._bands:
            rows = slice(first, last)
            measured = sensor.electrons(raw, rows, self._measured[: last - first])
            variance, expected = self._variance[: last - first], self.expected[0][rows]
            np.multiply(restored[rows], scale, out=expected)
            np.add(expected, shift, out=expected)
            np.subtract(measured, expected, out=measured)
            np.maximum(expected, self._nothing[: last - first], out=variance)
            np.add(variance, _rows(sensor.variance_e2, rows), out=variance)
            np.divide(np.float32(1), variance, out=variance)
            weight[rows] = variance
            np.multiply(measured, variance, out=residual[rows])

    def _leave_out(self, places: Places) -> None:
        """Give pixels no weight; flat indices within the margin."""
        self.levels[0].residual.reshape(-1)[places] = 0
        self.levels[0].weight.reshape(-1)[places] = 0

    def beyond(self, level: int, of_level: float, of_peak_e: float) -> NDArray[np.int8]:
        """Give ten times the z of what exceeds a tolerated, smooth disagreement: (Y, X) of this level, int8, cut at ±127.

        The tolerated part may lie either way, so it is taken off the magnitude of z. Rounded towards 0.

        Parameters
        ----------
        level : int
        of_level : float
            Tolerated share of the local expected electrons.
        of_peak_e : float
            Tolerated electrons per pixel everywhere.
        """
        windows, tenths = self.levels[level], self.tenths[level]
        for first, last in bands(windows.shape):
            z, strength = windows.z[first:last], windows.strength[first:last]
            tolerated = _tolerated(self.expected[level][first:last], strength, of_level, of_peak_e)
            # z - clip(z, -t, t); maximum and minimum of two arrays are four times as fast as with a number
            beyond = np.minimum(z, tolerated)
            np.negative(tolerated, out=tolerated)
            np.maximum(beyond, tolerated, out=beyond)
            np.subtract(z, beyond, out=beyond)
            beyond *= np.float32(10)
            np.clip(beyond, -127, 127, out=beyond)
            np.copyto(tenths[first:last], beyond, casting="unsafe")
        return tenths

    def beyond_at(self, level: int, places: Places, of_level: float, of_peak_e: float) -> FloatArray:
        """Give the same at a few places, flat indices of this level, as z and without a cut; (N,)."""
        windows = self.levels[level]
        z, strength = windows.z.reshape(-1)[places], windows.strength.reshape(-1)[places]
        tolerated = _tolerated(self.expected[level].reshape(-1)[places], strength, of_level, of_peak_e)
        beyond: FloatArray = z - np.clip(z, -tolerated, tolerated)
        return beyond

    def map(self) -> NDArray[np.int8]:
        """Combine what `beyond` gave: whichever level says most, at the pixels of the finest; (Y, X), int8."""
        combined = self.tenths[-1]
        for finer in reversed(self.tenths[:-1]):
            combined = _larger(finer, _doubled(combined, finer.shape))
        return combined


def _tolerated(expected: FloatArray, strength: FloatArray, of_level: float, of_peak_e: float) -> FloatArray:
    """Give the z of a disagreement that is even over the window."""
    tolerated = np.abs(expected)
    tolerated *= np.float32(of_level * EVEN_SHARE)
    tolerated += np.float32(of_peak_e * EVEN_SHARE)
    tolerated *= strength
    return tolerated


def _larger(one: NDArray[np.int8], other: NDArray[np.int8]) -> NDArray[np.int8]:
    """Whichever is larger in magnitude, pixel by pixel, by whole-array operations without branches."""
    high, low = np.maximum(one, other), np.minimum(one, other)
    # -1, all bits set, where the negative one is larger
    chosen = np.negative((high < -low).view(np.int8))
    chosen &= high ^ low
    chosen ^= high
    return chosen


def _doubled(coarse: NDArray[np.int8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Repeat every pixel twice along Y and X, and cut to the shape."""
    # two equal bytes are one 16-bit number: 257 times the byte
    wide = (coarse.view(np.uint8).astype(np.uint16) * np.uint16(257)).view(np.int8)  # (Y, 2 X)
    return np.repeat(wide, 2, axis=0)[: shape[0], : shape[1]]
