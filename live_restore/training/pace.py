"""The pace: how many CPU threads make the steps shortest, here and now.

Receives how long every step took; hands on how many threads the next one should use. Pure: it has no clock and sets no threads.

Threads of one step wait for each other many times. On a busy machine that costs more than they bring: a small network was
seen to take 2.4 steps a second on two threads, and 7 on one, beside other processes. And a small network on a large machine
is not faster on all its cores. So it is tried out, with real steps, at the beginning and again every half a minute.
"""

from statistics import median

# Steps of a trial: the first after a change is slow by itself. Where steps are long, two are enough.
_PASSED_OVER, _TIMED, _LEAST_TIMED, _LONG_S = 1, 5, 2, 2.0
# A step that takes so many times the best one so far ends its trial.
_HOPELESS = 3.0
# So long between trials, and another number must be so much better.
HOLD_S = 30.0
_WORTH = 0.95


class Pace:
    """Tries numbers of threads and keeps the best.

    Parameters
    ----------
    most : int
        Threads at most; half of them, a quarter and so on are tried as well, the fewest first.
    """

    def __init__(self, most: int) -> None:
        numbers = [most]
        while numbers[0] > 1:
            numbers.insert(0, numbers[0] // 2)
        self._numbers = numbers
        self._place = 0
        self._waiting = list(range(len(numbers)))
        self._times: list[float] = []
        self._found: dict[int, float] = {}
        self._trial_s = self._held_s = 0.0

    @property
    def threads(self) -> int:
        """For the next step."""
        return self._numbers[self._waiting[0] if self._waiting else self._place]

    def stepped(self, took_s: float, pixels: int = 1) -> int:
        """Take in a step; give the number of threads for the next one.

        Parameters
        ----------
        took_s : float
        pixels : int
            Of the step, where steps differ in size.
        """
        if len(self._numbers) == 1:
            return self._numbers[0]
        if self._waiting:
            self._try(took_s, took_s / pixels)
        else:
            self._held_s += took_s
            if self._held_s >= HOLD_S:
                self._try_neighbours()
        return self.threads

    def _try(self, took_s: float, per_pixel: float) -> None:
        self._times.append(per_pixel)
        self._trial_s += took_s
        timed = self._times[_PASSED_OVER:]
        enough = _LEAST_TIMED if self._trial_s > _LONG_S else _TIMED
        hopeless = timed and self._found and min(timed) > _HOPELESS * min(self._found.values())
        if len(timed) < enough and not hopeless:
            return
        self._found[self._waiting.pop(0)] = median(timed)
        self._times, self._trial_s = [], 0.0
        if not self._waiting:
            self._decide()

    def _try_neighbours(self) -> None:
        near = (self._place, self._place - 1, self._place + 1)
        self._waiting = [place for place in near if 0 <= place < len(self._numbers)]
        self._found, self._held_s = {}, 0.0

    def _decide(self) -> None:
        best = min(self._found, key=lambda place: self._found[place])
        if self._found[best] < _WORTH * self._found.get(self._place, float("inf")):
            self._place = best
