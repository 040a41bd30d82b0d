"""How many threads a step takes: found out while training, quiet or busy, and batches drawn ahead of it."""

import numpy as np
import pytest
import torch
from training_folders import tiny

from live_restore.training.ahead import Ahead
from live_restore.training.arithmetic import Arithmetic
from live_restore.training.fit import fit
from live_restore.training.held_out import HeldOut, HeldOutImage
from live_restore.training.pace import HOLD_S, Pace
from live_restore.training.patches import Batch
from live_restore.training.start import build_start
from live_restore.training.terms import Terms


def settle(pace, seconds, steps=60):
    """Step as long as each number of threads takes; what was used, step by step."""
    used = []
    for _ in range(steps):
        used.append(pace.threads)
        pace.stepped(seconds(pace.threads))
    return used


MACHINES = {
    "quiet": (2, lambda threads: 0.1 / threads, 2),
    "busy: threads wait for each other": (2, lambda threads: 0.1 if threads == 1 else 0.4, 1),
    "small network, many cores": (16, lambda threads: 0.1 / threads + 0.005 * threads, 4),
    "large network, many cores": (16, lambda threads: 10 / threads, 16),
    "no difference worth it": (2, lambda threads: 0.1 if threads == 1 else 0.098, 1),
    "one core": (1, lambda threads: 0.1, 1),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_number_of_threads_that_makes_steps_shortest_is_kept(machine):
    most, seconds, expected = MACHINES[machine]
    assert settle(Pace(most), seconds)[-1] == expected


def test_a_number_that_is_hopeless_is_given_up_after_a_step():
    used = settle(Pace(2), lambda threads: 0.1 if threads == 1 else 3.0)
    assert used.count(2) == 2


def test_it_is_tried_again_when_the_machine_becomes_quiet():
    pace = Pace(2)
    assert settle(pace, lambda threads: 0.1 if threads == 1 else 0.4)[-1] == 1
    steps = int(HOLD_S / 0.1) + 20
    assert settle(pace, lambda threads: 0.1 / threads, steps)[-1] == 2


def test_steps_of_different_sizes_are_compared_by_their_pixels():
    pace = Pace(2)
    for step in range(40):
        pixels = 1 + step % 3
        pace.stepped(pixels * 0.1 / pace.threads, pixels)
    assert pace.threads == 2


class Numbered:
    """Batches that are their number; it remembers what was asked for."""

    def __init__(self):
        self.asked = []

    def draw(self, step):
        self.asked.append(step)
        return step


def test_batches_are_drawn_ahead_in_their_order():
    drawn = Numbered()
    with Ahead(drawn) as batches:
        assert [batches.take(step) for step in range(6)] == list(range(6))
        assert [batches.take(step) for step in (3, 4)] == [3, 4]  # after going back
        assert [batches.take(step) for step in (9, 10)] == [9, 10]
    assert drawn.asked[:6] == list(range(6))


class Halved:
    """The target is the low image, halved."""

    def draw(self, step):
        low = np.random.default_rng(step).random((4, 1, 16, 16), np.float32)
        return Batch(low, low / 2)


class Broken:
    def draw(self, step):
        raise OSError(f"the disk of step {step} is gone")


def test_what_goes_wrong_while_drawing_is_said():
    with Ahead(Broken()) as batches, pytest.raises(OSError, match="the disk of step 0 is gone"):
        batches.take(0)


def test_a_fit_that_may_choose_leaves_a_possible_number_of_threads():
    options = tiny().with_minutes(0.01)
    image = Halved().draw(0).low[0, 0]
    held_out, before = HeldOut([HeldOutImage("made", image, image / 2)]), torch.get_num_threads()
    terms = Terms(arithmetic=Arithmetic(torch.device("cpu"), "f32", 2), seconds=0.5, most_threads=2)
    try:
        fitted = fit(build_start(options, 0), Halved(), held_out, options.fit, terms)
        assert torch.get_num_threads() in (1, 2)
        assert fitted.steps > 0
    finally:
        torch.set_num_threads(before)
