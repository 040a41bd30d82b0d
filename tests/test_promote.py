"""The gate: what is better on every calibration serves, what is not does not; the journal; the swap in a running process."""

import json
import shutil
from dataclasses import replace

import pytest
from bare_clients import status
from judged_pairs import IDENTITY, gaussian_kernel, pair_of_files, scene, write_calibration, write_kernel_package
from test_evaluate import of, pair_score

from live_restore import cli
from live_restore.config import HardwareConfig, Learn
from live_restore.configured import model_choices, promoted_words
from live_restore.errors import ConfigError, PairError, WireError
from live_restore.evaluation.gate import Verdict, compare, held_out_pairs, judge, kept_calibrations
from live_restore.evaluation.scores import Bias
from live_restore.launch import start_restore_process, stop_restore_process
from live_restore.models.package import LEARNED_FROM, open_package
from live_restore.promote import promote, rollback, swap
from live_restore.records.pair_log import PairLog
from live_restore.records.pairs import file_sha256
from live_restore.records.promotions import Promotion, Promotions, channels_with_promotions
from live_restore.restore.noise import CameraNoise
from live_restore.serving.models import ModelChoice

RIG = """
[micromanager]
demo = true
[camera]
offset_adu = 100.0
gain_adu_per_e = 2.0
read_noise_e = 1.5
[optics]
pixel_size_um = 0.1
[channels.FITC]
exposure_ms = 5.0
precision = "f32"
[channels.DAPI]
exposure_ms = 5.0
model = "NAMED"
[serve]
address = "tcp://127.0.0.1:1"
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Networks of one kernel, from useless to good, by name."""
    folder = tmp_path_factory.mktemp("packages")
    kernels = {"identity": IDENTITY, "weak": gaussian_kernel(0.6), "good": gaussian_kernel(0.9), "wide": gaussian_kernel(8, 33)}
    return {name: write_kernel_package(folder / name, kernel, f"the {name} one").path for name, kernel in kernels.items()}


@pytest.fixture
def rig(tmp_path, models):
    """A microscope's folder: configuration, and two calibrations that are kept."""
    (tmp_path / "rig.toml").write_text(RIG.replace("NAMED", models["weak"].as_posix()), encoding="utf-8")
    write_calibration(tmp_path / "pairs" / "monday", photons=12.0)
    write_calibration(tmp_path / "pairs" / "tuesday", photons=8.0, seed=50)
    return tmp_path / "rig.toml"


def command(*words):
    """Give a command; its exit status."""
    try:
        cli.main([str(word) for word in words])
    except SystemExit as ended:
        return ended.code or 0
    return 0


def served(rig):
    """Packages by channel, as the restore process would be told."""
    return {
        choice.channel: choice.package.name for choice in model_choices(HardwareConfig.from_file(rig), (), None, None, None)
    }


def journal(rig):
    return Promotions(HardwareConfig.from_file(rig).learn.models, "FITC")


# --- which of two is better -------------------------------------------------------------------------------------------


def evaluated(gains=(5.0, 6.0), names=("a", "b"), **said):
    return of(*(pair_score(name, gain, **said) for name, gain in zip(names, gains, strict=True)), noise="configuration")


def biased(percent):
    return {"bias": Bias((0.0,) * 9 + (percent,), percent, 1.0)}


