"""The command line of builds: build.

Receives what the user typed; hands on packages, targets and a recipe, and shows how far the build is. Everything that is
heavy is imported when the command is called. How errors become sentences is in `live_restore.cli`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.console import Console
from rich.markup import escape

from live_restore.arguments import package_path
from live_restore.engines.engine import Precision

if TYPE_CHECKING:
    from rich.status import Status

    from live_restore.build import Planned
    from live_restore.engines.cache.engine_cache import EngineCache
    from live_restore.engines.tensorrt.recipe import BuildPrecision

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(build)


def build(
    packages: Annotated[
        list[str] | None,
        typer.Argument(help="Model packages, or names of bundled ones.", metavar="PACKAGE", show_default=False),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            help="The card in this machine, or a generation of cards. Repeat it. [dim]default: this[/]",
            metavar="this|rtx20|rtx30|rtx40|rtx50",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="f16, f32, bf16 or int8: arithmetic within the network; int8 is for the CPU (OpenVINO). Repeat it. "
            "[dim]default: the first of the recipe, f16[/]",
            metavar="[f16|f32|bf16|int8]",
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(help="With int8: folders of pairs to find the layers on. [dim]default: images in the package[/]"),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Shapes, precisions and tolerance, as TOML. [dim]default: the one in tensorrt_engines/ that fits[/]"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Build also what is in the cache already.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Show what is in the cache instead.")] = False,
) -> None:
    r"""Build TensorRT engines ahead of time, so that the first volume of a run does not wait for them.

    Needs TensorRT: pip install "live_restore\[rtx]" for a GeForce or RTX card, "live_restore\[tensorrt]" for a data-centre
    card. With the former no card is needed: --for rtx40 builds on any machine, in a second or two for each plan.

    One plan is built for each range of shapes in the recipe. They go into the cache of this user on this machine, and nothing
    built elsewhere is ever loaded: on the microscope's computer, build there. An engine that is missing is built when it is
    first needed, so this command is never necessary. A recipe of your own is used when serving too if it lies in the folder
    that is named after the build.

    For the CPU, --precision int8 finds the layers of a network in whole numbers, on real images, and certifies them: as fast as
    twice bf16 where the CPU has VNNI. That takes one to four minutes, and no engine does it by itself.

    Examples:
      [bold]live-restore build tubulin.bioimageio[/]
      [bold]live-restore build tubulin.bioimageio --precision int8 --pairs pairs/tubulin[/]
      [bold]live-restore build tubulin.bioimageio care2d_demo --for rtx30 --for rtx40[/]
      [bold]live-restore build tubulin.bioimageio --precision f32 --recipe my_shapes.toml[/]
      [bold]live-restore build --list[/]
    """
    from live_restore.engines.cache.engine_cache import EngineCache

    cache = EngineCache()
    if show:
        _list(cache)
        return
    if not packages:
        raise ValueError("say what to build: live-restore build PACKAGE; or see what there is: live-restore build --list")
    wanted = list(dict.fromkeys(precision or []))
    for name in wanted:
        if name not in get_args(Precision):
            raise ValueError(f"there is no precision '{name}'; the precisions are {', '.join(get_args(Precision))}")
    if pairs and "int8" not in wanted:
        raise ValueError("--pairs is for --precision int8; TensorRT builds need no images")
    on_cards = [cast("BuildPrecision | None", name) for name in wanted if name != "int8"]
    # what cannot be planned is refused before anything is built
    planned = _planned(packages, targets or ["this"], on_cards or [None], recipe) if on_cards or not wanted else None
    if "int8" in wanted:
        _build_int8(packages, pairs or [])
    if planned is not None:
        _build(cache, planned, fresh)
        _say_where_recipes_go(recipe)


def _build_int8(packages: list[str], pairs: list[Path]) -> None:
    from live_restore.build_int8 import build_int8
    from live_restore.models.package import open_package

    for name in packages:
        package = open_package(package_path(name))
        finding = f"finding the int8 layers of {escape(package.name)}"
        with err.status(finding) as status:
            built = build_int8(package, pairs, partial(_tell, status, finding))
        refusal = built.certificate.refusal
        taken = f"[yellow]auto does not take it: {escape(refusal)}[/]" if refusal else "auto takes it"
        out.print(f"[bold]{escape(package.name)}[/], int8: {escape(built.words)}; {built.certificate.sentence}; {taken}")


def _tell(status: "Status", about: str, words: str) -> None:
    status.update(f"{about}: {escape(words)}")


def _planned(
    packages: list[str], targets: list[str], precisions: "Sequence[BuildPrecision | None]", recipe: Path | None
) -> "list[Planned]":
    from live_restore.build import plans_for
    from live_restore.engines.tensorrt.flavour import flavour_for
    from live_restore.engines.tensorrt.recipe import read_recipe
    from live_restore.engines.tensorrt.targets import target_named
    from live_restore.models.package import open_package

    flavour_for()  # without any TensorRT nothing else is worth a question
    written = None if recipe is None else read_recipe(recipe)
    found = [target_named(name) for name in dict.fromkeys(targets)]
    opened = [open_package(package_path(name)) for name in packages]
    wanted = [(package, target, precision) for package in opened for target in found for precision in precisions]
    return [one for package, target, precision in wanted for one in plans_for(package, target, precision, written)]


def _build(cache: "EngineCache", planned: "list[Planned]", fresh: bool) -> None:
    from live_restore.build import Built
    from live_restore.build import build as carry_out
    from live_restore.terminal.building import BuildBars, print_built

    done: list[Built] = []
    try:
        with BuildBars(err) as bars:
            for built in carry_out(planned, cache, bars, fresh):
                done.append(built)  # noqa: PERF402 (what was built before a failure is to be shown)
    finally:
        if done:
            print_built(out, done)
    out.print(f"{len(done)} plan(s) in [bold]{escape(str(cache.root))}[/]; only this machine loads them")


def _say_where_recipes_go(recipe: Path | None) -> None:
    from live_restore.engines.tensorrt.recipe import own_recipes_folder

    folder = own_recipes_folder()
    if recipe is not None and recipe.resolve().parent != folder.resolve():
        out.print(f"to use these plans when restoring, put the recipe into [bold]{escape(str(folder))}[/]")


def _list(cache: "EngineCache") -> None:
    from live_restore.terminal.building import print_cache

    plans = [entry for entry in cache.entries() if entry.key.flavour.startswith("tensorrt") and entry.engine_bytes]
    if not print_cache(out, sorted(plans, key=lambda entry: (entry.name, entry.key.device, entry.built))):
        out.print(f"no engine in {escape(str(cache.root))} yet; build one: live-restore build PACKAGE")
