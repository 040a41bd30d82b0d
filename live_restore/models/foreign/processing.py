"""The pre- and postprocessing of a bioimage.io description, in our words.

Receives the steps of a description (formats 0.4 and 0.5); hands on a `Normalisation`, and the pointwise steps that the
graph has to do itself. What cannot be said in these words is refused by name. It does not know files, nor graphs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from live_restore.errors import ModelError
from live_restore.models.description import SPACE_AXES
from live_restore.models.facts import FrozenRange, Normalisation
from live_restore.models.foreign.graph_ends import Pointwise

_LETTERS = {"b": "batch", "c": "channel", "z": "z", "y": "y", "x": "x"}
_FLOATS = ("float32", "float64")
_BY_REFERENCE = ("scale_mean_variance", "scale_range")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a description, in the words of format 0.5.

    Attributes
    ----------
    name : str
    kwargs : dict
    axes : frozenset of str or None
        Over which it measures: ``batch``, ``channel``, ``z``, ``y``, ``x``; None: over all.
    """

    name: str
    kwargs: dict[str, Any]
    axes: frozenset[str] | None

    def number(self, key: str, default: float) -> float:
        """Read one number (YAML 1.1 takes ``1e-6`` for a word)."""
        return self.numbers(key, default)[0]

    def numbers(self, key: str, default: float) -> tuple[float, ...]:
        """Read one number, or one per channel."""
        value = self.kwargs.get(key, default)
        try:
            return tuple(float(entry) for entry in (value if isinstance(value, list) else [value]))
        except (TypeError, ValueError) as error:
            raise ModelError(f"'{key}' of the step '{self.name}' is {value!r} where a number belongs; correct it") from error


@dataclass(slots=True)
class Processing:
    """What was understood of a description's steps.

    Attributes
    ----------
    scheme : dict
        Arguments of `Normalisation`.
    before, after : list of Pointwise
        What the graph has to do itself, ahead of the network and behind it.
    notes : list of str
    """

    scheme: dict[str, Any] = field(default_factory=dict)
    before: list[Pointwise] = field(default_factory=list)
    after: list[Pointwise] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def normalisation(self) -> Normalisation:
        """Put the normalisation together."""
        try:
            return Normalisation(**({"measure": "none", "output": "none"} | self.scheme))
        except ValidationError as error:
            raise ModelError(f"the description's normalisation is impossible: {error.errors()[0]['msg']}") from error


def parse_steps(raw: Any) -> list[Step]:
    """Parse the steps of either format; casts are left out, which `live_restore` does itself."""
    if not isinstance(raw, list | None):
        raise ModelError(f"the description's processing is {type(raw).__name__} where a list of steps belongs; correct it")
    steps = [_parse_step(entry) for entry in raw or ()]
    for place, step in enumerate(steps):
        # the first cast says what images are taken; one in between would round the scaled image
        if step.name == "ensure_dtype" and place > 0 and step.kwargs.get("dtype") not in _FLOATS and place < len(steps) - 1:
            raise ModelError(
                f"the description rounds to {step.kwargs.get('dtype')} between two steps; only floats are restored"
            )
    return [step for step in steps if step.name != "ensure_dtype"]


def _parse_step(raw: Any) -> Step:
    if not isinstance(raw, dict) or not isinstance(raw.get("kwargs") or {}, dict):
        raise ModelError(f"the description has the step {raw!r}, which has no name and settings; correct it")
    name, kwargs = str(raw.get("id") or raw.get("name")), dict(raw.get("kwargs") or {})
    axes = kwargs.get("axes")
    if not isinstance(axes, str | list | None):
        raise ModelError(f"'axes' of the step '{name}' is {axes!r} where names of axes belong; correct the description")
    letters = [_LETTERS.get(letter, letter) for letter in axes] if isinstance(axes, str) else axes
    mode = kwargs.get("mode", "fixed" if "name" in raw else None)
    if name == "zero_mean_unit_variance" and mode == "fixed":  # of format 0.4
        name = "fixed_zero_mean_unit_variance"
    if mode == "per_dataset":
        letters = ["batch", *(letters or SPACE_AXES)]
    return Step(name, kwargs, None if letters is None else frozenset(map(str, letters)))


def read_preprocessing(steps: Sequence[Step], n_dim: int, found: Processing) -> None:
    """Read the steps before the network into `found`.

    Raises
    ------
    ModelError
        If a step is unknown, or measures in a way that we do not.
    """
    for step in steps:
        linear = _linear(step)
        if step.name in ("scale_range", "zero_mean_unit_variance"):
            _read_measured(step, n_dim, found)
        elif linear and not found.before and found.scheme.get("mode") in (None, "frozen") and min(linear.gain) > 0:
            found.scheme |= {"mode": "frozen", "measure": "mean_std", "frozen": _then(found.scheme.get("frozen"), linear)}
        else:
            found.before.append(linear or _pointwise(step, "preprocessing"))


