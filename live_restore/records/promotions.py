"""The journal of promotions: which model serves a channel of this microscope, since when, why, and what served before.

Receives packages that were found worthy; keeps copies of them, and a line for everything that happened. What serves is what
the lines say, one after another. It does not know how models are compared, nor how they are served.

::

    models/CHANNEL/
      promotions.jsonl    one line per promotion, rollback and refusal
      NAME-0123abcd/      a copy of every package that was promoted
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from live_restore.errors import ConfigError
from live_restore.records.json_lines import JsonLines, read_lines

What = Literal["promoted", "rolled back", "refused"]

LINES = "promotions.jsonl"
_HASH_LETTERS = 8


@dataclass(frozen=True, slots=True)
class Promotion:
    """A line of the journal.

    Attributes
    ----------
    what : {"promoted", "rolled back", "refused"}
    package : str
        Name of the copy in the folder of the channel: what serves from then on. Empty: what the configuration says. Of a
        refusal: the path of the package that was refused.
    model, sha256 : str
        Name of the model and hash of its ONNX graph.
    when : str
        ISO 8601, UTC.
    by : str
        User and machine.
    forced : bool
        Whether it was promoted although it is not better.
    why : str
    calibrations : tuple of mapping
        Scores of both models, a row per calibration.
    """

    what: What
    package: str
    model: str = ""
    sha256: str = ""
    when: str = ""
    by: str = ""
    forced: bool = False
    why: str = ""
    calibrations: tuple[Mapping[str, Any], ...] = field(default=())


class Promotions:
    """What was promoted for one channel.

    Parameters
    ----------
    models : Path
        The folder of promoted models; need not exist.
    channel : str
    """

    def __init__(self, models: Path, channel: str) -> None:
        self.channel = channel
        self.folder = Path(models) / _folder_name(channel)

    def history(self) -> list[Promotion]:
        """Read everything that happened, oldest first."""
        return [promotion for line in read_lines(self.folder / LINES) if (promotion := _read(line))]

    def standing(self) -> list[Promotion]:
        """Give the promotions that were not rolled back, oldest first; the last one serves."""
        stack: list[Promotion] = []
        for line in self.history():
            if line.what == "promoted":
                stack.append(line)
            elif line.what == "rolled back" and stack:
                stack.pop()
        return stack

    @property
    def serving(self) -> Promotion | None:
        """What serves; None: what the configuration says."""
        standing = self.standing()
        return standing[-1] if standing else None

    def path(self, promotion: Promotion) -> Path:
        """Give the copy that was promoted.

        Raises
        ------
        ConfigError
            If it is gone.
        """
        found = self.folder / promotion.package
        if not promotion.package or not found.exists():
            raise ConfigError(
                f"the model promoted for {self.channel}, {found}, is gone; restore it from a backup, or go back: "
                f'live-restore rollback --channel "{self.channel}"'
            )
        return found

    def take(self, package: Path) -> Path:
        """Copy a package, folder or zip, to where it will serve from; the same content is copied once."""
        suffix = package.suffix if package.is_file() else ""
        name = package.name.removesuffix(suffix) if suffix else package.name
        place = self.folder / f"{name}-{_content_sha256(package)[:_HASH_LETTERS]}{suffix}"
        if place.exists():
            return place
        self.folder.mkdir(parents=True, exist_ok=True)
        # beside its place, so that the rename is within one file system
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".taking-", ignore_cleanup_errors=True) as hidden:
            draft = Path(hidden) / place.name
            if package.is_dir():
                shutil.copytree(package, draft)
            else:
                shutil.copy2(package, draft)
            draft.rename(place)
        return place

    def add(self, promotion: Promotion) -> None:
        """Write a line, safely on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with JsonLines(self.folder / LINES) as lines:
            lines.append(asdict(promotion), durable=True)


def channels_with_promotions(models: Path) -> list[str]:
    """Name the folders of channels that have a journal."""
    return sorted(path.parent.name for path in Path(models).glob(f"*/{LINES}"))


def _read(line: Mapping[str, Any]) -> Promotion | None:
    """Turn a line into words; None for a line of a later release that says something else."""
    if line.get("what") not in get_args(What):
        return None
    known = {f.name: line[f.name] for f in fields(Promotion) if f.name in line}
    known["calibrations"] = tuple(cast("list[Mapping[str, Any]]", known.get("calibrations") or ()))
    return Promotion(**{"package": "", **known})


def _folder_name(channel: str) -> str:
    """Make a channel's name fit for a folder, also on Windows."""
    clean = "".join("_" if c in '<>:"/\\|?*' or not c.isprintable() else c for c in channel).strip(" .")
    return clean or "channel"


def _content_sha256(package: Path) -> str:
    digest = hashlib.sha256()
    files = sorted(path for path in package.rglob("*") if path.is_file()) if package.is_dir() else [package]
    for path in files:
        digest.update(path.relative_to(package).as_posix().encode() if package.is_dir() else b"")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
