"""The doctor: looks at everything that usually goes wrong before it does.

Receives a folder, an address and a hardware configuration; hands on findings, each with what was found and its cure. Every
check is a small function in a table, and imports what it needs itself; one that fails is a finding, never a traceback.
It does not know how findings are shown.
"""

from collections.abc import Callable
from pathlib import Path

from live_restore.config import HardwareConfig
from live_restore.doctor import machine, microscope, software, wire
from live_restore.doctor.findings import Check, Finding, Situation, ok, problem, warning
from live_restore.errors import ConfigError
from live_restore.wire.sockets import ENDPOINT

__all__ = ["CHECKS", "Finding", "examine"]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", software.python),
    ("libraries", software.libraries),
    ("demo devices", software.device_interface),
    ("processor", machine.processor),
    ("memory", machine.memory),
    ("graphics card", software.graphics_card),
    ("engines", software.engines),
    ("models", software.models),
    ("clock", machine.clocks),
    ("folder", machine.folder),
    ("disk space", machine.disk_space),
    ("disk speed", machine.disk_speed),
    ("address", wire.address),
    ("page", wire.page),
    ("encryption", wire.encryption),
    ("round trip", wire.round_trip),
    ("microscope", microscope.microscope),
)


def _tell_nobody(_: Finding) -> None:
    """Keep quiet: the findings are given back at the end."""


def examine(
    folder: Path | None = None,
    address: str = ENDPOINT,
    config: Path | None = None,
    *,
    keys: Path | None = None,
    devices: bool = False,
    tell: Callable[[Finding], None] = _tell_nobody,
    checks: tuple[tuple[str, Check], ...] = CHECKS,
) -> list[Finding]:
    """Look at everything; takes some ten seconds.

    Parameters
    ----------
    folder : Path or None
        Where images shall be saved; None: the current folder. 64 MB are written there and deleted.
    address : str
        Of the restore process.
    config : Path or None
        TOML file of a hardware configuration.
    keys : Path or None
        Folder of keys, for an address beyond this machine.
    devices : bool
        Whether the real devices of the configuration may be started, which may move them. The demo's always may.
    tell : callable
        Called with every finding as soon as it is made.
    checks : tuple of (name, check)

    Returns
    -------
    list of Finding
        In the order of the table.
    """
    findings: list[Finding] = []

    def say(found: list[Finding]) -> None:
        for finding in found:
            findings.append(finding)
            tell(finding)

    read, about = _read(config)
    say(about)
    situation = Situation(folder or Path.cwd(), address, read, keys, devices)
    for name, check in checks:
        say(_checked(name, check, situation))
    return findings


def _read(config: Path | None) -> tuple[HardwareConfig | None, list[Finding]]:
    if config is None:
        return None, []
    try:
        return HardwareConfig.from_file(config), [ok("configuration", f"{config} can be read")]
    except ConfigError as wrong:
        return None, [problem("configuration", str(wrong), "correct the file; hardware_configs/ has documented examples")]


def _checked(name: str, check: Check, situation: Situation) -> list[Finding]:
    """Check; a check that fails is a finding too."""
    try:
        return check(situation)
    except Exception as failed:
        found = f"this check itself failed: {type(failed).__name__}: {failed}"
        return [warning(name, found, "go on if all else is well, and report this line to the developers")]
