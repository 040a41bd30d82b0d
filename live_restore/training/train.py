"""Training from start to end: folders of pairs in, a scored package out. What ``live-restore train`` does.

Receives folders, options and a place for the package; hands on the package and its scores. Here the parts meet: pairs, network,
fit, checkpoint, export. An interrupted training goes on when it is asked for again in the same words.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from live_restore import __version__
from live_restore.errors import TrainingError
from live_restore.evaluation.scores import Evaluation
from live_restore.models.nets.layers import Net
from live_restore.models.package import ModelPackage, check_free, open_package
from live_restore.records.pairs import Pair, file_sha256
from live_restore.restore.noise import CameraNoise
from live_restore.training.arithmetic import Arithmetic, choose_arithmetic, set_threads
from live_restore.training.checked import Saying
from live_restore.training.checkpoint import (
    Checkpoint,
    check_same,
    folder_of,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from live_restore.training.distributed import Crew, crew_from_environment, joined
from live_restore.training.export import Trained, Trial, export, scoring_seconds
from live_restore.training.exposed import expose_pairs
from live_restore.training.fit import fit
from live_restore.training.inheritance import Inheritance
from live_restore.training.interrupts import noted_interrupts
from live_restore.training.light import light_levels
from live_restore.training.material import Chosen, Material, choose, prepare
from live_restore.training.members import Ensemble
from live_restore.training.options import TrainingOptions
from live_restore.training.patches import PatchSampler
from live_restore.training.progress import Entry, Nobody, TrainingListener
from live_restore.training.start import build_start, start_from
from live_restore.training.terms import Fitted, Terms

# Of a run's time at most this much is kept for the end: export, scores, report.
_LARGEST_END = 0.15
# What the end takes besides scoring: reading the software in, writing the package twice.
_EXPORT_S = 7.0
# Scoring may take so long even where no time is left.
_SHORTEST_SCORING_S = 3.0
# Members of an ensemble have seeds this far apart.
_NEXT_SEED = 1000

Chooser = Callable[[Sequence[Path], TrainingOptions, Sequence[Path], Saying], Chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be trained.

    Attributes
    ----------
    folders : sequence of Path
        Of pairs.
    output : Path
        The package to write.
    options : TrainingOptions
    held_out_from : sequence of Path
        Folders of pairs that are only judged by.
    start : Path or None
        A package whose weights to begin with; its network must be that of the options (see `start.continued`).
    camera : CameraNoise or None
        The camera's, if known; None: what the card of the pairs says.
    device : {"auto", "cpu", "cuda"}
    threads : int or None
        None: the physical cores.
    fresh : bool
        Start anew even if there is a checkpoint.
    overwrite : bool
        Replace a package that is there already.
    name : str or None
        Of the model; None: that of the output.
    scored : bool
        Whether the package is scored on the held-out pairs and gets a report.
    choose : callable (folders, options, held_out_from, said) -> Chosen
        Who chooses what is learned from; a teacher puts its own images in the place of the high ones.
    inheritance : Inheritance
        What is taken over from whoever teaches; nothing, if nobody does.
    """

    folders: Sequence[Path]
    output: Path
    options: TrainingOptions
    held_out_from: Sequence[Path] = ()
    start: Path | None = None
    camera: CameraNoise | None = None
    device: str = "auto"
    threads: int | None = None
    fresh: bool = False
    overwrite: bool = False
    name: str | None = None
    scored: bool = True
    choose: Chooser = choose
    inheritance: Inheritance = field(default_factory=Inheritance)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of it.

    Attributes
    ----------
    package : ModelPackage
    evaluation : Evaluation or None
        None where there was nothing to score with.
    history : list of Entry
    """

    package: ModelPackage
    evaluation: Evaluation | None
    history: list[Entry] = field(default_factory=list)


def train(task: Task, listener: TrainingListener | None = None, since: float | None = None) -> Outcome | None:
    """Train a network and write its package.

    Parameters
    ----------
    task : Task
    listener : TrainingListener, optional
        Of the first process; the others are silent.
    since : float, optional
        ``time.monotonic()`` from which the minutes count; None: from now.

    Returns
    -------
    Outcome or None
        None in all but the first of several processes.

    Raises
    ------
    PairError
        If the pairs cannot be learned from.
    TrainingError
        If training cannot begin or cannot go on.
    ModelError
        If there is something else where the package should be.
    KeyboardInterrupt
        After Ctrl-C, when the state is kept.
    """
    started = time.monotonic() if since is None else since
    crew = crew_from_environment()
    check_free(task.output, task.overwrite)
    set_threads(task.threads, crew.local_world)
    fit_options = task.options.fit
    arithmetic = choose_arithmetic(task.device, fit_options.precision, task.options.network.n_dim, crew.local_rank)
    with joined(crew, arithmetic.device) as joined_crew:
        speaker = listener if listener is not None and crew.leads else Nobody()
        run = _Run(task, arithmetic, joined_crew, speaker, started)
        _check_writable(task.output)
        weights = run.fit_members()
    return run.finish(weights) if crew.leads else None


def _check_writable(output: Path) -> None:
    """Make sure that the package will have a place, before hours are spent on it."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise TrainingError(f"no package can be written to {output}: {error.strerror}; choose another place with -o") from error


