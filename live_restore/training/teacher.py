"""The teacher: one model package, or the mean of several, asked for whole images.

Receives packages; hands on restored images in the low image's camera counts, and what a student inherits. A teacher may have
been trained here, imported from CSBDeep, CAREamics or 3D-RCAN, or be any package that gives one image of the same size for one.
It does not know students, pairs or files of images.
"""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ModelError, PairError
from live_restore.intensity import Pixels
from live_restore.models.facts import Normalisation
from live_restore.models.package import ModelPackage, open_package
from live_restore.models.ranges import as_range
from live_restore.restorer import Restorer
from live_restore.training.inheritance import Inheritance
from live_restore.training.student_timing import Served
from live_restore.training.targets import fit_counts

FloatArray = NDArray[np.float32]

# What is scaled by the percentiles of each image suits any teacher; others' rules are taken over where training has them too.
_TRAINED_MODES = ("volume", "frozen")


class Teacher:
    """One package, or several whose mean teaches; use it as a context manager.

    Parameters
    ----------
    paths : sequence of Path
    served : Served
        By what the teacher restores.

    Raises
    ------
    ModelError
        If one of them is no package, or does not give one image of the same size for one image; or if some are for images
        and some for stacks.
    """

    def __init__(self, paths: Sequence[Path], served: Served | None = None) -> None:
        if not paths:
            raise ModelError("nobody teaches: name a model package, or several whose mean is to be learned")
        self.packages = tuple(open_package(path) for path in paths)
        for package in self.packages:
            _check_teaches(package)
        if len({package.facts.geometry.n_dim for package in self.packages}) > 1:
            raise ModelError("some of these teachers restore images and some stacks; take those of one kind")
        self._served = served or Served()
        self._opened = ExitStack()
        self._restorers: list[Restorer] = []

    @property
    def n_dim(self) -> Literal[2, 3]:
        """Axes of the network."""
        return 3 if self.packages[0].facts.geometry.n_dim == 3 else 2

    @property
    def name(self) -> str:
        """Of the one, or of all of them."""
        names = [package.name for package in self.packages]
        return names[0] if len(names) == 1 else f"the mean of {', '.join(names)}"

    @property
    def sha256(self) -> str:
        """Hash of the one graph; of several, of all their hashes."""
        hashes = sorted(package.onnx_sha256 for package in self.packages)
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    @property
    def flop_per_pixel(self) -> int:
        """Operations of all of them together."""
        return sum(package.facts.geometry.flop_per_pixel for package in self.packages)

    @property
    def parameters(self) -> int:
        """Weights of all of them together."""
        return sum(package.facts.architecture.parameters for package in self.packages)

    @cached_property
    def inheritance(self) -> Inheritance:
        """What a student takes over; of several, what they have in common, and every image that any of them has seen."""
        facts = [package.facts for package in self.packages]
        rule = self.normalisation
        return Inheritance(
            teacher=f"'{self.name}'",
            learned_from=frozenset().union(*(package.learned_from() for package in self.packages)),
            frozen=as_range(rule.frozen) if rule.mode == "frozen" and rule.frozen else None,
            channel=_common([one.channel for one in facts]),
            pixel_size_um=_common([one.pixel_size_um for one in facts]),
            light_levels=_common([one.light_levels for one in facts]) or {},
        )

    @property
    def normalisation(self) -> Normalisation:
        """The rule of the student: the first teacher's, where training has it too; it always gives camera counts."""
        return _trainable(self.packages[0].facts.normalisation)

    def words(self) -> dict[str, Any]:
        """Describe it as JSON can hold it."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "packages": [{"name": package.name, "sha256": package.onnx_sha256} for package in self.packages],
            "flop_per_pixel": self.flop_per_pixel,
            "parameters": self.parameters,
        }

    def restore(self, low: Pixels) -> FloatArray:
        """Restore a whole image, in its own camera counts.

        Every teacher's image is fitted to the counts of the low one by least squares, as a high-light image would be: imported
        networks may give intensities of a scale of their own.

        Parameters
        ----------
        low : ndarray, ([Z,] Y, X)

        Returns
        -------
        ndarray, of the same shape, float32

        Raises
        ------
        PairError
            If what a teacher makes of it does not follow it.
        ImageError, EngineError
            As `Restorer.restore`.
        """
        total = np.zeros(low.shape, np.float64)
        for restorer in self._restorers or self._open():
            restorer.reset()
            restored = restorer.restore(low.reshape(1, -1, *low.shape[-2:])).pixels.reshape(low.shape)
            try:
                total += fit_counts(low, restored).apply(restored)
            except PairError as error:
                raise PairError(f"teacher '{restorer.package.name}' cannot restore an image: {error}") from error
        mean: FloatArray = (total / len(self._restorers)).astype(np.float32)
        return mean

    def _open(self) -> list[Restorer]:
        for package in self.packages:
            self._restorers.append(self._opened.enter_context(self._served.open(package)))
        return self._restorers

    def close(self) -> None:
        """Close the engines; the next image opens them again."""
        self._opened.close()
        self._restorers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check_teaches(package: ModelPackage) -> None:
    facts = package.facts
    if facts.channels_in != 1 or facts.channels_out != 1:
        raise ModelError(
            f"model '{package.name}' takes {facts.channels_in} channel(s) and gives {facts.channels_out}; "
            "teachers and their students are networks of one channel"
        )
    if facts.procedure != "direct" or set(facts.geometry.output_factor) != {1}:
        raise ModelError(
            f"model '{package.name}' changes the number of pixels ({facts.procedure}, output factor "
            f"{facts.geometry.output_factor}); only networks that keep sizes can teach"
        )


def _trainable(rule: Normalisation) -> Normalisation:
    """Take over percentiles and frozen ranges."""
    if rule.measure != "percentiles" or rule.mode not in _TRAINED_MODES:
        rolling = rule.measure == "percentiles"
        low, high = (rule.low_percentile, rule.high_percentile) if rolling else (2.0, 99.8)
        return Normalisation(low_percentile=low, high_percentile=high)
    return Normalisation(
        low_percentile=rule.low_percentile, high_percentile=rule.high_percentile, mode=rule.mode, frozen=rule.frozen
    )


def _common(values: Sequence[Any]) -> Any:
    """Give what all say, or None."""
    return values[0] if all(value == values[0] for value in values) else None
