"""The models of the restore process: which channel goes through which, loading, and changing one while the others run.

Receives choices (a channel, a package, an engine); hands on open restorers by channel, and says in words what is ready,
loading or failed. It does not know frames, threads' work or sockets.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, cast, get_args

from live_restore.engines.certificates.certificate import ANYTHING, Certificate, Tolerance
from live_restore.errors import ModelError
from live_restore.models.facts import ModelFacts
from live_restore.models.package import open_package
from live_restore.restorer import Mode, Restorer

# The model of every channel that has none of its own.
OTHERS = "*"
Shape = tuple[int, int, int]  # (Z, Y, X)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model a channel is to have.

    Attributes
    ----------
    channel : str
        ``*``: every channel that has no model of its own.
    package : Path
        A model package.
    engine, precision : str
        Names as in `live_restore.engines`, or ``auto``.
    mode : {"frozen", "rolling", "volume"} or None
        None: what the package says.
    tolerate : bool
        Take the precision that is asked for, whatever its certificate says.
    """

    channel: str
    package: Path
    engine: str = "auto"
    precision: str = "auto"
    mode: Mode | None = None
    tolerate: bool = False

    @property
    def tolerance(self) -> Tolerance | None:
        """How far from float32 the precision may be; None: as usual."""
        return ANYTHING if self.tolerate else None


@dataclass(slots=True, eq=False)
class Served:
    """One model, open; its restorer belongs to the restore thread.

    Attributes
    ----------
    choice : ModelChoice
    restorer : Restorer
    warmed : set of (Z, Y, X)
        Shapes that it has restored already.
    """

    choice: ModelChoice
    restorer: Restorer
    warmed: set[Shape] = field(default_factory=set)

    @property
    def takes_slabs(self) -> bool:
        """Whether some planes of a stack come out as they will in the whole: a 2D network with a frozen range."""
        facts = self.restorer.facts
        return facts.procedure == "direct" and facts.geometry.n_dim == 2 and self.restorer.normalisation.mode == "frozen"

    def provenance(self) -> dict[str, Any]:
        """Say what restores; in JSON."""
        return {
            "model": self.restorer.package.name,
            "sha256": self.restorer.package.onnx_sha256,
            "engine": str(self.restorer.engine),
            "precision": self.restorer.engine.precision,
            **self.restorer.choice.figures,
            "normalisation": self.restorer.normalisation.mode,
        }

    def warm_up(self, shape: Shape) -> None:
        """Restore nothing in this shape, so that the first volume is as quick as the rest."""
        if shape not in self.warmed:
            self.restorer.warm_up(shape)
            self.warmed.add(shape)


