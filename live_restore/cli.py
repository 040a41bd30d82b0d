"""The command line: words in, words out. Every command imports what it needs when it is called.

Receives what the user typed; hands it to the parts, shows how far they are, and turns every error into a sentence.
"""

import logging
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from live_restore import __version__
from live_restore.arguments import byte_size, check_figure, package_path, split_model
from live_restore.commands import (
    acquiring,
    benching,
    building,
    calibration,
    certifying,
    demo,
    distilling,
    learning,
    serving,
    training,
)
from live_restore.errors import LiveRestoreError
from live_restore.terminal.offline import Bars, print_engines, print_facts, print_models, print_outcomes

if TYPE_CHECKING:
    from live_restore.channels import Assignment
    from live_restore.offline import Outcome
    from live_restore.restorer import Restorer

app = typer.Typer(
    name="live-restore",
    help="Restore low-light microscopy with CARE and RCAN networks. Raw is the record; restored is a prediction.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

for commands in (demo, serving, acquiring, calibration, training, distilling, learning, certifying, building, benching):
    commands.add_to(app)

# Rows of a before/after figure: more do not fit on a page.
_GALLERY_ROWS = 6
_BUNDLED = "care2d_demo"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; print an error as a sentence and exit with 1, or 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a pipe on Windows may not know every letter of a channel's name
            stream.reconfigure(errors="replace")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:  # importing pymmcore-plus sets the root logger itself to DEBUG
        handler.setLevel(logging.WARNING)
    os.environ.setdefault("PYMM_LOG_LEVEL", "WARNING")  # and it has a handler of its own, a line per exposure
    try:
        app(args=arguments)
    except LiveRestoreError as error:
        _fail(str(error))
    except (OSError, ValueError, MemoryError) as error:
        _fail(str(error) or type(error).__name__)


def _fail(sentence: str) -> None:
    err.print(f"[bold red]error:[/] {escape(sentence)}")
    sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"live_restore {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


@app.command("import")
def import_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="A CSBDeep model folder or SavedModel zip, a 3D-RCAN .hdf5, a CAREamics .ckpt, or a bioimage.io package."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The package to write: a folder, or a .zip.")],
    name: Annotated[str | None, typer.Option(help="Name of the model. [dim]default: the source's[/]")] = None,
    procedure: Annotated[
        Literal["direct", "upsampling", "isotropic"],
        typer.Option(help="How CSBDeep used this network: CARE, UpsamplingCARE or IsotropicCARE (its files do not say)."),
    ] = "direct",
    z_factor: Annotated[
        float | None, typer.Option(help="How many times finer Z becomes, for upsampling and isotropic.")
    ] = None,
    low_percentile: Annotated[float | None, typer.Option(help="Percentile that becomes 0. [dim]default: 2[/]")] = None,
    high_percentile: Annotated[
        float | None, typer.Option(help="Percentile that becomes 1. [dim]default: 99.8 (CARE), 99.9 (RCAN)[/]")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Which weight file of the folder. [dim]default: the newest 'best'[/]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing package.")] = False,
) -> None:
    """Turn anybody's trained CARE or RCAN weights into a model package.

    Nothing in a weight file is executed or unpickled. The package is a bioimage.io 0.5 model with ONNX weights.

    Example: [bold]live-restore import models/my_care -o my_care.bioimageio[/]
    """
    from live_restore.models.foreign.importing import import_model
    from live_restore.models.registry import fact_sheet

    with err.status(f"reading {escape(source.name)}"):
        package = import_model(
            source,
            output,
            name=name,
            procedure=procedure,
            z_factor=z_factor,
            low_percentile=low_percentile,
            high_percentile=high_percentile,
            overwrite=overwrite,
            weights=weights,
        )
    print_facts(out, package.name, fact_sheet(package))
    out.print(f"\nwritten: [bold]{escape(str(package.path))}[/]")
    finer = " --z-factor N" if procedure != "direct" and z_factor is None else ""
    out.print(f'try it:  live-restore restore IMAGE.tif -o RESTORED.ome.tif --model "{escape(str(package.path))}"{finer}')


@app.command()
def models(
    where: Annotated[
        list[Path] | None,
        typer.Argument(help="Packages, or folders with packages in them. [dim]default: this folder and the bundled models[/]"),
    ] = None,
) -> None:
    """List model packages; show everything about one.

    With a single package: architecture, size, receptive field, divisibility, normalisation, provenance, assumptions.
    """
    from live_restore.models.package import open_package
    from live_restore.models.registry import bundled_folder, fact_sheet, find_packages, is_package

    if where and len(where) == 1 and is_package(where[0]):
        package = open_package(where[0])
        print_facts(out, package.name, fact_sheet(package))
        return
    found = find_packages(where or [Path.cwd(), bundled_folder()])
    if not found:
        out.print("no model packages here; make one with: live-restore import SOURCE -o PACKAGE")
        return
    print_models(out, found)


@app.command()
def engines(
    model: Annotated[
        str | None, typer.Option("--model", help="A package: also show how far each engine is from float32 for it.")
    ] = None,
) -> None:
    """Show which engines this machine has, how far each is from float32 for a model, and what 'auto' picks, and why."""
    from live_restore.certified import choose_for, offered_for
    from live_restore.engines.engine import engine_status
    from live_restore.models.package import open_package
    from live_restore.terminal.certificates import certificates_table

    print_engines(out, engine_status())
    package = open_package(package_path(model or _BUNDLED))
    if model is not None:
        with err.status("certifying"):
            offered = list(offered_for(package))
        out.print("", certificates_table(package.name, offered), "")
    choice = choose_for(package)
    out.print(f"auto, for model '{escape(package.name)}': [bold]{escape(str(choice.spec))}[/]")
    out.print(f"because {escape(choice.why)}")
    out.print("restore computes in f32 unless told otherwise with --precision")


@app.command()
def restore(
    inputs: Annotated[
        list[Path], typer.Argument(help="TIFF, OME-TIFF, OME-Zarr, NDTiff datasets, or folders of them.", metavar="INPUT")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="A file (.ome.tif, .ome.zarr) for one image, else a folder.")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="PACKAGE for every channel, or CHANNEL=PACKAGE, or A+B=PACKAGE for a model of two channels. Repeat it.",
        ),
    ],
    others: Annotated[Literal["keep", "leave-out"], typer.Option(help="Channels without a model.")] = "keep",
    dtype: Annotated[
        Literal["float32", "uint16"], typer.Option(help="Pixels of the result; uint16 is rounded and clipped.")
    ] = "float32",
    format_: Annotated[
        Literal["ome.tif", "ome.zarr"], typer.Option("--format", help="Format of files written into a folder.")
    ] = "ome.tif",
    normalisation: Annotated[
        Literal["frozen", "rolling", "volume"] | None,
        typer.Option(help="Where the percentiles come from. [dim]default: what the model says[/]"),
    ] = None,
    z_factor: Annotated[
        float | None, typer.Option(help="How many times finer Z becomes, for upsampling and isotropic models.")
    ] = None,
    widths: Annotated[
        bool, typer.Option("--widths", help="Also write the Laplace scale that a probabilistic model predicts.")
    ] = False,
    axes: Annotated[str | None, typer.Option(help="Meaning of the axes of a plain TIFF, e.g. TYX or TZCYX.")] = None,
    sequence: Annotated[
        Literal["T", "C", "Z"] | None, typer.Option(help="The TIFF files of each input folder are steps along this axis.")
    ] = None,
    engine: Annotated[str, typer.Option(help="A name from live-restore engines, or auto.")] = "auto",
    precision: Annotated[
        Literal["f32", "bf16", "f16", "int8", "auto"],
        typer.Option(help="Arithmetic of the network; bf16 is about twice as fast where the CPU has it, see docs/measured.md."),
    ] = "f32",
    tolerate: Annotated[
        bool, typer.Option("--tolerate", help="Take that precision even if its certificate is out of bounds.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="What the network may take, e.g. 4GB. [dim]default: 40 % of what is free[/]")
    ] = None,
    gallery: Annotated[Path | None, typer.Option(help="Also draw a before/after figure (.png or .pdf).")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results, and discard half-written ones of another job.")
    ] = False,
) -> None:
    """Restore images with a model package.

    A run that was stopped goes on where it was: give the same command again. Nothing is overwritten without --overwrite.

    Examples:
      [bold]live-restore restore noisy.tif -o restored.ome.tif --model my_care[/]
      [bold]live-restore restore run_1/ -o restored/ --model DAPI=nuclei --model GFP=tubulin --gallery before_after.png[/]
    """
    from live_restore.offline import restore_files
    from live_restore.outputs import Options

    if gallery:
        check_figure(gallery)
    opened = _assignments(model, engine, precision, byte_size(memory, "--memory"), normalisation, z_factor, tolerate)
    options = Options(others, dtype, widths, f".{format_}", axes, sequence, overwrite, samples=gallery is not None)
    try:
        with Bars(err) as bars:
            outcomes = restore_files(inputs, output, opened, options, bars)
    except KeyboardInterrupt:
        err.print("[yellow]stopped; the same command goes on from here[/]")
        raise typer.Exit(130) from None
    finally:
        for assignment in opened:
            assignment.restorer.close()
    print_outcomes(out, err, outcomes)
    if widths and not any(assignment.restorer.facts.probabilistic for assignment in opened):
        err.print("[yellow]warning:[/] --widths: no model here predicts a Laplace scale, so none was written")
    if gallery:
        _draw_gallery(gallery, outcomes)
    if any(outcome.failure for outcome in outcomes):
        raise typer.Exit(1)


