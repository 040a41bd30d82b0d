"""Distilling: what a student learns from whom, the package that comes of it, and going on after Ctrl-C; tiny networks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from pair_folders import cells, pair
from tiny_packages import smoothing_facts, write_smoothing_package
from training_folders import Heard, ctrl_c, pairs_folder, run, same, tiny, weights_of

from live_restore.cli import main
from live_restore.commands.distilling import volume_shape
from live_restore.errors import ModelError, PairError, TrainingError
from live_restore.evaluation.distilled import Contender, Distilled
from live_restore.evaluation.doubts import doubts
from live_restore.evaluation.scores import Evaluation
from live_restore.models.facts import FrozenRange, Normalisation
from live_restore.models.package import open_package
from live_restore.records.pairs import file_sha256, read_pairs
from live_restore.training.arithmetic import set_threads
from live_restore.training.distill import Distilling, distil, teaching_folder
from live_restore.training.family import family
from live_restore.training.lessons import Lessons, write_image
from live_restore.training.student_choice import Choice, Conditions, choose_student
from live_restore.training.targets import fit_counts
from live_restore.training.teacher import Teacher
from live_restore.training.teachers_worth import filters_gain_db, weigh

SMALL = (1, 64, 64)
HELD_OUT = {"pairs": {"held_out": ("p0", "p1"), "check": False}}


class Listens(Heard):
    """A listener that also hears of the family."""

    def timed(self, done, total):
        self.total = total

    def chosen(self, rungs, name, target_ms):
        self.name = name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    set_threads(1)
    return pairs_folder(tmp_path_factory.mktemp("pairs") / "dish")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A teacher of a tenth of CARE's operations, trained for a second on positions p2 to p5."""
    options = tiny(30, net={"first_filters": 8}, normalisation={"low_percentile": 1.0})
    return run(folder, tmp_path_factory.mktemp("models") / "teacher", options).package


@pytest.fixture
def smoothing(tmp_path):
    """A teacher that averages 3 x 3 pixels: whatever it was imported from, it saw nothing of this."""
    return write_smoothing_package(tmp_path / "smoothing")


def wanted(teacher, output, **words):
    words = {"conditions": Conditions(1e6, SMALL, most_kflop=2.0), "steps": 4, "threads": 1, "words": HELD_OUT, **words}
    return Distilling(teachers=[teacher.path], output=output, **words)


# --- the teacher


def test_several_teach_their_mean(tmp_path, smoothing, trained):
    low, _ = pair(seed=3, field=cells(3, (64, 80)))
    with Teacher([smoothing.path]) as one, Teacher([smoothing.path, trained.path]) as both, Teacher([trained.path]) as other:
        images = [teacher.restore(low) for teacher in (one, other)]
        assert both.restore(low) == pytest.approx(np.mean(images, 0), rel=1e-4)
        assert images[0].shape == low.shape
        # in the counts of the low image, whatever scale the teacher has
        assert fit_counts(low, images[0]).slope == pytest.approx(1, abs=1e-3)
        assert both.flop_per_pixel == one.flop_per_pixel + other.flop_per_pixel
        assert both.name == "the mean of smoothing 3x3, teacher"
        assert one.sha256 == smoothing.onnx_sha256 != both.sha256
        assert both.inheritance.learned_from == trained.learned_from()
        assert other.normalisation.low_percentile == 1.0
        assert both.words()["packages"][1]["sha256"] == trained.onnx_sha256


def test_who_cannot_teach(tmp_path, smoothing):
    two = write_smoothing_package(tmp_path / "two", channels=2)
    stacks = write_smoothing_package(tmp_path / "stacks", n_dim=3)
    finer = write_smoothing_package(tmp_path / "finer", facts=smoothing_facts(procedure="isotropic", z_factor=2.0))
    with pytest.raises(ModelError, match=r"takes 2 channel\(s\) and gives 2; teachers and their students are networks of one"):
        Teacher([two.path])
    with pytest.raises(ModelError, match=r"changes the number of pixels .* only networks that keep sizes can teach"):
        Teacher([finer.path])
    with pytest.raises(ModelError, match="some of these teachers restore images and some stacks"):
        Teacher([smoothing.path, stacks.path])
    with pytest.raises(ModelError, match="nobody teaches: name a model package"):
        Teacher([])