class Models:
    """Restorers by channel; any thread may ask, only the restore thread runs them.

    Parameters
    ----------
    choices : sequence of ModelChoice

    Raises
    ------
    ModelError
        If a package cannot be opened or served live, or a channel has two.
    EngineError
        If an engine cannot be opened.
    ValueError
        If a mode does not fit its package.
    """

    def __init__(self, choices: Sequence[ModelChoice]) -> None:
        self._lock, self._loading = Lock(), Lock()
        self._served: dict[str, Served] = {}
        self._attempts: dict[str, dict[str, Any]] = {}
        self._retired: list[Served] = []
        self._closed: list[dict[str, Any]] = []
        self._shapes: dict[str, Shape] = {}
        self._expected: Shape | None = None
        try:
            for choice in choices:
                if choice.channel in self._served:
                    raise ModelError(f"two models are given for channel '{choice.channel}'; give it one")
                self._served[choice.channel] = _load(choice)
        except BaseException:
            self.close()
            raise

    def of(self, channel: str) -> Served | None:
        """Give the model of a channel; None if it has none."""
        with self._lock:
            return self._served.get(channel) or self._served.get(OTHERS)

    def seen(self, channel: str, shape: Shape) -> bool:
        """Remember that volumes of this shape (Z, Y, X) come in this channel; tell whether that is news."""
        with self._lock:
            news = self._shapes.get(channel) != shape
            self._shapes[channel] = shape
            return news

    def expect(self, shape: Shape) -> None:
        """Warm every model up for volumes of this shape (Z, Y, X), also those to come, until volumes come. Takes its time.

        Raises
        ------
        ValueError
            If it is no shape.
        ImageError, EngineError
            If a model cannot restore volumes of this shape.
        """
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"volumes of shape {shape} cannot be expected; give planes, rows and columns, each 1 or more")
        with self._lock:
            self._expected, serving = shape, list(self._served.values())
        for served in serving:
            served.warm_up(shape)

    def swap(self, choice: ModelChoice) -> dict[str, Any]:
        """Load a model and warm it up, then put it in the place of the one that the channel has. Takes its time.

        The old model goes on restoring meanwhile, and stays if anything fails.

        Returns
        -------
        dict
            The new model, in words.

        Raises
        ------
        LiveRestoreError, ValueError
            If it cannot be loaded, does not fit, or fails on volumes of the shapes that come in.
        """
        with self._loading:
            self._attempt(choice, "loading")
            try:
                served = self._prepared(choice)
            except Exception as failed:
                self._attempt(choice, "failed", str(failed) or type(failed).__name__)
                raise
            with self._lock:
                del self._attempts[choice.channel]
                old = self._served.get(choice.channel)
                self._retired += [old] if old else []
                self._served[choice.channel] = served
            return {"channel": choice.channel, **_row(served)}

    def announce(self, choice: ModelChoice, state: str, why: str = "") -> None:
        """Tell of a model that is to come; until the next word about its channel, or until it is swapped in."""
        self._attempt(choice, state, why)

    def close_retired(self) -> None:
        """Close the models that were replaced; the restore thread calls this between volumes."""
        with self._lock:
            retired, self._retired = self._retired, []
        for served in retired:
            with suppress(Exception):  # it is no longer needed, and whatever it says helps nobody
                served.restorer.close()

    def reset(self) -> None:
        """Forget all rolling ranges; the restore thread calls this when no run goes on."""
        with self._lock:
            serving = list(self._served.values())
        for served in serving:
            served.restorer.reset()

    def described(self) -> list[dict[str, Any]]:
        """Say what is ready, loading and failed, in JSON; a failed attempt is told of until the next one.

        What was at work when all were closed is told from then on: the records of a run are finished after that.
        """
        with self._lock:
            rows = [{"channel": channel, **_row(served)} for channel, served in self._served.items()] or self._closed
            return [dict(row) for row in (*rows, *self._attempts.values())]

    def close(self) -> None:
        """Close all; a second time is fine."""
        with self._lock:
            if self._served:
                self._closed = [{"channel": channel, **_row(served)} for channel, served in self._served.items()]
            self._retired += self._served.values()
            self._served = {}
        self.close_retired()

    def _prepared(self, choice: ModelChoice) -> Served:
        served = _load(choice)
        try:
            for shape in self._shapes_of(choice.channel):
                served.warm_up(shape)
        except BaseException:
            served.restorer.close()
            raise
        return served

    def _shapes_of(self, channel: str) -> set[Shape]:
        with self._lock:
            own, seen = self._served.keys(), self._shapes.items()
            shapes = {shape for name, shape in seen if name == channel or (channel == OTHERS and name not in own)}
            return shapes or ({self._expected} if self._expected else set())

    def _attempt(self, choice: ModelChoice, state: str, why: str = "") -> None:
        row = {
            "channel": choice.channel,
            "model": choice.package.name,
            "package": str(choice.package.absolute()),
            "sha256": "",
            "engine": choice.engine,
            "precision": choice.precision,
            "normalisation": choice.mode or "",
            "state": state,
            "why": why,
        }
        with self._lock:
            self._attempts[choice.channel] = row


def choice_of(options: Any) -> ModelChoice:
    """Read what the command ``swap`` was given.

    Raises
    ------
    ValueError
        If a field is missing, or is no text.
    """
    words = {name: options.get(name) for name in ("channel", "package", "engine", "precision", "mode")}
    for name, word in words.items():
        if word is not None and not isinstance(word, str):
            raise ValueError(f"{name} {word!r} is no text")
    if not words["package"]:
        raise ValueError("no package was named; swap needs the path of a model package")
    if words["mode"] is not None and words["mode"] not in get_args(Mode):
        raise ValueError(f"there is no normalisation {words['mode']!r}; use {', '.join(get_args(Mode))}")
    return ModelChoice(
        words["channel"] or OTHERS,
        Path(words["package"]),
        words["engine"] or "auto",
        words["precision"] or "auto",
        cast("Mode | None", words["mode"]),
        options.get("tolerate") is True,
    )


def _load(choice: ModelChoice) -> Served:
    package = open_package(choice.package)
    _check_live(package.name, package.facts)
    restorer = Restorer(package, engine=choice.engine, precision=choice.precision, mode=choice.mode, tolerance=choice.tolerance)
    return Served(choice, restorer)


def _check_live(name: str, facts: ModelFacts) -> None:
    if facts.channels_in != 1 or facts.channels_out != 1:
        raise ModelError(
            f"model '{name}' takes {facts.channels_in} channel(s) and gives {facts.channels_out}; live, every channel is "
            "restored on its own: use this model on the saved images, with live-restore restore"
        )


def _row(served: Served) -> dict[str, Any]:
    package = str(served.restorer.package.path.absolute())
    choice, limits = served.restorer.choice, dict(served.restorer.facts.limits)
    certified = {} if choice.certificate is None else _said_of(choice.certificate, choice.beyond)
    return {**served.provenance(), "package": package, "state": "ready", "why": choice.why, "limits": limits, **certified}


def _said_of(certificate: Certificate, beyond: str) -> dict[str, Any]:
    """Say of a certificate what fits beside the precision, all its figures, and what is wrong with them."""
    return {"certified": certificate.brief, "certificate": [*map(list, certificate.facts)], "beyond": beyond}
