"""The certificate of an engine: how far its results are from float32, on real images.

Receives an engine, one that computes in float32 (or its results), and probes; hands on figures and whether they are within a
tolerance, also as JSON. It does not know which package the network came from, nor where certificates are kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.certificates.comparison import TENTHS, Row, compare
from live_restore.engines.engine import Engine, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """One image to certify with.

    Attributes
    ----------
    inputs : tuple of ndarray
        What `Engine.infer` is given; the image is the first.
    truth : ndarray or None, (N, C', [Z,] Y, X)
        What the result should be up to gain and offset (the high-light image in its own counts, of any real dtype); None
        where nobody knows.
    read_noise : float or None
        Of the camera, in the units of the output; None where nobody knows.
    channels : int or None
        How many of the result's channels are the restored image, from the first; the rest (the widths of a probabilistic
        network) is not judged. None: all.
    """

    inputs: tuple[NDArray[Any], ...]
    truth: NDArray[Any] | None = None
    read_noise: float | None = None
    channels: int | None = None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What an engine may differ from float32; infinity asks for nothing.

    What counts is the PSNR; the relative error of an image that is all noise may be large and cost nothing. Where nobody knows
    the PSNR, the relative error must be so small that a network which reaches 30 dB loses no more than that either.

    Attributes
    ----------
    psnr_loss_db : float
    relative_error : float
        Rms, of the range (p99.9 - p0.1) of the float32 result, where the PSNR loss was measured.
    bias : float
        Largest mean difference within a decile of intensity, of the range.
    relative_error_alone : float
        The relative error instead, where the PSNR loss is unknown or estimated.
    """

    psnr_loss_db: float = 0.02
    relative_error: float = 1e-2
    bias: float = 2e-3
    relative_error_alone: float = 2e-3


