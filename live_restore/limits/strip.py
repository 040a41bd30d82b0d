"""The strip: one field at three light levels around the limit, exposed and restored once more to be looked at.

Receives a `Study`; hands on pictures. The same seeds give the frames that were measured. It does not know how they are drawn.
"""

import math

import numpy as np

from live_restore.limits.figure import Picture
from live_restore.limits.light import true_counts
from live_restore.limits.measures import false_structure
from live_restore.limits.study import Study
from live_restore.limits.sweep import take
from live_restore.restorer import Restorer

# How far the other two lights lie from the limit, in levels.
_APART = 2


def around_the_limit(found: Study) -> list[Picture]:
    """Take one field at the light where the model breaks, at less and at more."""
    levels = np.array(found.measured.grid.photons)
    middle = _middle(found)
    places = sorted({max(0, middle - _APART), middle, min(len(levels) - 1, middle + _APART)})
    image = _typical(found, middle)
    with Restorer(found.package, engine="openvino", precision="f32") as restorer:
        return [_picture(found, restorer, image, place) for place in places]


def _middle(found: Study) -> int:
    """Find the level nearest to where it stops helping, or begins to invent, whichever needs more light."""
    levels = np.log(found.measured.grid.photons)
    limits = found.limits
    points = [point.at for point in (limits.helps_from, limits.invents_below) if point.found]
    wanted = math.log(max(points)) if points else float(np.median(levels))
    nearest = int(np.argmin(np.abs(levels - wanted)))
    return min(max(nearest, 1), len(levels) - 2)


def _typical(found: Study, place: int) -> int:
    """Choose an image that is neither the worst nor the best there."""
    areas = found.measured.numbers["false_area"][:, place, 0]
    return int(np.argsort(areas)[(len(areas) - 1) // 2])


def _picture(found: Study, restorer: Restorer, image: int, place: int) -> Picture:
    case = take(restorer, found.fields[image], found.camera, found.measured.grid, (image, place, 0), found.seed)
    truth = true_counts(case.photons, case.noise)
    plane = len(case.raw) // 2
    false = false_structure(case.restored, truth, truth)[plane]
    photons, snr = found.measured.grid.photons[place], found.measured.numbers["snr"][image, place, 0]
    words = f"{photons:g} photon{'' if photons == 1 else 's'}, SNR {snr:.1f}"
    return Picture(words, case.raw[plane], case.restored[plane], truth[plane], false)
