"""Nested words as TOML text, which Python reads but does not write.

Receives a dictionary of dictionaries, numbers, strings, truth values and lists of them; hands on text. It does not know what
they mean.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def to_toml(words: Mapping[str, Any]) -> str:
    """Write words as TOML: values first, then a table for each dictionary.

    Raises
    ------
    TypeError
        If there is something that TOML has no word for, such as None.
    """
    return "\n".join(_table(words, ())).strip() + "\n"


def _table(words: Mapping[str, Any], place: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in words.items() if not isinstance(value, Mapping)]
    if place and (lines or not words):
        lines.insert(0, f"\n[{'.'.join(map(_key, place))}]")
    for key, value in words.items():
        if isinstance(value, Mapping):
            lines += _table(value, (*place, key))
    return lines


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"TOML has no word for {value!r} ({type(value).__name__}); leave it out")


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for the delete character, which JSON leaves as it is
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
