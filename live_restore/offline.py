"""Offline restoration: files in, restored files out, by the same pipeline as live.

Receives paths, a model for each channel and what to do with the rest; hands on one restored file per position, and
tells a listener how far it is. It does not know how files are laid out, nor how a network is run.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from live_restore.channels import Assignment, Part, plan_channels
from live_restore.errors import EngineError, ImageError, LiveRestoreError
from live_restore.frames import Restored
from live_restore.intensity import Pixels
from live_restore.listener import Listener, Silence
from live_restore.outputs import Options, Outputs, plan_outputs
from live_restore.provenance import describe_job, sample
from live_restore.records.images import Image, ImageInfo, find_inputs, open_images
from live_restore.records.restored import RestoredInfo, RestoredWriter, create_restored, read_provenance
from live_restore.restore.procedures import finer_spacing
from live_restore.restorer import Restorer

# A pixel at the top of the camera's range has lost its intensity; more of them than this is worth a word.
_SATURATED_SHARE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One volume before and after, for the gallery: maximum projections (Y, X), camera counts, and what restored it."""

    title: str
    raw: Pixels
    restored: NDArray[np.float32]
    pixel_size_um: float | None
    caption: str


@dataclass(slots=True)
class Outcome:
    """What became of one image.

    Attributes
    ----------
    path : Path
        The restored file; the raw one if it failed.
    volumes : int
        Volumes restored in this run.
    already : int
        Volumes that an earlier run had restored.
    warnings : list of str
        In words, each once.
    samples : list of Sample
        One per restored channel, from the middle of the movie.
    failure : LiveRestoreError or None
        Why this image was not restored.
    """

    path: Path
    volumes: int = 0
    already: int = 0
    warnings: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    failure: LiveRestoreError | None = None

    def warn(self, sentence: str) -> None:
        """Keep a warning, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def restore_files(
    inputs: Sequence[Path],
    output: Path,
    assignments: Sequence[Assignment[Restorer]],
    options: Options | None = None,
    listener: Listener | None = None,
) -> list[Outcome]:
    """Restore images and folders of images.

    Parameters
    ----------
    inputs : sequence of Path
        Files, folders, NDTiff datasets, OME-Zarr groups.
    output : Path
        A file for a single image, else a folder.
    assignments : sequence of Assignment
    options : Options or None
    listener : Listener or None

    Returns
    -------
    list of Outcome
        One per image; an image that an earlier run finished with the same models and options is not restored again. Of
        several images, one that cannot be restored has its `failure` in its outcome.

    Raises
    ------
    ImageError
        If a single image cannot be read, does not fit the models, or its output exists already; if two images would
        become one file, or raw would be replaced.
    EngineError
        If the engine fails on a single image.
    """
    chosen, told = options or Options(), listener or Silence()
    sources = list(inputs) if chosen.sequence else _without_restored(find_inputs(inputs), inputs)
    planned = plan_outputs(sources, output, chosen)
    outcomes = [Outcome(source, failure=failure) for source, failure in planned.unreadable.items()]
    for source in sources:
        if source not in planned.unreadable:
            outcomes += _restore_source(source, planned, assignments, chosen, told)
    if len(outcomes) == 1 and outcomes[0].failure:
        raise outcomes[0].failure
    return outcomes


def _restore_source(
    source: Path, planned: Outputs, assignments: Sequence[Assignment[Restorer]], options: Options, told: Listener
) -> list[Outcome]:
    """Restore every position of one source; what fails is kept as an outcome, so that the next images get their turn."""
    outcomes = []
    sample_sha256 = sample(source)
    with ExitStack() as opened:
        images = [opened.enter_context(image) for image in open_images(source, options.axes, options.sequence)]
        for place, image in enumerate(images):
            path = planned.paths[source, place]
            try:
                outcomes.append(_ImageJob(image, source, sample_sha256, path, assignments, options, told).run())
            except (ImageError, EngineError) as failure:
                outcomes.append(Outcome(source, failure=failure))
    return outcomes


def _without_restored(sources: Sequence[Path], inputs: Sequence[Path]) -> list[Path]:
    """Leave out our own results that lie among the raw images of a folder; one that is named itself is taken."""
    named = {path.resolve() for path in inputs}
    kept = [source for source in sources if source.resolve() in named or not read_provenance(source)]
    if not kept:
        raise ImageError(f"{inputs[0]} holds restored images only; name the raw ones")
    return kept


class _ImageJob:
    """One image: its channel plan, its writer, its outcome."""

    def __init__(
        self,
        image: Image,
        source: Path,
        sample_sha256: str,
        path: Path,
        assignments: Sequence[Assignment[Restorer]],
        options: Options,
        told: Listener,
    ) -> None:
        self.image, self.source, self.options, self.told = image, source, options, told
        self.parts = plan_channels(image.info.channels, assignments, options.others, options.widths)
        if not any(part.restorer for part in self.parts):
            raise ImageError(
                f"no channel of '{image.info.name}' has a model; its channels are {', '.join(image.info.channels)}"
            )
        self.info = _restored_info(image.info, source, sample_sha256, path, self.parts, options)
        self.outcome = Outcome(path)

    def run(self) -> Outcome:
        """Restore what is not restored yet."""
        if self._is_finished():
            self.outcome.already = self._volumes()
            self.told.image(self.image.info.name, self._volumes(), self._volumes())
        else:
            self._restore()
        if self.options.samples:
            self._take_samples()
        return self.outcome

    def _restore(self) -> None:
        _warn_of_dtype(self.image.info, self.outcome)
        for note in self.image.info.notes:
            self.outcome.warn(f"{self.image.info.name}: {note}")
        with create_restored(self.info, overwrite=self.options.overwrite, source=self.source) as writer:
            self._restore_all(writer)
            if writer.clipped:
                self.outcome.warn(f"{writer.clipped} pixels were outside 0..65535 and were clipped; float32 keeps them")
            writer.finish()

    def _is_finished(self) -> bool:
        if self.options.overwrite or not self.info.path.exists():
            return False
        return bool(read_provenance(self.info.path).get("fingerprint") == self.info.provenance["fingerprint"])

    def _volumes(self) -> int:
        return self.image.info.times * sum(part.restorer is not None for part in self.parts)

    def _restore_all(self, writer: RestoredWriter) -> None:
        pending = set(writer.pending)
        work = [
            (time, part, place, {channel for channel in place if (time, channel) in pending})
            for time in range(self.image.info.times)
            for part, place in zip(self.parts, _places(self.parts), strict=True)
        ]
        self.outcome.already = sum(part.restorer is not None and not missing for _, part, _, missing in work)
        self.told.image(self.image.info.name, self._volumes(), self.outcome.already)
        for part in self.parts:
            if part.restorer:
                part.restorer.reset()
        for time, part, place, missing in work:
            self._step(writer, time, part, place, missing)

    def _step(self, writer: RestoredWriter, time: int, part: Part[Restorer], place: range, missing: set[int]) -> None:
        """Bring the channels of one part at one time point up to date; `missing` are those not written yet."""
        absent = any((time, channel) in self.image.missing for channel in part.channels)
        if missing and absent:
            self._leave_black(writer, time, part, missing)
        elif missing and part.restorer is None:
            writer.write(time, place[0], self.image.volume(time, part.channels[0]))
        elif missing and part.restorer:
            self._restore_volume(writer, time, part, part.restorer, place, missing)
        elif not absent and part.restorer and part.restorer.normalisation.mode == "rolling":
            part.restorer.observe(self._raw(time, part), part.channels)

    def _restore_volume(
        self, writer: RestoredWriter, time: int, part: Part[Restorer], restorer: Restorer, place: range, missing: set[int]
    ) -> None:
        raw = self._raw(time, part)
        restored = restorer.restore(raw, self.told.tile, part.channels)
        _warn_of_pixels(raw, restored, part, self.outcome)
        for channel, volume in zip(place, _volumes_of(restored, self.options.widths), strict=True):
            if channel in missing:
                writer.write(time, channel, volume, _said(restored, restorer))
        self.outcome.volumes += 1
        self.told.volume()

    def _leave_black(self, writer: RestoredWriter, time: int, part: Part[Restorer], missing: set[int]) -> None:
        """Write zeros for what the raw file does not hold."""
        self.outcome.warn(
            f"{', '.join(part.names)}: the raw file lacks planes of some time points; those volumes are left black"
        )
        empty = np.zeros((self.info.planes, self.info.height, self.info.width), self.info.dtype)
        for channel in sorted(missing):
            writer.write(time, channel, empty)
        if part.restorer:
            self.told.volume()

    def _raw(self, time: int, part: Part[Restorer]) -> Pixels:
        if len(part.channels) == 1:
            return self.image.volume(time, part.channels[0])[None]  # (1, Z, Y, X), no copy
        return np.stack([self.image.volume(time, channel) for channel in part.channels])  # (C, Z, Y, X)

    def _take_samples(self) -> None:
        """Lay the raw beside the restored channels of the middle of the movie, as they are on disk."""
        time = self.image.info.times // 2
        (finished,) = open_images(self.info.path)
        with finished:
            for part, place in zip(self.parts, _places(self.parts), strict=True):
                if part.restorer and self._comes_out_alike(time, part, part.restorer):
                    caption = f"{part.restorer.package.name} on {part.restorer.engine}"
                    for channel, name, index in zip(part.channels, part.names, place, strict=False):
                        raw, restored = self.image.volume(time, channel), finished.volume(time, index)
                        self.outcome.samples.append(_sample(self.image.info, time, name, raw, restored, caption))

    def _comes_out_alike(self, time: int, part: Part[Restorer], restorer: Restorer) -> bool:
        """Whether there is a raw channel of the same height and width for every restored one."""
        held = not any((time, channel) in self.image.missing for channel in part.channels)
        size = (self.image.info.height, self.image.info.width)
        return held and restorer.facts.channels_out == len(part.channels) and (self.info.height, self.info.width) == size


def _sample(info: ImageInfo, time: int, channel: str, raw: Pixels, restored: NDArray[np.float32], caption: str) -> Sample:
    title = f"{info.name}, {channel}" + (f", t={time}" if info.times > 1 else "")
    title += ", maximum projection" if info.planes > 1 else ""
    return Sample(title, raw.max(axis=0), restored.max(axis=0), info.pixel_size_um[2], caption)


def _places(parts: Sequence[Part[Restorer]]) -> list[range]:
    """Where each part's channels stand in the restored file."""
    starts = np.cumsum([0, *(len(part.names) for part in parts)])
    return [range(int(a), int(b)) for a, b in pairwise(starts)]


