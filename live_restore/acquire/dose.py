"""What a calibration will cost: minutes, bytes, and the light that every field gets.

Receives counts and lights; hands on words. It does not know how frames are taken.
"""

from dataclasses import dataclass

# Per frame: moving, switching, reading out and reading back; per position: the stage. A guess for the estimate only.
_FRAME_S, _POSITION_S = 0.02, 0.3
# Checking a pair goes on beside: so long, and so much longer per pixel of a plane (measured on one core, 512² and 2048²).
_CHECK_S, _CHECK_S_PER_PIXEL = 0.25, 0.65e-6


@dataclass(frozen=True, slots=True)
class ChannelDose:
    """The light that a field gets in one channel.

    Attributes
    ----------
    channel : str
    low_ms, high_ms : float
        All exposures of a field together.
    low, high : str
        One exposure, in words.
    ratio : float or None
        Light of high over that of low; None: not known.
    repeats : int
    sandwich : bool
    """

    channel: str
    low_ms: float
    high_ms: float
    low: str
    high: str
    ratio: float | None
    repeats: int
    sandwich: bool

    @property
    def relative(self) -> float | None:
        """Light of a field, in volumes at low light; None: not known."""
        if self.ratio is None:
            return None
        return self.repeats * (self.ratio + (2 if self.sandwich else 1))

    def in_words(self) -> str:
        """Say it in a sentence."""
        again = ", and low again" if self.sandwich else ""
        said = f"{self.channel}: low {self.low}, high {self.high}{again}; "
        said += f"each field gets {_span_words(self.low_ms)} of low and {_span_words(self.high_ms)} of high light"
        if self.relative is None:
            return f"{said}. How much brighter high is nobody says: add dose_ratio, and the check compares it with the images."
        return f"{said}, as much as {self.relative:.0f} volumes at low light (high is {self.ratio:.3g} times low)."


@dataclass(frozen=True, slots=True)
class Dose:
    """What a calibration will take.

    Attributes
    ----------
    positions, pairs, planes, frames : int
    frame_bytes : int
    channels : tuple of ChannelDose
    """

    positions: int
    pairs: int
    planes: int
    frames: int
    frame_bytes: int
    channels: tuple[ChannelDose, ...]

    @property
    def seconds(self) -> float:
        """About how long it takes: the microscope, or the check of the pairs beside it, whichever is slower."""
        light_ms = sum(channel.low_ms + channel.high_ms for channel in self.channels)
        taking = self.positions * (_POSITION_S + light_ms / 1e3) + self.frames * _FRAME_S
        return max(taking, self.pairs * (_CHECK_S + _CHECK_S_PER_PIXEL * self.frame_bytes / 2))

    @property
    def bytes(self) -> int:
        """How much is written."""
        return self.frames * self.frame_bytes

    def in_words(self) -> list[str]:
        """Say it, a sentence per line."""
        what = f"{self.pairs} pairs at {self.positions} position{'s' if self.positions > 1 else ''}"
        size = f"{self.planes} planes each, " if self.planes > 1 else ""
        lines = [f"{what}, {size}{self.frames} frames: about {_minutes(self.seconds)}, {self.bytes / 1e9:.2f} GB."]
        lines += [channel.in_words() for channel in self.channels]
        if self.positions == 1:
            lines.append(
                "A single position cannot be split into fields to learn from and fields to test on; take at least five."
            )
        return lines


def _span_words(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:.3g} s" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{max(1, rest)} s"
