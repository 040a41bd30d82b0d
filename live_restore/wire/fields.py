"""The header of a message: JSON both ways, and one checked read per type of field.

Receives the bytes of a header and hands on fields whose type and range were looked at; the other way round, a mapping
becomes bytes. Nothing that arrives here can do worse than `BadMessage`. It does not know which messages there are.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from live_restore.errors import BadMessage

KIB = 1024
MIB = 1024 * KIB

# A header of the longest kind is a status with its time line; what comes to the restore process is far shorter.
LONGEST_HEADER = 4 * MIB
# Deeper JSON than this nobody writes; the recursion of whoever prints it later must not end the process.
DEEPEST = 24
MOST_ENTRIES = 65536
WHOLE_MAX = 2**63 - 1
NAME_CHARACTERS = 256
RUN_CHARACTERS = 128
# What Windows does not allow in a file name is a subset of POSIX' rules turned round: the stricter one holds everywhere.
_NOT_IN_FILE_NAMES = frozenset('/\\:*?"<>|')
_SHOWN = 60

_MISSING = object()


# --- JSON ------------------------------------------------------------------------------------------------------------


def header_bytes(header: Mapping[str, Any]) -> bytes:
    """Write a header as UTF-8 JSON; numbers of numpy become plain ones, and what is no finite number becomes ``null``.

    Raises
    ------
    TypeError
        If it holds something that JSON has no word for.
    """
    try:
        text = json.dumps(header, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)
    except ValueError:  # a NaN, an infinity, or a mapping that holds itself: the last one fails again, in words
        text = json.dumps(_finite_only(header, 0), allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return text.encode("utf-8", "replace")  # lone surrogates, as in broken file names, become question marks


def _plain(value: Any) -> Any:
    """Turn what numpy and pathlib bring along into JSON's own types."""
    if hasattr(value, "tolist"):
        return _finite_only(value.tolist(), 0)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"a message cannot carry a {type(value).__name__}; give numbers, texts, lists and mappings")