ALARM = {"trusted": False, "why": "the network invented a structure"}
RULES = [
    ("first, better than raw", evaluated(), None, ""),
    ("first, worse than raw", evaluated((1.0, -3.0)), None, "it is not better than the raw images, by -1.00 ± 25.41 dB on 2"),
    ("better", evaluated((5.1, 6.1)), evaluated(), ""),
    ("equal", evaluated(), evaluated(), "it is not better than the model that serves, by +0.00"),
    ("worse", evaluated((5.0, 5.98)), evaluated(), "it is not better than the model that serves, by -0.01 ± 0.13 dB on 2"),
    ("one pair", evaluated((4.0,), "a"), evaluated((5.0,), "a"), "by -1.00 dB on 1 held-out pair"),
    (
        "new alarm",
        evaluated((7.0, 7.0), **ALARM),
        evaluated(trusted=True),
        "2 of 2 restored images disagree with their photons",
    ),
    ("old alarms", evaluated((7.0, 7.0), **ALARM), evaluated(**ALARM), ""),
    ("first alarm", evaluated(**ALARM), None, "disagree with their photons, 0 may: in a, the network invented a structure"),
    ("new bias", evaluated((7.0, 7.0), **biased(5.5)), evaluated(**biased(3.0)), "off by up to 5.5 % of the range, 5.0 %"),
    ("more bias", evaluated((7.0, 7.0), **biased(-9.0)), evaluated(**biased(6.5)), "off by up to 9.0 % of the range, 8.5 %"),
    ("as much bias", evaluated((7.0, 7.0), **biased(20.0)), evaluated(**biased(-19.5)), ""),
    ("little bias", evaluated((7.0, 7.0), **biased(4.9)), evaluated(**biased(0.1)), ""),
    ("first bias", evaluated(**biased(-16.0)), None, "off by up to 16.0 % of the range, 15.0 % are allowed"),
    ("first, some bias", evaluated(**biased(-10.0)), None, ""),
]


