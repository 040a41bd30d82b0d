"""The restorer: a model package opened on an engine. Counts in, counts out, with the word on how.

Receives a `ModelPackage`, the names of an engine and a precision, and a byte budget; hands on `Restored` volumes. This
is where packages, engines and the pipeline meet; offline restoration, benchmarks and the live process all use it. It
does not know where volumes come from or go to.
"""

from collections.abc import Hashable
from typing import Literal, Self

import numpy as np
import psutil

from live_restore.certified import choose_for
from live_restore.engines.certificates.certificate import Tolerance
from live_restore.engines.choice import Choice
from live_restore.engines.engine import EngineSpec, what_is_offered
from live_restore.engines.network_engines import NetworkEngines
from live_restore.errors import EngineError, ImageError
from live_restore.frames import Restored
from live_restore.intensity import IntensityRange, Pixels, follow
from live_restore.models.facts import ModelFacts, Normalisation
from live_restore.models.package import ModelPackage
from live_restore.models.ranges import as_range, input_range
from live_restore.restore.pipeline import Network, NoNumbers, Progress, no_progress, restore
from live_restore.restore.procedures import finer_planes, interpolate_z, restore_isotropic, restore_upsampled
from live_restore.restore.tiling import Space, TooLittleMemory

Mode = Literal["frozen", "rolling", "volume"]

# Runtimes hold more than the feature maps that must be alive: OpenVINO up to 1.17 times, torch up to 1.6 times as much.
_RUNTIME_OVERHEAD = {"openvino": 1.25, "torch": 1.75, "torch-compiled": 1.75}
_ON_A_CARD = ("tensorrt", "torch", "torch-compiled")
# The graphs that pool over tiles hold more feature maps alive than the plain one: 1.2 times as much were measured.
_POOLING_OVERHEAD = 1.25
# Share of the memory free at start that the network may take when no budget is given.
_MEMORY_SHARE = 0.4
_MAX_Z_FACTOR = 100
_LARGEST = float(np.finfo(np.float32).max) / 2
# A rolling range moves this far towards each new volume: a time constant of about 20 volumes.
_ROLLING_WEIGHT = 0.05


