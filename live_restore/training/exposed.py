"""Simulated low-light images as files, so that a network that never saw a pair can be scored like any other.

Receives the held-out source of simulated light and its high-light images; hands on pairs on the disk. It does not know
networks.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from live_restore.records.pairs import Pair
from live_restore.training.sources import Source

# Where every image has its own range, any counts will do: it is measured again.
_OFFSET_ADU, _SPAN_ADU = 100.0, 1000.0


def expose_pairs(source: Source, images: Sequence[Pair], folder: Path) -> tuple[Pair, ...]:
    """Expose every image once, at a light level of its own, always the same, and write the low one down.

    Parameters
    ----------
    source : Source
        Of the images, in their order.
    images : sequence of Pair
    folder : Path
        Made if need be; receives a float32 TIFF per image.
    """
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for number, (image, field) in enumerate(zip(images, source.fields, strict=True)):
        whole = tuple(slice(0, side) for side in field.shape)
        low, _ = source.cut(number, whole, np.random.default_rng(number))
        counts = _OFFSET_ADU + _SPAN_ADU * low if source.frozen is None else source.frozen.unscale(low[None])[0]
        path = folder / f"{number:04}.tif"
        tifffile.imwrite(path, counts.astype(np.float32), metadata={"axes": "ZYX"[-counts.ndim :]})
        pairs.append(replace(image, low=path))
    return tuple(pairs)
