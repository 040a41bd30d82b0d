"""The pairing: which restored image belongs to which high-light image, and their scores.

Receives paths of restored, reference and perhaps raw images; hands on one `Score` per volume. It does not know how a
score is computed, nor how files are laid out.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from live_restore.errors import ImageError
from live_restore.records.images import Image, find_inputs, open_images
from live_restore.records.names import stem
from live_restore.score import Score, score_pair

# Channels that restoration adds or passes through; they are no restored intensities.
_NOT_RESTORED = (" (raw)", " (Laplace scale)")


def score_files(
    restored: Sequence[Path],
    reference: Sequence[Path],
    raw: Sequence[Path] = (),
    axes: str | None = None,
    scored: Callable[[int, int], None] = lambda done, total: None,
) -> list[Score]:
    """Score restored files against references of the same name, or a single one against a single one.

    Parameters
    ----------
    restored, reference, raw : sequence of Path
        Files or folders; `raw` may be empty.
    axes : str or None
        Meaning of the axes of plain TIFF files.
    scored : callable (done, total)
        Called after every file.

    Returns
    -------
    list of Score
        One per volume (time, restored channel).

    Raises
    ------
    ImageError
        If a file has no partner, or partners differ in shape or channels.
    """
    mine = _by_name(restored)
    high = _partners(mine, _by_name(reference), "reference")
    low = _partners(mine, _by_name(raw), "raw image") if raw else {}
    scores: list[Score] = []
    for done, (name, path) in enumerate(mine.items(), start=1):
        scores += _score_file(path, high[name], low.get(name), axes)
        scored(done, len(mine))
    return scores


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in find_inputs(paths):
        name = stem(path)
        if name in found:
            raise ImageError(f"two images are called '{name}': {found[name]} and {path}; score them in two runs")
        found[name] = path
    return found


def _partners(mine: dict[str, Path], others: dict[str, Path], kind: str) -> dict[str, Path]:
    if len(mine) == len(others) == 1:
        return {next(iter(mine)): next(iter(others.values()))}
    lonely = [name for name in mine if name not in others]
    if lonely:
        raise ImageError(
            f"{len(lonely)} of {len(mine)} restored images have no {kind} of the same name, the first is '{lonely[0]}'; "
            f"the names there are {', '.join(list(others)[:5])}{' ...' if len(others) > 5 else ''}"
        )
    return others


def _score_file(restored: Path, reference: Path, raw: Path | None, axes: str | None) -> list[Score]:
    with ExitStack() as opened:
        images = [opened.enter_context(image) for image in open_images(restored, axes)]
        targets = [opened.enter_context(image) for image in open_images(reference, axes)]
        raws = [opened.enter_context(image) for image in open_images(raw, axes)] if raw else []
        partners = [(reference, targets), *([(raw, raws)] if raw else [])]
        for path, others in partners:
            if len(others) != len(images):
                raise ImageError(
                    f"{restored.name} has {len(images)} positions, {path.name} {len(others)}; they cannot be paired"
                )
        scores = []
        for place, image in enumerate(images):
            scores += _score_image(image, targets[place], raws[place] if raws else None)
        return scores


def _score_image(image: Image, target: Image, raw: Image | None) -> list[Score]:
    for other in (target, *([raw] if raw else [])):
        if image.info.times != other.info.times:
            raise ImageError(
                f"'{image.info.name}' has {image.info.times} time points, '{other.info.name}' {other.info.times}; "
                "score images of the same length"
            )
    scores = []
    for time in range(image.info.times):
        for channel, name in enumerate(image.info.channels):
            if name.endswith(_NOT_RESTORED):
                continue
            scores.append(
                score_pair(
                    image.volume(time, channel),
                    target.volume(time, _channel(name, channel, image, target)),
                    raw.volume(time, _channel(name, channel, image, raw)) if raw else None,
                    image.info.pixel_size_um[2],
                    _title(image, time, name),
                )
            )
    return scores


def _channel(name: str, index: int, image: Image, other: Image) -> int:
    """Find the partner's channel: by name, or by place if there are equally many."""
    if name in other.info.channels:
        return other.info.channels.index(name)
    if len(other.info.channels) == len(image.info.channels):
        return index
    names = ", ".join(other.info.channels)
    raise ImageError(f"channel '{name}' of '{image.info.name}' has no partner; '{other.info.name}' has {names}")


def _title(image: Image, time: int, channel: str) -> str:
    parts = [image.info.name]
    parts += [channel] if len(image.info.channels) > 1 else []
    parts += [f"t{time}"] if image.info.times > 1 else []
    return " ".join(parts)