@pytest.mark.parametrize(
    ("rule", "mode"),
    [
        (Normalisation(measure="mean_std"), "volume"),
        (Normalisation(mode="frozen", frozen=FrozenRange(low=(90.0,), high=(400.0,)), high_percentile=99.0), "frozen"),
    ],
    ids=["mean and deviation", "frozen"],
)
def test_a_student_takes_percentiles_and_frozen_ranges_over(tmp_path, rule, mode):
    package = write_smoothing_package(tmp_path / "package", facts=smoothing_facts(normalisation=rule))
    teacher = Teacher([package.path])
    assert teacher.normalisation.mode == mode
    assert teacher.normalisation.measure == "percentiles"
    frozen = teacher.inheritance.frozen
    assert (frozen is not None) == (mode == "frozen")
    assert frozen is None or frozen.low.tolist() == [90.0]


def test_what_a_teacher_is_worth():
    low, high = pair(seed=5, field=cells(5, (128, 128)))
    assert filters_gain_db(low, high, high) == pytest.approx(0, abs=1e-6)
    poor = np.random.default_rng(0).normal(size=low.shape)
    assert filters_gain_db(low, poor, high) > 1
    stack = np.stack([low] * 12)
    assert filters_gain_db(stack, stack, np.stack([high] * 12)) > 0.5
    assert weigh([0.02, 0.04], 0.8) == 0.8
    assert weigh([0.3], 1.0) == pytest.approx(0.5)
    assert weigh([3.9], 1.0) == 0


# --- what is learned


def lessons(teacher, folder, weight=0.5, images=()):
    return Lessons(teacher, weight, images, folder)


def test_truth_and_teacher_are_mixed_in_the_counts_of_the_low_image(folder, smoothing, tmp_path):
    heard = Heard()
    with Teacher([smoothing.path]) as teacher:
        learned = lessons(teacher, tmp_path / "images", 0.25)
        chosen = learned.choose([folder], tiny(), (), heard.said)
        first = chosen.train[0]
        low, mixed = first.read()
        high = tifffile.imread(folder / "high" / first.low.name)
        truth = fit_counts(low, high).apply(high)
        assert mixed == pytest.approx(0.25 * teacher.restore(low) + 0.75 * truth, rel=1e-4)
        assert mixed.dtype == np.float32
        # judged are the pairs as they came
        assert {one.high.parent for one in chosen.held_out} == {folder / "high"}
        assert learned.judged == chosen.held_out
        before = {file: file.stat().st_mtime_ns for file in (tmp_path / "images").iterdir()}
        assert lessons(teacher, tmp_path / "images", 0.25).choose([folder], tiny(), (), heard.said).sha256() == chosen.sha256()
        assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "images").iterdir()}
    assert f"graph sha256 {smoothing.onnx_sha256}, whose weight was 0.25 beside the truth of 4 pair(s)" in chosen.notes[-1]
    assert "smoothing 3x3 restores 4 image(s), each once" in heard.text()


def test_a_teacher_that_filters_improve_upon_has_no_say(folder, smoothing, tmp_path):
    heard = Heard()
    with Teacher([smoothing.path]) as teacher:
        learned = lessons(teacher, tmp_path / "images", None)
        learned.choose([folder], tiny(), (), heard.said)
    assert learned.weight < 1
    assert "dB to the teacher's: its weight is" in heard.text()


