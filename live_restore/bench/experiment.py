"""The answer before an experiment: every network that it uses is measured on its volumes, and the experiment is played through.

Receives a demand and a package for each channel; hands on an `Outlook`. It does not know where the demand came from.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from live_restore.bench.demand import Demand
from live_restore.bench.keeps_up import Outlook, outlook, what_helps
from live_restore.bench.pace import Pace, measure_pace, pace_in_bf16
from live_restore.models.package import ModelPackage, open_package

Progress = Callable[[str, int, int, str], None]
_ALL = "*"


def look_ahead(
    demand: Demand,
    packages: Mapping[str, Path],
    engine: str = "auto",
    precision: str = "auto",
    progress: Progress = lambda name, done, total, unit: None,
    budget_s: float = 20.0,
) -> Outlook:
    """Say how an experiment will go on this machine.

    Parameters
    ----------
    demand : Demand
    packages : mapping of str to Path
        By channel; ``*`` for all that are not named.
    engine, precision : str
    progress : callable (name, done, total, unit)
    budget_s : float
        About how long to measure each network.

    Raises
    ------
    ValueError
        If no channel has a model.
    LiveRestoreError
        If a package cannot be opened or run.
    """
    if not packages:
        raise ValueError("say which network is to restore it: --model PACKAGE, or --model CHANNEL=PACKAGE for each channel")
    opened = {channel: open_package(path) for channel, path in packages.items()}
    measured: dict[tuple[Path, tuple[int, int, int]], Pace] = {}
    paces: dict[str, Pace] = {}
    used: dict[str, ModelPackage] = {}
    for channel, shape in demand.shapes.items():
        package = opened.get(channel, opened.get(_ALL))
        if package is None:
            continue
        case = (package.path, shape)
        if case not in measured:
            measured[case] = measure_pace(
                package, shape, engine=engine, precision=precision, budget_s=budget_s, progress=progress
            )
        paces[channel], used[channel] = measured[case], package
    seen = outlook(demand, paces)
    if seen.keeps_up:
        return seen
    slowest = max(paces, key=lambda channel: paces[channel].volume_s)
    pace, package = paces[slowest], used[slowest]
    shorter = pace_in_bf16(package, pace, budget_s, progress) if precision in ("auto", "f32") else None
    return outlook(demand, paces, what_helps(demand, seen, package, shorter))
