"""Small trainings for tests: folders of rendered pairs, networks of a few hundred weights, and who listens."""

import signal

import torch
from pair_folders import cells, pair, write

from live_restore.config import check
from live_restore.training.options import TrainingOptions
from live_restore.training.start import start_from
from live_restore.training.train import Task, train

NETS = {
    "care": {"depth": 1, "kernel": 3, "first_filters": 4},
    "rcan": {"channels": 4, "blocks": 1, "groups": 2, "reduction": 2},
}


def pairs_folder(folder, positions=6, shape=(64, 80)):
    """Positions p0, p1, ... of rendered cells, one pair each, without a pair log."""
    return write(folder, {f"p{place}": pair(seed=place, field=cells(place, shape)) for place in range(positions)})


def tiny(steps=40, kind="care", n_dim=2, net=None, **sections):
    """Options of a training of a second."""
    words = {
        "network": {"kind": kind, "n_dim": n_dim, "options": {**NETS[kind], **(net or {})}},
        "sampling": {"patches": (((4,) if n_dim == 3 else ()) + (32, 32),), "batch": 4},
        "pairs": {"held_out": ("p0", "p1"), "check": False},
        **{name: words for name, words in sections.items() if name not in ("fit", "pairs")},
    }
    words["pairs"] |= sections.get("pairs", {})
    words["fit"] = {"steps": steps, "learning_rate": 5e-3, "precision": "f32", "ema": 0.9, **sections.get("fit", {})}
    return check(words, TrainingOptions, "the test")


def run(folder, output, options=None, listener=None, **task):
    """Train on one thread."""
    return train(Task(folders=[folder], output=output, options=options or tiny(), threads=1, **task), listener)


class Heard:
    """A listener that remembers, and may do something at the n-th look."""

    def __init__(self, at_look=0, then=None):
        self.sentences, self.history, self._at_look, self._then, self._looks = [], [], at_look, then, 0

    def said(self, sentence):
        self.sentences.append(sentence)

    def stepped(self, progress):
        pass

    def validated(self, history, examples):
        self.history, self._looks = history, self._looks + 1
        if self._looks == self._at_look:
            self._then()

    def text(self):
        return "\n".join(self.sentences)


class HeardSecond(Heard):
    """The same, of the second network of an ensemble alone."""

    def validated(self, history, examples):
        if history[-1].member == 1:
            super().validated(history, examples)


def weights_of(package):
    """The trained weights, by the names of torch."""
    return start_from(package).weights


def same(some, others):
    """Whether all weights are equal, bit for bit."""
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def ctrl_c():
    """What the terminal does."""
    signal.raise_signal(signal.SIGINT)
