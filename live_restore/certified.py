"""Certified: which engine and precision a model package runs on here, with its certificate, kept for the next start.

Receives a package and what the user asked for; hands on a `Choice`, or a table of all that this machine offers. Packages,
certifier and cache meet here. It does not open engines for good, nor know volumes.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.cache.engine_cache import EngineCache, EngineKey
from live_restore.engines.certificates.certificate import USUAL, Certificate, Probe, Tolerance
from live_restore.engines.certificates.certifier import REFERENCE, Certifier
from live_restore.engines.choice import AUTO, Choice, choose
from live_restore.engines.engine import EngineSpec, Precision, engine_status
from live_restore.errors import EngineError, EngineUnavailable, ModelError
from live_restore.intensity import FloatArray, IntensityRange
from live_restore.models.facts import ModelFacts
from live_restore.models.package import ModelPackage
from live_restore.models.ranges import as_range, input_range
from live_restore.models.real_images import RealImages

if TYPE_CHECKING:
    from live_restore.engines.tensorrt.recipe import Recipe

_log = logging.getLogger(__name__)

# As many images are taken as cost so much in float32, about three seconds on two cores, and at least one.
_MOST_FLOP = 6e11
# To be raised whenever the same engine would get other figures.
_WAY_OF_MEASURING = 1
_TEST_IMAGE = "the package's test image"
_LARGEST_COUNT = 65535


def choose_for(
    package: ModelPackage,
    engine: str = AUTO,
    precision: str = AUTO,
    *,
    threads: int | None = None,
    tolerance: Tolerance | None = None,
    cache: EngineCache | None = None,
) -> Choice:
    """Choose engine and precision for a package on this machine.

    Parameters
    ----------
    package : ModelPackage
    engine, precision : str
        Names as in `live_restore.engines.engine`, or "auto".
    threads : int, optional
        CPU threads.
    tolerance : Tolerance, optional
        Default: the usual one, or that of the recipe where an engine is built by one.
    cache : EngineCache, optional
        Where certificates are kept; default: the user's.

    Returns
    -------
    Choice

    Raises
    ------
    EngineUnavailable, EngineError
        As `live_restore.engines.choice.choose`.
    ModelError
        If the images that the package carries cannot be read, and what is asked for needs them: float32 on the reference
        engine is what others are measured against, so it goes on with a warning.
    """
    try:
        certifier = certifier_of(package, threads, cache)
    except ModelError as damaged:
        if precision != "f32" or engine not in (AUTO, REFERENCE):
            raise
        _log.warning("%s. Going on in float32 on the CPU, which needs no certificate", damaged)
        return choose(Certifier(package.onnx, tuple, "nothing", threads=threads), REFERENCE, precision, tolerance)
    return choose(certifier, engine, precision, tolerance)


@dataclass(frozen=True, slots=True)
class Offered:
    """One engine at one precision, for one package on this machine.

    Attributes
    ----------
    kind, precision : str
    certificate : Certificate or None
        None where there is nothing to certify, or it could not be measured.
    why_not : str
        Why it could not be measured; empty if it could.
    """

    kind: str
    precision: Precision
    certificate: Certificate | None
    why_not: str = ""


def offered_for(package: ModelPackage, cache: EngineCache | None = None) -> Iterator[Offered]:
    """Certify all engines that are here, at all their precisions; one after the other, since each may take seconds."""
    certifier = certifier_of(package, cache=cache)
    for status in engine_status():
        for precision in status.offer.precisions if status.offer and status.kind.name != "identity" else ():
            try:
                yield Offered(status.kind.name, precision, certifier.certificate(status.kind.name, precision))
            except EngineError as refused:
                yield Offered(status.kind.name, precision, None, str(refused))


def certifier_of(package: ModelPackage, threads: int | None = None, cache: EngineCache | None = None) -> Certifier:
    """Prepare to certify engines for a package: with the real images that it carries, or else with its test image."""
    images = _fitting(package)

    def onnx() -> bytes:
        from live_restore.engines.graphs.counts_graph import from_counts  # loads onnx, which a known certificate does not need

        return from_counts(package.onnx())

    def probes() -> Sequence[Probe]:
        return _test_probe(package) if images is None else _real_probes(images, package.facts)

    return Certifier(
        onnx,
        probes,
        _TEST_IMAGE if images is None else images.words,
        threads=threads,
        held_out_psnr_db=_held_out_psnr_db(package.facts),
        known=_Kept(package, _fingerprint(package, images), EngineCache() if cache is None else cache),
        tolerance_of=lambda kind: USUAL if (recipe := _recipe(package, kind)) is None else recipe.tolerance.limits(),
    )


def _recipe(package: ModelPackage, kind: str) -> "Recipe | None":
    """Find the recipe that engines of this kind are built by; None for kinds that are not built."""
    if kind != "tensorrt":
        return None
    from live_restore.engines.tensorrt.recipe import recipe_for  # reads the graph, which other engines do not need

    return recipe_for(package.onnx())


def _card_of(spec: EngineSpec) -> tuple[str, str]:
    """Say compute capability and driver of the card that an engine runs on; empty for a CPU, and where nobody can say."""
    if spec.kind not in ("tensorrt", "torch") or spec.device.startswith("CPU"):
        return "", ""
    try:
        if spec.kind == "torch":
            from live_restore.engines.torch.cuda import TorchCuda  # torch is loaded already: it was offered

            device = TorchCuda().device()
        else:
            from live_restore.engines.tensorrt.card import this_card

            device = this_card().cuda.device()
    except (EngineUnavailable, RuntimeError) as refused:  # RuntimeError is torch's
        _log.debug("%s: %s", spec, refused)
        return "", ""
    return ".".join(map(str, device.capability)), device.driver


class _Kept:
    """Certificates of one package in the cache: found again only where nothing that they depend on has changed."""

    def __init__(self, package: ModelPackage, images_sha256: str, cache: EngineCache) -> None:
        self._package, self._images_sha256, self._cache = package, images_sha256, cache

    def find(self, spec: EngineSpec) -> Certificate | None:
        key = self._key(spec)
        found = self._cache.certificate(key)
        if found is None and (why := self._why_not(key)):
            _log.warning("%s", why)
        return None if spec.precision == "int8" and self._is_outdated(key) else found

    def keep(self, spec: EngineSpec, certificate: Certificate) -> None:
        try:
            self._cache.store(self._key(spec), b"", certificate, f"certificate of '{self._package.name}'")
        except EngineError as refused:  # a full disk costs a second at the next start, and nothing now
            _log.warning("the certificate of '%s' is not kept: %s", self._package.name, refused)

    def _is_outdated(self, key: EngineKey) -> bool:
        """Tell whether int8 was built anew, from other images perhaps, since the certificate was made."""
        int8 = [entry for entry in self._cache.entries() if entry.key.precision == "int8"]
        made = max((entry.built for entry in int8 if entry.key == key), default="")
        return any(entry.built >= made for entry in int8 if entry.engine_bytes)

    def _why_not(self, key: EngineKey) -> str:
        """Say what there is instead, from another machine or device; empty if nothing is."""
        for entry in self._cache.entries():
            what = f"'{self._package.name}', {key.precision}"
            if entry.key == key and not entry.sealed_here:
                return f"{what}: its certificate was made on another machine, or changed since, so it is certified anew"
            if entry.key.same_engine(key):
                return (
                    f"{what}: certified on {entry.key.device} with {entry.key.flavour} {entry.key.flavour_version}; this is "
                    f"{key.device} with {key.flavour} {key.flavour_version}, so it is certified anew"
                )
        return ""

    def _key(self, spec: EngineSpec) -> EngineKey:
        recipe = _recipe(self._package, spec.kind)
        capability, driver = _card_of(spec)
        return EngineKey(
            onnx_sha256=self._package.onnx_sha256,
            flavour=spec.kind,
            flavour_version=spec.version,
            device=spec.device,
            capability=capability,
            driver=driver,
            precision=spec.precision,
            profile="certificate",
            recipe_sha256=self._images_sha256 + (f" {recipe.sha256}" if recipe else ""),
        )


def _fitting(package: ModelPackage) -> RealImages | None:
    """Give the images that a package carries, as many as there is time for; None if it has none that its network restores."""
    facts = package.facts
    same_size = facts.procedure == "direct" and set(facts.geometry.output_factor) == {1}
    if not same_size or facts.channels_in != 1 or facts.channels_out != 1:
        return None
    images = package.real_images()
    if images is None or images.n_dim != facts.geometry.n_dim:
        return None
    cut = [_cut(pixels, facts.geometry.divisible_by) for pixels in images.low]
    if not all(pixels.size for pixels in cut):
        return None
    per_image = max(pixels.size for pixels in cut) * max(1, facts.geometry.flop_per_pixel)
    fitting = images.first(int(_MOST_FLOP / per_image))
    sides = ([_cut(pixels, facts.geometry.divisible_by) for pixels in side] for side in (fitting.low, fitting.high))
    low, high = sides
    return replace(fitting, low=low, high=high)


def probes_for(package: ModelPackage, images: RealImages) -> list[Probe]:
    """Give images as the graph of camera counts takes them, cut to sizes that the network can divide."""
    facts = package.facts
    sides = ([_cut(pixels, facts.geometry.divisible_by) for pixels in side] for side in (images.low, images.high))
    low, high = sides
    return _real_probes(replace(images, low=low, high=high), facts)


def _cut(pixels: NDArray[np.uint16], divisible_by: Sequence[int]) -> NDArray[np.uint16]:
    window = tuple(slice(size // step * step) for size, step in zip(pixels.shape, divisible_by, strict=True))
    return np.ascontiguousarray(pixels[window])


def _fingerprint(package: ModelPackage, images: RealImages | None) -> str:
    """Hash what is measured with, and how."""
    digest = hashlib.sha256(f"{_WAY_OF_MEASURING} {package.facts.model_dump_json()}".encode())
    for pixels in (package.test_input(),) if images is None else (*images.low, *images.high):
        digest.update(pixels.tobytes())
    digest.update(f"{None if images is None else (images.read_noise, images.origin)}".encode())
    return digest.hexdigest()


def _held_out_psnr_db(facts: ModelFacts) -> float | None:
    found = facts.scores.get("psnr_db")
    return found if found is not None and isfinite(found) else None


def _real_probes(images: RealImages, facts: ModelFacts) -> list[Probe]:
    rule = facts.normalisation
    probes = []
    for low, high in zip(images.low, images.high, strict=True):
        counts = low[None]  # (1, [Z,] Y, X)
        measured = input_range(counts, rule)
        back = measured if rule.output == "inverse" else None
        if rule.output == "frozen" and rule.output_range is not None:
            back = as_range(rule.output_range)
        inputs = (counts[None], _low_and_span(measured, 1), _widened(back, facts))
        in_counts = images.read_noise if rule.output == "inverse" else None
        probes.append(Probe(inputs, high[None, None], in_counts, facts.channels_out))
    return probes


def _test_probe(package: ModelPackage) -> list[Probe]:
    """Turn the test image, which is in network units, into counts that mean the same, to 1 part in 65535."""
    facts, pixels = package.facts, package.test_input()
    least, most = float(pixels.min()), float(pixels.max())
    span = max(most - least, 1e-6)
    counts = np.rint((pixels - least) * (_LARGEST_COUNT / span)).astype(np.uint16)
    scale = _LARGEST_COUNT / span
    as_measured = IntensityRange(np.full(facts.channels_in, -least * scale), np.full(facts.channels_in, (1 - least) * scale))
    return [Probe((counts, _low_and_span(as_measured, facts.channels_in), _widened(None, facts)), channels=facts.channels_out)]


def _low_and_span(counts: IntensityRange, channels: int) -> FloatArray:
    """Give a range as the graph takes it, (2, C) float32."""
    return np.stack([np.broadcast_to(side, channels) for side in (counts.low, counts.high - counts.low)]).astype(np.float32)


def _widened(counts: IntensityRange | None, facts: ModelFacts) -> FloatArray:
    """Give the range of the output for all channels of the graph; None is the network's own units. (2, C') float32."""
    channels = facts.channels_out
    means = _low_and_span(counts or IntensityRange(np.zeros(channels), np.ones(channels)), channels)
    if not facts.probabilistic:
        return means
    return np.concatenate([means, np.stack([np.zeros(channels, np.float32), means[1]])], axis=1)
