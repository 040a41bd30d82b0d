"""live_restore itself: counts in, counts out, through `Restorer`, as offline restoration and the restore process use it.

Receives a package, an engine, a precision and an image as options; hands on a turn. It does not know what it is compared with.
"""

from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from live_restore.models.package import open_package
from live_restore.restorer import Restorer


def prepare(options: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Open the model.

    Parameters
    ----------
    options : dict
        ``package``, ``engine``, ``precision``, ``image`` (.npy, (C, Z, Y, X)); ``memory`` in bytes or None; ``one_by_one``:
        every channel is a volume of its own.
    """
    image = np.load(options["image"])
    package = open_package(Path(options["package"]))
    restorer = Restorer(package, engine=options["engine"], precision=options["precision"], memory_bytes=options.get("memory"))
    volumes = [channel[None] for channel in image] if options.get("one_by_one") else [image]
    spec = restorer.engine
    facts: dict[str, Any] = {
        "kind": spec.kind,
        "version": spec.version,
        "device": spec.device,
        "precision": spec.precision,
        "certificate": _certificate(restorer),
    }

    def turn() -> Any:
        restored = [restorer.restore(volume) for volume in volumes]
        facts["tiles"] = restored[0].tiles
        return restored[0].pixels if len(restored) == 1 else np.concatenate([each.pixels for each in restored])

    return turn, facts


def _certificate(restorer: Restorer) -> dict[str, Any] | None:
    """Give what the engine was certified with, where it was."""
    found = getattr(restorer.choice, "certificate", None)
    return asdict(found) if is_dataclass(found) and not isinstance(found, type) else None
