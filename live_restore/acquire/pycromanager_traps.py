"""What pycro-manager 1.0.2 does wrong without a word, found in the events before anything starts.

Receives events; refuses those that would make an acquisition hang, and hands on warnings, as sentences, of those that
would be carried out otherwise than they read. Each rule was found by running pycro-manager; `docs/acquiring.md` lists
them. It does not know who asks.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Event = Mapping[str, Any]

# Two neighbours that differ in one of these are not merged into a camera sequence by devices without hardware triggers.
_BREAKS = ("z", "x", "y", "config_group", "stage_positions", "camera")

# What only some of the merged events have is applied to none of them, or to all.
_ALL_OR_NONE = ("exposure", "z", "x", "y", "config_group")


def refuse(event: Event, number: int, python_backend: bool) -> None:
    """Refuse an event that would make the acquisition hang, or lose its images.

    Parameters
    ----------
    event : mapping
    number : int
        Its place among the events, for the message.
    python_backend : bool
        Whether pycro-manager's Python backend will run it.

    Raises
    ------
    ValueError
    """
    if not isinstance(event, Mapping) or not isinstance(event.get("axes"), Mapping):
        raise ValueError(f"event {number} has no 'axes'; every event is a dict with an entry like {{'axes': {{'time': 0}}}}")
    for axis, value in event["axes"].items():
        if not isinstance(value, (int, str)):
            raise ValueError(
                f"axis {axis!r} of event {number} is {value!r}, a {type(value).__name__}; pycro-manager hangs or saves nothing "
                f"unless it is a Python int or str: write int({axis}) or an index, and put the micrometres under 'z', 'x', 'y'"
            )
    tags = event.get("tags")
    if tags and python_backend:
        raise ValueError(
            f"event {number} has 'tags', on which pycro-manager's Python backend hangs; put what they say into the axes, or "
            "leave them out"
        )
    if tags and "@" in str(tags):
        raise ValueError(f"the tags of event {number} contain '@', on which pycro-manager's Java bridge hangs; write ' at '")


def warn(events: Sequence[Event]) -> list[str]:
    """Name what a list of events will do otherwise than it reads; empty if nothing.

    Parameters
    ----------
    events : sequence of mapping
        As they are given to one ``acquire()``.
    """
    found = (_merged_properties(events), _merged_start_times(events), _on_some(events), _twice(events))
    return [sentence for sentence in (*found, _timeouts(events)) if sentence]


def _merged_properties(events: Sequence[Event]) -> str:
    for number, (one, other) in enumerate(pairwise(events)):
        if (one.get("properties") or other.get("properties")) and _mergeable(one, other):
            return (
                f"events {number} and {number + 1} differ in nothing but their properties, so pycro-manager merges them into a "
                "camera sequence and sets none of the properties; give the events as a generator, or use 'config_group'"
            )
    return ""


def _merged_start_times(events: Sequence[Event]) -> str:
    for number, (one, other) in enumerate(pairwise(events)):
        waits = one.get("min_start_time") != other.get("min_start_time")
        if waits and one["axes"].get("time") == other["axes"].get("time") and _mergeable(one, other):
            return (
                f"events {number} and {number + 1} have different 'min_start_time' at the same time index, which pycro-manager "
                "ignores; give every start time an index of its own on the axis 'time'"
            )
    return ""


def _on_some(events: Sequence[Event]) -> str:
    for name in _ALL_OR_NONE:
        without = [number for number, event in enumerate(events) if event.get(name) is None]
        if without and len(without) < len(events):
            return (
                f"{len(events) - len(without)} of {len(events)} events have {name!r} and event {without[0]} has none, so "
                f"pycro-manager may merge them into a camera sequence and not apply it; put {name!r} on every event"
            )
    return ""


def _twice(events: Sequence[Event]) -> str:
    seen: dict[tuple[Any, ...], int] = {}
    for number, event in enumerate(events):
        first = seen.setdefault(tuple(sorted(event["axes"].items())), number)
        if first != number:
            return (
                f"events {first} and {number} have the same axes {dict(event['axes'])}, so the later image replaces the "
                "earlier in the dataset; tell them apart by an axis"
            )
    return ""


def _timeouts(events: Sequence[Event]) -> str:
    if any(event.get("timeout_ms") is not None for event in events):
        return "'timeout_ms' is compared with seconds by pycro-manager's Python backend: 1000 waits for a quarter of an hour"
    return ""


def _mergeable(one: Event, other: Event) -> bool:
    if any(one.get(name) != other.get(name) for name in _BREAKS) or one.get("stage_positions"):
        return False
    if None not in (one.get("exposure"), other.get("exposure")) and one.get("exposure") != other.get("exposure"):
        return False
    starts = (one.get("min_start_time"), other.get("min_start_time"))
    return None in starts or starts[0] == starts[1] or one["axes"].get("time") == other["axes"].get("time")