def _said(restored: Restored, restorer: Restorer) -> dict[str, object]:
    """Say of a volume which counts the network saw as 0 and 1, in how many windows, and what ran."""
    counts = restored.intensity
    said: dict[str, object] = {
        "low": counts.low.tolist(),
        "high": counts.high.tolist(),
        "tiles": restored.tiles,
        "engine": str(restorer.engine),
    }
    return {**said, "flat": True} if restored.intensity.guarded else said


def _volumes_of(restored: Restored, widths: bool) -> list[NDArray[np.float32]]:
    return [*restored.pixels, *(restored.widths if widths and restored.widths is not None else ())]


def _restored_info(
    info: ImageInfo, source: Path, sample_sha256: str, path: Path, parts: Sequence[Part[Restorer]], options: Options
) -> RestoredInfo:
    raw_shape = (info.planes, info.height, info.width)
    shapes = {part.restorer.output_shape(raw_shape) if part.restorer else raw_shape for part in parts}
    if len(shapes) > 1:
        listed = " and ".join(str(shape) for shape in sorted(shapes))
        raise ImageError(f"the channels would have different sizes {listed}; leave the others out: --others leave-out")
    _check_dtype(info, parts, options)
    planes, height, width = shapes.pop()
    return RestoredInfo(
        path=path,
        times=info.times,
        channels=tuple(name for part in parts for name in part.names),
        planes=planes,
        height=height,
        width=width,
        dtype=np.dtype(options.dtype),
        pixel_size_um=_finer(info, (planes, height, width), parts),
        frame_interval_s=info.frame_interval_s,
        provenance=describe_job(info, source, sample_sha256, parts, options),
    )


