"""The fields on which a model is pushed: high-light images of the user's, or the demo specimen.

Receives paths, or a shape; hands on `Field`s, cut to a size that a sweep has time for. It does not know what is done with them.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from live_restore.acquire.simulate.specimen import KINDS, example_field
from live_restore.errors import ImageError, PairError
from live_restore.intensity import Pixels
from live_restore.limits.light import Field, crop, field_of
from live_restore.models.facts import ModelFacts
from live_restore.models.package import ModelPackage
from live_restore.records.images import Image, find_inputs, open_images
from live_restore.records.pairs import LINES, read_pairs

# Seeds of fields that no bundled network was trained or scored on.
_DEMO_SEED = 2_000_000
_DEMO_PIXEL_UM = 0.1
_LEAST_SIDE = 64
# Planes of a stack that a 3D network is given.
_PLANES = 12
USUAL_SIZE = 256
USUAL_SIZE_3D = 160
USUAL_IMAGES = 8


def check_measurable(package: ModelPackage) -> None:
    """Refuse a model that gives something else than a restored image of the same size.

    Raises
    ------
    ImageError
        If it does.
    """
    facts = package.facts
    if facts.channels_in != 1 or facts.channels_out != 1:
        raise ImageError(
            f"model '{package.name}' takes {facts.channels_in} channel(s) and gives {facts.channels_out}; limits are measured "
            "of models with one channel in and out"
        )
    if facts.procedure != "direct" or set(facts.geometry.output_factor) != {1}:
        raise ImageError(
            f"model '{package.name}' gives images of another size than it takes; limits are measured of models that keep it"
        )
    if facts.normalisation.output == "none":
        raise ImageError(
            f"model '{package.name}' gives no camera counts (its output is 'none'), so it cannot be held against photons"
        )


def planes_for(facts: ModelFacts) -> int:
    """How many planes the model is given at once."""
    return _PLANES if facts.geometry.n_dim == 3 else 1


def demo_fields(number: int, size: int, planes: int) -> list[Field]:
    """Render fields of all kinds of structure in turn, such as the demo microscope shows."""
    shape = (size, size) if planes == 1 else (planes, size, size)
    fields = []
    for place in range(number):
        kind = KINDS[place % len(KINDS)]
        photons = example_field(_DEMO_SEED + place, shape, kind, _DEMO_PIXEL_UM, peak_photons=1.0)
        fields.append(Field(f"{kind} {place // len(KINDS) + 1}", photons.reshape(planes, size, size), _DEMO_PIXEL_UM))
    return fields


def read_fields(
    paths: Sequence[Path],
    number: int,
    size: int,
    planes: int,
    *,
    axes: str | None = None,
    offset_adu: float | None = None,
    pixel_size_um: float | None = None,
    channel: str | None = None,
) -> list[Field]:
    """Read high-light images and cut the busiest place out of each.

    Parameters
    ----------
    paths : sequence of Path
        Images, or folders of them; of a folder of pairs, its ``high`` ones are taken: where its log says which are held out,
        only those, for training has learnt the others by heart.
    number : int
        Most of them; evenly spread over all there are, one volume of each.
    size, planes : int
        Of what is cut out.
    axes : str or None
        Meaning of the axes of plain TIFFs.
    offset_adu : float or None
        Counts without light; None: the darkest pixels of each image.
    pixel_size_um : float or None
        Where the files do not say.
    channel : str or None
        Of the model: of a folder of pairs with several channels, those of this one are taken.

    Raises
    ------
    ImageError
        If one cannot be read, shows nothing, is too small or has too few planes.
    PairError
        If a folder of pairs cannot be read.
    """
    found = find_inputs([image for path in paths for image in _highs(path, channel)])
    chosen = [found[round(place)] for place in np.linspace(0, len(found) - 1, min(number, len(found)))]
    fields: list[Field] = []
    for path in chosen:
        with ExitStack() as opened:
            images = [opened.enter_context(image) for image in open_images(path, axes)]
            for name, counts, spacing in _volumes(images):
                _check_size(name, counts, planes)
                fields.append(field_of(name, crop(counts, size, planes), offset_adu, spacing or pixel_size_um))
                if len(fields) == number:
                    return fields
    return fields


def _highs(path: Path, channel: str | None) -> list[Path]:
    """Say where the high-light images are; of pairs with a log, those that are accepted, and held out if any are."""
    if not (path / LINES).is_file():
        return [path / "high" if (path / "high").is_dir() else path]
    pairs = read_pairs(path)
    chosen = pairs.of(channel) if any(pair.channel == channel for pair in pairs.accepted) else pairs.accepted
    if not chosen:
        raise PairError(f"none of the {len(pairs.pairs)} pairs in {path} is accepted; give others, or high-light images")
    return [pair.high for pair in chosen if pair.split == "held-out"] or [pair.high for pair in chosen]


def _volumes(images: Sequence[Image]) -> Iterator[tuple[str, Pixels, float | None]]:
    """Give a volume of every channel and position, from the middle of its series: its name, counts and pixel size."""
    for image in images:
        info = image.info
        for channel, called in enumerate(info.channels):
            name = info.name if len(info.channels) == 1 else f"{info.name}, {called}"
            yield name, image.volume(info.times // 2, channel), info.pixel_size_um[2]


def _check_size(name: str, counts: Pixels, planes: int) -> None:
    least = min(counts.shape[1:])
    if least < _LEAST_SIDE:
        raise ImageError(f"'{name}' has {least} pixels along a side; limits are measured on {_LEAST_SIDE} or more")
    if len(counts) < min(planes, 2):
        raise ImageError(
            f"'{name}' is a single plane, and the model restores z-stacks; give stacks, or say with --axes if pages are planes"
        )
