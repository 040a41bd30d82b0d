"""The command line of distilling: distill.

Receives what the user typed; hands on what is wanted, and shows how far it is. Torch is imported when the command is called.
How errors become sentences is in `live_restore.cli`.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from live_restore.arguments import package_path
from live_restore.commands.rig import camera_from
from live_restore.commands.training_options import (
    CameraFrom,
    Fresh,
    HeldOut,
    NoCheck,
    Overwrite,
    Position,
    Seed,
    pair_words,
    said,
)

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this room."""
    app.command()(distill)


def distill(
    packages: Annotated[
        list[str], typer.Argument(help="The teacher: a model package, or several whose mean teaches.", metavar="PACKAGE")
    ],
    target_ms: Annotated[float, typer.Option(help="What restoring a volume may take on this machine, milliseconds.", min=0.0)],
    size: Annotated[str, typer.Option(help="Of that volume, YxX or ZxYxX: 512x512, 16x256x256.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model package to write.")],
    pairs: Annotated[
        list[Path] | None, typer.Option(help="Folder of pairs of low and high-light images. Repeat it.", metavar="FOLDER")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="Low-light images without partner, or a folder of them. Repeat it.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Wall time of the training; the teacher's work comes on top. [dim]default: 8[/]", min=0.01),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps instead of minutes.", min=1)] = None,
    weight: Annotated[
        float | None,
        typer.Option("--teacher-weight", help="Of the teacher beside the truth of pairs, 0 to 1. [dim]default: measured[/]"),
    ] = None,
    network: Annotated[Literal["care", "rcan"], typer.Option(help="Which family.")] = "care",
    most_kflop: Annotated[
        float | None,
        typer.Option(help="Thousands of operations per pixel, at most. [dim]default: as many as keep to the time[/]"),
    ] = None,
    engine: Annotated[str, typer.Option(help="By which engine the student is to be served.")] = "auto",
    precision: Annotated[str, typer.Option(help="f32, bf16, f16, int8 or auto.")] = "auto",
    channel: Annotated[str | None, typer.Option(help="Learn from this channel only. [dim]default: all[/]")] = None,
    held_out: HeldOut = None,
    held_out_from: Annotated[
        list[Path] | None, typer.Option(help="Folders of pairs to judge by; then all --pairs are learned from. Repeat it.")
    ] = None,
    position: Position = None,
    no_check: NoCheck = False,
    config: CameraFrom = None,
    name: Annotated[str | None, typer.Option(help="Of the student. [dim]default: that of the package[/]")] = None,
    threads: Annotated[int | None, typer.Option(help="Of training. [dim]default: the physical cores[/]", min=1)] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    seed: Seed = None,
    fresh: Fresh = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a small network from a large one, so quick that it keeps to a time on this machine.

    A family of small networks is timed as it would be served; the largest that keeps to the time learns from the teacher, and
    from the truth where there are pairs. Ends with a package and a report: quality lost, speed gained, bias, photons.
    Interrupted, the same command goes on where it was.

    Examples:
      [bold]live-restore distill tubulin --target-ms 15 --size 512x512 --pairs pairs/monday -o tubulin_live[/]
      [bold]live-restore distill imported_care --target-ms 20 --size 1024x1024 --images stacks/ -o live --minutes 20[/]
    """
    from live_restore.terminal.distilling import DistillingView, print_distilled
    from live_restore.training.checkpoint import CHECKPOINT, folder_of
    from live_restore.training.distill import MINUTES, Distilling, distil
    from live_restore.training.student_choice import Conditions
    from live_restore.training.student_timing import Served

    wanted = Distilling(
        teachers=[package_path(package) for package in packages],
        output=output,
        conditions=Conditions(target_ms, volume_shape(size), network, most_kflop, Served(engine, precision)),
        pairs=pairs or (),
        images=images or (),
        weight=weight,
        words={
            "pairs": pair_words(channel, position, held_out, no_check),
            "fit": said(seed=seed),
        },
        minutes=MINUTES if minutes is None else minutes,
        steps=steps,
        held_out_from=held_out_from or (),
        camera=camera_from(config),
        device=device,
        threads=threads,
        fresh=fresh,
        overwrite=overwrite,
        name=name,
    )
    try:
        with DistillingView(err, folder_of(output) / "progress.png") as view:
            outcome, distilled = distil(wanted, view)
    except KeyboardInterrupt:
        kept = (folder_of(output) / CHECKPOINT).exists()
        err.print(f"[yellow]stopped; {'the same command goes on from here' if kept else 'nothing was trained yet'}[/]")
        raise typer.Exit(130) from None
    print_distilled(out, outcome, distilled)


def volume_shape(text: str) -> tuple[int, int, int]:
    """``512x512`` to (1, 512, 512), ``16x256x256`` to (16, 256, 256).

    Raises
    ------
    ValueError
        If it is neither.
    """
    numbers = re.fullmatch(r"(?:(\d+)x)?(\d+)x(\d+)", text.strip().lower())
    shape = tuple(int(number or 1) for number in numbers.groups()) if numbers else ()
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"--size '{text}' is no size; write YxX or ZxYxX, for example 512x512 or 16x256x256")
    return shape
