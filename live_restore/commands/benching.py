"""The command ``live-restore bench``: what every network and the live path cost here, and whether an experiment keeps up.

Receives what the user typed; hands on sizes, engines and peers, and shows how far the measuring is. Everything is imported when
the command is called. How errors become sentences is in `live_restore.cli`.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from live_restore.arguments import byte_size, package_path, split_model
from live_restore.commands.default_command import DefaultCommandGroup
from live_restore.commands.rig import rig_of
from live_restore.terminal.offline import Bars

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_COMPARED, _PLANNED, _GROWING = "Side by side", "Before an experiment", "How the cost grows"


def add_to(app: typer.Typer) -> None:
    """Add the group ``bench``; where no command is named, networks are meant."""
    bench = typer.Typer(help="Measure what it costs on this machine.", cls=DefaultCommandGroup)
    bench.command("live")(bench_live)
    bench.command(DefaultCommandGroup.default)(bench_networks)
    app.add_typer(bench, name="bench")


def bench_networks(
    packages: Annotated[
        list[str] | None,
        typer.Argument(
            help="Packages, folders of packages, names of bundled ones, or care2d, care2d-k3, care3d, rcan2d, rcan3d: the "
            "default structures of CSBDeep and 3D-RCAN with random weights. [dim]default: the bundled packages[/]",
            metavar="PACKAGE",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="Repeat it. [dim]default: all that run here[/]", rich_help_panel=_COMPARED)
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="f32, bf16, f16, int8. Repeat it. [dim]default: all but int8[/]")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="512x512 for 2D networks, 16x256x256 for 3D ones. Repeat it. [dim]default: these two[/]"),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="A peer: csbdeep, careamics, onnxruntime or torch. Repeat it.", rich_help_panel=_COMPARED),
    ] = None,
    turns: Annotated[
        int | None, typer.Option(help="Turns of each. [dim]default: 5 to 15, as fit into ten seconds[/]", min=1)
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds after which a peer that says nothing is given up.", min=1)] = 300.0,
    csbdeep_python: Annotated[
        str | None, typer.Option(help="The python of an environment with csbdeep.", rich_help_panel=_COMPARED)
    ] = None,
    careamics_python: Annotated[str | None, typer.Option(help="The same for careamics.", rich_help_panel=_COMPARED)] = None,
    onnxruntime_python: Annotated[str | None, typer.Option(help="The same for onnxruntime.", rich_help_panel=_COMPARED)] = None,
    torch_python: Annotated[
        str | None, typer.Option(help="The same for torch; live_restore must be there too.", rich_help_panel=_COMPARED)
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="An acquisition plan (.toml, or useq's .yaml): will this machine keep up?", rich_help_panel=_PLANNED),
    ] = None,
    frame: Annotated[
        str | None, typer.Option(help="Rows x columns of the camera, 2048x2048.", rich_help_panel=_PLANNED)
    ] = None,
    planes: Annotated[int, typer.Option(help="Without --plan: planes of a volume.", min=1, rich_help_panel=_PLANNED)] = 1,
    interval_s: Annotated[
        float | None, typer.Option(help="Without --plan: from one time point to the next.", rich_help_panel=_PLANNED)
    ] = None,
    channels: Annotated[int, typer.Option(help="Without --plan.", min=1, rich_help_panel=_PLANNED)] = 1,
    positions: Annotated[int, typer.Option(help="Without --plan.", min=1, rich_help_panel=_PLANNED)] = 1,
    times: Annotated[int, typer.Option(help="Without --plan: time points.", min=1, rich_help_panel=_PLANNED)] = 100,
    model: Annotated[
        list[str] | None,
        typer.Option(help="[CHANNEL=]PACKAGE for the experiment. Repeat it.", metavar="MODEL", rich_help_panel=_PLANNED),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Hardware configuration, for exposures and models.", rich_help_panel=_PLANNED)
    ] = None,
    scaling: Annotated[
        bool,
        typer.Option("--scaling", help="Time and memory over pixels, planes, channels and tiles.", rich_help_panel=_GROWING),
    ] = False,
    largest: Annotated[int, typer.Option(help="Side of the largest image.", min=256, rich_help_panel=_GROWING)] = 2048,
    memory: Annotated[str | None, typer.Option(help="Smallest budget for tiles, e.g. 100MB.", rich_help_panel=_GROWING)] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the table, its JSON and its figure.")
    ] = None,
) -> None:
    """Measure what every network costs on this machine: engines, networks, sizes and precisions in one table.

    All that is compared restores the same image, counts in to counts out, in turn; each in a process of its own. What cannot
    run is a line with the reason. [bold]live-restore bench live[/] measures the live path instead.

    Examples:
      [bold]live-restore bench[/]
      [bold]live-restore bench care2d care3d --against csbdeep --csbdeep-python env/bin/python -o bench[/]
      [bold]live-restore bench --plan timelapse.toml --frame 2048x2048 --model my_care.bioimageio[/]
      [bold]live-restore bench --frame 1024x1024 --planes 12 --interval-s 4 --channels 2 --model care3d_demo[/]
      [bold]live-restore bench --scaling -o scaling[/]
    """
    pythons = {
        "csbdeep": csbdeep_python,
        "careamics": careamics_python,
        "onnxruntime": onnxruntime_python,
        "torch": torch_python,
    }
    if plan is not None or interval_s is not None or frame is not None:
        words = {"planes": planes, "interval_s": interval_s, "channels": channels, "positions": positions, "times": times}
        named = [*(model or ()), *(packages or ())]
        _look_ahead(plan, frame, words, named, config, (engine or ["auto"])[0], (precision or ["auto"])[0], output)
    elif scaling:
        _grow(packages, (engine or ["auto"])[0], (precision or ["f32"])[0], largest, memory, turns, patience, output)
    else:
        _compare(packages, engine, precision, size, against, pythons, turns, patience, output)


def _compare(
    packages: list[str] | None,
    engine: list[str] | None,
    precision: list[str] | None,
    size: list[str] | None,
    against: list[str] | None,
    pythons: dict[str, str | None],
    turns: int | None,
    patience: float,
    output: Path | None,
) -> None:
    from live_restore.bench.side_by_side import Asked, measure_side_by_side
    from live_restore.bench.work import parse_size
    from live_restore.terminal.benching import print_benchmark, write_benchmark

    asked = Asked(
        packages=tuple(packages or ()),
        engines=tuple(engine or ()),
        precisions=tuple(precision or ()),
        sizes=tuple(parse_size(text) for text in size or ()),
        peers=tuple(dict.fromkeys(against or ())),
        pythons={name: python for name, python in pythons.items() if python},
        turns=_turns(turns),
        patience_s=patience,
    )
    with Bars(err) as bars:
        measured = measure_side_by_side(asked, bars.step)
    print_benchmark(out, measured)
    if output:
        write_benchmark(err, measured, output)
    if not any(row.median_ms for row in measured.rows):
        raise typer.Exit(1)


def _look_ahead(
    plan: Path | None,
    frame: str | None,
    words: dict[str, Any],
    models: list[str],
    config: Path | None,
    engine: str,
    precision: str,
    output: Path | None,
) -> None:
    from live_restore.bench.demand import demand_of_numbers, demand_of_plan
    from live_restore.bench.experiment import look_ahead
    from live_restore.bench.work import parse_size
    from live_restore.terminal.benching import print_outlook, write_outlook

    sides = parse_size(frame) if frame else ()
    if len(sides) != 2:
        raise ValueError("say how large the camera's frames are, which no plan says: --frame 2048x2048")
    hardware = rig_of(config)
    if plan is not None:
        demand = demand_of_plan(plan, sides, hardware)
    elif words["interval_s"] is None:
        raise ValueError("say how often a time point begins: --interval-s 4, or give the acquisition: --plan FILE")
    else:
        demand = demand_of_numbers(sides, **words)
    named: dict[str, Path] = {}
    for text in models:
        channels, path = split_model(text)
        named |= {channel: package_path(path) for channel in channels or ("*",)}
    if not named and hardware:
        named = {name: package_path(channel.model) for name, channel in hardware.channels.items() if channel.model != "none"}
    with Bars(err) as bars:
        seen = look_ahead(demand, named, engine, precision, bars.step)
    print_outlook(out, seen)
    if output:
        write_outlook(err, seen, output)


def _grow(
    packages: list[str] | None,
    engine: str,
    precision: str,
    largest: int,
    memory: str | None,
    turns: int | None,
    patience: float,
    output: Path | None,
) -> None:
    from live_restore.bench.scaling import ScalingAsked, measure_scaling
    from live_restore.terminal.benching import print_scaling, write_scaling

    asked = ScalingAsked(
        packages=tuple(packages or ()),
        engine=engine,
        precision=precision,
        largest=largest,
        least_memory_bytes=byte_size(memory, "--memory"),
        turns=_turns(turns),
        patience_s=patience,
    )
    with Bars(err) as bars:
        measured = measure_scaling(asked, bars.step)
    print_scaling(out, measured)
    if output:
        write_scaling(err, measured, output)
    if not any(point.median_ms for point in measured.points):
        raise typer.Exit(1)


def _turns(asked: int | None) -> Any:
    from live_restore.bench.timing import Turns

    return Turns() if asked is None else Turns(warm_up=min(2, asked), least=asked, most=asked)


def bench_live(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the figures as JSON.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the frames: to see that it works, not to be quoted.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="raw, hook, latency, deepcad, fps, wire or trust. Repeat it.")
    ] = None,
    student: Annotated[
        Path | None, typer.Option(help="Package for fps. [dim]default: a small CARE network with random weights[/]")
    ] = None,
) -> None:
    """Measure the live path: is raw safe, what does the hook cost, how long until a volume is back.

    Takes about ten minutes. Everything that is compared runs in turn, in the same run.
    """
    from live_restore.bench.live import measure_live

    def say(sentence: str) -> None:
        err.print(f"[dim]{escape(sentence)}[/]")

    measured = measure_live(quick=quick, only=tuple(only or ()), say=say, student=student)
    print(measured.as_markdown())
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(measured.as_json(), indent=1), encoding="utf-8")