def test_where_the_exposures_lie_apart_the_border_is_the_teachers(folder, smoothing, tmp_path):
    with Teacher([smoothing.path]) as teacher:
        learned = lessons(teacher, tmp_path / "images", 0.5)
        shifted = replace(read_pairs(folder).pairs[2], shift_px=(0.0, 5.0))
        low, mixed = learned._lesson(shifted, True).read()
        taught = teacher.restore(low)
        assert mixed[:, -5:] == pytest.approx(taught[:, -5:], rel=1e-5)
        assert np.abs(mixed[:, :-5] - taught[:, :-5]).max() > 1
        strange = replace(shifted, high=tmp_path / "other.tif", shift_px=())
        tifffile.imwrite(strange.high, np.zeros((8, 8), np.uint16))
        with pytest.raises(PairError, match=r"low is \[64, 80\] large, high \[8, 8\]; they must show the same"):
            learned._lesson(strange, True)
        flat = replace(shifted, high=tmp_path / "flat.tif", shift_px=())
        tifffile.imwrite(flat.high, np.full((64, 80), 7, np.uint16))
        with pytest.raises(PairError, match="the low image does not follow the high one"):
            learned._lesson(flat, True)


def test_images_without_partner_are_the_teachers_alone(folder, smoothing, tmp_path):
    more = tmp_path / "more" / "low"
    more.mkdir(parents=True)
    tifffile.imwrite(more / "q1.tif", pair(seed=21, field=cells(21, (64, 80)))[0])
    (more / "p0.tif").write_bytes((folder / "low" / "p0.tif").read_bytes())
    with Teacher([smoothing.path]) as teacher:
        learned = lessons(teacher, tmp_path / "images", 0.5, [tmp_path / "more"])
        chosen = learned.choose([folder], tiny(), (), lambda _: None)
        assert [one.name for one in chosen.train] == ["p2", "p3", "p4", "p5", "q1"]
        assert chosen.train[-1].read()[1] == pytest.approx(teacher.restore(tifffile.imread(more / "q1.tif")), rel=1e-5)
        assert "1 image(s) without partner are left out: the student is judged by them" in chosen.notes
        alone = lessons(teacher, tmp_path / "images", 0.5, [more / "q1.tif", folder / "low"])
        chosen = alone.choose([], tiny(pairs={"held_out": ()}), (), lambda _: None)
        assert len(chosen.train) + len(chosen.held_out) == 7
        assert all(one.high.parent == tmp_path / "images" for one in (*chosen.train, *chosen.held_out))
        assert "there was no truth to learn from" in chosen.notes[-1]
        with pytest.raises(PairError, match="holds no TIFF file; give low-light images"):
            lessons(teacher, tmp_path, 0.5, [tmp_path / "nowhere"]).choose([], tiny(), (), lambda _: None)
        with pytest.raises(PairError, match="there is nothing to learn from; give pairs, or low-light images"):
            lessons(teacher, tmp_path).choose([], tiny(), (), lambda _: None)


def test_nobody_is_judged_by_what_the_teacher_has_learned_from(folder, trained, tmp_path):
    def choose(*held_out):
        with Teacher([trained.path]) as teacher:
            options = tiny(pairs={"held_out": held_out})
            return lessons(teacher, tmp_path / "images", 1.0).choose([folder], options, (), lambda _: None)

    chosen = choose("p0", "p4")
    assert [one.name for one in chosen.held_out] == ["p0"]
    assert [one.name for one in chosen.train] == ["p1", "p2", "p3", "p5"]
    assert "1 held-out pair(s) are left out: the teacher has learned from them" in chosen.notes
    with pytest.raises(PairError, match="the teacher has learned from all 2 pairs that are held out, so they would flatter"):
        choose("p4", "p5")
    held_out = {one.name for one in choose().held_out}  # nobody said which
    assert held_out <= {"p0", "p1"}


def test_what_cannot_be_restored_ends_it_with_a_sentence(smoothing):
    with (
        Teacher([smoothing.path]) as teacher,
        pytest.raises(PairError, match="teacher 'smoothing 3x3' cannot restore an image"),
    ):
        teacher.restore(np.full((64, 64), 100, np.uint16))


def test_images_are_written_whole(tmp_path):
    write_image(tmp_path / "deep" / "a.tif", np.ones((3, 8, 8), np.float32))
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["a.tif"]
    assert tifffile.imread(tmp_path / "deep" / "a.tif").shape == (3, 8, 8)


# --- from start to end


