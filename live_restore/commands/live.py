"""The command line of the live path: demo, serve, acquire, view, status, swap, keys, doctor, backfill, recover, bench.

Receives what the user typed; hands it to the parts, and shows how far they are. Every command imports what it needs when
it is called. How errors become sentences is in `live_restore.cli`.
"""

import _thread
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from live_restore.arguments import byte_size, package_path, split_model
from live_restore.launch import end_with_parent
from live_restore.terminal.live import (
    Frames,
    print_account,
    print_backfilled,
    print_demo,
    print_finding,
    print_learned,
    print_tally,
    status_page,
)
from live_restore.terminal.offline import Bars

if TYPE_CHECKING:
    from live_restore.acquire.acquisition import AcquisitionPlan
    from live_restore.acquire.hook import RestoreHook
    from live_restore.acquire.run import EngineName
    from live_restore.config import HardwareConfig
    from live_restore.wire.messages import Answer, Command
    from live_restore.wire.security import ClientKeys

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True, help="End when standard input closes.")]

bench = typer.Typer(help="Measure what it costs on this machine.", no_args_is_help=True)

_ENDPOINT = "tcp://127.0.0.1:5757"
_PAGE_PORT = 8757
# A new model may take so long to load and warm up.
_SWAP_S = 120.0
_ANSWER_S = 5.0
# A child whose parent is gone has so long to finish what it accepted.
_PARENT_S = 120.0

Address = Annotated[str, typer.Option("--address", help="Where the restore process listens.")]
Keys = Annotated[
    Path | None, typer.Option("--keys", help="Folder of keys, see live-restore keys; needed for anything but this machine.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Hardware configuration, e.g. hardware_configs/demo.toml.")]
Precision = Annotated[
    Literal["f32", "bf16", "f16", "int8", "auto"] | None,
    typer.Option(help="Arithmetic of the network. [dim]default: what the configuration says, else auto[/]"),
]
Tolerate = Annotated[bool, typer.Option("--tolerate", help="Take that precision even if its certificate is out of bounds.")]
Engine = Annotated[
    str | None,
    typer.Option(help="A name from live-restore engines, or auto. [dim]default: what the configuration says, else auto[/]"),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (demo, serve, acquire, view, status, swap, stop, keys, doctor, backfill, recover):
        app.command()(command)
    app.add_typer(bench, name="bench")


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


def serve(
    config: Config = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="PACKAGE for every channel, or CHANNEL=PACKAGE. Repeat it. Goes before --config."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help=f"Where to listen. [dim]default: what the configuration says, else {_ENDPOINT}[/]")
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

    rig = _configuration(config)
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
        end_with_parent(_interrupt)
    run(options, ready=lambda where: print(f"listening on {where}", flush=True), loaded=_say_loaded)
    err.print("the restore process has ended")


def _say_loaded(models: list[dict[str, Any]]) -> None:
    """Say by what every model is served, and why, as `restore` does."""
    for row in models:
        channel = "every other channel" if row["channel"] == "*" else row["channel"]
        what = f"model [bold]{escape(str(row['model']))}[/] for {escape(channel)} on {escape(str(row['engine']))}"
        err.print(f"{what} [dim]({escape(str(row['why']))})[/]", soft_wrap=True)


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

    rig = _configuration(config) or _demo_configuration()
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


def view(
    address: Address = _ENDPOINT,
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
        end_with_parent(_interrupt)
    if napari:
        from live_restore.preview.napari_layers import run as run_napari

        run_napari(address, _client_keys(keys))
        return
    from live_restore.preview.web import run

    run(address, _client_keys(keys), host, port, token, browser, ready=lambda url: print(f"page at {url}", flush=True))


def status(
    address: Address = _ENDPOINT,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    keys: Keys = None,
) -> None:
    """Say what the restore process is doing: models, runs, ledgers, latency, warnings."""
    from live_restore.wire.messages import Command

    said = dict(_asked(address, keys, Command("status"), _ANSWER_S).said)
    if as_json:
        print(json.dumps(said, indent=1))
        return
    if not watch:
        out.print(status_page(said))
        return
    with Live(status_page(said), console=out, refresh_per_second=2) as page:
        while True:
            time.sleep(1.0)
            page.update(status_page(dict(_asked(address, keys, Command("status"), _ANSWER_S).said)))


def swap(
    model: Annotated[str, typer.Argument(help="PACKAGE for channels without their own, or CHANNEL=PACKAGE.")],
    engine: Engine = None,
    precision: Precision = None,
    tolerate: Tolerate = False,
    address: Address = _ENDPOINT,
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
            said = _asked(address, keys, Command("swap", options), _SWAP_S).said
        out.print(
            f"{escape(channel)}: [bold]{escape(str(said.get('model')))}[/] on {escape(str(said.get('engine')))} is at work"
        )


def stop(address: Address = _ENDPOINT, keys: Keys = None) -> None:
    """Let the restore process finish what it has, and end. A second time ends it at once."""
    from live_restore.wire.messages import Command

    said = _asked(address, keys, Command("stop"), _ANSWER_S).said
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


def doctor(
    folder: Annotated[Path, typer.Option(help="Where raw data will be saved: its disk is tried out.")] = Path(),
    config: Config = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="Also start the devices of --config, which may move. The demo's always are.")
    ] = False,
    address: Address = _ENDPOINT,
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

    rig = _configuration(config)
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


@bench.command("live")
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


def _interrupt() -> None:
    """End this process as Ctrl-C would, and surely after a while."""
    _thread.interrupt_main()
    time.sleep(_PARENT_S)
    os._exit(1)


def _shape(text: str | None) -> tuple[int, int, int] | None:
    """``12x512x512`` to (12, 512, 512)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"--expect '{text}' is no shape; write planes x rows x columns, for example 12x512x512")
    planes, height, width = map(int, sides)
    return planes, height, width


def _configuration(path: Path | None) -> "HardwareConfig | None":
    from live_restore.config import HardwareConfig

    return None if path is None else HardwareConfig.from_file(path)


def _demo_configuration() -> "HardwareConfig":
    from live_restore.acquire.simulate.microscope import demo_config

    return demo_config()


def _print_warnings(address: str, keys: Path | None, run: str) -> None:
    """Print what the restore process has to say of a run so far."""
    from live_restore.errors import WireError
    from live_restore.wire.messages import Command

    try:
        said = _asked(address, keys, Command("status"), _ANSWER_S).said
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


def _client_keys(folder: Path | None) -> "ClientKeys | None":
    from live_restore.wire.security import ClientKeys

    return None if folder is None else ClientKeys.read(folder)


def _asked(address: str, keys: Path | None, command: "Command", timeout_s: float) -> "Answer":
    """Ask the restore process; a refusal is an error."""
    from live_restore.errors import WireError
    from live_restore.wire.messages import Answer
    from live_restore.wire.sockets import Caller

    with Caller(address, _client_keys(keys)) as caller:
        said = caller.ask(command, timeout_s)
    if not isinstance(said, Answer) or said.refused:
        raise WireError(getattr(said, "refused", "") or f"the restore process at {address} answered something else")
    return said