USUAL = Tolerance()
# Takes whatever comes, and the certificate says what that is.
ANYTHING = Tolerance(math.inf, math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an engine differs from float32, measured.

    Attributes
    ----------
    engine : str
        As ``str(engine.spec)``.
    images : int
        How many probes it was measured on; those whose float32 result is flat tell nothing and do not count.
    source : str
        What they are, in words: ``"8 held-out pairs"``, ``"the package's test image"``.
    relative_error : float
        Rms difference over the range (p99.9 - p0.1) of the float32 result; the worst image. NaN if no image told anything,
        or the engine gave what is no number.
    psnr_loss_db : float or None
        Mean PSNR against the truth in float32, minus that of this engine, after the affine fit that scores have as well;
        None where nobody knows.
    worst_pixel : float
        Largest difference of any pixel, in read noises where these are known, else of the range.
    in_read_noise : bool
        Which of the two `worst_pixel` is.
    bias_per_decile : tuple of float
        Mean difference in each tenth of the pixels by intensity of the float32 result, dim first, of the range; the mean
        over the images.
    tolerance : Tolerance
    estimated : bool
        Whether `psnr_loss_db` was not measured against a truth, but follows from the relative error and from the PSNR that
        the network had on its own held-out pairs.
    """

    engine: str
    images: int
    source: str
    relative_error: float
    psnr_loss_db: float | None
    worst_pixel: float
    in_read_noise: bool
    bias_per_decile: tuple[float, ...]
    tolerance: Tolerance = USUAL
    estimated: bool = False

    @property
    def bias(self) -> float:
        """The largest of the deciles, whatever its sign."""
        return max(map(abs, self.bias_per_decile))

    @property
    def refusal(self) -> str:
        """Why it is outside its tolerance, one sentence; empty if it is within."""
        limits = self.tolerance
        alone = self.psnr_loss_db is None or self.estimated
        found: dict[str, tuple[float | None, float]] = {
            "PSNR loss in dB": (self.psnr_loss_db, limits.psnr_loss_db),
            "relative error": (self.relative_error, limits.relative_error_alone if alone else limits.relative_error),
            "bias": (self.bias, limits.bias),
        }
        if self.images == 0 and limits != ANYTHING:
            return f"{self.engine} cannot be judged on {self.source}: flat, or no number"
        for name, (value, limit) in found.items():
            if value is not None and limit != math.inf and not value <= limit:  # nan too
                return f"{self.engine}: {name} {short(value)} is beyond the limit of {short(limit)} on {self.source}"
        return ""

    @property
    def passes(self) -> bool:
        """Whether it is within its tolerance."""
        return not self.refusal

    @property
    def brief(self) -> str:
        """The two figures that count, for where there is little room: ``"error 5.1e-4, -0.001 dB"``."""
        if self.psnr_loss_db is None:
            return f"error {short(self.relative_error)}"
        about = "about " if self.estimated else ""
        return f"error {short(self.relative_error)}, {about}{_decibel(-self.psnr_loss_db, '+.3f')}"

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """All figures, (what, words)."""
        unit = "read noises" if self.in_read_noise else "of the range"
        return (
            ("measured on", self.source),
            ("relative error", short(self.relative_error)),
            ("PSNR loss", self.loss_words),
            ("worst pixel", f"{short(self.worst_pixel)} {unit}"),
            ("bias in the dim", short(self.bias_per_decile[0])),
            ("bias in the bright", short(self.bias_per_decile[-1])),
        )

    @property
    def loss_words(self) -> str:
        """The PSNR loss, or that it is unknown."""
        if self.psnr_loss_db is None:
            return "unknown"
        return f"{'about ' if self.estimated else ''}{_decibel(self.psnr_loss_db, '.4f')}"

    @property
    def sentence(self) -> str:
        """All figures in one sentence."""
        (_, source), *figures = self.facts
        return f"against float32, on {source}: {', '.join(f'{name} {words}' for name, words in figures)}"

    def as_json(self) -> dict[str, Any]:
        """Give it as what JSON can hold; what is no finite number becomes None."""
        content = asdict(self)
        content["bias_per_decile"] = [_finite(value) for value in self.bias_per_decile]
        for name in ("relative_error", "psnr_loss_db", "worst_pixel"):
            content[name] = _finite(content[name])
        content["tolerance"] = {name: _finite(value) for name, value in asdict(self.tolerance).items()}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Certificate":
        """Read what `as_json` gave.

        Raises
        ------
        ValueError
            If it is no certificate.
        """
        try:
            limits = {str(name): _number(value, math.inf) for name, value in content["tolerance"].items()}
            deciles = tuple(_number(value) for value in content["bias_per_decile"])
            loss = content["psnr_loss_db"]
            read = cls(
                engine=str(content["engine"]),
                images=int(content["images"]),
                source=str(content["source"]),
                relative_error=_number(content["relative_error"]),
                psnr_loss_db=None if loss is None else _number(loss),
                worst_pixel=_number(content["worst_pixel"]),
                in_read_noise=content["in_read_noise"] is True,
                bias_per_decile=deciles,
                tolerance=Tolerance(**limits),
                estimated=content["estimated"] is True,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"this is no certificate of an engine ({error}); certify anew") from error
        if len(deciles) != TENTHS:
            raise ValueError(f"this is no certificate of an engine ({len(deciles)} tenths); certify anew")
        return read


def certify(
    engine: Engine,
    reference: Engine | Sequence[FloatArray],
    probes: Sequence[Probe],
    source: str,
    tolerance: Tolerance = USUAL,
    held_out_psnr_db: float | None = None,
) -> Certificate:
    """Measure how far an engine is from float32.

    Parameters
    ----------
    engine : Engine
        To be judged; opened with the graph that the probes fit.
    reference : Engine or sequence of ndarray
        One that computes in float32, with the same graph; or its results, see `results`.
    probes : sequence of Probe
        At least one.
    source : str
        What they are, in words.
    tolerance : Tolerance
    held_out_psnr_db : float, optional
        What the network reached on its own held-out pairs: the loss is estimated from it where no probe has a truth.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError
        If there are no probes.
    EngineMismatch
        If the results have other shapes than the reference's, or a truth does not fit.
    """
    if not probes:
        raise ValueError("there are no images to certify with; give at least one")
    expected = reference if isinstance(reference, Sequence) else results(reference, probes)
    found = results(engine, probes)
    rows = [
        row
        for probe, one, other in zip(probes, found, expected, strict=True)
        for row in compare(_image(one, probe), _image(other, probe), probe.truth, probe.read_noise)
    ]
    in_noise = all(probe.read_noise for probe in probes)
    return _certificate(str(engine.spec), source, rows, tolerance, held_out_psnr_db, in_noise)


def results(engine: Engine, probes: Sequence[Probe]) -> list[FloatArray]:
    """Restore every probe: the graph's last output, (N, C', [Z,] Y, X) each."""
    return [engine.infer(*probe.inputs)[-1] for probe in probes]


def _image(result: FloatArray, probe: Probe) -> FloatArray:
    return result if probe.channels is None else result[:, : probe.channels]


def _certificate(
    engine: str, source: str, rows: Sequence[Row], tolerance: Tolerance, held_out_psnr_db: float | None, in_noise: bool
) -> Certificate:
    tenths = np.mean([row.tenths for row in rows], axis=0) if rows else np.full(TENTHS, math.nan)
    error = _worst([row.error for row in rows])
    losses = [row.loss_db for row in rows if row.loss_db is not None]
    loss = float(np.mean(losses)) if losses else None
    estimated = loss is None and held_out_psnr_db is not None
    if loss is None and held_out_psnr_db is not None:
        loss = estimated_loss_db(error, held_out_psnr_db)
    return Certificate(
        engine=engine,
        images=len(rows),
        source=source,
        relative_error=error,
        psnr_loss_db=loss,
        worst_pixel=_worst([row.worst_in_noise if in_noise else row.worst for row in rows]),
        in_read_noise=in_noise,
        bias_per_decile=tuple(tenths.tolist()),
        tolerance=tolerance,
        estimated=estimated,
    )


def estimated_loss_db(relative_error: float, psnr_db: float) -> float:
    """Tell what an error costs that has nothing to do with the network's own: mean squares add up.

    Parameters
    ----------
    relative_error : float
        Rms, of the range.
    psnr_db : float
        Of the network in float32.
    """
    with np.errstate(over="ignore"):
        return float(10 * np.log10(1 + np.square(relative_error) * 10 ** (psnr_db / 10)))


def _worst(values: Sequence[float]) -> float:
    return float(np.max(values)) if values else math.nan  # one nan makes it nan


def short(number: float) -> str:
    """Write 4.1e-4 for 0.00041, and 0.41 for 0.41."""
    digits, _, power = f"{number:.1e}".partition("e")
    if not power or 0.1 <= abs(number) < 1000:
        return f"{number:.2g}" if abs(number) < 100 else f"{number:.0f}"
    return f"{digits.removesuffix('.0')}e{int(power)}" if number else "0"


def _decibel(value: float, form: str) -> str:
    """Write decibels, without a sign before what rounds to nothing."""
    words = f"{value:{form}}"
    return f"{words if float(words) else f'{0.0:{form}}'} dB"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(value: Any, instead: float = math.nan) -> float:
    """Read a number, or None as what JSON could not hold."""
    if value is None:
        return instead
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)
