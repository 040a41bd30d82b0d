"""The fit: batches in, weights out. The loop that trains one network.

Receives a network, batches, held-out images and options; hands on the averaged weights that restored the held-out images best.
It can be stopped at any step and go on from what it kept. It does not know pairs, files or packages.
"""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from live_restore.errors import TrainingError
from live_restore.models.nets.layers import Net
from live_restore.training.ahead import Ahead, Sampler
from live_restore.training.average import Average
from live_restore.training.held_out import HeldOut
from live_restore.training.losses import choose_loss
from live_restore.training.options import Fit
from live_restore.training.pace import Pace
from live_restore.training.progress import Entry, Progress
from live_restore.training.schedule import Schedule
from live_restore.training.terms import Fitted, State, Terms

FloatArray = NDArray[np.float32]

# How often the state is kept, and how often the listener is told.
KEEP_S = 30.0
_TELL_S = 0.25
_BETA1 = 0.9
# Looks at the held-out images, at most, in a run.
_LOOKS = 40
# Going back to the last good weights this often is a hiccup; more is a wrong learning rate, or broken pairs.
_SETBACKS = 2


def fit(net: Net, sampler: Sampler, held_out: HeldOut, options: Fit, terms: Terms, state: State | None = None) -> Fitted:
    """Train a network.

    Parameters
    ----------
    net : Net
        With start weights; it is changed.
    sampler : Sampler
    held_out : HeldOut
    options : Fit
    terms : Terms
    state : dict, optional
        What `Terms.keep` was given earlier: goes on from there.

    Raises
    ------
    TrainingError
        If the loss is no number even after going back twice.
    KeyboardInterrupt
        When stopped, after the state was kept.
    """
    running = _Running(net, held_out, options, terms)
    if state is not None:
        running.load(state)
    with Ahead(sampler) as batches:
        running.run(batches)
    return running.fitted()