def _finite_only(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise TypeError(f"a message cannot carry mappings more than {DEEPEST} deep")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite_only(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_only(entry, depth + 1) for entry in value]
    return value


def read_header(header: bytes) -> "Fields":
    """Read a header.

    Raises
    ------
    BadMessage
        If it is not one JSON object of finite numbers, ordinary texts and modest depth.
    """
    try:
        fields = _JSON.decode(str(header, "utf-8"))
    except UnicodeDecodeError:
        raise BadMessage("the header is not UTF-8") from None
    except RecursionError:
        raise BadMessage(f"the header is nested more than {DEEPEST} deep") from None
    except ValueError as broken:
        raise BadMessage(f"the header is not JSON: {str(broken)[:_SHOWN]}") from None
    if not isinstance(fields, dict):
        raise BadMessage(f"the header is not a JSON object but {shown(fields)}")
    if b"\\" in header:
        _refuse_lone_surrogates(fields)
    return Fields(fields)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is no finite number")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) > WHOLE_MAX:
        raise ValueError(f"a whole number of {len(digits)} digits; 64 bits are the limit")
    return number if digits[0] != "-" else -abs(number)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no finite number")


def _refuse_lone_surrogates(fields: dict[str, Any]) -> None:
    """Half a character, which only an escape can spell, would fail much later, when somebody writes it to a file."""
    try:
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise BadMessage("the header holds half a character (a lone surrogate)") from None
    except RecursionError:
        raise BadMessage(f"the header is nested more than {DEEPEST} deep") from None


_JSON = json.JSONDecoder(parse_float=_finite, parse_int=_whole, parse_constant=_no_number)


def shown(value: Any) -> str:
    """Give a value as it fits into a sentence."""
    try:
        text = repr(value)
    except RecursionError:
        return "something nested too deep"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


# --- fields ----------------------------------------------------------------------------------------------------------


class Fields:
    """The fields of one JSON object; every read checks type and range, and says which field is wrong.

    Parameters
    ----------
    fields : dict
        Straight from JSON. Fields that nobody asks for are ignored.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def _read(self, name: str, default: Any) -> Any:
        value = self._fields.get(name, default)
        if value is _MISSING:
            raise BadMessage(f"the field {name!r} is missing")
        return value

    def whole(self, name: str, low: int = 0, high: int = WHOLE_MAX, default: Any = _MISSING) -> int:
        """Read a whole number from `low` to `high`."""
        value = self._read(name, default)
        if type(value) is not int or not low <= value <= high:
            raise BadMessage(f"{name} is {shown(value)}; it must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """Read a finite number from `low` to `high`, or None where it is absent or null."""
        return _number(name, self._fields.get(name), low, high)

    def text(self, name: str, default: Any = _MISSING, characters: int = LONGEST_HEADER) -> str:
        """Read a text of at most so many characters."""
        value = self._read(name, default)
        if type(value) is not str or len(value) > characters:
            raise BadMessage(f"{name} is {shown(value)}; it must be a text of at most {characters} characters")
        return value

    def name(self, name: str, default: Any = _MISSING) -> str:
        """Read a label of a position or channel: a short text without control characters."""
        value = self.text(name, default, NAME_CHARACTERS)
        if not fit_for_a_name(value):
            raise BadMessage(f"{name} is {shown(value)}; it must not hold control characters")
        return value

    def run(self, name: str = "run", default: Any = _MISSING) -> str:
        """Read the name of a run: fit for a file name on every system."""
        value = self.name(name, default)
        if value == default:
            return value
        if not fit_for_a_file(value):
            raise BadMessage(
                f"{name} is {shown(value)}; it must be fit for a file name: 1 to {RUN_CHARACTERS} characters, none of "
                f"{' '.join(sorted(_NOT_IN_FILE_NAMES))}, no dot at either end"
            )
        return value

    def choice(self, name: str, words: Sequence[str], default: Any = _MISSING) -> Any:
        """Read one of the words."""
        value = self._read(name, default)
        if type(value) is not str or value not in words:
            raise BadMessage(f"{name} is {shown(value)}; it must be one of {', '.join(words)}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Read true or false."""
        value = self._fields.get(name, default)
        if type(value) is not bool:
            raise BadMessage(f"{name} is {shown(value)}; it must be true or false")
        return value

    def entries(self, name: str, most: int = MOST_ENTRIES) -> list[Any]:
        """Read a list; an absent one is empty."""
        value = self._fields.get(name, [])
        if type(value) is not list or len(value) > most:
            raise BadMessage(f"{name} is {shown(value)}; it must be a list of at most {most} entries")
        return value

    def wholes(self, name: str, most: int = MOST_ENTRIES) -> tuple[int, ...]:
        """Read a list of whole numbers from 0 on."""
        values = self.entries(name, most)
        if not all(type(value) is int and value >= 0 for value in values):
            raise BadMessage(f"{name} is {shown(values)}; it must be a list of whole numbers from 0 on")
        return tuple(values)

    def mapping(self, name: str) -> dict[str, Any]:
        """Read a mapping that is handed on as it is, of modest depth; an absent one is empty."""
        value = self._fields.get(name, {})
        if type(value) is not dict:
            raise BadMessage(f"{name} is {shown(value)}; it must be an object")
        if _deeper_than(value, DEEPEST):
            raise BadMessage(f"{name} is nested more than {DEEPEST} deep")
        return value

    def counts(self, name: str) -> dict[str, int]:
        """Read a mapping of names to whole numbers from 0 on, such as a ledger; an absent one is empty."""
        value = self.mapping(name)
        if not all(type(count) is int and count >= 0 for count in value.values()):
            raise BadMessage(f"{name} is {shown(value)}; it must hold whole numbers from 0 on")
        return value

    def numbers(self, name: str) -> dict[str, float]:
        """Read a mapping of names to finite numbers; those that are null are left out."""
        value = {key: entry for key, entry in self.mapping(name).items() if entry is not None}
        if not all(type(entry) in (int, float) for entry in value.values()):
            raise BadMessage(f"{name} is {shown(value)}; it must hold numbers")
        return {key: float(entry) for key, entry in value.items()}

    def part(self, name: str) -> "Fields":
        """Read an object within this one."""
        value = self._read(name, _MISSING)
        if type(value) is not dict:
            raise BadMessage(f"{name} is {shown(value)}; it must be an object")
        return Fields(value)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._fields.get(name) is not None

    def triple(self, name: str, largest: float) -> tuple[float | None, float | None, float | None] | None:
        """Read three numbers, each of which may be null; None where there is nothing."""
        if not self.has(name):
            return None
        values = self.entries(name, 3)
        if len(values) != 3:
            raise BadMessage(f"{name} is {shown(values)}; it must be three numbers")
        x, y, z = (_number(name, value, -largest, largest) for value in values)
        return x, y, z


def fit_for_a_name(name: str) -> bool:
    """Whether a position or channel can have this name."""
    return len(name) <= NAME_CHARACTERS and (name.isprintable() or not any(character < " " for character in name))


def fit_for_a_file(name: str) -> bool:
    """Whether a run of this name can have a file of this name, on every system."""
    if not 1 <= len(name) <= RUN_CHARACTERS or name != name.strip(" ."):
        return False
    return not any(character in _NOT_IN_FILE_NAMES or character < " " for character in name)


def _number(name: str, value: Any, low: float, high: float) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not low <= value <= high:
        raise BadMessage(f"{name} is {shown(value)}; it must be a number from {low:g} to {high:g}")
    return float(value)


def _deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and objects lie more than `limit` within each other; a walk without recursion."""
    level: list[Any] = [value]
    for _ in range(limit):
        below: list[Any] = []
        for entry in level:
            within = entry.values() if type(entry) is dict else entry
            below.extend(one for one in within if type(one) in (dict, list))
        if not below:
            return False
        level = below
    return True