def _read_measured(step: Step, n_dim: int, found: Processing) -> None:
    if found.before or found.scheme.get("mode") == "volume":
        raise ModelError(
            f"the preprocessing '{step.name}' follows another that changes what it measures; only a first one can be done"
        )
    axes = {"batch", "channel", *SPACE_AXES} if step.axes is None else step.axes
    space = set(SPACE_AXES[-n_dim:])
    if not space <= axes:
        raise ModelError(
            f"the preprocessing '{step.name}' measures along {', '.join(sorted(axes))} only; whole images are measured here "
            f"(along {', '.join(sorted(space))}): scale the images yourself, or import another network"
        )
    if "batch" in axes:
        found.notes.append(f"'{step.name}' was meant for a whole data set; here it is measured on every volume")
    percentiles = step.name == "scale_range"
    found.scheme = {  # a fixed scaling before it changes nothing
        "mode": "volume",
        "measure": "percentiles" if percentiles else "mean_std",
        "per_channel": "channel" not in axes,
        "low_percentile": step.number("min_percentile", 0) if percentiles else 0,
        "high_percentile": step.number("max_percentile", 100) if percentiles else 100,
    }


def read_postprocessing(steps: Sequence[Step], found: Processing) -> None:
    """Read the steps behind the network into `found`: last comes the way back to intensities, if there is one."""
    for place, step in enumerate(steps):
        if step.name in _BY_REFERENCE and step.kwargs.get("reference_tensor") and place == len(steps) - 1:
            found.scheme["output"] = "inverse"
            found.notes.append(
                f"'{step.name}' by the range of the input is done as the inverse of the input's normalisation, so that "
                "intensities stay comparable between images"
            )
        else:
            found.after.append(_linear(step) or _pointwise(step, "postprocessing"))
    last = found.after[-1] if found.after else None
    if last and last.kind == "linear" and min(last.gain) > 0 and "output" not in found.scheme:
        found.after.pop()
        found.scheme |= {"output": "frozen", "output_range": _range_of_output(last)}


def _linear(step: Step) -> Pointwise | None:
    if step.name == "scale_linear":
        gain, offset = _per_channel(step, step.numbers("gain", 1), step.numbers("offset", 0))
        return Pointwise("linear", gain, offset)
    if step.name == "fixed_zero_mean_unit_variance":
        mean, std = _per_channel(step, step.numbers("mean", 0), step.numbers("std", 1))
        if not min(std) > 0:
            raise ModelError(f"'std' of the step '{step.name}' is {min(std)}; it must be above 0: correct the description")
        return Pointwise("linear", tuple(1 / s for s in std), tuple(-m / s for m, s in zip(mean, std, strict=True)))
    return None


def _pointwise(step: Step, where: str) -> Pointwise:
    if step.name == "sigmoid":
        return Pointwise("sigmoid")
    if step.name == "softmax" and step.kwargs.get("axis", "channel") in ("channel", "c"):
        return Pointwise("softmax")
    if step.name == "clip" and not {"min_percentile", "max_percentile"} & {
        key for key, value in step.kwargs.items() if value is not None
    }:
        low, high = (None if step.kwargs.get(key) is None else step.number(key, 0) for key in ("min", "max"))
        return Pointwise("clip", low=low, high=high)
    raise ModelError(
        f"the {where} '{step.name}' with {str(step.kwargs)[:100]} cannot be done; live_restore does clip, sigmoid, softmax "
        "over channels, scale_linear, scale_range, and zero mean and unit variance: put the step into the graph itself"
    )


def _per_channel(
    step: Step, first: tuple[float, ...], second: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Make two settings equally long: one number is for all channels."""
    count = max(len(first), len(second))
    if {len(first), len(second)} - {1, count} or (count > 1 and step.kwargs.get("axis", "channel") not in ("channel", "c")):
        raise ModelError(
            f"the step '{step.name}' has {len(first)} and {len(second)} numbers along {step.kwargs.get('axis', 'channel')!r}; "
            "give one for all channels, or one for each: correct the description"
        )
    return first * count if len(first) == 1 else first, second * count if len(second) == 1 else second


def _then(before: FrozenRange | None, step: Pointwise) -> FrozenRange:
    """Find the counts that become 0 and 1 when `step` follows a scaling by `before`."""
    low, high = (before.low, before.high) if before else ((0.0,), (1.0,))
    count = max(len(low), len(step.gain))
    low, high, gain, offset = (values * count if len(values) == 1 else values for values in (low, high, step.gain, step.offset))
    span = [h - at for at, h in zip(low, high, strict=True)]
    zero = [at - s * o / g for at, s, g, o in zip(low, span, gain, offset, strict=True)]
    return _range(zero, [z + s / g for z, s, g in zip(zero, span, gain, strict=True)])


def _range_of_output(step: Pointwise) -> FrozenRange:
    return _range(step.offset, [g + o for g, o in zip(step.gain, step.offset, strict=True)])


def _range(low: Sequence[float], high: Sequence[float]) -> FrozenRange:
    try:
        return FrozenRange(low=tuple(low), high=tuple(high))
    except ValidationError as error:
        raise ModelError(f"a fixed scaling of the description is impossible: {error.errors()[0]['msg']}") from error