class _Running:
    """A fit under way."""

    def __init__(self, net: Net, held_out: HeldOut, options: Fit, terms: Terms) -> None:
        self._terms, self._options, self._held_out = terms, options, held_out
        self._device, self._layout = terms.arithmetic.device, terms.arithmetic.layout
        self._net = net.to(self._device).to(memory_format=self._layout).train()  # type: ignore[call-overload]
        self._loss = choose_loss(options.loss, bool(net.options.get("probabilistic", False)))
        self._average = Average(self._net, options.ema)
        self._wrapped = terms.crew.together(self._net)
        self._optimizer = torch.optim.AdamW(
            self._net.parameters(),
            options.learning_rate,
            betas=(_BETA1, options.beta2),
            weight_decay=options.weight_decay,
            fused=True,
        )
        self._scaler = terms.arithmetic.scaler()
        self._schedule = Schedule(options.learning_rate, options.steps, terms.seconds, options.warm_up)
        self._step, self._factor, self._setbacks, self._waited = 0, 1.0, 0, 0
        self._history: list[Entry] = []
        self._best: State = {}
        self._before_s, self._started = 0.0, time.monotonic()
        self._recent: list[float] = []
        self._smooth, self._look_s, self._looked_at_s = math.nan, 0.0, 0.0
        self._early, self._batch_pixels = False, 1
        self._pace = Pace(terms.most_threads) if terms.most_threads else None
        if self._pace is not None:
            torch.set_num_threads(self._pace.threads)
        self._good = self._snapshot()

    def run(self, batches: Ahead) -> None:
        """Step until the schedule is at its end, and the network as it then is was looked at."""
        while True:
            self._step_to_the_end(batches)
            if self._looked:
                break
            # what is seen may be no number: then there are steps to do again
            self._look(1.0)
        self._keep()

    def _step_to_the_end(self, batches: Ahead) -> None:
        kept = told = time.monotonic()
        told_step = self._step
        while (position := self._position()) < 1:
            begun = time.monotonic()
            self._advance(batches, position)
            now = time.monotonic()
            self._keep_pace(now - begun)
            if now - told >= _TELL_S:
                self._tell(position, (self._step - told_step) / (now - told))
                told, told_step = now, self._step
            if self._time_to_look():
                self._look(self._position())
            if self._agreed(self._terms.stopped()):
                self._keep()
                raise KeyboardInterrupt
            if now - kept >= KEEP_S:
                self._keep()
                kept = time.monotonic()

    @property
    def _looked(self) -> bool:
        return bool(self._history) and self._history[-1].step == self._step

    def fitted(self) -> Fitted:
        return Fitted(self._best["weights"], self._history, self._step, self._elapsed_s)

    @property
    def _elapsed_s(self) -> float:
        return self._before_s + time.monotonic() - self._started

    def _position(self) -> float:
        """How far training is; all processes go by the clock of the first."""
        position = 1.0 if self._early else self._schedule.position(self._step, self._elapsed_s)
        return position if self._terms.seconds is None and not self._options.patience else self._terms.crew.agree(position)

    def _agreed(self, answer: bool) -> bool:
        return bool(self._terms.crew.agree(float(answer)))

    def _advance(self, batches: Ahead, position: float) -> None:
        rate = self._factor * self._schedule.rate(position)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        batch = batches.take(self._step)
        self._batch_pixels = batch.low.size
        with self._terms.arithmetic.autocast():
            output = self._wrapped(self._tensor(batch.low))
        loss = self._loss.compute(output.float(), self._tensor(batch.target))
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        longest = self._options.gradient_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._net.parameters(), longest)
        told = self._terms.crew.mean(float(loss.detach()))
        # gradients of f16 overflow now and then; the scaler leaves such a step out
        if not math.isfinite(told) or not (self._scaler.is_enabled() or math.isfinite(float(norm))):
            self._go_back(told)
            return
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._step += 1
        self._average.update(self._net, self._step)
        self._recent.append(told)
        self._smooth = told if math.isnan(self._smooth) else 0.98 * self._smooth + 0.02 * told

    def _keep_pace(self, took_s: float) -> None:
        """Set the number of threads that makes steps shortest."""
        if self._pace is not None and self._pace.stepped(took_s, self._batch_pixels) != torch.get_num_threads():
            torch.set_num_threads(self._pace.threads)

    def _tensor(self, pixels: FloatArray) -> Tensor:
        return torch.from_numpy(pixels).to(self._device, memory_format=self._layout)

    def _go_back(self, loss: float) -> None:
        """Return to the last good weights with half the learning rate."""
        self._setbacks += 1
        where = f"the loss became {loss:g} at step {self._step}"
        if self._setbacks > _SETBACKS:
            raise TrainingError(
                f"{where}, after going back {_SETBACKS} times with half the learning rate; write a lower learning_rate than "
                f"{self._options.learning_rate:g} in [fit], or look for broken images: live-restore pairs check"
            )
        setbacks, factor = self._setbacks, self._factor / 2
        self._restore(self._good)
        self._setbacks, self._factor = setbacks, factor
        self._terms.listener.said(f"{where}; going on from step {self._step} with half the learning rate")

    def _time_to_look(self) -> bool:
        """Whether to look at the held-out images: by steps where the run is counted in steps, so that it can be repeated."""
        if self._terms.seconds is None:
            return self._step % self._steps_between_looks == 0 and self._step > self._last_look
        seconds = self._terms.seconds or math.inf
        pause = max(seconds / _LOOKS, self._look_s / self._options.validation_share)
        return self._agreed(self._elapsed_s - self._looked_at_s >= pause)

    @property
    def _steps_between_looks(self) -> int:
        """A look is one pass over its pixels, a step about three over those of its batch."""
        steps, share = self._options.steps or 1, self._options.validation_share
        passes = self._held_out.pixels / (3 * self._batch_pixels * self._terms.crew.world)
        return max(1, steps // _LOOKS, math.ceil(passes / share))

    @property
    def _last_look(self) -> int:
        return self._history[-1].step if self._history else 0

    def _look(self, position: float) -> None:
        """Look at the held-out images, with the averaged weights; the first process does, the others believe it."""
        crew = self._terms.crew
        look = self._held_out.look(self._average.net, self._loss, self._terms.arithmetic) if crew.leads else None
        loss = crew.agree(look.loss if look else 0.0)
        if look is not None:
            self._look_s = look.took_s
        self._looked_at_s = self._elapsed_s
        entry = Entry(
            member=self._terms.member,
            step=self._step,
            elapsed_s=round(self._elapsed_s, 2),
            position=position,
            rate=self._factor * self._schedule.rate(position),
            loss=float(np.mean(self._recent)) if self._recent else self._smooth,
            held_out_loss=loss,
            psnr_db=look.psnr_db if look else math.nan,
            raw_psnr_db=self._held_out.raw_psnr_db,
        )
        self._recent = []
        if not math.isfinite(loss):
            self._go_back(loss)
            return
        self._history.append(entry)
        self._judge(loss)
        self._good = self._snapshot()
        if look is not None:
            self._terms.listener.validated(list(self._history), look.examples)

    def _judge(self, loss: float) -> None:
        if not self._best or loss < self._best["loss"]:
            weights = {name: value.detach().cpu().clone() for name, value in self._average.state().items()}
            self._best, self._waited = {"loss": loss, "step": self._step, "weights": weights}, 0
            return
        self._waited += 1
        if self._options.patience and self._waited >= self._options.patience:
            self._terms.listener.said(f"no better on held-out images for {self._waited} looks; stopping early")
            self._early = True

    def _tell(self, position: float, steps_per_s: float) -> None:
        elapsed = self._elapsed_s
        left = elapsed / position * (1 - position) if position else math.nan
        progress = Progress(
            member=self._terms.member,
            members=self._terms.members,
            step=self._step,
            position=position,
            elapsed_s=elapsed,
            left_s=left,
            loss=self._smooth,
            rate=self._optimizer.param_groups[0]["lr"],
            steps_per_s=steps_per_s,
        )
        self._terms.listener.stepped(progress)

    def _keep(self) -> None:
        if self._terms.crew.leads:
            self._terms.keep(self._state())

    def _state(self) -> State:
        """Everything that going on needs; tensors are the live ones."""
        return {
            "step": self._step,
            "elapsed_s": self._elapsed_s,
            "seconds": self._terms.seconds,
            "net": self._net.state_dict(),
            "average": self._average.state(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best": self._best,
            "factor": self._factor,
            "setbacks": self._setbacks,
            "waited": self._waited,
            "early": self._early,
            "recent": list(self._recent),
            "smooth": self._smooth,
            "history": [asdict(entry) for entry in self._history],
            "random": torch.get_rng_state(),
        }

    def _snapshot(self) -> State:
        return copy.deepcopy(self._state())

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what was kept."""
        self._restore(copy.deepcopy(dict(state)))
        self._before_s, self._started = float(state["elapsed_s"]), time.monotonic()
        self._looked_at_s = self._history[-1].elapsed_s if self._history else 0.0
        self._good = self._snapshot()

    def _restore(self, state: State) -> None:
        self._net.load_state_dict(state["net"])
        self._average.load(state["average"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._scaler.load_state_dict(state["scaler"])
        self._step, self._best, self._early = state["step"], state["best"], state["early"]
        self._factor, self._setbacks, self._waited = state["factor"], state["setbacks"], state["waited"]
        self._recent, self._smooth = list(state["recent"]), state["smooth"]
        self._history = [Entry(**row) for row in state["history"]]
        torch.set_rng_state(state["random"])
