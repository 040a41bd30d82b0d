"""The table of a benchmark: one row for each engine, network, size and precision, also where there is only a reason.

Receives figures; hands on rows, as JSON and as markdown. It does not know how they were measured.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "live_restore.bench/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line.

    Attributes
    ----------
    network, size : str
        Size as it is typed, ``16x256x256``.
    engine : str
        Ours by its name, a peer by its own.
    peer : bool
        Whether it is somebody else's program.
    precision : str
    runs_on : str
        Version and device; empty if it did not run.
    median_ms, p95_ms : float or None
        Of one image, counts in to counts out.
    turns : int
    images_per_s : float or None
    mpx_per_s : float or None
        10^6 pixels or voxels of the input per second.
    gflop_per_s : float or None
    of_peak : float or None
        Share of the best rate of this engine at this precision, see `live_restore.bench.peak`; of a peer: of our best float32
        rate on the same kind of device.
    memory_mb : float or None
        Largest resident memory of the process that did it, Python and runtime included, 10^6 bytes.
    error : float or None
        Rms difference from our float32 result over its range (p99.9 - p0.1), on this image.
    certificate : mapping or None
        What the engine was certified with on real images, where it was.
    why_not : str
        Why there are no figures; empty if there are.
    note : str
        What else must be known to read the line.
    """

    network: str
    size: str
    engine: str
    precision: str
    peer: bool = False
    runs_on: str = ""
    median_ms: float | None = None
    p95_ms: float | None = None
    turns: int = 0
    images_per_s: float | None = None
    mpx_per_s: float | None = None
    gflop_per_s: float | None = None
    of_peak: float | None = None
    memory_mb: float | None = None
    error: float | None = None
    certificate: Mapping[str, Any] | None = None
    why_not: str = ""
    note: str = ""


@dataclass(slots=True)
class Benchmark:
    """Everything of one run.

    Attributes
    ----------
    conditions : mapping of str to str
    peaks : mapping of str to float
        ``"openvino bf16"`` to GFLOP/s.
    copy_gb_per_s : float or None
    rows : list of Row
    """

    conditions: Mapping[str, str]
    peaks: dict[str, float] = field(default_factory=dict)
    copy_gb_per_s: float | None = None
    rows: list[Row] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Give it as what is written into a file."""
        return {
            "format": FORMAT,
            "conditions": dict(self.conditions),
            "peak_gflop_per_s": {name: round(rate, 1) for name, rate in self.peaks.items()},
            "copy_gb_per_s": self.copy_gb_per_s,
            "rows": [asdict(row) for row in self.rows],
        }

    def as_markdown(self) -> str:
        """Give it as a page: conditions, limits, and the table."""
        lines = [f"- {name}: {what}" for name, what in self.conditions.items()]
        lines += [f"- peak of {name}: {rate:.0f} GFLOP/s" for name, rate in self.peaks.items()]
        lines += [f"- memory copied at {self.copy_gb_per_s:.1f} GB/s"] if self.copy_gb_per_s else []
        lines += ["", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
        lines += [f"| {' | '.join(cells)} |" for cells in map(cells_of, self.rows)]
        return "\n".join(lines) + "\n"


HEAD = ("network", "size", "engine", "precision", "median", "p95", "per s", "Mpx/s", "GFLOP/s", "of peak", "memory", "error")


def cells_of(row: Row) -> tuple[str, ...]:
    """Write a row's cells, in the order of `HEAD`; where there are no figures, the reason stands after the first four."""
    first = (row.network, row.size, row.engine + (f" ({row.note})" if row.note else ""), row.precision)
    if row.why_not:
        return (*first, f"not measured: {row.why_not}", *[""] * 7)
    return (
        *first,
        _written(row.median_ms, " ms"),
        _written(row.p95_ms, " ms"),
        _written(row.images_per_s),
        _written(row.mpx_per_s),
        _written(row.gflop_per_s),
        "" if row.of_peak is None else f"{100 * row.of_peak:.0f} %",
        _written(row.memory_mb, " MB"),
        "reference" if row.error == 0 else "" if row.error is None else f"{row.error:.1e}",
    )


def _written(value: float | None, unit: str = "") -> str:
    """Write three digits, and no power of ten."""
    return "" if value is None else f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"


def times_faster(rows: Sequence[Row]) -> list[str]:
    """Say for every network and size how many times as fast as each peer ours are, one sentence each."""
    sentences = []
    for peer in rows:
        ours = [row for row in rows if (row.network, row.size) == (peer.network, peer.size) and not row.peer and row.median_ms]
        if not peer.peer or not peer.median_ms or not ours:
            continue
        told = ", ".join(f"{row.engine} {row.precision} {peer.median_ms / row.median_ms:.2g}" for row in ours if row.median_ms)
        name = f"{peer.engine} with {peer.note}" if peer.note else peer.engine
        sentences.append(f"{peer.network} at {peer.size}, times as fast as {name} ({_written(peer.median_ms, ' ms')}): {told}")
    return sentences


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False))
