"""The pace of the trust check: how many volumes are checked where the machine cannot restore and check them all.

Receives how long the last check took and whether volumes wait to be restored; hands on whether the next one is due. Pure:
whoever calls it says what time it is. It does not know what is checked.
"""

# Where volumes wait to be restored, checks take this share of the time at most.
SHARE = 0.1


class CheckPace:
    """Every volume is due while nothing waits; else one after a pause that makes checks a tenth of the time.

    Parameters
    ----------
    share : float
        Of the time, above 0 and up to 1.
    """

    def __init__(self, share: float = SHARE) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"checks cannot take the share {share:g} of the time; give more than 0, and 1 at most")
        self._pause = 1 / share - 1
        self._due_ns = 0

    def due(self, now_ns: int, *, behind: bool) -> bool:
        """Whether a volume is checked; `behind`: others wait to be restored."""
        return not behind or now_ns >= self._due_ns

    def checked(self, began_ns: int, ended_ns: int) -> None:
        """Note when a check began and ended."""
        self._due_ns = ended_ns + int(self._pause * (ended_ns - began_ns))