def _assignments(
    wanted: Sequence[str],
    engine: str,
    precision: str,
    memory: int | None,
    mode: "Literal['frozen', 'rolling', 'volume'] | None",
    z_factor: float | None,
    tolerate: bool,
) -> "list[Assignment[Restorer]]":
    from live_restore.channels import Assignment
    from live_restore.engines.certificates.certificate import ANYTHING
    from live_restore.models.package import open_package
    from live_restore.restorer import Restorer

    options: dict[str, Any] = {"memory_bytes": memory, "mode": mode, "z_factor": z_factor}
    options |= {"tolerance": ANYTHING if tolerate else None}
    assignments = []
    for text in wanted:
        channels, path = split_model(text)
        package = open_package(package_path(path))
        restorer = Restorer(package, engine=engine, precision=precision, **options)
        found = restorer.choice.certificate
        said = restorer.choice.why if precision == "auto" else found.sentence if found else ""
        why = f" [dim]({escape(said)})[/]" if said else ""
        err.print(f"model [bold]{escape(package.name)}[/] on {escape(str(restorer.engine))}{why}")
        assignments.append(Assignment(channels, restorer))
    return assignments


def _draw_gallery(path: Path, outcomes: "Sequence[Outcome]") -> None:
    from live_restore.figures import GalleryRow, gallery

    rows = [
        GalleryRow(sample.title, sample.raw, sample.restored, None, sample.caption, sample.pixel_size_um)
        for outcome in outcomes
        for sample in outcome.samples
    ]
    if not rows:
        err.print("[yellow]no figure: no restored channel has a raw one of its size to lay beside it[/]")
        return
    gallery(rows[:_GALLERY_ROWS], path)
    shown = f", the first {_GALLERY_ROWS} of {len(rows)} channels" if len(rows) > _GALLERY_ROWS else ""
    err.print(f"figure: [bold]{escape(str(path))}[/]{shown}")


