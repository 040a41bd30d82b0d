"""The terminal of the live path: frames as they are taken, the status page, accounts, findings.

Receives what the parts report; draws it with rich. It decides nothing.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from live_restore.terminal.offline import counting_bars

if TYPE_CHECKING:
    from live_restore.backfill import Backfilled
    from live_restore.demo import Shown
    from live_restore.demo_learn import Learned
    from live_restore.doctor.findings import Finding
    from live_restore.records.account import Account

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
_SIGNS = {"ok": "✓", "warning": "!", "problem": "✗"}


class Frames:
    """A progress bar of frames taken, with a line that says what is going on."""

    def __init__(self, console: Console) -> None:
        self._progress = counting_bars(console)
        self._task = self._progress.add_task("", total=None, unit="frames", visible=False)

    def say(self, sentence: str) -> None:
        """Print what happens, above the bar."""
        self._progress.console.print(escape(sentence), soft_wrap=True)

    def frames(self, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, description="acquiring", completed=done, total=total, visible=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


def status_page(said: Mapping[str, Any]) -> Group:
    """Draw the status of a restore process."""
    server = said.get("server", {})
    software, address = escape(str(server.get("software", ""))), escape(str(server.get("address", "")))
    head = f"[bold]{software}[/] at {address}, {server.get('state', '')}, up {_span(server.get('uptime_s', 0))}"
    if said.get("bad_messages"):
        head += f", [yellow]{said['bad_messages']} bad messages refused[/]"
    parts: list[Any] = [head, _models(said.get("models", ()))]
    runs = said.get("runs", ())
    if not runs:
        parts.append("[dim]no acquisition yet[/]")
    return Group(*parts, *(part for run in runs for part in _run(run)))


def print_account(console: Console, account: "Account") -> None:
    """Print what became of every frame."""
    for line in account.lines():
        console.print(escape(line))


def print_backfilled(out: Console, err: Console, done: "Backfilled") -> None:
    """Print what a backfill restored, and what it left and why."""
    from live_restore.backfill import LEFT

    for sentence in done.warnings:
        err.print(f"[yellow]warning:[/] {escape(sentence)}")
    out.print(f"restored {done.restored} volume(s), {done.already} were restored before: [bold]{escape(str(done.folder))}[/]")
    for reason, keys in done.left.items():
        if keys:
            out.print(f"  {len(keys)} left: {escape(LEFT[reason])} [dim](the first: {escape(str(keys[0]))})[/]")


def print_finding(console: Console, finding: "Finding") -> None:
    """Print one thing that the doctor found, and its cure."""
    colour = _COLOURS[finding.level]
    console.print(f"[{colour}]{_SIGNS[finding.level]}[/] [bold]{escape(finding.name)}[/]: {escape(finding.found)}")
    if finding.cure and finding.level != "ok":
        console.print(Padding(f"[{colour}]{escape(finding.cure)}[/]", (0, 0, 0, 4)))


def print_tally(console: Console, findings: "Sequence[Finding]") -> None:
    """Print how much is fine."""
    counts = {level: sum(finding.level == level for finding in findings) for level in _COLOURS}
    console.print(f"{counts['ok']} fine, {counts['warning']} to look at, {counts['problem']} to put right")


def print_learned(console: Console, learned: "Learned") -> None:
    """Print what the demo learned: every image that had a reference, before and after the promotion."""
    table = Table(
        "time point", "raw", "restored", "gain", title="against the references at high light, PSNR", title_justify="left"
    )
    for one in learned.compared:
        restored = "no network yet" if one.restored_db is None else f"{one.restored_db:.1f} dB"
        gain = "" if one.restored_db is None else f"{one.restored_db - one.raw_db:+.1f} dB"
        table.add_row(str(one.time), f"{one.raw_db:.1f} dB", restored, gain)
    console.print(table)
    gain_db = learned.gain_db
    gained = "no image was restored" if gain_db is None else f"after the promotion restoring gained {gain_db:+.1f} dB (median)"
    console.print(f"{learned.accepted} pairs from {learned.positions} positions; {gained}")
    console.print(", ".join(f"{name} {seconds:.0f} s" for name, seconds in learned.seconds.items()))
    for sentence in learned.warnings:
        console.print(f"[yellow]warning:[/] {escape(sentence)}")
    console.print(f"the model and its report: [bold]{escape(str(learned.package))}[/]")
    console.print(f"raw data: [bold]{escape(str(learned.raw))}[/]")
    console.print("raw is the record, restored is a prediction")


def print_demo(console: Console, shown: "Shown") -> None:
    """Print what the demo saw."""
    table = Table(
        "channel", "network", "raw", "restored", "gain", title="the last volume, PSNR against the truth", title_justify="left"
    )
    for row in shown.scores:
        gain = f"{row.restored_db - row.raw_db:+.1f} dB"
        table.add_row(escape(row.channel), escape(row.model), f"{row.raw_db:.1f} dB", f"{row.restored_db:.1f} dB", gain)
    console.print(table)
    for sentence in shown.sentences:
        console.print(escape(sentence))
    print_account(console, shown.account)
    console.print(f"raw data: [bold]{escape(str(shown.raw))}[/]")
    console.print(f"restored: [bold]{escape(str(shown.run_folder))}[/]")
    if shown.figure:
        console.print(f"before and after: [bold]{escape(str(shown.figure))}[/]")
    console.print("raw is the record, restored is a prediction")


def _models(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("channel", "model", "engine", "normalisation", "state", box=None, pad_edge=False)
    for row in rows:
        state = escape(str(row.get("state", "")))
        state += f": {escape(str(row['why']))}" if row.get("why") else ""
        channel = "every other" if row.get("channel") == "*" else str(row.get("channel", ""))
        named = (str(row.get(name, "")) for name in ("model", "engine", "normalisation"))
        table.add_row(escape(channel), *map(escape, named), state)
    return table


def _run(run: Mapping[str, Any]) -> list[Any]:
    raw = escape(str(run.get("raw") or "not on this machine"))
    parts: list[Any] = [
        f"\n[bold]run {escape(str(run.get('run')))}[/] ({run.get('state')}), raw: {raw}",
        f"{run.get('frames_per_s') or 0:.1f} frames/s in, {run.get('volumes_per_s') or 0:.2f} volumes/s restored",
        _ledger("at the hook", run.get("hook", {})),
        _ledger("in the restore process", run.get("ledger", {})),
    ]
    total = run.get("latency_ms", {}).get("total")
    if total:
        parts.append(f"latency: median {total['p50']:.0f} ms, p95 {total['p95']:.0f} ms, p99 {total['p99']:.0f} ms")
    parts += _references(run.get("references", ()))
    parts += [f"[yellow]warning:[/] {escape(str(sentence))}" for sentence in run.get("warnings", ())]
    return parts


def _references(compared: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per channel: the newest comparison with a reference volume, and how many there are."""
    by_channel: dict[str, list[Mapping[str, Any]]] = {}
    for each in compared:
        by_channel.setdefault(str(each.get("channel")), []).append(each)
    return [
        f"against the reference, {escape(channel)}: {escape(_compared(of_it[-1]))}; the last of {len(of_it)}"
        for channel, of_it in by_channel.items()
    ]


def _compared(each: Mapping[str, Any]) -> str:
    raw_db, restored_db, gain_db = (each.get(name) for name in ("raw_psnr_db", "psnr_db", "gain_db"))
    raw = "raw -" if raw_db is None else f"raw {raw_db:.1f} dB"
    gain = "" if gain_db is None else f" ({gain_db:+.1f} dB)"
    restored = "not restored" if restored_db is None else f"restored {restored_db:.1f} dB{gain} by {each.get('model')}"
    return f"{raw}, {restored}, time {each.get('time')}"


def _ledger(where: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return f"frames {where}: nothing is known yet"
    ends = ", ".join(f"{count} {name}" for name, count in counts.items() if count and name != "taken")
    return f"frames {where}: {counts.get('taken', 0)} = {ends or 'none'}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
