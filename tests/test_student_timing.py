"""Times of candidates and packages, taken in turns through the very Restorer that serves; no figure is asserted."""

import numpy as np
import pytest
from tiny_packages import write_smoothing_package

from live_restore.errors import ImageError, ModelError, TrainingError
from live_restore.models.facts import FrozenRange, Normalisation
from live_restore.models.package import open_package
from live_restore.restorer import Restorer
from live_restore.training.family import family
from live_restore.training.student_choice import Conditions, choose_student, kept_choice
from live_restore.training.student_timing import Served, dim_volume, time_candidates, time_packages, untrained_package
from live_restore.training.teacher import Teacher

SMALL = (1, 64, 64)


class Heard:
    def __init__(self):
        self.counts, self.choices = [], []

    def timed(self, done, total):
        self.counts.append((done, total))

    def chosen(self, rungs, name, target_ms):
        self.choices.append(name)


@pytest.fixture(scope="module")
def rungs():
    return family(2)[-2:]


def test_a_candidate_becomes_a_package_that_restores(rungs, tmp_path):
    for number, rule in enumerate((None, Normalisation(mode="frozen", frozen=FrozenRange(low=(100.0,), high=(300.0,))))):
        package = untrained_package(rungs[-1], tmp_path / f"{number}", rule)
        assert open_package(tmp_path / f"{number}").facts.geometry.flop_per_pixel == rungs[-1].flop_per_pixel
        with Restorer(package, precision="f32") as restorer:
            assert restorer.restore(dim_volume(SMALL)).pixels.shape == (1, *SMALL)


def test_candidates_are_timed_in_turns(rungs, tmp_path):
    heard = Heard()
    timings = time_candidates(rungs, SMALL, 1e6, Served(), tmp_path, told=heard.timed)
    assert list(timings) == list(rungs)
    assert heard.counts == [(1, 2), (2, 2)]
    for timing in timings.values():
        assert 0 < timing.fastest_ms <= timing.median_ms <= timing.p95_ms
        assert timing.rounds == timings[rungs[0]].rounds >= 5
        assert timing.shape == SMALL
        assert timing.as_json()["shape"] == [1, 64, 64]


def test_nobody_waits_for_networks_larger_than_a_hopeless_one(rungs, tmp_path):
    timings = time_candidates(rungs, SMALL, 1e-6, Served(precision="f32"), tmp_path)
    assert list(timings) == [rungs[-1]]
    assert timings[rungs[-1]].precision == "f32"


def test_stacks_are_timed_as_stacks(tmp_path):
    smallest = family(3)[-1:]
    assert time_candidates(smallest, (8, 32, 32), 1e6, Served(), tmp_path)[smallest[0]].shape == (8, 32, 32)
    with pytest.raises(ImageError, match="restores z-stacks, and this image has a single plane"):
        time_candidates(smallest, SMALL, 1e6, Served(), tmp_path / "single")


def test_packages_are_timed_against_each_other(rungs, tmp_path):
    packages = {
        "student": untrained_package(rungs[-1], tmp_path / "small"),
        "smoothing": write_smoothing_package(tmp_path / "smooth"),
        "two channels": write_smoothing_package(tmp_path / "two", channels=2),
    }
    found = time_packages(packages, SMALL, Served(precision="f32"))
    assert list(found) == ["student", "smoothing", "two channels"]
    assert len({timing.rounds for timing in found.values()}) == 1


def test_the_volume_is_the_same_for_everybody():
    assert np.array_equal(dim_volume((2, 20, 30)), dim_volume((2, 20, 30)))
    assert dim_volume((2, 20, 30)).shape == (1, 2, 20, 30)


# --- the choice


@pytest.fixture
def teacher(rungs, tmp_path):
    """A teacher larger than the two smallest of the family."""
    untrained_package(family(2)[-3], tmp_path / "teacher")
    with Teacher([tmp_path / "teacher"]) as teacher:
        yield teacher


def test_the_largest_that_keeps_to_the_time_is_chosen_and_remembered(teacher, rungs, tmp_path):
    conditions, heard = Conditions(1e6, SMALL), Heard()
    choice = choose_student(teacher, conditions, heard)
    assert choice.name == rungs[0].name
    assert [rung.name for rung in choice.rungs] == [rung.name for rung in rungs]
    choice.keep(tmp_path / "kept")
    assert kept_choice(tmp_path / "kept", conditions.about(teacher)) == choice
    assert kept_choice(tmp_path / "kept", Conditions(5.0, SMALL).about(teacher)) is None
    assert kept_choice(tmp_path / "nowhere", conditions.about(teacher)) is None
    assert choice.next_smaller() == rungs[1].name
    smaller = choose_student(teacher, Conditions(1e6, SMALL, most_kflop=rungs[1].flop_per_pixel / 1000), heard)
    assert smaller.name == rungs[1].name
    assert smaller.next_smaller() is None


def test_a_time_that_cannot_be_kept_is_refused(teacher):
    with pytest.raises(TrainingError, match=r"no network of the family restores 1 x 64 x 64.* in 1e-05 ms .* allow more time"):
        choose_student(teacher, Conditions(1e-5, SMALL), Heard())
    with pytest.raises(ModelError, match=r"no network of the family has at most 0.5 kFLOP per pixel; the smallest has 1\."):
        choose_student(teacher, Conditions(1e6, SMALL, most_kflop=0.5), Heard())


def test_a_teacher_as_small_as_the_smallest_needs_no_student(tmp_path):
    write_smoothing_package(tmp_path / "smooth")
    with (
        Teacher([tmp_path / "smooth"]) as teacher,
        pytest.raises(ModelError, match="there is nothing to gain; serve the teacher itself"),
    ):
        choose_student(teacher, Conditions(1e6, SMALL), Heard())
