"""The timings: how long every stage took lately, and how often something happens.

Receives durations and moments; hands on percentiles and rates. Windows are bounded, so that a day of acquisition takes no more
memory than a minute. It does not know what the stages do.
"""

from collections import deque
from collections.abc import Mapping
from threading import Lock

import numpy as np

_NS = 1_000_000_000
_PERCENTILES = (50, 95, 99)


class Timings:
    """The last durations of every stage; used from any thread.

    Parameters
    ----------
    window : int
        So many of each stage are kept.
    """

    def __init__(self, window: int = 500) -> None:
        self._window, self._lock = window, Lock()
        self._stages: dict[str, deque[float]] = {}

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Take the durations of one volume, in milliseconds."""
        with self._lock:
            for stage, ms in stages_ms.items():
                self._stages.setdefault(stage, deque(maxlen=self._window)).append(ms)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Give ``p50``, ``p95`` and ``p99`` of every stage, in milliseconds."""
        with self._lock:
            stages = {stage: list(window) for stage, window in self._stages.items()}
        return {stage: _percentiles(window) for stage, window in stages.items()}


def _percentiles(window: list[float]) -> dict[str, float]:
    found = np.percentile(window, _PERCENTILES)
    return {f"p{percent}": round(float(ms), 2) for percent, ms in zip(_PERCENTILES, found, strict=True)}


class Rate:
    """How often something happened over the last seconds; used from any thread.

    Parameters
    ----------
    window_s : float
    """

    def __init__(self, window_s: float = 10.0) -> None:
        self._window_ns = int(window_s * _NS)
        self._lock = Lock()
        self._moments: deque[int] = deque(maxlen=2000)

    def add(self, now_ns: int) -> None:
        """Note that it happened, now."""
        with self._lock:
            self._moments.append(now_ns)

    def per_s(self, now_ns: int) -> float:
        """Give the rate, per second, over the window or since the first time in it; 0 if it happened less than twice."""
        with self._lock:
            while self._moments and now_ns - self._moments[0] > self._window_ns:
                self._moments.popleft()
            if len(self._moments) < 2:
                return 0.0
            elapsed_s = max(now_ns - self._moments[0], 1) / _NS
            return round((len(self._moments) - 1) / elapsed_s, 3)
