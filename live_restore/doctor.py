"""The doctor: looks at everything that usually goes wrong before it does.

Receives a folder, an address and a hardware configuration; hands on findings, each with what was found and its cure. Every
check is a small function in a table, and imports what it needs itself; one that fails is a finding, never a traceback.
It does not know how findings are shown.
"""

from collections.abc import Callable
from pathlib import Path

from live_restore import doctor_machine, doctor_microscope, doctor_software, doctor_wire
from live_restore.config import HardwareConfig
from live_restore.doctor_findings import Check, Finding, Situation, ok, problem, warning
from live_restore.errors import ConfigError
from live_restore.wire.sockets import ENDPOINT

__all__ = ["CHECKS", "Finding", "examine"]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", doctor_software.python),
    ("libraries", doctor_software.libraries),
    ("demo devices", doctor_software.device_interface),
    ("processor", doctor_machine.processor),
    ("memory", doctor_machine.memory),
    ("graphics card", doctor_software.graphics_card),
    ("engines", doctor_software.engines),
    ("models", doctor_software.models),
    ("clock", doctor_machine.clocks),
    ("folder", doctor_machine.folder),
    ("disk space", doctor_machine.disk_space),
    ("disk speed", doctor_machine.disk_speed),
    ("address", doctor_wire.address),
    ("page", doctor_wire.page),
    ("encryption", doctor_wire.encryption),
    ("round trip", doctor_wire.round_trip),
    ("microscope", doctor_microscope.microscope),
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
