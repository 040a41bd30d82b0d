"""The command line's ``demo``: a simulated microscope, restored while it films.

Receives what the user typed; hands on an account, figures, and a record for automatic checks. Everything is imported when the
command is called. How errors become sentences is in `live_restore.cli`.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from live_restore.terminal.live import Frames, print_demo, print_learned

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (demo,):
        app.command()(command)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for raw and restored data and the figure.")] = Path(
        "demo_output"
    ),
    seconds: Annotated[float, typer.Option(help="How long the time-lapse takes.", min=5)] = 120.0,
    seed: Annotated[int, typer.Option(help="Another seed, other cells.")] = 1,
    engine: Annotated[
        Literal["pymmcore-plus", "pycromanager"], typer.Option(help="Who drives the demo microscope.")
    ] = "pymmcore-plus",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the preview in the browser.")] = True,
    record: Annotated[Path | None, typer.Option(help="Also write what happened as JSON, for automatic checks.")] = None,
    learn: Annotated[
        bool, typer.Option("--learn", help="Take pairs, train a network on them, and put it to work while filming.")
    ] = False,
    minutes: Annotated[float, typer.Option(help="With --learn: how long training may take.", min=0.05)] = 5.0,
) -> None:
    """Watch a simulated microscope film living cells at low light, restored while it runs.

    Nothing is needed: no microscope, no download, no GPU. Starts the restore process, the preview and Micro-Manager's
    demo devices with a simulated camera, takes a two-channel 3D time-lapse with one fiftieth of the usual light, and ends
    with a summary and a before/after figure. Ctrl-C ends it early.

    With --learn it goes the whole way, in ten minutes: pairs at twenty positions, the camera's noise from them, a network
    trained on them, filming without any network, and the new one promoted into the running acquisition.
    """
    if learn:
        _demo_learn(output, minutes, seed, browser, record)
        return
    from live_restore.demo import run_demo

    with Frames(err) as frames:
        shown = run_demo(output, seconds=seconds, seed=seed, engine=engine, browser=browser, listener=frames)
    print_demo(out, shown)
    if record:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(shown.as_json(), indent=1), encoding="utf-8")
    if not shown.account.balanced:
        raise typer.Exit(1)


def _demo_learn(output: Path, minutes: float, seed: int, browser: bool, record: Path | None) -> None:
    from live_restore.demo_learn import run_learn

    with Frames(err) as frames:
        learned = run_learn(output, minutes=minutes, listener=frames, seed=seed, browser=browser)
    print_learned(out, learned)
    if record:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(learned.as_json(), indent=1), encoding="utf-8")
