"""The command line of certificates: certify.

Receives what the user typed; hands on pairs and a package, and shows what engines are worth for it. How errors become sentences
is in `live_restore.cli`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from live_restore.arguments import package_path

if TYPE_CHECKING:
    from live_restore.models.package import ModelPackage
    from live_restore.models.real_images import RealImages

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(certify)


def certify(
    package: Annotated[str, typer.Argument(help="A model package; it gets the images.", metavar="PACKAGE")],
    pairs: Annotated[
        list[Path], typer.Option("--pairs", help="A folder of pairs of any origin that the network has not learned from.")
    ],
    channel: Annotated[str | None, typer.Option(help="Pairs of this channel only.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the images that the package has.")] = False,
) -> None:
    """Put real images into a model package, and certify every engine of this machine with them.

    Trained packages carry parts of some held-out pairs. Imported ones carry none, so nobody can say what a faster precision
    costs on real images. Parts of at most 8 pairs are taken.

    Example: [bold]live-restore certify my_care --pairs pairs/tubulin[/]
    """
    from live_restore.certified import offered_for
    from live_restore.errors import ModelError
    from live_restore.models.package import open_package
    from live_restore.models.real_images import REAL_IMAGES
    from live_restore.terminal.certificates import certificates_table

    opened = open_package(package_path(package))
    if REAL_IMAGES in opened.files.names() and not overwrite:
        raise ModelError(f"'{opened.name}' has images to certify with already; replace them with --overwrite")
    images = _images(opened, pairs, channel)
    opened = opened.with_real_images(images)
    err.print(f"'{escape(opened.name)}' carries {images.words} now")
    with err.status("certifying"):
        offered = list(offered_for(opened))
    out.print(certificates_table(opened.name, offered))


def _images(package: "ModelPackage", folders: Sequence[Path], channel: str | None) -> "RealImages":
    from live_restore.errors import ModelError, PairError
    from live_restore.evaluation.real_crops import real_crops
    from live_restore.records.pairs import file_sha256, read_pairs
    from live_restore.training.fields import choose_pairs
    from live_restore.training.inputs import camera_in

    facts = package.facts
    if facts.channels_in != 1 or facts.channels_out != 1 or set(facts.geometry.output_factor) != {1}:
        raise ModelError(f"'{package.name}' does not give one image of the same size for one, so pairs cannot judge it")
    found = [read_pairs(folder) for folder in folders]
    chosen = choose_pairs([pair for each in found for pair in each.pairs], channel)
    seen = package.learned_from()
    new = [pair for pair in chosen if not seen or file_sha256(pair.low) not in seen]
    if not new:
        raise PairError(f"'{package.name}' has learned from all {len(chosen)} pairs; give some that it has not seen")
    camera = next((camera for each in found if (camera := camera_in(each.card))), None)
    images = real_crops(new, facts.geometry.n_dim, "given", camera)
    if images is None:
        raise PairError(
            f"none of {len(new)} pairs can be used for '{package.name}', a {facts.geometry.n_dim}D network: they are flat, no "
            "camera counts, or single planes where it takes stacks"
        )
    return images
