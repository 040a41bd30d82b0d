"""The command line of the restore process: serve, view, status, swap, stop, keys.

Receives what the user typed; hands it to the restore process or to the preview, and shows what they answer. Everything is
imported when a command is called. How errors become sentences is in `live_restore.cli`.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from live_restore.arguments import byte_size, package_path, split_model
from live_restore.commands.live_options import (
    ANSWER_S,
    ENDPOINT,
    Address,
    Config,
    Engine,
    Keys,
    Precision,
    Tolerate,
    WithParent,
    asked_of,
    client_keys,
    interrupt,
)
from live_restore.commands.rig import rig_of
from live_restore.launch import end_with_parent
from live_restore.terminal.live import status_page

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_PAGE_PORT = 8757
# A new model may take so long to load and warm up.
_SWAP_S = 120.0


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (serve, view, status, swap, stop, keys):
        app.command()(command)


def serve(
    config: Config = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="PACKAGE for every channel, or CHANNEL=PACKAGE. Repeat it. Goes before --config."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help=f"Where to listen. [dim]default: what the configuration says, else {ENDPOINT}[/]")
    ] = None,
    engine: Engine = None,
    precision: Precision = None,
    tolerate: Tolerate = False,
    normalisation: Annotated[
        Literal["frozen", "rolling", "volume"] | None,
        typer.Option(help="Where the percentiles come from. [dim]default: what the model says[/]"),
    ] = None,
    max_waiting: Annotated[
        int | None,
        typer.Option(help="Volumes that may wait, besides one per channel; 0: the newest at any cost. More: backfill.", min=0),
    ] = None,
    max_memory: Annotated[str, typer.Option(help="What waiting volumes may take, e.g. 4GB.")] = "4GB",
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which a volume that does not grow is given up.", min=0.1)
    ] = None,
    trust: Annotated[
        Literal["paced", "every", "newest", "before", "none"],
        typer.Option(
            help="Check photon consistency: of every volume, but in a tenth of the time where volumes wait; of every one at "
            "any cost; of as many as go; before a volume goes back; never."
        ),
    ] = "paced",
    records: Annotated[
        Path | None, typer.Option(help="Where to keep runs whose raw data is not on this machine. [dim]default: here[/]")
    ] = None,
    keys: Keys = None,
    expect: Annotated[
        str | None, typer.Option(help="Shape of the volumes to come, ZxYxX, e.g. 12x512x512: models are warmed up with it.")
    ] = None,
    with_parent: WithParent = False,
) -> None:
    """Run the restore process: frames come in, restored volumes go back, to the preview and to disk.

    The acquisition may start before or after it, and goes on without it. Ctrl-C lets it finish what it has; a second
    Ctrl-C ends it at once.

    Examples:
      [bold]live-restore serve --model DAPI=nuclei.bioimageio --model FITC=tubulin.bioimageio[/]
      [bold]live-restore serve --config my_rig.toml[/]
    """
    from live_restore.config import Serve
    from live_restore.configured import camera_noise, model_choices, promoted_words, references_ms
    from live_restore.server import ServeOptions
    from live_restore.server import serve as run

    rig = rig_of(config)
    choices = model_choices(rig, model or (), engine, precision, normalisation, tolerate)
    if not choices:
        err.print("[yellow]no model is given: raw volumes are shown, nothing is restored[/] (see --model, --config)")
    said = rig.serve if rig else Serve()
    options = ServeOptions(
        address=address or said.address,
        models=choices,
        noise=camera_noise(rig.camera) if rig else None,
        references_ms=references_ms(rig),
        trust=trust,
        max_waiting=said.max_waiting if max_waiting is None else max_waiting,
        max_waiting_bytes=byte_size(max_memory, "--max-memory") or 1,
        deadline_s=deadline or said.deadline_s,
        records=records or said.records,
        keys=keys or said.keys,
        expected=_shape(expect),
    )
    for choice in choices:
        channel = "every other channel" if choice.channel == "*" else choice.channel
        err.print(f"loading {escape(choice.package.name)} for {escape(channel)}{escape(promoted_words(rig, choice))}")
    if with_parent:
        end_with_parent(interrupt)
    run(options, ready=lambda where: print(f"listening on {where}", flush=True), loaded=_say_loaded)
    err.print("the restore process has ended")


def _say_loaded(models: list[dict[str, Any]]) -> None:
    """Say by what every model is served, and why, as `restore` does."""
    for row in models:
        channel = "every other channel" if row["channel"] == "*" else row["channel"]
        what = f"model [bold]{escape(str(row['model']))}[/] for {escape(channel)} on {escape(str(row['engine']))}"
        err.print(f"{what} [dim]({escape(str(row['why']))})[/]", soft_wrap=True)


def view(
    address: Address = ENDPOINT,
    port: Annotated[int, typer.Option(help="Port of the page; 0: any free one.", min=0, max=65535)] = _PAGE_PORT,
    host: Annotated[str, typer.Option(help="Where the page listens; anything but this machine needs --token.")] = "127.0.0.1",
    token: Annotated[str | None, typer.Option(help="What a visitor must show, as part of the page's address.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    napari: Annotated[bool, typer.Option("--napari", help="Show it in napari instead; needs live_restore[napari].")] = False,
    keys: Keys = None,
    with_parent: WithParent = False,
) -> None:
    """Open the live preview: raw beside restored, trust, timing, the ledger."""
    if with_parent:
        end_with_parent(interrupt)
    if napari:
        from live_restore.preview.napari_layers import run as run_napari

        run_napari(address, client_keys(keys))
        return
    from live_restore.preview.web import run

    run(address, client_keys(keys), host, port, token, browser, ready=lambda url: print(f"page at {url}", flush=True))


def status(
    address: Address = ENDPOINT,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    keys: Keys = None,
) -> None:
    """Say what the restore process is doing: models, runs, ledgers, latency, warnings."""
    from live_restore.wire.messages import Command

    said = dict(asked_of(address, keys, Command("status"), ANSWER_S).said)
    if as_json:
        print(json.dumps(said, indent=1))
        return
    if not watch:
        out.print(status_page(said))
        return
    with Live(status_page(said), console=out, refresh_per_second=2) as page:
        while True:
            time.sleep(1.0)
            page.update(status_page(dict(asked_of(address, keys, Command("status"), ANSWER_S).said)))


def swap(
    model: Annotated[str, typer.Argument(help="PACKAGE for channels without their own, or CHANNEL=PACKAGE.")],
    engine: Engine = None,
    precision: Precision = None,
    tolerate: Tolerate = False,
    address: Address = ENDPOINT,
    keys: Keys = None,
) -> None:
    """Put another model to work in the running restore process, between two volumes.

    It is loaded and warmed up beside the one that works, which stays if anything fails.
    """
    from live_restore.wire.messages import Command

    channels, path = split_model(model)
    package = str(package_path(path).resolve())
    for channel in channels or ("*",):
        options: dict[str, str | bool] = {"channel": channel, "package": package, "tolerate": tolerate}
        options |= {"engine": engine or "auto", "precision": precision or "auto"}
        with err.status(f"loading {escape(path)} beside the model that is working"):
            said = asked_of(address, keys, Command("swap", options), _SWAP_S).said
        out.print(
            f"{escape(channel)}: [bold]{escape(str(said.get('model')))}[/] on {escape(str(said.get('engine')))} is at work"
        )


def stop(address: Address = ENDPOINT, keys: Keys = None) -> None:
    """Let the restore process finish what it has, and end. A second time ends it at once."""
    from live_restore.wire.messages import Command

    said = asked_of(address, keys, Command("stop"), ANSWER_S).said
    out.print(f"the restore process is {escape(str(said.get('state', 'ending')))}")


def keys(
    folder: Annotated[Path, typer.Argument(help="Where to write them; made if it is not there.")] = Path("keys"),
    client: Annotated[
        list[str] | None, typer.Option("--client", help="Name of a client, one per machine. Repeat it. [dim]default: client[/]")
    ] = None,
) -> None:
    """Make keys, so that the restore process may listen on the network: encrypted, and only for those who have one.

    The server keeps the whole folder. Each client gets server.key, NAME.key and NAME.key_secret, nothing else.
    """
    from live_restore.wire.security import make_keys

    for path in make_keys(folder, client or ["client"]):
        out.print(f"written: {escape(str(path))}")
    out.print(f"then: live-restore serve --keys {escape(str(folder))} --address tcp://0.0.0.0:5757 ...")


def _shape(text: str | None) -> tuple[int, int, int] | None:
    """``12x512x512`` to (12, 512, 512)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"--expect '{text}' is no shape; write planes x rows x columns, for example 12x512x512")
    planes, height, width = map(int, sides)
    return planes, height, width
