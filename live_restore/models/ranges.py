"""The ranges of a model: from what its facts say to the counts that an image's 0 and 1 stand for.

Receives `Normalisation` facts and perhaps an image; hands on an `IntensityRange`. It does not know what follows a range
from image to image.
"""

import numpy as np

from live_restore.intensity import IntensityRange, Pixels, measure_mean_std, measure_percentiles
from live_restore.models.facts import FrozenRange, Normalisation


def as_range(frozen: FrozenRange, channels: int | None = None) -> IntensityRange:
    """Give the range of a package as the one that scales images; one entry serves any number of `channels`."""
    count = channels or len(frozen.low)
    return IntensityRange(np.broadcast_to(frozen.low, count), np.broadcast_to(frozen.high, count))


def measure(image: Pixels, rule: Normalisation) -> IntensityRange:
    """Measure the range of one image (C, ...) as the rule says, frozen or not; ``none`` is 0 to 1."""
    if rule.measure == "percentiles":
        return measure_percentiles(image, rule.low_percentile, rule.high_percentile, rule.per_channel)
    if rule.measure == "mean_std":
        return measure_mean_std(image, rule.per_channel)
    return IntensityRange(np.zeros(len(image)), np.ones(len(image)))


def input_range(image: Pixels, rule: Normalisation) -> IntensityRange:
    """Give the range that scales this image: the frozen one, or what is measured on it."""
    if rule.mode == "frozen" and rule.frozen is not None:
        return as_range(rule.frozen, len(image))
    return measure(image, rule)
