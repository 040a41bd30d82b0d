"""What a file really is, told by its first bytes and never by its name.

Receives a path; hands on a row of `KINDS`, with words for the user. It does not read further than the first bytes, and
does not know which kinds somebody can import.
"""

from dataclasses import dataclass
from pathlib import Path

from live_restore.errors import ModelError

_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of file.

    Attributes
    ----------
    name : str
        The word by which code asks for it.
    starts : tuple of bytes
        First bytes, in lower case where `any_case`.
    description : str
        What it is, to finish the sentence "this file is ...".
    cure : str
        What its user should do if weights were expected.
    any_case : bool
    """

    name: str
    starts: tuple[bytes, ...]
    description: str
    cure: str
    any_case: bool = False


_ASK_AGAIN = "download the weight file itself and import that"
_NEVER = "it could run any program on this machine, so it is not opened; ask for the weights as .h5 or ONNX"

KINDS = (
    FileKind("hdf5", (b"\x89HDF\r\n\x1a\n",), "an HDF5 file", "give it to 'live-restore import' as it is"),
    FileKind("zip", (b"PK\x03\x04", b"PK\x05\x06"), "a zip archive", "give the archive to 'live-restore import' as it is"),
    FileKind("gzip", (b"\x1f\x8b",), "a gzip archive", "unpack it and import what is inside"),
    FileKind("pickle", (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a Python pickle", _NEVER),
    FileKind(
        "git-lfs", (b"version https://git-lfs",), "a Git LFS pointer", "run 'git lfs pull' in its repository and import again"
    ),
    FileKind("html", (b"<!doctype html", b"<html", b"<?xml", b"<head"), "a web page", _ASK_AGAIN, any_case=True),
    FileKind("json", (b"{", b"["), "a JSON text", _ASK_AGAIN),
)
EMPTY = FileKind("empty", (), "empty (0 bytes)", "copy or download it again")
UNKNOWN = FileKind("unknown", (), "of no kind that is known here", _ASK_AGAIN)


def kind_of(path: Path) -> FileKind:
    """Tell what a file is from its first bytes.

    Raises
    ------
    ModelError
        If there is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}; check the path and its permissions") from error
    return kind_of_bytes(head)


def kind_of_bytes(head: bytes) -> FileKind:
    """Tell what a file is whose first bytes are `head`."""
    if not head:
        return EMPTY
    for kind in KINDS:
        text = head.lstrip().lower() if kind.any_case else head
        if text.startswith(kind.starts):
            return kind
    return UNKNOWN


def check_kind(path: Path, wanted: str) -> None:
    """Refuse a file that is not of the kind named `wanted`, with what it is instead and the cure."""
    kind = kind_of(path)
    if kind.name != wanted:
        expected = next(k.description for k in KINDS if k.name == wanted)
        raise ModelError(f"{path.name} should be {expected} but is {kind.description}; {kind.cure}")
