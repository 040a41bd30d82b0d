"""The command line of training: train.

Receives what the user typed; hands on options, folders and a place for the package, and shows how far training is. Torch is
imported when the command is called. How errors become sentences is in `live_restore.cli`.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from live_restore.arguments import package_path
from live_restore.commands.rig import camera_from, rig_of
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

if TYPE_CHECKING:
    from live_restore.training.options import Kind, TrainingOptions
    from live_restore.training.presets import Preset

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(train)


def train(
    pairs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of pairs of any origin: ours, or with sub-folders low and high of equal names.", metavar="PAIRS"
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model package to write.")],
    network: Annotated[
        Literal["care", "rcan"] | None, typer.Option(help="Which network. [dim]default: care, or that of --from[/]")
    ] = None,
    probabilistic: Annotated[
        bool, typer.Option("--probabilistic", help="CARE that also predicts how sure it is, pixel by pixel.")
    ] = False,
    preset: Annotated[
        Literal["quick", "best"] | None,
        typer.Option(help="quick: minutes on a laptop. best: a larger network, for hours or a GPU. [dim]default: quick[/]"),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall time in all; the learning rate fits itself to it.", min=0.01)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps instead of minutes.", min=1)] = None,
    channel: Annotated[
        str | None, typer.Option(help="Learn from this channel only. [dim]default: one network for all[/]")
    ] = None,
    options: Annotated[
        Path | None,
        typer.Option("--options", help="All that can be chosen, as TOML: the training.toml of any trained package."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Train this package further, also one imported from CSBDeep or 3D-RCAN.")
    ] = None,
    members: Annotated[
        int | None, typer.Option(help="Train so many networks; the package gives their mean and how far they disagree.", min=1)
    ] = None,
    held_out: HeldOut = None,
    held_out_from: Annotated[
        list[Path] | None, typer.Option(help="Folders of pairs to judge by; then all PAIRS are learned from. Repeat it.")
    ] = None,
    position: Position = None,
    no_check: NoCheck = False,
    simulate: Annotated[
        bool,
        typer.Option("--high-light-only", help="PAIRS hold high-light images only: low light is simulated (see \\[simulate])."),
    ] = False,
    photons: Annotated[
        str | None,
        typer.Option(help="With --high-light-only: photons in the brightest pixels, FROM,TO. [dim]default: 4,100[/]"),
    ] = None,
    config: CameraFrom = None,
    name: Annotated[str | None, typer.Option(help="Of the model. [dim]default: that of the package[/]")] = None,
    threads: Annotated[int | None, typer.Option(help="[dim]default: the physical cores[/]", min=1)] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    seed: Seed = None,
    fresh: Fresh = False,
    overwrite: Overwrite = False,
) -> None:
    """Train CARE or RCAN on pairs of low and high-light images; ends with a model package and a report.

    Some positions are kept apart, and the network is judged on them. Interrupted, with Ctrl-C or otherwise, the same command
    goes on where it was. On several GPUs: torchrun --nproc_per_node 4 -m live_restore.cli train ...

    Examples:
      [bold]live-restore train pairs/monday -o tubulin.bioimageio --minutes 10[/]
      [bold]live-restore train pairs/monday pairs/friday -o tubulin.bioimageio --network rcan --preset best[/]
      [bold]live-restore train stacks/ -o tubulin.bioimageio --high-light-only --photons 4,60[/]
    """
    since = time.monotonic()
    from live_restore.terminal.training import TrainingView, print_trained
    from live_restore.training.checkpoint import CHECKPOINT, folder_of
    from live_restore.training.train import Task
    from live_restore.training.train import train as carry_out

    words: dict[str, dict[str, Any]] = {
        "pairs": pair_words(channel, position, held_out, no_check),
        "fit": said(members=members, seed=seed),
    }
    if simulate:
        words["simulate"] = _simulated(photons, config)
    elif photons:
        raise ValueError("--photons goes with --high-light-only; pairs have the light that they have")
    begun = package_path(start) if start else None
    chosen = _options(pairs, options, (network, preset, probabilistic), begun, words)
    if minutes is not None:
        chosen = chosen.with_minutes(minutes)
    if steps is not None:
        chosen = chosen.with_steps(steps)
    task = Task(
        folders=pairs,
        output=output,
        options=chosen,
        held_out_from=held_out_from or (),
        start=begun,
        camera=camera_from(config),
        device=device,
        threads=threads,
        fresh=fresh,
        overwrite=overwrite,
        name=name,
    )
    try:
        with TrainingView(err, folder_of(output) / "progress.png") as view:
            outcome = carry_out(task, view, since)
    except KeyboardInterrupt:
        kept = (folder_of(output) / CHECKPOINT).exists()
        err.print(f"[yellow]stopped; {'the same command goes on from here' if kept else 'nothing was kept yet'}[/]")
        raise typer.Exit(130) from None
    if outcome is not None:
        print_trained(out, outcome)


def _options(
    folders: Sequence[Path],
    file: Path | None,
    wanted: "tuple[Kind | None, Preset | None, bool]",
    start: Path | None,
    words: dict[str, dict[str, Any]],
) -> "TrainingOptions":
    """Put the options together: a file or a preset, the network of the package to begin with, and what was typed."""
    from live_restore.models.package import open_package
    from live_restore.training.material import dimensions
    from live_restore.training.options import TrainingOptions
    from live_restore.training.presets import preset
    from live_restore.training.start import as_preset, check_trainable, continued, gentler

    begun = open_package(start) if start else None
    if file is not None:
        if any(wanted):
            raise ValueError(
                "--options says which network; leave out --network, --preset and --probabilistic, or change the file"
            )
        chosen = TrainingOptions.from_file(file).changed(**words)
        return continued(chosen, begun) if begun else chosen
    network, name, probabilistic = wanted
    if begun:
        check_trainable(begun)
        kind, n_dim = as_preset(begun)
        if network not in (None, kind):
            raise ValueError(f"model '{begun.name}' is a {kind} network; leave out --network {network}, or --from")
        return continued(gentler(preset(kind, n_dim, name or "quick", probabilistic)).changed(**words), begun)
    kind = network or "care"
    # every network learns from pairs of its own number of axes; which one is known when one is open
    n_dim = dimensions(folders, preset(kind, 2).changed(**words))
    return preset(kind, n_dim, name or "quick", probabilistic).changed(**words)


def _simulated(photons: str | None, config: Path | None) -> dict[str, Any]:
    """Say which camera and which light is simulated."""
    words: dict[str, Any] = {}
    if photons is not None:
        try:
            smallest, largest = (float(number) for number in photons.split(","))
        except ValueError:
            raise ValueError(f"--photons {photons!r} is not FROM,TO; write two numbers, e.g. 4,60") from None
        words["photons"] = (smallest, largest)
    rig = rig_of(config)
    if rig is not None and rig.camera is not None:
        camera = rig.camera
        words |= {name: getattr(camera, name) for name in ("offset_adu", "gain_adu_per_e", "read_noise_e")}
        words |= said(quantum_efficiency=camera.quantum_efficiency)
    return words