@pytest.mark.parametrize(("new", "old", "said"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_the_rule(new, old, said):
    standing = compare("monday", new, old)
    assert bool(standing.against) == bool(said)
    assert said in " ".join(standing.against)
    verdict = Verdict((compare("tuesday", evaluated((9, 9)), None), standing))
    assert verdict.better == (not said)
    assert all(sentence.startswith("monday: ") for sentence in verdict.against)


def test_one_image_in_twenty_may_raise_an_alarm():
    names = [f"{n}" for n in range(40)]
    scores = [pair_score(name, 5.0, trusted=n >= 2, why="" if n >= 2 else "odd") for n, name in enumerate(names)]
    assert not compare("monday", of(*scores, noise="configuration"), None).against
    scores[2] = replace(scores[2], trusted=False, why="odd")
    assert "3 of 40 restored images" in compare("monday", of(*scores, noise="configuration"), None).against[0]
    assert compare("monday", of(*scores), None).new_alarms is None


def test_models_are_compared_on_every_calibration(rig, models):
    calibrations, notes = kept_calibrations(rig.parent / "pairs", (), "FITC")
    assert {name: len(pairs) for name, pairs in calibrations.items()} == {"monday": 2, "tuesday": 2} and not notes
    told = []
    weak, good = ModelChoice("FITC", models["weak"]), ModelChoice("FITC", models["good"])
    verdict = judge(good, weak, calibrations, CameraNoise(100.0, 2.0, 1.5), lambda *words: told.append(words))
    assert verdict.better and "monday +" in verdict.praise and "tuesday +" in verdict.praise
    assert told == [(done, 8) for done in range(1, 9)]
    first = verdict.standings[0]
    assert first.new_db > first.old_db > first.raw_db and first.gained_db == pytest.approx(first.new_db - first.old_db)
    assert first.error_db > 0 and first.new_alarms is not None and first.new_bias < 15
    back = judge(weak, good, calibrations)
    assert [sentence.split(":")[0] for sentence in back.against] == ["monday", "tuesday"]
    same = judge(good, good, calibrations)
    assert same.against == ("this very network serves already",) and not same.standings


def test_no_model_is_judged_by_what_it_has_learned_from(rig, models, tmp_path):
    calibrations, _ = kept_calibrations(rig.parent / "pairs", (), "FITC")
    monday, tuesday = calibrations["monday"], calibrations["tuesday"]
    learned = shutil.copytree(models["good"], tmp_path / "learned")
    (learned / LEARNED_FROM).write_text(f"{file_sha256(monday[0].low)}\n", encoding="utf-8")
    verdict = judge(ModelChoice("FITC", learned), ModelChoice("FITC", models["weak"]), calibrations)
    assert [one.pairs for one in verdict.standings] == [len(monday) - 1, len(tuesday)]
    assert verdict.notes == ("monday: 1 of 2 held-out pairs are left out, for a model has learned from them",)
    said = "".join(f"{file_sha256(pair.low)}\n" for pair in (*monday, *tuesday))
    (learned / LEARNED_FROM).write_text(said, encoding="utf-8")
    with pytest.raises(PairError, match="learned from every held-out pair"):
        judge(ModelChoice("FITC", learned), None, calibrations)


# --- which calibrations have a say ------------------------------------------------------------------------------------


def test_calibrations_without_held_out_pairs_have_no_say(tmp_path):
    write_calibration(tmp_path / "kept" / "monday")
    write_calibration(tmp_path / "kept" / "nuclei", channel="DAPI")
    write_calibration(tmp_path / "kept" / "training", held_out=0)
    (tmp_path / "kept" / "notes").mkdir()
    for position in "abcde":
        pair_of_files(tmp_path / "elsewhere" / "monday", f"{position}_1", scene(1), scene(1))
    pair_of_files(tmp_path / "kept" / "single", "a_1", scene(1), scene(1))
    found, notes = kept_calibrations(tmp_path / "kept", [tmp_path / "elsewhere" / "monday"], "FITC")
    assert list(found) == ["monday", str((tmp_path / "elsewhere" / "monday").resolve())]
    assert len(notes) == 4
    assert any(note.startswith("nuclei: no accepted pairs of FITC") for note in notes)
    assert any(note.startswith("training: all of its pairs are for training") for note in notes)
    assert any(note.startswith("single: ") for note in notes)
    assert any("nobody said which positions are held out: chosen anew" in note for note in notes)
    anyone, _ = held_out_pairs(tmp_path / "kept" / "nuclei")
    assert len(anyone) == 2


def test_a_calibration_that_ended_before_its_first_pair_stands_in_nobodys_way(tmp_path):
    write_calibration(tmp_path / "monday")
    with PairLog(tmp_path, "broken off"):
        pass
    for position in "ab":
        pair_of_files(tmp_path / "plain", f"{position}_1", scene(1), scene(1))
    (tmp_path / "plain" / "low").rename(tmp_path / "plain" / "Low")
    found, notes = kept_calibrations(tmp_path, (), "FITC")
    assert list(found) == ["monday", "plain"], "software of others writes Low as well"
    assert any(note.startswith("broken off: ") and "holds no pair" in note for note in notes)
    with pytest.raises(PairError, match="holds no pair"):
        kept_calibrations(tmp_path / "nowhere", [tmp_path / "broken off"], "FITC")


def test_without_any_nothing_can_be_judged(tmp_path):
    with pytest.raises(PairError, match=r"no calibration has held-out pairs of FITC to judge by: 0 folders .* 0 were named"):
        kept_calibrations(tmp_path / "nowhere", (), "FITC")
    with pytest.raises(PairError, match="is no folder"):
        kept_calibrations(tmp_path, [tmp_path / "nothing"], "FITC")


# --- the journal ------------------------------------------------------------------------------------------------------


def test_the_journal_is_a_stack(tmp_path, models):
    promotions = Promotions(tmp_path / "models", "GFP / 488")
    assert promotions.serving is None and promotions.history() == []
    copies = [promotions.take(models[name]) for name in ("weak", "good", "weak")]
    assert copies[0] == copies[2] != copies[1] and copies[0].parent == tmp_path / "models" / "GFP _ 488"
    assert open_package(copies[1]).onnx_sha256 == open_package(models["good"]).onnx_sha256
    for what, package in (("promoted", "one"), ("refused", "two"), ("promoted", "three"), ("rolled back", "one")):
        promotions.add(Promotion(what, package, calibrations=({"calibration": "monday", "gained_db": 1.0},)))
    assert [line.package for line in promotions.standing()] == ["one"]
    with (promotions.folder / "promotions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"what": "beatified", "package": "x"}\n{"what": "promoted", "pack')
    assert [line.what for line in promotions.history()] == ["promoted", "refused", "promoted", "rolled back"]
    promotions.add(Promotion("promoted", "four"))
    assert promotions.serving.package == "four" and promotions.history()[0].calibrations[0]["calibration"] == "monday"
    assert channels_with_promotions(tmp_path / "models") == ["GFP _ 488"]
    with pytest.raises(ConfigError, match=r"the model promoted for GFP / 488, .*four, is gone; restore it from a backup"):
        promotions.path(promotions.serving)


def test_a_zip_is_kept_as_it_is(tmp_path):
    package = write_kernel_package(tmp_path / "net.v2.zip", IDENTITY).path
    copy = Promotions(tmp_path / "models", "FITC").take(package)
    assert copy.name.startswith("net.v2-") and copy.suffix == ".zip" and copy.read_bytes() == package.read_bytes()


def test_where_models_and_pairs_are_kept(tmp_path, rig):
    said = HardwareConfig.from_file(rig)
    assert (said.learn.models, said.learn.pairs) == (rig.parent / "models", rig.parent / "pairs")
    other = tmp_path / "other.toml"
    other.write_text(rig.read_text(encoding="utf-8") + '[learn]\nmodels = "kept/models"\n', encoding="utf-8")
    said = HardwareConfig.from_file(other)
    assert (said.learn.models, said.learn.pairs) == (tmp_path / "kept" / "models", tmp_path / "pairs")
    assert str(Learn().models) == "models"
    other.write_text(rig.read_text(encoding="utf-8") + '[learn]\nmodel = "kept"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'model' in \[learn\] is not known; did you mean models"):
        HardwareConfig.from_file(other)


# --- from the command line, with no restore process -------------------------------------------------------------------


def test_promote_refuse_force_and_roll_back(rig, models, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert served(rig) == {"DAPI": "weak"}
    assert command("promote", models["identity"], "--channel", "FITC", "--config", rig) == 1
    assert "is not better than the raw images" in capsys.readouterr().err
    assert served(rig) == {"DAPI": "weak"}

    assert command("promote", models["weak"], "--channel", "FITC", "--config", rig) == 0
    assert "no restore process answers at tcp://127.0.0.1:1; the next live-restore serve" in capsys.readouterr().out
    assert served(rig)["FITC"].startswith("weak-")
    assert command("promote", models["good"], "--channel", "FITC", "--config", rig, "--why", "new optics") == 0
    assert served(rig)["FITC"].startswith("good-")
    assert command("promote", models["weak"], "--channel", "FITC", "--config", rig) == 1
    said = capsys.readouterr()
    assert "monday: it is not better than the model that serves, by -" in said.err
    assert "tuesday: it is not better" in said.err and "± " in said.err and "serving dB" in said.out
    assert served(rig)["FITC"].startswith("good-")
    assert command("promote", models["weak"], "--channel", "FITC", "--config", rig, "--force") == 0
    assert "although something speaks against it (--force)" in capsys.readouterr().out
    assert served(rig)["FITC"].startswith("weak-")

    config = HardwareConfig.from_file(rig)
    named = model_choices(config, [f"FITC={models['good']}"], None, None, None)
    assert {choice.package for choice in named if choice.channel == "FITC"} == {models["good"]}  # what is named goes before
    (mine,) = (choice for choice in model_choices(config, (), "identity", None, None) if choice.channel == "FITC")
    assert (mine.engine, mine.precision) == ("identity", "f32")  # as the configuration's channel says
    assert promoted_words(config, mine).startswith(", promoted on 20") and promoted_words(config, mine).endswith(", by force")
    assert [promoted_words(config, replace(mine, package=models["weak"])), promoted_words(None, mine)] == ["", ""]

    for expected in ("good-", "weak-"):
        assert command("rollback", "--channel", "FITC", "--config", rig, "--why", "artefacts") == 0
        assert served(rig)["FITC"].startswith(expected)
    assert command("rollback", "--channel", "FITC", "--config", rig) == 0  # asks nobody: there is nothing to put in its place
    assert "FITC has no model again; the configuration names no model for it" in capsys.readouterr().out
    assert served(rig) == {"DAPI": "weak"}
    assert command("rollback", "--channel", "FITC", "--config", rig) == 1
    assert "nothing was promoted for FITC" in capsys.readouterr().err

    whats = ["refused", "promoted", "promoted", "refused", "promoted", "rolled back", "rolled back", "rolled back"]
    lines = journal(rig).history()
    assert [line.what for line in lines] == whats
    assert [line.forced for line in lines] == [False] * 4 + [True] + [False] * 3
    assert lines[2].why == "new optics" and lines[1].why.startswith("monday +") and "is not better" in lines[4].why
    assert lines[1].calibrations[0]["pairs"] == 2 and "@" in lines[1].by and lines[1].when.endswith("+00:00")
    assert lines[1].sha256 == open_package(models["weak"]).onnx_sha256
    assert command("promotions", "--config", rig) == 0
    shown = capsys.readouterr().out
    assert "promoted, forced" in shown and "the good one" in shown and "artefacts" in shown
    assert command("promotions", "--config", rig, "--channel", "FITC", "--json") == 0
    assert [line["what"] for line in json.loads(capsys.readouterr().out)["FITC"]] == whats


def test_what_was_promoted_must_stay_what_it_was(rig, models, capsys):
    assert command("promote", models["weak"], "--channel", "FITC", "--config", rig) == 0
    kept = journal(rig)
    copy = kept.path(kept.serving)
    shutil.rmtree(copy)
    with pytest.raises(ConfigError, match="is gone; restore it from a backup"):
        served(rig)
    shutil.copytree(models["good"], copy)
    with pytest.raises(ConfigError, match=r"has another network .* than the one promoted for FITC on 20"):
        served(rig)


def test_what_served_before_is_gone(tmp_path, models):
    promotions = Promotions(tmp_path, "FITC")
    first, second = (promotions.take(models[name]) for name in ("weak", "good"))
    for path, name in ((first, "the weak one"), (second, "the good one")):
        promotions.add(Promotion("promoted", path.name, name))
    shutil.rmtree(first)
    with pytest.raises(ConfigError, match=r"is gone, so the good one goes on; .* or promote another model"):
        rollback(promotions, lambda path: ModelChoice("FITC", path), None)
    assert promotions.serving.package == second.name


def test_without_a_configuration(tmp_path, models, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_calibration(tmp_path / "elsewhere", photons=12.0)
    assert command("promotions") == 0
    assert "nothing was promoted yet in models" in capsys.readouterr().out
    assert command("promote", models["weak"], "--channel", "FITC") == 1
    assert "no calibration has held-out pairs of FITC" in capsys.readouterr().err
    for name in ("weak", "good"):
        assert command("promote", models[name], "--channel", "FITC", "--pairs", "elsewhere") == 0
    assert command("promote", models["good"], "--channel", "FITC", "--pairs", "elsewhere") == 1
    assert "this very network serves already" in capsys.readouterr().err
    assert command("rollback", "--channel", "FITC") == 0
    assert "the weak one serves FITC again; the next live-restore serve" in capsys.readouterr().out.replace("\n", " ")


def test_a_model_of_another_channel_is_mentioned(rig, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    package = write_kernel_package(tmp_path / "nuclei", IDENTITY, channel="DAPI").path
    assert command("promote", package, "--channel", "FITC", "--config", rig) == 1
    assert "this model was trained for DAPI, not for FITC" in capsys.readouterr().err


def test_a_channel_that_the_microscope_does_not_have(rig, models, capsys):
    assert command("promote", models["weak"], "--channel", "GFP", "--config", rig) == 1
    assert "the configuration has no channel 'GFP'; it has FITC, DAPI" in capsys.readouterr().err.replace("\n", " ")


def test_evaluate_from_the_command_line(tmp_path, rig, models, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monday, report = rig.parent / "pairs" / "monday", tmp_path / "report.html"
    assert command("evaluate", models["good"], monday, "--config", rig, "--report", report) == 0
    said = capsys.readouterr()
    assert "the good one on 2 held-out pairs" in said.out and "FITC" in said.out and "SNR" in said.out
    assert "warning: only 2 position(s)" in said.err and str(report) in said.err
    assert "FITC" in report.read_text(encoding="utf-8")
    assert command("evaluate", models["good"], monday, "--json", "--all", "--precision", "f32") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["scores"]) == 4 and found["precision"] == "f32" and found["mean"]["gain_db"] > 1
    assert command("evaluate", models["good"], monday, "--channel", "DAPI") == 1
    said = capsys.readouterr().err
    assert "no accepted pairs of DAPI" in said and "there are no pairs to score" in said


# --- a restore process that is running --------------------------------------------------------------------------------


def test_a_running_restore_process_takes_it_and_gives_it_back(rig, models, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    child = start_restore_process([], "--config", str(rig), "--records", str(tmp_path / "records"))

    def works(channel="FITC"):
        ready = [model for model in status(child.where)["models"] if model["state"] == "ready"]
        return {model["channel"]: model["model"] for model in ready}.get(channel)

    try:
        assert works() is None
        where = ("--channel", "FITC", "--config", rig, "--address", child.where)
        assert command("promote", models["weak"], *where) == 0
        assert f"the restore process at {child.where} works with it now" in capsys.readouterr().out
        assert works() == "the weak one"
        assert command("promote", models["good"], *where) == 0
        assert works() == "the good one" and works("DAPI") == "the weak one"
        assert command("promote", models["identity"], *where) == 1
        assert works() == "the good one"
        assert command("rollback", *where) == 0
        assert works() == "the weak one"
        history = len(journal(rig).history())
        absent = ModelChoice("FITC", models["good"], "abacus")
        with pytest.raises(WireError, match=r"does not take the model, and goes on with the one it has: .*abacus"):
            promote(journal(rig), absent, Verdict(()), address=child.where)
        assert works() == "the weak one" and len(journal(rig).history()) == history  # nothing was promoted
        assert command("rollback", *where) == 0
        assert "keeps the one it has until it is restarted" in capsys.readouterr().out
    finally:
        assert stop_restore_process(child)
    assert "promoted on" not in " ".join(child.said)
    promote(journal(rig), ModelChoice("FITC", models["good"]), Verdict(()))
    again = start_restore_process([], "--config", str(rig), "--records", str(tmp_path / "records"))
    try:
        assert ", promoted on 20" in " ".join(again.said)
        (served_now,) = (model for model in status(again.where)["models"] if model["channel"] == "FITC")
        assert served_now["model"] == "the good one"
    finally:
        stop_restore_process(again)


def test_nobody_is_asked_without_an_address(tmp_path, models):
    kept = Promotions(tmp_path, "FITC")
    choice = ModelChoice("FITC", models["good"])
    done, swapped = promote(kept, choice, Verdict(()), why="by hand")
    assert (done.what, done.why, swapped) == ("promoted", "by hand", "the next live-restore serve --config takes it")
    assert swap(choice, "tcp://127.0.0.1:1").startswith("no restore process answers at tcp://127.0.0.1:1")
    done, swapped = rollback(kept, lambda path: replace(choice, package=path), models["weak"])
    assert (done.model, done.package) == ("the weak one", "") and swapped.startswith("the next")
    with pytest.raises(ConfigError, match="nothing was promoted for FITC; there is nothing to take back"):
        rollback(kept, lambda path: replace(choice, package=path), None)
    with pytest.raises(WireError, match="is no address"):
        swap(choice, "tcp://127.0.0.1")
