"""The command line of learning: train, limits, promote, rollback.

Receives what the user typed; hands it to the parts, and shows how far they are. Every command imports what it needs when it
is called. How errors become sentences is in `live_restore.cli`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from live_restore.arguments import package_path
from live_restore.commands.live_options import Config, client_keys
from live_restore.commands.rig import rig_of
from live_restore.errors import ModelError
from live_restore.terminal.offline import Bars
from live_restore.terminal.promotion import print_evaluation, print_promotions, print_verdict

if TYPE_CHECKING:
    from live_restore.config import HardwareConfig, Learn
    from live_restore.records.pairs import Pair
    from live_restore.records.promotions import Promotions
    from live_restore.serving.models import ModelChoice

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

KeyFolder = Annotated[Path | None, typer.Option("--keys", help="Folder of keys, for a restore process on another machine.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (limits, evaluate, promote, rollback, promotions):
        app.command()(command)


def limits(
    package: Annotated[str, typer.Argument(help="A model package, or the name of a bundled one.", metavar="PACKAGE")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            help="High-light images, folders of them, or a folder of pairs. Repeat it. [dim]default: the demo specimen[/]",
            metavar="HIGH",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the report. [dim]default: PACKAGE_limits[/]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Hardware configuration, for the camera's noise. [dim]default: a simulated sCMOS camera[/]"),
    ] = None,
    photons: Annotated[
        str | None,
        typer.Option(help="Light levels, photons per pixel at the brightest: 1,3,10,30. [dim]default: 0.5 to 512[/]"),
    ] = None,
    blur: Annotated[str | None, typer.Option(help="Widths of blur, sigma in pixels, from 0. [dim]default: 0 to 3[/]")] = None,
    minutes: Annotated[float, typer.Option(help="What it may take, roughly.", min=0.05)] = 5.0,
    most_images: Annotated[int, typer.Option(help="Most images, evenly spread over those given.", min=1)] = 8,
    size: Annotated[
        int | None,
        typer.Option(help="Pixels along a side, cut out of each. [dim]default: 256, of stacks 160[/]", min=64),
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Meaning of the axes of plain TIFFs, e.g. ZYX.")] = None,
    pixel_size_um: Annotated[
        float | None, typer.Option("--pixel-size", help="Micrometres, where the images do not say.", min=0)
    ] = None,
    store: Annotated[
        bool | None,
        typer.Option(
            "--store/--dry-run",
            help="Whether to write the limits into the package. [dim]default: yes, but not into a bundled one[/]",
        ),
    ] = None,
) -> None:
    """Push a model until it breaks: at which light it stops helping, begins to invent, no longer resolves.

    High-light images are given less and less light, and more and more blur, by simulation; all are restored and compared with
    what they were made from. Writes a report, and the limits into the package: live, the SNR of raw is compared with them.

    Example: [bold]live-restore limits my_care --images pairs/run_1 --config my_microscope.toml[/]
    """
    from live_restore.configured import camera_noise
    from live_restore.limits.report import write_report
    from live_restore.limits.strip import around_the_limit
    from live_restore.limits.study import Choices, keep, study_limits
    from live_restore.limits.sweep import grid_of

    path = package_path(package)
    rig = rig_of(config)
    choices = Choices(
        images=tuple(images or ()),
        noise=camera_noise(rig.camera if rig else None),
        grid=grid_of(photons, blur),
        most_images=most_images,
        size=size,
        minutes=minutes,
        axes=axes,
        pixel_size_um=pixel_size_um or (rig.optics.pixel_size_um if rig else None),
    )
    with Bars(err) as bars:
        found = study_limits(path, choices, lambda done, total: bars.step(f"limits of {path.name}", done, total, "images"))
    page = write_report(found, around_the_limit(found), output or Path(f"{path.name.removesuffix('.zip')}_limits"))
    for note in found.measured.notes:
        err.print(f"[yellow]note:[/] {escape(note)}")
    out.print(f"[bold]{escape(found.package.name)}[/] {escape(found.summary)}")
    out.print(f"report: {escape(str(page))}")
    if store is False:
        out.print("not stored in the package (--dry-run)")
    elif keep(found, also_bundled=store is True):
        out.print("stored in the package: the live preview compares the live SNR with these limits")
    else:
        out.print("not stored: this package came with live_restore; --store stores it all the same")


def evaluate(
    package: Annotated[str, typer.Argument(help="A model package, or the name of a bundled one.", metavar="PACKAGE")],
    pairs: Annotated[list[Path], typer.Argument(help="Folders of pairs, with sub-folders low and high.", metavar="PAIRS")],
    report: Annotated[Path | None, typer.Option(help="Also write a report: one .html page that holds everything.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    channel: Annotated[str | None, typer.Option(help="Only pairs of this channel.")] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="All accepted pairs, also those that were not held out. Not for models trained on them."),
    ] = False,
    config: Config = None,
    engine: Annotated[str, typer.Option(help="A name from live-restore engines, or auto.")] = "auto",
    precision: Annotated[Literal["f32", "bf16", "auto"], typer.Option(help="Arithmetic of the network.")] = "auto",
) -> None:
    """Say how good a model is on held-out pairs, beside the raw images and two filters at their best.

    PSNR, SSIM and NRMSE by channel and signal-to-noise ratio, bias of intensities, calibration of predicted intervals. With
    --config, the restored images are also checked against the photons that were counted.

    Example: [bold]live-restore evaluate my_care pairs/monday pairs/tuesday --report my_care.html[/]
    """
    from live_restore.configured import camera_noise
    from live_restore.evaluation.evaluate import evaluate as score
    from live_restore.evaluation.report import write_package_report
    from live_restore.models.package import open_package
    from live_restore.records.pairs import read_pairs

    opened, rig = open_package(package_path(package)), rig_of(config)
    learnt = opened.facts.channel
    channels = {pair.channel for folder in pairs for pair in read_pairs(folder).accepted}
    if channel is None and learnt in channels and len(channels) > 1:
        channel = learnt
        err.print(f"[yellow]note:[/] this model was trained for {escape(str(learnt))}: only its pairs are scored")
    chosen = _chosen(pairs, channel, every)
    noise = camera_noise(rig.camera) if rig else None
    with Bars(err) as bars:
        found = score(
            opened,
            chosen,
            engine=engine,
            precision=precision,
            noise=noise,
            listener=lambda done, total: bars.step(f"scoring {opened.name}", done, total, "pairs"),
        )
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        print_evaluation(out, err, found)
    if report:
        write_package_report(report, found, opened)
        err.print(f"report: [bold]{escape(str(report))}[/]")


def promote(
    package: Annotated[str, typer.Argument(help="The new model.", metavar="PACKAGE")],
    channel: Annotated[str, typer.Option(help="The channel that it is to serve.")],
    config: Config = None,
    pairs: Annotated[
        list[Path] | None, typer.Option("--pairs", help="A further folder of pairs to judge by, besides those kept. Repeat it.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Where a restore process may run. [dim]default: what the configuration says[/]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it although something speaks against it; that is noted.")
    ] = False,
    why: Annotated[str, typer.Option(help="What the journal is to say of it.")] = "",
    keys: KeyFolder = None,
) -> None:
    """Put a new model to work for a channel, if it is better on all calibrations that are kept.

    It must beat the model that serves, or the raw images if none does, on the held-out pairs of every calibration in the folder
    of pairs, raise no more alarms and not distort intensities. It is copied into the folder of models; a restore process that
    is running takes it at once, later ones with --config.

    Example: [bold]live-restore promote new_care --channel FITC --config my_microscope.toml[/]
    """
    from live_restore.configured import camera_noise, choice_for, configured_choice
    from live_restore.evaluation.gate import judge, kept_calibrations
    from live_restore.models.package import open_package
    from live_restore.promote import promote as put_to_work
    from live_restore.records.promotions import Promotions
    from live_restore.serving.models import ModelChoice

    rig, learn = rig_of(config), _learn(config)
    _check_channel(rig, channel)
    calibrations, notes = kept_calibrations(learn.pairs, pairs or (), channel)
    for note in notes:
        err.print(f"[yellow]note:[/] {escape(note)}")
    path, journal = package_path(package), Promotions(learn.models, channel)
    learnt = open_package(path).facts.channel
    if learnt not in (None, channel) and not force:
        raise ModelError(f"this model was trained for {learnt}, not for {channel}; train one for {channel}, or say --force")
    new = choice_for(rig, channel, path) if rig else ModelChoice(channel, path)
    old = configured_choice(rig, channel) if rig else _serving(journal)
    with Bars(err) as bars:
        noise = camera_noise(rig.camera) if rig else None
        verdict = judge(new, old, calibrations, noise, lambda done, total: bars.step("judging", done, total, "images"))
    for note in verdict.notes:
        err.print(f"[yellow]note:[/] {escape(note)}")
    print_verdict(out, err, verdict)
    done, swapped = put_to_work(
        journal,
        new,
        verdict,
        force=force,
        why=why,
        address=address or (rig.serve.address if rig else None),
        keys=client_keys(keys),
    )
    if done.what == "refused":
        err.print(f"[bold red]not promoted:[/] {escape(done.model)} (noted in {escape(str(journal.folder))}; see --force)")
        raise typer.Exit(1)
    insisted = " although something speaks against it (--force)" if done.forced else ""
    out.print(f"[bold]{escape(done.model)}[/] is promoted for {escape(channel)}{insisted}; {escape(swapped)}")


def rollback(
    channel: Annotated[str, typer.Option(help="The channel whose last promotion is taken back.")],
    config: Config = None,
    address: Annotated[
        str | None, typer.Option(help="Where a restore process may run. [dim]default: what the configuration says[/]")
    ] = None,
    why: Annotated[str, typer.Option(help="What the journal is to say of it.")] = "",
    keys: KeyFolder = None,
) -> None:
    """Take the last promotion of a channel back: what served before it serves again, also in a running restore process."""
    from live_restore.configured import choice_for
    from live_restore.promote import rollback as take_back
    from live_restore.records.promotions import Promotions
    from live_restore.serving.models import ModelChoice

    rig, learn = rig_of(config), _learn(config)
    _check_channel(rig, channel)
    named = rig.channels[channel].model if rig else "none"
    done, swapped = take_back(
        Promotions(learn.models, channel),
        lambda path: choice_for(rig, channel, path) if rig else ModelChoice(channel, path),
        None if named == "none" else package_path(named),
        why=why,
        address=address or (rig.serve.address if rig else None),
        keys=client_keys(keys),
    )
    again = (
        f"[bold]{escape(done.model)}[/] serves {escape(channel)} again"
        if done.model
        else f"{escape(channel)} has no model again"
    )
    out.print(f"{again}; {escape(swapped)}")


def promotions(
    channel: Annotated[str | None, typer.Option(help="Only this channel.")] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the journals as JSON, scores included.")] = False,
) -> None:
    """Show which models were promoted, refused and taken back, when, by whom and why; what serves now stands out."""
    from dataclasses import asdict

    from live_restore.records.promotions import Promotions, channels_with_promotions

    folder = _learn(config).models
    journals = {name: Promotions(folder, name) for name in ([channel] if channel else channels_with_promotions(folder))}
    if as_json:
        print(json.dumps({name: [asdict(line) for line in journal.history()] for name, journal in journals.items()}, indent=1))
        return
    if not any(journal.history() for journal in journals.values()):
        out.print(f"nothing was promoted yet in {escape(str(folder))}; see live-restore promote")
        return
    serving = {name: journal.serving for name, journal in journals.items()}
    print_promotions(out, {name: journal.history() for name, journal in journals.items()}, serving)


def _chosen(folders: Sequence[Path], channel: str | None, every: bool) -> "list[Pair]":
    """Choose the pairs to score, and say what had to be assumed."""
    from live_restore.evaluation.gate import held_out_pairs
    from live_restore.records.pairs import read_pairs

    chosen: list[Pair] = []
    for folder in folders:
        if every:
            chosen += [pair for pair in read_pairs(folder).accepted if channel is None or pair.channel in (channel, "")]
            continue
        found, why = held_out_pairs(folder, channel)
        chosen += found
        if why:
            err.print(f"[yellow]note:[/] {escape(folder.name)}: {escape(why)}; --all scores all its pairs")
    return chosen


def _learn(config: Path | None) -> "Learn":
    """Where models and pairs are kept: as the configuration says, else in folders of those names here."""
    from live_restore.config import Learn

    rig = rig_of(config)
    return rig.learn if rig else Learn()


def _check_channel(rig: "HardwareConfig | None", channel: str) -> None:
    if rig is not None and channel not in rig.channels:
        raise ValueError(f"the configuration has no channel '{channel}'; it has {', '.join(rig.channels)}")


def _serving(journal: "Promotions") -> "ModelChoice | None":
    from live_restore.serving.models import ModelChoice

    serving = journal.serving
    return None if serving is None else ModelChoice(journal.channel, journal.path(serving))
