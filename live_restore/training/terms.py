"""The terms of a fit, and its outcome: what it is given beside network, batches and options, and what it hands back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from live_restore.training.arithmetic import Arithmetic
from live_restore.training.distributed import Crew
from live_restore.training.progress import Entry, Nobody, TrainingListener

State = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a fit is given beside its network, batches and options.

    Attributes
    ----------
    arithmetic : Arithmetic
    crew : Crew
    seconds : float or None
        When its time is up; None: after ``Fit.steps``, and then everything goes by steps, so that it can be repeated exactly.
    most_threads : int or None
        Of the CPU, from which the best number is found on the way; None: the number stays as it is.
    keep : callable (state)
        Called every half a minute with what `fit` can go on from; it must be done with it when it returns.
    stopped : callable () -> bool
        Asked after every step; if so, the state is kept and KeyboardInterrupt raised.
    listener : TrainingListener
    member, members : int
        Which network of an ensemble, from 0.
    """

    arithmetic: Arithmetic
    crew: Crew = field(default_factory=Crew)
    seconds: float | None = None
    most_threads: int | None = None
    keep: Callable[[State], None] = lambda _: None
    stopped: Callable[[], bool] = lambda: False
    listener: TrainingListener = field(default_factory=Nobody)
    member: int = 0
    members: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The outcome of a fit.

    Attributes
    ----------
    weights : dict
        Averaged weights with the lowest held-out loss, on the CPU.
    history : list of Entry
    steps : int
    elapsed_s : float
    """

    weights: State
    history: list[Entry]
    steps: int
    elapsed_s: float