class Restorer:
    """One model, ready to restore volumes; use it from one thread.

    Parameters
    ----------
    package : ModelPackage
    engine : str
        Name in `live_restore.engines.engine.ENGINES`, or ``auto``.
    precision : str
        ``f32``, ``bf16``, ``f16``, ``int8``, or ``auto``: the fastest that is within its tolerance.
    memory_bytes : int or None
        What the network's feature maps may take; None: 40 % of the memory that is free now.
    mode : str or None
        ``frozen``, ``rolling`` or ``volume``; None: what the package says.
    z_factor : float or None
        For packages with a procedure along Z; None: what the package says.
    tolerance : Tolerance or None
        How far from float32 the precision may be; what is asked for and beyond it is refused. None: as usual.
    rounded : bool
        Give whole counts, uint16, clipped to 0 .. 65535: half the memory, and nothing left to round. Refused where the
        output is no intensity.

    Attributes
    ----------
    engine : EngineSpec
        What is running, by name.

    Raises
    ------
    EngineUnavailable
        If the engine is not installed or the machine cannot run it.
    EngineError
        If the precision that was asked for is beyond its tolerance.
    ValueError
        If mode, z_factor or rounding do not fit the package.
    """

    def __init__(
        self,
        package: ModelPackage,
        *,
        engine: str = "auto",
        precision: str = "auto",
        memory_bytes: int | None = None,
        mode: Mode | None = None,
        z_factor: float | None = None,
        tolerance: Tolerance | None = None,
        rounded: bool = False,
    ) -> None:
        self.package = package
        self.facts = package.facts
        self.normalisation = _in_mode(self.facts.normalisation, mode)
        self.z_factor = _checked_z_factor(self.facts, z_factor)
        self.rounded = _checked_rounding(rounded, self.normalisation)
        self.choice: Choice = choose_for(package, engine, precision, tolerance=tolerance)
        self._graphs = NetworkEngines(package.onnx(), self.choice.kind, self.choice.precision)
        self.engine: EngineSpec = self._graphs.whole("uint16").spec
        self._budget = _checked_budget(memory_bytes, self.choice.kind)
        geometry = self.facts.geometry
        self._network = Network(
            graphs=self._graphs,
            space=Space(geometry.halo, geometry.divisible_by, geometry.output_factor, geometry.global_pooling),
            channels_out=self.facts.channels_out,
            probabilistic=self.facts.probabilistic,
            max_pixels=max(1, int(self._budget / (geometry.bytes_per_pixel * self._overhead))),
        )
        self._rolling: dict[Hashable, IntensityRange] = {}

    @property
    def _overhead(self) -> float:
        runtime = _RUNTIME_OVERHEAD.get(self.choice.kind, 1.0)
        return runtime * _POOLING_OVERHEAD if self.facts.geometry.global_pooling else runtime

    def output_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape (Z, Y, X) of what comes out for a volume of this shape."""
        planes, height, width = shape
        if self.facts.procedure != "direct":
            planes = finer_planes(planes, self.z_factor)
        if self.facts.procedure == "isotropic":
            return planes, height, width
        if self._network.space.n_dim == 2:
            return (planes, *self._network.space.output_shape((height, width)))  # type: ignore[return-value]
        return self._network.space.output_shape((planes, height, width))  # type: ignore[return-value]

    def observe(self, pixels: Pixels, movie: Hashable = None) -> None:
        """Let a volume (C, Z, Y, X) that was restored earlier move the rolling range, without restoring it again."""
        if self.normalisation.mode == "rolling":
            seen = interpolate_z(pixels, self.z_factor) if self.facts.procedure == "upsampling" else pixels
            self._measure(seen, movie)

    def restore(self, pixels: Pixels, progress: Progress = no_progress, movie: Hashable = None) -> Restored:
        """Restore one volume.

        Parameters
        ----------
        pixels : ndarray, (C, Z, Y, X)
            Camera counts, any real dtype; C as the model wants, Z = 1 for a single plane.
        progress : callable (done, total)
            Called after every tile, or after every plane where a 2D network takes a stack.
        movie : hashable
            Which series the volume belongs to, for the rolling range: each channel of each position has its own.

        Returns
        -------
        Restored
            With pixels (C', Z', Y', X').

        Raises
        ------
        ImageError
            If channels or planes do not fit the model, a pixel is not a finite number, or no tile fits in memory.
        EngineError
            If the engine fails, or gives what is no number.
        """
        self._check(pixels)
        try:
            return self._through(pixels, progress, movie)
        except TooLittleMemory as small:
            raise ImageError(self._in_bytes(small)) from None
        except NoNumbers:
            raise EngineError(
                f"model '{self.package.name}' on {self.engine} gave pixels that are not numbers; try --precision f32 or "
                "another --engine, and if that does not help, the weights are broken"
            ) from None

    def _through(self, pixels: Pixels, progress: Progress, movie: Hashable) -> Restored:
        def measured(image: Pixels) -> tuple[IntensityRange, IntensityRange | None]:
            return self._measure(image, movie)

        if self.facts.procedure == "isotropic":
            return restore_isotropic(pixels, self.z_factor, self._network, measured, progress, self.rounded)
        if self.facts.procedure == "upsampling":
            return restore_upsampled(pixels, self.z_factor, self._network, measured, progress, self.rounded)
        return restore(pixels, self._network, *measured(pixels), progress, self.rounded)

    def _in_bytes(self, small: TooLittleMemory) -> str:
        least = small.least_pixels * self.facts.geometry.bytes_per_pixel * self._overhead
        return (
            f"in {self._budget / 1e6:.6g} MB of memory not even the smallest tile of model '{self.package.name}' fits; "
            f"it needs at least {least / 1e6:.6g} MB"
        )

    def warm_up(self, shape: tuple[int, int, int]) -> None:
        """Restore noise of this shape (Z, Y, X), so that the first volume is as quick as the rest; no rolling range moves.

        Raises
        ------
        ImageError, EngineError
            As `restore`: a model that cannot restore volumes of this shape is found out here.
        """
        planes = 1 if self.facts.procedure == "direct" and self._network.space.n_dim == 2 else shape[0]
        size = (self.facts.channels_in, planes, *shape[1:])
        noise = np.random.default_rng(0).integers(0, 200, size, np.uint16)
        nobodys = object()
        try:
            self.restore(noise, movie=nobodys)
        finally:
            self._rolling.pop(nobodys, None)

    def reset(self) -> None:
        """Forget the rolling ranges; the next volumes start new movies."""
        self._rolling.clear()

    def close(self) -> None:
        """Close the engines."""
        self._graphs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self, pixels: Pixels) -> None:
        wanted, name = self.facts.channels_in, self.package.name
        if pixels.ndim != 4 or len(pixels) != wanted:
            raise ImageError(f"model '{name}' takes {wanted} channel(s), (C, Z, Y, X); this volume has shape {pixels.shape}")
        if (self.facts.geometry.n_dim == 3 or self.facts.procedure == "isotropic") and pixels.shape[1] == 1:
            raise ImageError(
                f"model '{name}' restores z-stacks, and this image has a single plane; take a 2D model, "
                "or say with --axes if its pages are a z-stack"
            )
        if pixels.dtype.kind == "f":
            _check_finite(pixels)

    def _measure(self, pixels: Pixels, movie: Hashable) -> tuple[IntensityRange, IntensityRange | None]:
        """Give the input's and the output's range for this volume."""
        rule = self.normalisation
        measured = input_range(pixels, rule)
        measured = self._rolled(measured, movie) if rule.mode == "rolling" else measured
        if rule.output == "inverse":
            return measured, _for_channels(measured, self.facts.channels_out)
        if rule.output == "frozen" and rule.output_range is not None:
            return measured, as_range(rule.output_range, self.facts.channels_out)
        return measured, None

    def _rolled(self, measured: IntensityRange, movie: Hashable) -> IntensityRange:
        """Follow the movie's range; a flat volume neither starts nor moves it."""
        before = self._rolling.get(movie)
        followed = follow(before, measured, _ROLLING_WEIGHT) if before else measured
        if not measured.guarded:
            self._rolling[movie] = followed
        return followed


