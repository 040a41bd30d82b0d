"""The command line of calibration: calibrate, pairs, noise.

Receives what the user typed; hands it to the parts, and shows how far they are. Every command imports what it needs when it
is called. How errors become sentences is in `live_restore.cli`.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from live_restore.arguments import check_figure
from live_restore.commands.rig import camera_from, rig_or_demo

if TYPE_CHECKING:
    from live_restore.pairs.check import Check

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

PairFolder = Annotated[
    Path, typer.Argument(help="A folder of pairs: one that calibrate wrote, or any with sub-folders low and high.")
]
Position = Annotated[
    str | None, typer.Option(help="Regular expression whose one group is the position in a name, e.g. '^([0-9]+)_'.")
]

pairs = typer.Typer(help="Look at folders of low/high-light pairs, and check them.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(calibrate)
    app.command()(noise)
    app.add_typer(pairs, name="pairs")


def calibrate(
    plan: Annotated[Path, typer.Argument(help="What to take: a TOML plan, see calibrations/.")],
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="Hardware configuration. [dim]default: the demo microscope[/]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the folder of pairs is made. [dim]default: the plan's[/]")
    ] = None,
    engine: Annotated[
        Literal["pymmcore-plus", "pycromanager"] | None,
        typer.Option(help="Who drives the microscope. [dim]default: the backend of the configuration[/]"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Begin without asking.")] = False,
) -> None:
    """Take pairs of low and high-light images to learn from, each checked and written before the next.

    What it takes in time and light is shown first. Ctrl-C ends it; pairs that are complete stay.

    Example: [bold]live-restore calibrate calibrations/demo.toml --config my_rig.toml[/]
    """
    from live_restore.acquire.calibrate import calibrate as carry_out
    from live_restore.acquire.calibrate import estimate
    from live_restore.acquire.calibration import read_calibration
    from live_restore.acquire.rig import open_core
    from live_restore.configured import camera_noise
    from live_restore.terminal.calibration import PairBar, print_calibrated

    rig = rig_or_demo(config)
    asked = read_calibration(plan, rig)
    core = open_core(rig)
    for line in estimate(asked, rig, core).in_words():
        out.print(escape(line), soft_wrap=True)
    if not yes and not _somebody_is_there():
        raise ValueError("nobody can be asked whether to begin, as this is no terminal; it moves and bleaches: say --yes")
    if not yes and not typer.confirm("Begin?", default=True):
        raise typer.Exit(1)
    with PairBar(err) as bar:
        done = carry_out(
            asked, rig, noise=camera_noise(rig.camera), engine=engine, directory=output, progress=bar.show, core=core
        )
    print_calibrated(out, err, done)


def noise(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PAIRS_FOLDER]...", help="Folders of pairs; after --flat, further files of flat frames."),
    ] = None,
    dark: Annotated[Path | None, typer.Option(help="Frames without light, in one file: the more the better.")] = None,
    flat: Annotated[list[Path] | None, typer.Option(help="Frames of even, steady light; a file for every brightness.")] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="Show what would change in this hardware configuration.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write it into the configuration.")] = False,
    maps: Annotated[
        Path | None, typer.Option(help="Write maps of every pixel (.npz), and name them in the configuration. Needs --dark.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw the photon transfer of the pairs (.png or .pdf).")] = None,
    position: Position = None,
) -> None:
    """Tell a camera's offset, gain and read noise, from pairs or from dark and flat frames.

    The trust check tells noise from structure by them.

    Example: [bold]live-restore noise pairs/monday --config my_rig.toml --write[/]

    Example: [bold]live-restore noise --dark dark.tif --flat dim.tif bright.tif --maps camera.npz --config my_rig.toml[/]
    """
    from live_restore.camera_noise import measure_camera
    from live_restore.camera_section import camera_text, difference, write_maps, write_text
    from live_restore.terminal.camera import print_camera, print_difference

    if write and config is None:
        raise ValueError("--write needs --config, the hardware configuration to write into")
    if figure:
        check_figure(figure)
    estimate = measure_camera(paths or [], dark, flat or [], position)
    print_camera(out, estimate)
    if figure:
        from live_restore.pairs.transfer_figure import transfer_figure

        transfer_figure(estimate, figure)
        err.print(f"figure: [bold]{escape(str(figure))}[/]")
    if maps:
        write_maps(maps, estimate)
        err.print(f"maps: [bold]{escape(str(maps))}[/]")
    if config is None:
        return
    text = camera_text(config, estimate, maps)
    print_difference(out, difference(config, text))
    if write:
        write_text(config, text)
        err.print(f"written: [bold]{escape(str(config))}[/]")
    else:
        err.print("nothing was written; add --write")


def _somebody_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@pairs.command("check")
def check_folder(
    folder: Annotated[
        Path, typer.Argument(help="A folder of pairs: one that calibrate wrote, or any with low and high in it.")
    ],
    position: Position = None,
    limits: Annotated[
        Path | None, typer.Option(help="TOML with a \\[limits] table, e.g. a calibration plan. [dim]default: the usual ones[/]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="Hardware configuration, for the camera's noise.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="A line for every pair, however many there are.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Keep the verdicts in the folder, as pairs.jsonl.")] = False,
) -> None:
    """Measure every pair of a folder anew, and say which are good enough to learn from, and why not.

    Shift, motion, saturation, light ratio, sharpness and noise are measured on the pixels themselves. Nothing is changed
    without --write. Ends with 1 if no pair is good.

    Example: [bold]live-restore pairs check pairs/my_calibration[/]
    """
    from live_restore.pairs.check import write_check
    from live_restore.terminal.pairs import print_check

    found = _checked(folder, position, limits, config)
    print_check(out, found, everything=everything)
    if write:
        out.print(f"written: [bold]{escape(str(write_check(found)))}[/]")
    if not found.accepted:
        raise typer.Exit(1)


@pairs.command("show")
def show_folder(
    folder: Annotated[
        Path, typer.Argument(help="A folder of pairs: one that calibrate wrote, or any with low and high in it.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The contact sheet: .png or .pdf.")],
    position: Position = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every pair, on as many pages as that needs. [dim]default: one page[/]")
    ] = False,
) -> None:
    """Draw a contact sheet: low beside high beside what is left of one without the other, with the verdict on each pair.

    One page shows the rejected pairs and, of the good ones, some from the noisiest to the brightest.

    Example: [bold]live-restore pairs show pairs/my_calibration -o sheet.png[/]
    """
    from live_restore.arguments import check_figure
    from live_restore.pairs.contact_sheet import contact_sheet

    check_figure(output)
    found = _checked(folder, position, None, None)
    for page in contact_sheet(found, output, everything=everything):
        out.print(f"written: [bold]{escape(str(page))}[/]")


def _checked(folder: Path, position: str | None, limits: Path | None, config: Path | None) -> "Check":
    from live_restore.pairs.check import check_pairs
    from live_restore.pairs.quality import read_limits
    from live_restore.records.pairs import read_pairs
    from live_restore.terminal.pairs import CheckBar

    noise = camera_from(config)
    chosen = None if limits is None else read_limits(limits)
    found = read_pairs(folder, position)
    with CheckBar(err, folder.name) as bar:
        return check_pairs(found, chosen, noise, bar.count)
