"""The light that a network has seen in training: the range within which it may be trusted.

Receives the chosen pairs and what is known of the camera; hands on facts for the package. It does not know networks.
"""

from collections.abc import Mapping

import numpy as np

from live_restore.restore.noise import CameraNoise
from live_restore.training.held_out import spread
from live_restore.training.material import Chosen
from live_restore.training.options import TrainingOptions

# The brightest pixel in a thousand; electrons per photon where nobody said.
_PEAK_PERCENT, _USUAL_EFFICIENCY = 99.9, 0.7


def light_levels(chosen: Chosen, options: TrainingOptions, camera: CameraNoise | None) -> Mapping[str, float]:
    """Say which light the network has seen, for the warning that live light is outside of it.

    Returns
    -------
    dict
        ``trained_peak_photons_from`` and ``_to``, photons per pixel that one pixel in a thousand exceeds; empty where the
        camera is not known.
    """
    if options.simulate is not None:
        lowest, highest = options.simulate.photons
    elif camera is None:
        return {}
    else:
        efficiency = camera.quantum_efficiency or _USUAL_EFFICIENCY
        offset, gain = float(np.median(camera.offset_adu)), float(np.median(camera.gain_adu_per_e))
        some = [chosen.train[place] for place in spread(len(chosen.train))]
        peaks = [float(np.percentile(pair.read()[0], _PEAK_PERCENT) - offset) / gain / efficiency for pair in some]
        lowest, highest = max(0.0, min(peaks)), max(0.0, *peaks)
        lowest *= options.augment.thinning[0] if options.augment.thinning else 1.0
    return {"trained_peak_photons_from": float(lowest), "trained_peak_photons_to": float(highest)}