def _check_dtype(info: ImageInfo, parts: Sequence[Part[Restorer]], options: Options) -> None:
    unscaled = [p.restorer.package.name for p in parts if p.restorer and p.restorer.normalisation.output == "none"]
    if options.dtype == "uint16" and unscaled:
        raise ImageError(f"the output of model '{unscaled[0]}' is not in camera counts; write it as float32")
    if options.dtype == "uint16" and info.dtype.kind == "f":
        raise ImageError(f"'{info.name}' has {info.dtype} pixels, which uint16 would round; write it as float32")


def _finer(
    info: ImageInfo, shape: tuple[int, int, int], parts: Sequence[Part[Restorer]]
) -> tuple[float | None, float | None, float | None]:
    """Pixel sizes (z, y, x) of the restored image, where sizes grew."""
    interpolated = any(part.restorer and part.restorer.facts.procedure != "direct" for part in parts)
    return finer_spacing(info.pixel_size_um, (info.planes, info.height, info.width), shape, interpolated=interpolated)


def _warn_of_dtype(info: ImageInfo, outcome: Outcome) -> None:
    if info.dtype == np.uint8:
        outcome.warn(
            "the image is 8-bit: a camera's counts were rescaled before it was saved, so intensities and noise are not "
            "the camera's; restore the 16-bit original where there is one"
        )


def _warn_of_pixels(raw: Pixels, restored: Restored, part: Part[Restorer], outcome: Outcome) -> None:
    names = ", ".join(part.names)
    if restored.intensity.guarded:
        outcome.warn(
            f"{names}: a volume is flat or almost empty; its percentiles had collapsed and were widened to its brightest pixel"
        )
    if raw.dtype.kind == "u":
        top = (1 << 8 * raw.dtype.itemsize) - 1
        share = float(np.count_nonzero(raw == top)) / raw.size
        if share > _SATURATED_SHARE:
            outcome.warn(f"{names}: {share:.2%} of the pixels are saturated ({top} counts); their intensity is lost")
