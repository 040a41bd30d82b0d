"""The networks that are measured: packages that were named, the bundled ones, and CARE and RCAN as their authors set them.

Receives names and paths; hands on packages, or the reason why there is none. The networks of CSBDeep's and 3D-RCAN's default
structure get random weights, on which neither time nor memory depends. It does not know how anything is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live_restore.arguments import package_path
from live_restore.errors import LiveRestoreError, ModelError
from live_restore.models.facts import Architecture, Normalisation
from live_restore.models.foreign.imported import Imported
from live_restore.models.foreign.importing import write_imported
from live_restore.models.nets import build_net
from live_restore.models.package import ModelPackage, open_package
from live_restore.models.registry import bundled_folder, find_packages, is_package

# By the name that is typed: kind and options of a network, as CSBDeep's Config and 3D-RCAN's README set them.
DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "care2d": ("care", {"n_dim": 2}),
    "care2d-k3": ("care", {"n_dim": 2, "kernel": 3}),
    "care3d": ("care", {"n_dim": 3}),
    "rcan2d": ("rcan", {"n_dim": 2, "blocks": 3, "groups": 5}),
    "rcan3d": ("rcan", {"n_dim": 3, "blocks": 3, "groups": 5}),
}


@dataclass(frozen=True, slots=True, eq=False)
class BenchNetwork:
    """A network to be measured.

    Attributes
    ----------
    name : str
        As it stands in the table.
    package : ModelPackage or None
    why_not : str
        Why there is no package; empty if there is.
    """

    name: str
    package: ModelPackage | None
    why_not: str = ""

    @property
    def n_dim(self) -> int:
        """Spatial axes of the images it takes: 2, or 3 also for a 2D network that goes through stacks along Z; 0 if unknown."""
        if self.package is None:
            return 0
        facts = self.package.facts
        return 3 if facts.procedure != "direct" else facts.geometry.n_dim


def bench_networks(named: Sequence[str], folder: Path) -> list[BenchNetwork]:
    """Open what was named, or every bundled package.

    Parameters
    ----------
    named : sequence of str
        Paths of packages or of folders with packages, names of bundled ones, or names in `DEFAULTS`.
    folder : Path
        Where packages with random weights are written.

    Raises
    ------
    ModelError
        If nothing is there by a name.
    """
    found: list[BenchNetwork] = []
    for name in named or [str(bundled_folder())]:
        if name in DEFAULTS and not Path(name).exists():
            found.append(_default(name, folder))
            continue
        path = package_path(name)
        if path.is_dir() and not is_package(path):
            found += [BenchNetwork(each.path.name, each.package, each.error) for each in find_packages([path])]
        else:
            if not path.exists():
                raise ModelError(
                    f"there is no model package '{name}': give a package, a folder of packages, the name of a bundled one "
                    f"({', '.join(sorted(path.name for path in bundled_folder().iterdir() if is_package(path)))}), or "
                    f"{', '.join(DEFAULTS)}"
                )
            found.append(_opened(path.name, path))
    return found


def _opened(name: str, path: Path) -> BenchNetwork:
    try:
        return BenchNetwork(name, open_package(path))
    except (LiveRestoreError, OSError) as refused:
        return BenchNetwork(name, None, str(refused))


def _default(name: str, folder: Path) -> BenchNetwork:
    try:
        return BenchNetwork(name, random_package(name, *DEFAULTS[name], folder / name))
    except LiveRestoreError as refused:
        return BenchNetwork(name, None, str(refused))


def random_package(name: str, kind: str, options: dict[str, Any], path: Path) -> ModelPackage:
    """Write a package of a network with random weights.

    Raises
    ------
    ModelError
        If torch is not installed.
    """
    net = build_net(kind, options, seed=0)
    imported = Imported(
        net=net,
        architecture=Architecture(
            kind=kind,  # type: ignore[arg-type]
            options=net.options,
            parameters=sum(weights.numel() for weights in net.parameters()),
        ),
        normalisation=Normalisation(),
        channels_in=net.options["channels_in"],
        channels_out=net.options["channels_out"],
        source_format="random",
        source_name=name,
        source_sha256="0" * 64,
        name=f"{name} with random weights",
        notes=("random weights: for measuring time and memory only",),
    )
    return write_imported(imported, path)
