"""The restorer: a model package opened on an engine. Counts in, counts out, with the word on how.

Receives a `ModelPackage`, the names of an engine and a precision, and a byte budget; hands on `Restored` volumes. This
is where packages, engines and the pipeline meet; offline restoration, benchmarks and the live process all use it. It
does not know where volumes come from or go to.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Literal, Self

import numpy as np
import psutil

from live_restore.engines.choice import Choice, choose
from live_restore.engines.engine import Engine, EngineSpec, open_engine
from live_restore.errors import ImageError
from live_restore.frames import Restored
from live_restore.intensity import IntensityRange, Pixels, follow
from live_restore.models.facts import ModelFacts, Normalisation
from live_restore.models.package import ModelPackage
from live_restore.models.ranges import as_range, input_range
from live_restore.restore.pipeline import Network, Progress, no_progress, restore
from live_restore.restore.procedures import finer_planes, restore_isotropic, restore_upsampled
from live_restore.restore.tiling import Space, TooLittleMemory

Mode = Literal["frozen", "rolling", "volume"]

# Runtimes hold more than the feature maps that must be alive: OpenVINO up to 1.17 times, torch up to 1.6 times as much.
_RUNTIME_OVERHEAD = {"openvino": 1.25, "torch": 1.75}
# Share of the memory free at start that the network may take when no budget is given.
_MEMORY_SHARE = 0.4
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
        ``f32``, ``bf16`` or ``auto``.
    memory_bytes : int or None
        What the network's feature maps may take; None: 40 % of the memory that is free now.
    mode : str or None
        ``frozen``, ``rolling`` or ``volume``; None: what the package says.
    z_factor : float or None
        For packages with a procedure along Z; None: what the package says.

    Raises
    ------
    EngineUnavailable
        If the engine is not installed or the machine cannot run it.
    ValueError
        If mode or z_factor do not fit the package.
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
    ) -> None:
        self.package = package
        self.facts = package.facts
        self.normalisation = _in_mode(self.facts.normalisation, mode)
        self.z_factor = _checked_z_factor(self.facts, z_factor)
        self._onnx = package.onnx()
        self.choice: Choice = choose(self._onnx, package.test_input(), package.test_output(), kind=engine, precision=precision)
        self._graphs = _Graphs(self._onnx, self.choice)
        budget = memory_bytes or int(psutil.virtual_memory().available * _MEMORY_SHARE)
        geometry = self.facts.geometry
        self._network = Network(
            graphs=self._graphs,
            space=Space(geometry.halo, geometry.divisible_by, geometry.output_factor, geometry.global_pooling),
            channels_out=self.facts.channels_out,
            probabilistic=self.facts.probabilistic,
            max_pixels=max(1, int(budget / (geometry.bytes_per_pixel * self._overhead))),
        )
        self._rolling: IntensityRange | None = None

    @property
    def _overhead(self) -> float:
        return _RUNTIME_OVERHEAD.get(self.choice.kind, 1.0)

    @property
    def engine(self) -> EngineSpec:
        """What is running, by name."""
        return self.choice.engine.spec

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

    def observe(self, pixels: Pixels) -> None:
        """Let a volume (C, Z, Y, X) that was restored earlier move the rolling range, without restoring it again."""
        if self.normalisation.mode == "rolling":
            self._measure(pixels)

    def restore(self, pixels: Pixels, progress: Progress = no_progress) -> Restored:
        """Restore one volume.

        Parameters
        ----------
        pixels : ndarray, (C, Z, Y, X)
            Camera counts, any real dtype; C as the model wants, Z = 1 for a single plane.
        progress : callable (done, total)
            Called after every tile.

        Returns
        -------
        Restored
            With pixels (C', Z', Y', X').

        Raises
        ------
        ImageError
            If channels or planes do not fit the model, or a pixel is not a finite number.
        """
        self._check(pixels)
        try:
            return self._through(pixels, progress)
        except TooLittleMemory as small:
            raise ImageError(self._in_bytes(small)) from None

    def _through(self, pixels: Pixels, progress: Progress) -> Restored:
        if self.facts.procedure == "isotropic":
            return restore_isotropic(pixels, self.z_factor, self._network, self._measure, progress)
        if self.facts.procedure == "upsampling":
            return restore_upsampled(pixels, self.z_factor, self._network, self._measure, progress)
        return restore(pixels, self._network, *self._measure(pixels), progress)

    def _in_bytes(self, small: TooLittleMemory) -> str:
        per_pixel = self.facts.geometry.bytes_per_pixel * self._overhead
        return (
            f"with --memory {small.max_pixels * per_pixel:.0f} bytes not even the smallest tile of model "
            f"'{self.package.name}' fits; it needs at least {small.least_pixels * per_pixel:.0f} bytes"
        )

    def reset(self) -> None:
        """Forget the rolling range; the next volume starts a new movie."""
        self._rolling = None

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
        if self.facts.geometry.n_dim == 3 and pixels.shape[1] == 1:
            raise ImageError(
                f"model '{name}' restores z-stacks, and this image has a single plane; take a 2D model, "
                "or say with --axes if its pages are a z-stack"
            )
        if pixels.dtype.kind == "f":
            _check_finite(pixels)

    def _measure(self, pixels: Pixels) -> tuple[IntensityRange, IntensityRange | None]:
        """Give the input's and the output's range for this volume."""
        rule = self.normalisation
        measured = input_range(pixels, rule)
        measured = self._rolled(measured) if rule.mode == "rolling" else measured
        if rule.output == "inverse":
            return measured, _for_channels(measured, self.facts.channels_out)
        if rule.output == "frozen" and rule.output_range is not None:
            return measured, as_range(rule.output_range, self.facts.channels_out)
        return measured, None

    def _rolled(self, measured: IntensityRange) -> IntensityRange:
        self._rolling = follow(self._rolling, measured, _ROLLING_WEIGHT) if self._rolling else measured
        return self._rolling


class _Graphs:
    """The engines of one network; those for pooled tiles are made when first asked for."""

    def __init__(self, onnx: bytes, choice: Choice) -> None:
        self._onnx, self._choice = onnx, choice
        self._open: list[Engine] = [choice.engine]

    @property
    def whole(self) -> Engine:
        return self._choice.engine

    @cached_property
    def measuring(self) -> Engine:
        from live_restore.engines.pooling import measuring  # loads onnx, which networks without attention do not need

        return self._another(measuring)

    @cached_property
    def applying(self) -> Engine:
        from live_restore.engines.pooling import applying

        return self._another(applying)

    def _another(self, variant: Callable[[bytes], bytes]) -> Engine:
        engine = open_engine(self._choice.kind, variant(self._onnx), self._choice.precision)
        self._open.append(engine)
        return engine

    def close(self) -> None:
        for engine in self._open:
            engine.close()


def _in_mode(rule: Normalisation, mode: Mode | None) -> Normalisation:
    if mode is None or mode == rule.mode:
        return rule
    if mode == "frozen":
        raise ValueError("this model has no frozen percentiles; use --normalisation volume or rolling")
    if rule.measure == "none":
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
    if not factor > 0:
        raise ValueError(f"z_factor must be above 0, got {factor}")
    return factor


def _for_channels(measured: IntensityRange, channels: int) -> IntensityRange:
    if len(measured.low) == channels:
        return measured
    # one range for all channels together fits any number of them
    return IntensityRange(np.full(channels, measured.low[0]), np.full(channels, measured.high[0]), measured.guarded)


def _check_finite(pixels: Pixels) -> None:
    """Refuse NaN and infinity, plane by plane, and say where the first one is."""
    for c, volume in enumerate(pixels):
        for z, plane in enumerate(volume):
            bad = ~np.isfinite(plane)
            if bad.any():
                y, x = np.argwhere(bad)[0]
                raise ImageError(
                    f"{int(bad.sum())} pixel(s) of channel {c}, plane {z} are not finite numbers, the first at y={y}, x={x}; "
                    "raw camera counts have none: restore the raw image, or replace them"
                )