@pytest.fixture(scope="module")
def made(folder, trained, tmp_path_factory):
    heard, output = Listens(), tmp_path_factory.mktemp("student") / "student"
    outcome, distilled = distil(wanted(trained, output, pairs=[folder]), heard)
    return output, outcome, distilled, heard


def test_a_student_is_a_package_that_says_who_taught_it(made, folder, trained):
    output, outcome, distilled, heard = made
    package = open_package(output)
    smallest = family(2)[-1]
    assert heard.name == smallest.name == distilled.chosen
    assert package.facts.architecture.options["first_filters"] == smallest.options["first_filters"]
    assert package.facts.geometry.flop_per_pixel == smallest.flop_per_pixel
    assert package.facts.normalisation.low_percentile == 1.0
    assert any(trained.onnx_sha256 in note for note in package.facts.provenance.notes)
    assert "distilled from 'teacher'" in package.description
    assert package.learned_from() == trained.learned_from()
    assert not {file_sha256(folder / "low" / f"p{place}.tif") for place in (0, 1)} & package.learned_from()
    assert distilled.student.sha256 == package.onnx_sha256
    assert not teaching_folder(output).exists()
    assert outcome.evaluation is not None


def test_the_figures_stand_in_the_package_and_in_its_report(made):
    output, outcome, distilled, _ = made
    said = json.loads((output / "distillation.json").read_text(encoding="utf-8"))
    assert Distilled.from_json(said) == distilled
    assert len(distilled.teachers_db) == len(outcome.evaluation.scores) == 2
    assert distilled.student.psnr_db == pytest.approx(outcome.evaluation.mean["psnr_db"])
    assert distilled.lost_db == pytest.approx(np.mean(distilled.teachers_db) - distilled.student.psnr_db)
    assert distilled.times_fewer == pytest.approx(distilled.teacher.flop_per_pixel / distilled.student.flop_per_pixel)
    assert len(distilled.student.bias.deciles) == len(distilled.teacher.bias.deciles) == 10
    # the best Gaussian that was measured stands beside the student everywhere, also after a short training
    filtered = tuple(score.gaussian.psnr_db for score in outcome.evaluation.scores)
    assert filtered == distilled.filtered_db
    kept = Evaluation.from_json(json.loads((output / "evaluation.json").read_text(encoding="utf-8")))
    assert kept.mean == outcome.evaluation.mean and kept.has_truth
    assert (distilled.filters_lead_db > 0) == any("Gaussian" in doubt for doubt in doubts(kept))
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "over the Gaussian filter at its best" in page and "Against the high-light images" in page
    for words in ("Student and teacher", "Which networks there were", "Before and after", "Training report"):
        assert words in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_without_truth_the_student_is_judged_by_its_teacher_and_that_is_said(folder, smoothing, tmp_path):
    quiet = wanted(smoothing, tmp_path / "student.zip", images=[folder / "low"], words={"pairs": {"check": False}}, steps=2)
    # facts say how much work a teacher is: this one says that it is much
    facts = smoothing.facts.model_copy(
        update={"geometry": smoothing.facts.geometry.model_copy(update={"flop_per_pixel": 90_000}), "channel": "GFP"}
    )
    large = write_smoothing_package(tmp_path / "large", facts=facts)
    outcome, distilled = distil(replace(quiet, teachers=[large.path]), Listens())
    assert distilled.lost_db is None
    assert distilled.teachers_db == ()
    assert "there was no truth to judge by" in distilled.sentences()[-1]
    package = open_package(tmp_path / "student.zip")
    assert package.facts.channel == "GFP"
    assert len(package.learned_from()) == 5
    assert Distilled.from_json(json.loads(package.files.read("distillation.json"))) == distilled
    assert "flatter the student" in package.files.read("report.html").decode()
    assert outcome.evaluation.mean["psnr_db"] > 0
    page = package.files.read("report.html").decode()
    assert "Against the teacher&#x27;s images" in page or "Against the teacher's images" in page
    assert "Against the high-light images" not in page and "Nothing was found that speaks against using it" not in page
    assert doubts(outcome.evaluation)[0].startswith(
        "there was no truth to judge by: every figure here is against the teacher's"
    )
    assert Evaluation.from_json(json.loads(package.files.read("evaluation.json"))).truth == "the teacher's images"


