"""The certifier: certificates of engines for one network, each measured once, the float32 results too.

Receives a graph and probes, both made only when they are needed, and what is known already; hands on certificates by engine
and precision. It does not know which precision is taken, nor where certificates are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from live_restore.engines.certificates.certificate import USUAL, Certificate, Probe, Tolerance, certify, results
from live_restore.engines.engine import Engine, EngineSpec, FloatArray, Precision, open_engine, what_is_offered

# The engine whose float32 all others are measured against: it is always installed.
REFERENCE = "openvino"
# Gives images back as they came, so there is no arithmetic to certify.
NO_NETWORK = "identity"


class Known(Protocol):
    """Where certificates come from that were measured earlier, and where new ones go."""

    def find(self, spec: EngineSpec) -> Certificate | None:
        """Give the one of this engine on this device at this precision; None if there is none."""

    def keep(self, spec: EngineSpec, certificate: Certificate) -> None:
        """Keep one for the next time."""


class NothingKnown:
    """No memory: every certificate is measured."""

    def find(self, spec: EngineSpec) -> None:
        """Find none."""

    def keep(self, spec: EngineSpec, certificate: Certificate) -> None:
        """Keep none."""


class Certifier:
    """Certifies engines for one network.

    Parameters
    ----------
    onnx : callable () -> bytes
        Gives the graph that is to run.
    probes : callable () -> sequence of Probe
        Gives images that fit the graph.
    source : str
        What they are, in words.
    threads : int, optional
        CPU threads.
    held_out_psnr_db : float, optional
        See `certify`.
    known : Known
    tolerance_of : callable (kind) -> Tolerance
        What an engine of this kind may differ, where nobody says otherwise.
    """

    def __init__(
        self,
        onnx: Callable[[], bytes],
        probes: Callable[[], Sequence[Probe]],
        source: str,
        *,
        threads: int | None = None,
        held_out_psnr_db: float | None = None,
        known: Known | None = None,
        tolerance_of: Callable[[str], Tolerance] = lambda kind: USUAL,
    ) -> None:
        self._make_onnx, self._make_probes = onnx, probes
        self.source, self._threads, self._held_out_psnr_db = source, threads, held_out_psnr_db
        self._known: Known = known or NothingKnown()
        self._tolerance_of = tolerance_of
        self._onnx: bytes | None = None
        self._probes: Sequence[Probe] | None = None
        self._expected: list[FloatArray] = []

    def certificate(self, kind: str, precision: Precision) -> Certificate | None:
        """Give the certificate of an engine on this machine, measured now unless it is known.

        Returns
        -------
        Certificate or None
            None for the float32 that others are measured against, and for the identity: there is nothing to certify.

        Raises
        ------
        EngineUnavailable
            If this machine lacks the engine or the precision.
        EngineError
            If the engine fails.
        """
        if (kind, precision) == (REFERENCE, "f32"):
            return None
        if kind == NO_NETWORK:
            open_engine(kind, b"", precision).close()
            return None
        if precision == "int8":
            self._open(kind, precision).close()  # only where somebody has built it for this network
        offer = what_is_offered(kind)
        spec = EngineSpec(kind, offer.version, offer.device, precision)
        found = self._known.find(spec)
        if found is None:
            found = self._measured(kind, precision)
            self._known.keep(spec, found)
        return replace(found, tolerance=self._tolerance_of(kind))

    def _measured(self, kind: str, precision: Precision) -> Certificate:
        with self._open(kind, precision) as engine:
            expected, probes = self._reference(), self._probes or ()
            return certify(engine, expected, probes, self.source, held_out_psnr_db=self._held_out_psnr_db)

    def _reference(self) -> list[FloatArray]:
        if self._probes is None:
            self._probes = self._make_probes()
            with self._open(REFERENCE, "f32") as engine:
                self._expected = results(engine, self._probes)
        return self._expected

    def _open(self, kind: str, precision: Precision) -> Engine:
        if self._onnx is None:
            self._onnx = self._make_onnx()
        return open_engine(kind, self._onnx, precision, self._threads)