@app.command()
def score(
    restored: Annotated[list[Path], typer.Argument(help="Restored images, or folders of them.", metavar="RESTORED")],
    reference: Annotated[
        list[Path], typer.Option("--reference", help="High-light images, or folders; paired with the restored by file name.")
    ],
    raw: Annotated[list[Path] | None, typer.Option("--raw", help="Low-light images: also score them, to see the gain.")] = None,
    axes: Annotated[str | None, typer.Option(help="Meaning of the axes of plain TIFFs, e.g. TYX.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures as JSON.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw them (.png or .pdf).")] = None,
) -> None:
    """Say how good restorations are, against high-light images of the same fields.

    PSNR, SSIM and NRMSE after the affine fit used in the field (least squares a*x + b to the reference; range = its
    99.9 minus its 0.1 percentile), and the resolution by Fourier ring correlation (threshold 1/7).

    Example: [bold]live-restore score restored/ --reference high/ --raw low/ --figure score.png[/]
    """
    from live_restore.pairing import score_files
    from live_restore.score import table, write_figure, write_json

    if figure:
        check_figure(figure)
    with Bars(err) as bars:
        bars.image("scoring", 0, 0)
        scores = score_files(restored, reference, raw or (), axes, bars.count)
    out.print(table(scores))
    if json_file:
        write_json(scores, json_file)
    if figure:
        write_figure(scores, figure)
        err.print(f"figure: [bold]{escape(str(figure))}[/]")


if __name__ == "__main__":
    main()
