"""Whole numbers built ahead of time: a package and images become int8 layers in this machine's cache, with a certificate.

Receives a package and perhaps pairs of low and high-light images; hands on what was built and how far it is from float32.
Packages, images and the cache meet here. It does not know how layers are found, nor how they are run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from live_restore.certified import certifier_of, probes_for
from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.certificates.certificate import Certificate, Probe
from live_restore.engines.engine import what_is_offered
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.errors import EngineError, EngineUnavailable
from live_restore.evaluation.real_crops import real_crops
from live_restore.models.package import ModelPackage
from live_restore.models.real_images import RealImages
from live_restore.records.pairs import read_pairs

if TYPE_CHECKING:
    from live_restore.engines.openvino.sensitive import Budget

ENGINE = "openvino"
# Pixels along Y and X.
_MIDDLE = 80


@dataclass(frozen=True, slots=True)
class BuiltInt8:
    """The int8 layers of one package.

    Attributes
    ----------
    words : str
        How much of the network they are, and what they were found on.
    certificate : Certificate
        What they are worth; "auto" takes them if it is within its tolerance.
    path : Path
        Their file.
    """

    words: str
    certificate: Certificate
    path: Path


def build_int8(
    package: ModelPackage, pairs: Sequence[Path] = (), tell: Callable[[str], None] = lambda words: None
) -> BuiltInt8:
    """Find the int8 layers of a package, keep them in the user's cache and certify them.

    Parameters
    ----------
    package : ModelPackage
    pairs : sequence of Path
        Folders of pairs whose low-light images the layers are found on; parts of at most 8 are taken. Default: every other
        one of the real images that the package carries.
    tell : callable (words)
        Told what is being done.

    Raises
    ------
    EngineUnavailable
        If this processor has no int8 arithmetic.
    EngineError
        If there are no images, the network takes several channels, or none of its convolutions may be rounded.
    ModelError, PairError
        If images cannot be read.
    """
    offer = what_is_offered(ENGINE)
    if "int8" not in offer.precisions:
        raise EngineUnavailable(f"{offer.device} has no int8 arithmetic; use --precision {' or '.join(offer.precisions)}")
    from live_restore.engines.openvino.sensitive import Budget  # loads openvino, which the question above did already

    probes = probes_for(package, _middle(_images(package, pairs)))
    built = _built(package, probes, Budget(), tell)
    if not built.certificate.passes:  # its images bear less than those that the layers were found on
        built = _built(package, probes, Budget(loss_db=0.005, error=4e-3, error_without_truth=1e-3), tell)
    return built if pairs else replace(built, words=f"{built.words} of the package")


def _built(package: ModelPackage, probes: Sequence[Probe], budget: "Budget", tell: Callable[[str], None]) -> BuiltInt8:
    """Find layers, keep them, and certify them."""
    from live_restore.engines.openvino.int8_layers import from_bytes
    from live_restore.engines.openvino.quantise import int8_key, quantise

    graph = from_counts(package.onnx())
    layers = quantise(graph, probes, budget, tell)
    path = EngineCache().store(int8_key(graph), layers, name=package.name)
    tell("certifying")
    certificate = certifier_of(package).certificate(ENGINE, "int8")
    if certificate is None:
        raise EngineError(f"the int8 layers of '{package.name}' could not be certified; build them with --pairs FOLDER")
    return BuiltInt8(from_bytes(layers).words, certificate, path)


def _middle(images: RealImages) -> RealImages:
    """Cut the middle of stacks: every convolution is tried alone on them."""
    if images.n_dim == 2:
        return images
    sides = ([_cut(stack) for stack in side] for side in (images.low, images.high))
    low, high = sides
    return replace(images, low=low, high=high)


def _cut(stack: NDArray[np.uint16]) -> NDArray[np.uint16]:
    starts = [max(0, (size - _MIDDLE) // 2) for size in stack.shape[1:]]
    return np.ascontiguousarray(stack[:, starts[0] : starts[0] + _MIDDLE, starts[1] : starts[1] + _MIDDLE])


def _images(package: ModelPackage, pairs: Sequence[Path]) -> RealImages:
    """Choose what the layers are found on."""
    facts = package.facts
    if facts.channels_in != 1 or facts.channels_out != 1:
        raise EngineError(
            f"'{package.name}' takes {facts.channels_in} channels and gives {facts.channels_out}; int8 layers are found for "
            "networks of one channel, so use --precision bf16"
        )
    if pairs:
        chosen = [pair for folder in pairs for pair in read_pairs(folder).pairs]
        images = real_crops(chosen, facts.geometry.n_dim, "given")
        if images is None:
            raise EngineError(f"none of {len(chosen)} pairs can be used: flat, no camera counts, or planes instead of stacks")
        return images
    own = package.real_images()
    if own is None:
        raise EngineError(f"'{package.name}' carries no real images to find int8 layers on; name some: --pairs FOLDER")
    return replace(own, low=own.low[::2], high=own.high[::2])