def test_ctrl_c_and_on_to_the_very_weights(made, folder, trained, tmp_path):
    _, outcome, distilled, _ = made
    output = tmp_path / "student"
    with pytest.raises(KeyboardInterrupt):
        distil(wanted(trained, output, pairs=[folder]), Listens(at_look=1, then=ctrl_c))
    assert teaching_folder(output).is_dir()
    assert not output.exists()
    heard = Listens()
    again, _ = distil(wanted(trained, output, pairs=[folder]), heard)
    assert "going on from step" in heard.text()
    assert not hasattr(heard, "total")  # the family was not timed again
    assert same(weights_of(again.package), weights_of(outcome.package))
    assert distilled.chosen == heard.name


def test_what_is_too_slow_after_training_gives_way_to_the_next_smaller_one(folder, trained, tmp_path):
    output = tmp_path / "student"
    impossible = wanted(trained, output, pairs=[folder], conditions=Conditions(1e-6, SMALL), steps=1)
    with Teacher([trained.path]) as teacher:
        possible = choose_student(teacher, Conditions(1e6, SMALL), Listens())
        names = [rung.name for rung in possible.rungs][-2:]
        # as if the machine had been that much quicker when the family was timed
        Choice(impossible.conditions.about(teacher), possible.rungs, names[0]).keep(teaching_folder(output))
    heard = Listens()
    _, distilled = distil(impossible, heard)
    # what was trained first is not thrown away: it is a whole package beside the other
    (aside,) = (path for path in tmp_path.iterdir() if path.name.startswith("student_"))
    assert open_package(aside).onnx_sha256 != open_package(output).onnx_sha256
    (missed,) = distilled.missed
    assert missed.startswith(f"{names[0]} (") and missed.endswith(f" ms, kept as {aside.name})")
    assert f"trained before, and then found too slow: {missed}" in " ".join(distilled.sentences())
    assert distilled.chosen == names[1]
    assert not distilled.met
    assert "which does NOT keep to the 1e-06 ms asked for" in distilled.sentences()[0]
    assert f"the next smaller one is trained, {names[1]}" in heard.text()


def test_a_busy_machine_is_no_reason_to_train_again(folder, trained, tmp_path):
    output, conditions = tmp_path / "student", Conditions(0.01, SMALL)
    with Teacher([trained.path]) as teacher:
        possible = choose_student(teacher, Conditions(1e6, SMALL), Listens())
        # as if the family had been timed on a machine that is much quicker than this one is while the student is timed
        calm = tuple(replace(rung, median_ms=1e-4) for rung in possible.rungs)
        Choice(conditions.about(teacher), calm, calm[-2].name).keep(teaching_folder(output))
    heard = Listens()
    _, distilled = distil(wanted(trained, output, pairs=[folder], conditions=conditions, steps=1), heard)
    assert distilled.chosen == calm[-2].name and distilled.missed == ()
    assert distilled.student.median_ms > conditions.target_ms > distilled.judged_ms and distilled.busier > 10
    assert distilled.met and "the next smaller one" not in heard.text()
    assert "times as long as when the family was timed" in distilled.sentences()[0]


def test_stacks_and_images_are_told_apart_before_anything_is_timed(folder, trained, smoothing, tmp_path):
    stacks = write_smoothing_package(tmp_path / "stacks", n_dim=3)
    heard = Listens()
    for words in ({"pairs": [folder]}, {"images": [folder / "low"]}):
        with pytest.raises(PairError, match=r"holds images \(Y, X\), and .* restores stacks \(Z, Y, X\); give it stacks"):
            distil(wanted(stacks, tmp_path / "student", **words), heard)
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 64, 64), np.uint16), photometric="minisblack")
    with pytest.raises(PairError, match=r"stack.tif holds stacks \(Z, Y, X\)"):
        distil(wanted(trained, tmp_path / "student", images=[tmp_path / "stack.tif"]), heard)
    assert not hasattr(heard, "total") and not (tmp_path / "student").exists()


