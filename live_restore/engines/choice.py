"""The choice of engine and precision for one model on this machine, with its certificate and its reason in words.

Receives a certifier of the network, what the user asked for and a tolerance; hands on what to open. What is asked for by name
is taken or refused, never replaced. It does not know what a model package is, nor how a certificate is measured.
"""

import ctypes
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isfinite
from typing import cast

from live_restore.engines.certificates.certificate import Certificate, Tolerance
from live_restore.engines.certificates.certifier import NO_NETWORK, Certifier
from live_restore.engines.engine import ENGINES, EngineSpec, Offer, Precision, what_is_offered
from live_restore.errors import EngineError, EngineUnavailable

AUTO = "auto"

# For "auto": the first that this machine has; the former need a graphics card and its driver.
_ON_A_CARD = ("tensorrt", "torch")
_ON_THE_CPU = ("openvino",)
_FASTEST_FIRST: tuple[Precision, ...] = ("int8", "f16", "bf16", "f32")
_DRIVERS = {"win32": "nvcuda.dll", "linux": "libcuda.so.1"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why.

    Attributes
    ----------
    spec : EngineSpec
        As the engine will name itself.
    why : str
        One sentence for the screen and the record.
    certificate : Certificate or None
        How far it is from float32; None where there is nothing to certify: it is the float32 that others are measured
        against, or no network runs.
    beyond : str
        What is beyond the usual and was tolerated; empty if nothing is.
    """

    spec: EngineSpec
    why: str
    certificate: Certificate | None
    beyond: str = ""

    @property
    def kind(self) -> str:
        """Name in `live_restore.engines.engine.ENGINES`."""
        return self.spec.kind

    @property
    def precision(self) -> Precision:
        """Arithmetic within the network."""
        return self.spec.precision

    @property
    def figures(self) -> dict[str, float]:
        """What the record of a restored image keeps of the certificate, those that are known."""
        found = self.certificate
        known = {} if found is None else {"relative_error": found.relative_error, "psnr_loss_db": found.psnr_loss_db}
        return {name: float(f"{value:.3g}") for name, value in known.items() if value is not None and isfinite(value)}


def choose(certifier: Certifier, kind: str = AUTO, precision: str = AUTO, tolerance: Tolerance | None = None) -> Choice:
    """Choose engine and precision.

    Parameters
    ----------
    certifier : Certifier
        Of the network that is to run.
    kind : str
        A name in `live_restore.engines.engine.ENGINES`, or "auto": the best that this machine has.
    precision : {"auto", "f32", "bf16", "f16", "int8"}
        "auto": the fastest that this machine computes natively and that is within the tolerance.
    tolerance : Tolerance, optional
        Default: what the certificate says, as the engine's recipe has it.
        `live_restore.engines.certificates.certificate.ANYTHING` takes what is asked for whatever its certificate says.

    Returns
    -------
    Choice

    Raises
    ------
    EngineUnavailable
        If what was asked for by name is not to be had here.
    EngineError
        If what was asked for by name is outside the tolerance, or nothing is within it.
    """
    kinds = _available() if kind == AUTO else (kind,)
    if precision != AUTO:
        return _as_asked(certifier, kinds[0], precision, tolerance)
    refusals: list[str] = []
    for candidate in kinds:
        chosen = _fastest(certifier, candidate, tolerance, refusals)
        if chosen is not None:
            return chosen
    raise EngineError(f"no precision of {' or '.join(kinds)} can be taken: {'; '.join(refusals)}")


def _as_asked(certifier: Certifier, kind: str, precision: str, tolerance: Tolerance | None) -> Choice:
    found = certifier.certificate(kind, cast("Precision", precision))
    spec = _spec(kind, what_is_offered(kind), cast("Precision", precision))
    if found is None:
        return Choice(spec, f"{precision}: as asked for", None)
    certificate = found if tolerance is None else replace(found, tolerance=tolerance)
    if not _is_taken(certificate, precision):
        cure = "use --precision f32" if precision != "f32" else "use another --engine"
        raise EngineError(f"{certificate.refusal}; {cure}, or take it all the same with --tolerate")
    beyond = "" if found.passes else f", although {found.refusal}"
    return Choice(spec, f"{precision}: as asked for{beyond}; {certificate.sentence}", certificate, found.refusal)


def _is_taken(certificate: Certificate, precision: str) -> bool:
    """Take what is within its tolerance; of what flat images cannot judge only float32."""
    return certificate.passes or (precision == "f32" and certificate.images == 0)


def _fastest(certifier: Certifier, kind: str, tolerance: Tolerance | None, refusals: list[str]) -> Choice | None:
    """Take the first precision that is within its tolerance; what is not is told in `refusals`."""
    offer = what_is_offered(kind)
    if kind == NO_NETWORK:
        return Choice(_spec(kind, offer, "f32"), "f32: the identity computes nothing", None)
    told = len(refusals)
    for precision in (each for each in _FASTEST_FIRST if each in offer.precisions):
        try:
            found = certifier.certificate(kind, precision)
        except EngineUnavailable:  # int8 where nobody has built it for this network
            continue
        except EngineError as failed:
            if kind in _ON_THE_CPU:
                raise
            refusals.append(f"{kind}, {precision}: {failed}")  # no recipe, no memory: there is another engine
            continue
        spec = _spec(kind, offer, precision)
        if found is None:
            return Choice(spec, f"{precision}: {_instead_of(refusals[told:], offer)}", None)
        certificate = found if tolerance is None else replace(found, tolerance=tolerance)
        if _is_taken(certificate, precision):
            instead = f" ({'; '.join(refusals)})" if refusals else ""
            return Choice(spec, f"{precision}: {certificate.sentence}{instead}", certificate, found.refusal)
        refusals.append(certificate.refusal)
    return None


def _spec(kind: str, offer: Offer, precision: Precision) -> EngineSpec:
    return EngineSpec(kind, offer.version, offer.device, precision)


def _instead_of(refusals: list[str], offer: Offer) -> str:
    return "; ".join(refusals) or offer.why_not or "this engine computes in no other precision"


def _available() -> tuple[str, ...]:
    """Name the kinds that can run here, the best first."""
    refusals, found = [], []
    for kind in (*(_ON_A_CARD if _has_driver() else ()), *_ON_THE_CPU):
        if kind not in {row.name for row in ENGINES}:
            continue
        try:
            offer = what_is_offered(kind)
        except EngineUnavailable as refused:
            refusals.append(str(refused))
        else:
            found += [kind] if kind in _ON_THE_CPU or not offer.device.startswith("CPU") else []
    if not found:
        raise EngineUnavailable(f"no engine can run here: {'; '.join(refusals)}")
    return tuple(found)


def _has_driver() -> bool:
    """Tell whether NVIDIA's driver is installed, without loading the engines that need it: torch alone takes seconds."""
    library = _DRIVERS.get(sys.platform)
    with suppress(OSError):
        return library is not None and bool(ctypes.CDLL(library))
    return False
