"""What live left out: low-light volumes that the restore process was never sent, read from the raw dataset.

Receives references whose low-light volume never came; hands on those that are on disk, with it. It does not know what is done
with them. Only NDTiff datasets say of every frame whether its light was low.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from live_restore.errors import LiveRestoreError
from live_restore.frames import Volume
from live_restore.records.images import is_ndtiff
from live_restore.records.raw_volumes import open_raw
from live_restore.serving.reference import Low, Match


def with_low_from_disk(
    raw: Path | None, plan: Mapping[str, Any], highs: Sequence[Volume]
) -> Iterator[tuple[Volume, Match | None]]:
    """Give every reference, with its low-light volume where that is whole on disk.

    Parameters
    ----------
    raw : Path or None
        The raw dataset.
    plan : mapping
        As the hook gave it.
    highs : sequence of Volume
    """
    if not highs or raw is None or not raw.is_dir() or not is_ndtiff(raw):
        yield from ((high, None) for high in highs)
        return
    try:
        opened = open_raw(raw, plan)
    except (LiveRestoreError, OSError):
        yield from ((high, None) for high in highs)
        return
    with opened as dataset:
        for high in highs:
            key = replace(high.key, light="low")
            on_disk = dataset.volumes.get(key)
            if on_disk is None or not on_disk.whole:
                yield high, None
                continue
            try:
                pixels = on_disk.read()
            except (LiveRestoreError, OSError):
                yield high, None
                continue
            # what is known of its frames stands in the dataset; here only where and how large they were
            infos = tuple(replace(info, key=key, exposure_ms=None, asked_exposure_ms=None) for info in high.infos)
            yield high, Match(Low(Volume(high.run, key, pixels, infos, len(pixels))), high)