def test_what_cannot_be_wanted(trained, folder, tmp_path, monkeypatch):
    good = wanted(trained, tmp_path / "student", pairs=[folder])
    for words, why in (
        ({"conditions": Conditions(0.0, SMALL)}, "a target of 0 ms cannot be met"),
        ({"weight": 1.5}, r"the teacher's weight 1.5 must be from 0 \(truth alone\) to 1"),
        ({"pairs": ()}, "nothing to learn from; give --pairs, or --images"),
    ):
        with pytest.raises(ValueError, match=why):
            distil(replace(good, **words), Listens())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="distilling runs in one process; start it without torchrun"):
        distil(good, Listens())


# --- in words


def contender(ms, psnr_db=None, flop=1000):
    return Contender("net", "0" * 64, flop, 10, ms, ms, "openvino", psnr_db)


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        (30.0, 30.5, "0.50 dB of PSNR are lost against the teacher"),
        (30.5, 30.0, "the student is 0.50 dB better than its teacher"),
        (None, None, "there was no truth to judge by"),
    ],
)
def test_what_was_lost_in_words(student, teacher, words):
    shape = (16, 64, 64)
    found = Distilled(contender(2.0, student), contender(8.0, teacher, 4000), 3.0, shape, (), "net", weight=1.0)
    said = " ".join(found.sentences())
    assert words in said
    assert "2 ms for 16 x 64 x 64 on this machine, which keeps to the 3 ms asked for; 4 times as fast" in said
    assert ("--teacher-weight 0" in said) == (student == 30.5)
    assert Distilled.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_a_filter_that_is_better_than_the_student_is_said():
    found = Distilled(contender(2.0, 29.78), contender(8.0, 31.0), 3.0, SMALL, (), "net", filtered_db=(29.9, 30.0))
    (said,) = (sentence for sentence in found.sentences() if "Gaussian" in sentence)
    assert said.startswith("a Gaussian filter at its best is 0.17 dB better than the student on these pairs: do not use")
    assert not any("Gaussian" in sentence for sentence in replace(found, filtered_db=(29.0, 29.1)).sentences())


def test_what_nobody_wrote_down_is_not_claimed():
    found = Distilled(contender(2.0, 30.0), contender(8.0, 30.5), 3.0, SMALL, (), "net", teacher_is_known=False)
    said = " ".join(found.sentences())
    assert "what the teacher has learned from is not known" in said and "neither" not in said
    older = {name: value for name, value in found.as_json().items() if name not in ("busier", "teacher_is_known")}
    assert Distilled.from_json(older) == replace(found, teacher_is_known=True)


def test_a_distillation_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="a distillation of format 9; format 1 is read"):
        Distilled.from_json({"format": 9})
    with pytest.raises(ValueError, match="a distillation that lacks 'student'"):
        Distilled.from_json({"format": 1})


def test_sizes_in_words():
    assert volume_shape("512x256") == (1, 512, 256)
    assert volume_shape(" 16X64x32 ") == (16, 64, 32)
    for text in ("512", "0x3", "axb", "1x2x3x4"):
        with pytest.raises(ValueError, match="is no size; write YxX or ZxYxX"):
            volume_shape(text)


def test_the_command(folder, trained, tmp_path, capsys):
    words = ["distill", trained.path, "--target-ms", "100000", "--size", "64x64", "--pairs", folder, "--steps", "3"]
    words += ["--most-kflop", "2", "--threads", "1", "--no-check", "--held-out", "p0", "--held-out", "p1"]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "-o", str(tmp_path / "student"), "--teacher-weight", "0.5"])
    said = " ".join("".join(capsys.readouterr()).split())
    assert ended.value.code == 0, said
    for part in (
        "timing a family of",
        "the student will be CARE 16/1, folded 4",
        "teacher 5.9",
        "PSNR on held-out pairs",
        "keeps to",
    ):
        assert part in said, said