class _Run:
    """A training under way, from pairs to weights to package."""

    def __init__(self, task: Task, arithmetic: Arithmetic, crew: Crew, listener: TrainingListener, started: float) -> None:
        self._task, self._arithmetic, self._crew, self._listener, self._started = task, arithmetic, crew, listener, started
        self._folder = folder_of(task.output)
        self._chosen: Chosen = task.choose(task.folders, task.options, task.held_out_from, listener.said)
        self._camera = task.camera or self._chosen.camera
        self._material: Material = prepare(self._chosen, task.options, self._camera, task.inheritance.frozen)
        self._options = self._material.options
        self._start = start_from(open_package(task.start)) if task.start else None
        self._sha256 = self._chosen.sha256()
        self._kept = self._resume()
        self._seconds = self._kept.seconds if self._kept else self._seconds_to_fit()
        self._history: list[Entry] = []
        self._warned = False

    def fit_members(self) -> list[dict[str, Any]]:
        """Train all networks of the ensemble, or the one."""
        self._say_what()
        finished = list(self._kept.finished) if self._kept else []
        state = self._kept.state if self._kept else None
        self._history = [Entry(**row) for row in self._kept.history] if self._kept else []
        with noted_interrupts() as interrupted:
            while len(finished) < self._options.fit.members:
                done = self._fit_member(finished, state, interrupted)
                state = None
                finished.append(done.weights)
                self._history += done.history
        return finished

    def _fit_member(self, finished: list[dict[str, Any]], state: dict[str, Any] | None, interrupted: threading.Event) -> Fitted:
        member, members, options = len(finished), self._options.fit.members, self._options
        seed = options.fit.seed + _NEXT_SEED * member
        torch.manual_seed(seed)
        net = build_start(options, seed, self._start)
        sampler = PatchSampler(
            self._material.source, options.sampling, options.augment, seed, self._crew.rank, self._crew.world
        )

        def keep(kept: dict[str, Any]) -> None:
            history = [_row(entry) for entry in self._history]
            checkpoint = Checkpoint(self._about, self._seconds, finished, history, kept)
            try:
                save_checkpoint(self._folder, checkpoint)
            except OSError as error:
                self._warn_of_disk(error)

        terms = Terms(
            arithmetic=self._arithmetic,
            crew=self._crew,
            seconds=None if self._seconds is None else self._seconds / members,
            most_threads=self._most_threads(),
            keep=keep,
            stopped=interrupted.is_set,
            listener=self._listener,
            member=member,
            members=members,
        )
        return fit(net, sampler, self._material.held_out, options.fit, terms, state)

    def _warn_of_disk(self, error: OSError) -> None:
        """Hours of training are not given up for a checkpoint that may not be needed."""
        if not self._warned:
            self._warned = True
            self._listener.said(
                f"no checkpoint can be written ({error}); training goes on, but an interruption would lose it: make room"
            )

    def finish(self, weights: list[dict[str, Any]]) -> Outcome:
        """Write the package, and remove the checkpoint."""
        task = self._task
        task.output.parent.mkdir(parents=True, exist_ok=True)
        trained = Trained(
            net=self._network(weights),
            options=self._options,
            pairs_sha256=self._sha256,
            learned_from=self._learned_from(),
            held_out=self._material.held_out,
            frozen=self._material.source.frozen,
            channel=self._chosen.channel or task.inheritance.channel,
            pixel_size_um=self._pixel_size_um(),
            light_levels=light_levels(self._chosen, self._options, self._camera) or task.inheritance.light_levels,
            teacher=task.inheritance.teacher,
            history=self._history,
            notes=self._notes(),
        )
        trial = Trial(
            pairs=self._pairs_to_score(),
            camera=self._camera,
            seconds=self._seconds_to_score(),
            cards=self._chosen.cards,
        )
        package, evaluation = export(task.output, task.name or task.output.stem, trained, trial, task.overwrite, self._listener)
        remove_checkpoint(self._folder)
        return Outcome(package, evaluation, self._history)

    def _learned_from(self) -> list[str]:
        """Say which images it has seen, with those of the package that it began with, and those of its teacher."""
        before = open_package(self._task.start).learned_from() if self._task.start else frozenset()
        taught = self._task.inheritance.learned_from
        return sorted({*before, *taught, *(file_sha256(pair.low) for pair in self._chosen.train)})

    def _pairs_to_score(self) -> Sequence[Pair]:
        if not self._task.scored:
            return ()
        if self._options.simulate is None:
            return self._chosen.held_out
        return expose_pairs(self._material.judged, self._material.looked_at, self._folder / "exposed")

    @property
    def _about(self) -> dict[str, Any]:
        """What must be the same for training to go on."""
        return {
            "options": self._options.model_dump(mode="json"),
            "pairs": self._sha256,
            "held_out": [pair.name for pair in self._chosen.held_out],
            "from": self._start.onnx_sha256 if self._start else "",
            "software": __version__,
        }

    def _resume(self) -> Checkpoint | None:
        """Find the checkpoint to go on from; every process reads it."""
        if self._task.fresh:
            if self._crew.leads:
                remove_checkpoint(self._folder)
            return None
        kept = load_checkpoint(self._folder)
        if kept is not None:
            check_same(self._folder, kept.about, self._about)
            self._listener.said(f"going on from step {kept.state['step']}, from the checkpoint in {self._folder}")
        return kept

    def _seconds_to_fit(self) -> float | None:
        """Say how much of the minutes is left when the pairs are open and the end is kept free."""
        minutes = self._options.fit.minutes
        if minutes is None:
            return None
        total = 60 * minutes
        end = min(_EXPORT_S + self._scoring_s(), _LARGEST_END * total)
        left = total - (time.monotonic() - self._started) - end
        return self._crew.agree(max(left, 0.25 * total))

    def _scoring_s(self) -> float:
        shape = self._material.source.fields[0].shape
        pixels = 1
        for side in shape:
            pixels *= side
        return scoring_seconds(pixels * len(self._chosen.held_out))

    def _most_threads(self) -> int | None:
        """Let the number of threads be found, unless it was said, or the run is to be repeatable, or there is company."""
        free = self._task.threads is None and self._seconds is not None and self._crew.world == 1
        return torch.get_num_threads() if free and self._arithmetic.device.type == "cpu" else None

    def _seconds_to_score(self) -> float:
        """Say what is left of the minutes when the package has been written."""
        minutes = self._options.fit.minutes
        if minutes is None:
            return float("inf")
        left = 60 * minutes - (time.monotonic() - self._started) - _EXPORT_S
        return max(left, _SHORTEST_SCORING_S)

    def _network(self, weights: list[dict[str, Any]]) -> Net:
        nets = []
        for one in weights:
            net = build_start(self._options, 0)
            net.load_state_dict(one)
            nets.append(net.eval())
        return Ensemble(nets).eval() if len(nets) > 1 else nets[0]

    def _pixel_size_um(self) -> tuple[float, ...] | None:
        sizes = self._material.source.fields[0].pixel_size_um[-self._options.network.n_dim :]
        return tuple(size for size in sizes if size) if all(sizes) else self._task.inheritance.pixel_size_um

    def _notes(self) -> tuple[str, ...]:
        train, held_out = self._chosen.train, self._chosen.held_out
        positions = len({pair.position or pair.name for pair in train})
        notes = [
            f"trained on {len(train)} pairs of {positions} position(s), judged by {len(held_out)} pairs of other positions",
            f"computed on {self._arithmetic}",
        ]
        if self._start:
            notes.append(f"begun with the weights of '{self._start.package}', graph sha256 {self._start.onnx_sha256}")
        return (*notes, *self._chosen.notes)

    def _say_what(self) -> None:
        network = self._options.network
        sizes = " x ".join(map(str, self._options.sampling.patches[0]))
        for note in self._chosen.notes:
            self._listener.said(note)
        self._listener.said(
            f"{network.kind.upper()} {network.n_dim}D on {self._arithmetic}: {len(self._chosen.train)} pairs to learn from, "
            f"{len(self._chosen.held_out)} held out; batches of {self._options.sampling.batch} x {sizes}"
        )


def _row(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__slots__}
