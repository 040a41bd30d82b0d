"""The command line beside the microscope: acquire, doctor, and afterwards backfill and recover.

Receives what the user typed; hands on raw datasets, restored volumes and findings. Everything is imported when a command is
called. How errors become sentences is in `live_restore.cli`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from live_restore.arguments import byte_size, package_path, split_model
from live_restore.commands.live_options import ANSWER_S, ENDPOINT, Address, Config, Keys, asked_of
from live_restore.commands.rig import rig_of, rig_or_demo
from live_restore.terminal.live import Frames, print_account, print_backfilled, print_finding, print_tally
from live_restore.terminal.offline import Bars

if TYPE_CHECKING:
    from live_restore.acquire.acquisition import AcquisitionPlan
    from live_restore.acquire.hook import RestoreHook
    from live_restore.acquire.run import EngineName
    from live_restore.config import HardwareConfig


out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (acquire, doctor, backfill, recover):
        app.command()(command)


def acquire(
    plan: Annotated[Path, typer.Argument(help="What to acquire: a TOML plan, or a useq file (.yaml, .json).")],
    config: Config = None,
    engine: Annotated[
        Literal["pymmcore-plus", "pycromanager"] | None,
        typer.Option(help="Who drives the microscope. [dim]default: the backend of the configuration[/]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the raw data. [dim]default: the plan's[/]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Where the restore process listens. [dim]default: what the configuration says[/]")
    ] = None,
    restore: Annotated[bool, typer.Option("--restore/--no-restore", help="Send frames to the restore process.")] = True,
    keys: Keys = None,
) -> None:
    """Acquire a time-lapse, z-stacks, channels and positions, restored while it runs.

    Without --config it is the demo microscope. Raw data is saved whatever happens to the restore process.

    Example: [bold]live-restore acquire acquisitions/timelapse.toml --config my_rig.toml[/]
    """
    from live_restore.acquire.acquisition import read_acquisition
    from live_restore.acquire.hook import RestoreHook

    rig = rig_or_demo(config)
    asked = read_acquisition(plan, rig)
    folder = keys or rig.serve.keys
    if not restore:
        _acquired(asked, rig, None, engine, output)
        return
    with RestoreHook(address or rig.serve.address, keys=folder) as hook:
        if not hook.wait_attached(2.0):
            err.print("[yellow]no restore process answers; it may be started at any time: live-restore serve[/]")
        _acquired(asked, rig, hook, engine, output)
    summary = hook.summary()
    out.print(escape(str(summary)))
    if summary.ledger["receipted"]:
        _print_warnings(address or rig.serve.address, folder, summary.run)


def doctor(
    folder: Annotated[Path, typer.Option(help="Where raw data will be saved: its disk is tried out.")] = Path(),
    config: Config = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="Also start the devices of --config, which may move. The demo's always are.")
    ] = False,
    address: Address = ENDPOINT,
    keys: Keys = None,
) -> None:
    """Check everything that usually goes wrong: versions, devices, engines, ports, disk, camera, clock.

    Example: [bold]live-restore doctor --folder D:/data --config my_rig.toml --devices[/]
    """
    from live_restore.doctor.examine import examine

    findings = examine(folder, address, config, keys=keys, devices=devices, tell=lambda finding: print_finding(out, finding))
    print_tally(out, findings)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def backfill(
    run: Annotated[Path, typer.Argument(help="The run folder (*_restored), or the raw dataset beside it.")],
    raw: Annotated[Path | None, typer.Option(help="The raw dataset, if it was moved.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="PACKAGE or CHANNEL=PACKAGE, in place of what the run used.")
    ] = None,
    config: Config = None,
    memory: Annotated[str | None, typer.Option(help="What the network may take, e.g. 4GB.")] = None,
) -> None:
    """Restore what was left out while the acquisition ran, from the saved raw data, into the same file.

    With the models of the run, pixel for pixel what live restoration would have given. Doing it twice changes nothing.
    """
    from live_restore.backfill import backfill as fill
    from live_restore.configured import camera_noise
    from live_restore.records.account import account

    rig = rig_of(config)
    named = _by_channel(model or ())
    try:
        with Bars(err) as bars:
            done = fill(
                run,
                raw,
                named,
                bars,
                noise=camera_noise(rig.camera) if rig else None,
                memory_bytes=byte_size(memory, "--memory"),
            )
    except KeyboardInterrupt:
        err.print("[yellow]stopped; the same command goes on from here[/]")
        raise typer.Exit(130) from None
    print_backfilled(out, err, done)
    print_account(out, account(done.folder))
    if not done.complete:
        raise typer.Exit(1)


def recover(dataset: Annotated[Path, typer.Argument(help="Folder of the NDTiff dataset.")]) -> None:
    """Rebuild the index of an NDTiff dataset whose acquisition was killed. The images are never touched."""
    from live_restore.records.recover import recover as rebuild

    with err.status(f"reading {escape(dataset.name)}"):
        found = rebuild(dataset)
    for note in found.notes:
        out.print(escape(note))
    if found.backup:
        out.print(f"the old index is kept: {escape(str(found.backup))}")
    out.print(f"{found.frames} frames of {found.files} file(s) can be read")


def _print_warnings(address: str, keys: Path | None, run: str) -> None:
    """Print what the restore process has to say of a run so far."""
    from live_restore.errors import WireError
    from live_restore.wire.messages import Command

    try:
        said = asked_of(address, keys, Command("status"), ANSWER_S).said
    except WireError:
        err.print("[yellow]the restore process is gone; what it left out can be restored with live-restore backfill[/]")
        return
    for one in said.get("runs", ()):
        for sentence in one.get("warnings", ()) if one.get("run") == run else ():
            err.print(f"[yellow]warning:[/] {escape(str(sentence))}")


def _by_channel(models: Sequence[str]) -> dict[str, Path]:
    """``DAPI=a`` and ``b`` to {"DAPI": a, "*": b}."""
    named: dict[str, Path] = {}
    for text in models:
        channels, path = split_model(text)
        named |= {channel: package_path(path) for channel in channels or ("*",)}
    return named


def _acquired(
    asked: "AcquisitionPlan",
    rig: "HardwareConfig",
    hook: "RestoreHook | None",
    engine: "EngineName | None",
    output: Path | None,
) -> None:
    """Run an acquisition, and say what became of it."""
    from live_restore.acquire.run import run

    with Frames(err) as bar:
        done = run(asked, rig, hook, engine=engine, directory=output, progress=bar.frames)
    stopped = ", stopped by you" if done.stopped else ""
    out.print(f"{done.frames} of {done.planned} frames in {done.seconds:.1f} s{stopped}: [bold]{escape(str(done.raw))}[/]")