def _checked_budget(memory_bytes: int | None, kind: str) -> int:
    if memory_bytes is None:
        # the memory of a card, where the engine computes on one
        free = what_is_offered(kind).free_bytes if kind in _ON_A_CARD else None
        return int((psutil.virtual_memory().available if free is None else free) * _MEMORY_SHARE)
    if memory_bytes < 1:
        raise ValueError(f"a memory of {memory_bytes} bytes holds nothing; give some, for example 2GB")
    return memory_bytes


def _in_mode(rule: Normalisation, mode: Mode | None) -> Normalisation:
    if mode is None or mode == rule.mode:
        return rule
    if mode == "frozen" and rule.frozen is None:
        raise ValueError("this model has no frozen percentiles; use --normalisation volume or rolling")
    if mode != "frozen" and rule.measure == "none":
        raise ValueError(f"this model measures nothing on the image, so normalisation '{mode}' has no meaning for it")
    return rule.model_copy(update={"mode": mode})


def _checked_z_factor(facts: ModelFacts, z_factor: float | None) -> float:
    if facts.procedure == "direct":
        if z_factor is not None:
            raise ValueError(f"z_factor {z_factor} was given, but this model restores directly, without finer planes")
        return 1.0
    factor = facts.z_factor if z_factor is None else z_factor
    if factor is None:
        raise ValueError(f"this model's procedure is '{facts.procedure}'; say with --z-factor how many times finer Z becomes")
    if not 1 <= factor <= _MAX_Z_FACTOR:
        raise ValueError(f"z_factor must be 1 to {_MAX_Z_FACTOR}, as planes become finer; got {factor}")
    return factor


def _checked_rounding(rounded: bool, rule: Normalisation) -> bool:
    if rounded and rule.output == "none":
        raise ValueError("this model's output is in its own units, which whole numbers cannot hold; take float32")
    return rounded


def _for_channels(measured: IntensityRange, channels: int) -> IntensityRange:
    if len(measured.low) == channels:
        return measured
    # one range for all channels together fits any number of them
    return IntensityRange(np.full(channels, measured.low[0]), np.full(channels, measured.high[0]), measured.guarded)


def _check_finite(pixels: Pixels) -> None:
    """Refuse NaN, infinity and what float32 cannot hold, plane by plane, and say where the first one is."""
    for c, volume in enumerate(pixels):
        for z, plane in enumerate(volume):
            bad = ~np.isfinite(plane)
            largest = float(np.abs(plane).max())
            if largest > _LARGEST and not bad.any():
                raise ImageError(
                    f"plane {z} of channel {c} has a pixel of {largest:g}, beyond what float32 holds; no camera counts so far"
                )
            if bad.any():
                y, x = np.argwhere(bad)[0]
                raise ImageError(
                    f"{int(bad.sum())} pixel(s) of channel {c}, plane {z} are not finite numbers, the first at y={y}, x={x}; "
                    "raw camera counts have none: restore the raw image, or replace them"
                )
