"""The run folder: described in one step, added to line by line, readable after a crash, and accounted for to the frame."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from live_restore.errors import ImageError
from live_restore.frames import VolumeKey, volume_key
from live_restore.ledger import HOOK_COLUMNS, RESTORE_COLUMNS, Ledger
from live_restore.records import runs
from live_restore.records.account import account
from live_restore.records.file_lock import FileLock
from live_restore.records.json_lines import JsonLines, plain, read_lines
from live_restore.records.runs import RunFolder, read_journal, run_folder, software

KEY = VolumeKey(3, "B2", "GFP")


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "mitosis_1").mkdir()
    return tmp_path / "mitosis_1"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("mitosis_1", "mitosis_1_restored"),
        ("x.ome.zarr", "x_restored"),
        ("x.zarr", "x_restored"),
        ("x.ome.tif", "x_restored"),
        ("v1.2", "v1.2_restored"),
    ],
)
def test_the_folder_stands_beside_the_raw_dataset(tmp_path, raw, name):
    assert run_folder(tmp_path / raw) == tmp_path / name


def test_the_folder_of_a_relative_path(tmp_path, monkeypatch):
    (tmp_path / "mitosis_1").mkdir()
    monkeypatch.chdir(tmp_path / "mitosis_1")
    assert run_folder(Path(".")).name == "mitosis_1_restored"
    assert run_folder(Path("a_1")) == tmp_path / "mitosis_1" / "a_1_restored"


def test_begin_and_open(raw):
    with RunFolder.begin(run_folder(raw), "r1", raw, models=[{"channel": "*"}], plan={"times": 3}) as run:
        assert run.path == run_folder(raw)
        assert run.raw == raw
    with RunFolder.open(run.path) as again:
        assert (again.run, again.raw) == ("r1", raw)
        said = again.described("run.json")
    assert said["raw"] == "../mitosis_1"  # both can be moved together
    assert said["plan"] == {"times": 3}
    assert said["software"]["live_restore"]


def test_a_raw_dataset_elsewhere_is_kept_in_full(tmp_path, raw):
    with RunFolder.begin(tmp_path / "elsewhere" / "r", "r1", raw) as run:
        assert run.raw == raw
        assert run.described("run.json")["raw"] == raw.as_posix()
    with RunFolder.begin(tmp_path / "unknown", "r1") as run:
        assert run.raw is None


def test_hook_and_restore_process_begin_at_once(raw):

    for trial in range(20):
        place = run_folder(raw).with_name(f"trial{trial}")
        with ThreadPoolExecutor(4) as pool:
            paths = set(pool.map(lambda n, p=place: _begin(p, raw, n), range(4)))
        assert paths == {place}
        assert RunFolder.open(place).described("run.json")["models"] == [1]
        assert [path.name for path in place.iterdir()] == ["run.json"]


def _begin(place, raw, number):
    role, said = ("restore", {"models": [1]}) if number == 0 else ("hook", {})
    with RunFolder.begin(place, "r1", raw, role=role, **said) as run:
        return run.path


def test_another_run_of_the_same_name_has_a_folder_of_its_own(raw):
    first = RunFolder.begin(run_folder(raw), "r1", raw).path
    second = RunFolder.begin(run_folder(raw), "r2", raw).path
    assert second.name == "mitosis_1_restored_2"
    assert RunFolder.begin(run_folder(raw), "r2", raw).path == second
    assert RunFolder.begin(run_folder(raw), "r1", raw).path == first


def test_what_is_no_run_folder_is_never_entered(raw):
    run_folder(raw).mkdir()
    (run_folder(raw) / "mine.txt").write_text("precious")
    run_folder(raw).with_name("mitosis_1_restored_2").write_text("a file")
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    assert run.path.name == "mitosis_1_restored_3"
    assert [path.name for path in run_folder(raw).iterdir()] == ["mine.txt"]
    with pytest.raises(ImageError, match=r"no run folder: it has no run\.json that names a run; give the folder named"):
        RunFolder.open(run_folder(raw))


def test_every_name_is_taken(raw, monkeypatch):
    monkeypatch.setattr(runs, "_MOST_FOLDERS", 2)
    for number in ("", "_2"):
        run_folder(raw).with_name(f"mitosis_1_restored{number}").write_text("a file")
    with pytest.raises(ImageError, match="and 1 folders named after it belong to other runs; move some away"):
        RunFolder.begin(run_folder(raw), "r1", raw)


def test_describe_replaces_in_one_step(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("hook.json", {"ledger": {"taken": 1}, "figure": np.float32(0.5), "none": float("nan")})
    assert run.described("hook.json")["figure"] == 0.5
    assert run.described("hook.json")["none"] is None
    assert run.described("restore.json") == {}
    assert [path.name for path in run.path.glob(".*")] == []
    with pytest.raises(ValueError, match=r"describes run.json, hook.json and restore.json, not 'x.json'"):
        run.describe("x.json", {})


def test_a_reader_never_meets_half_a_file(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("restore.json", {"n": 0, "much": "x" * 100_000})
    code = f"""
from pathlib import Path
from live_restore.records.runs import RunFolder
run = RunFolder.open(Path({str(run.path)!r}))
for n in range(200): run.describe("restore.json", {{"n": n, "much": "x" * 100_000}})
"""
    writer = subprocess.Popen([sys.executable, "-c", code])
    seen = set()
    while writer.poll() is None:
        said = run.described("restore.json")
        assert len(said["much"]) == 100_000
        seen.add(said["n"])
    assert writer.returncode == 0
    assert len(seen) > 1


def test_a_process_that_was_started_anew_keeps_the_tables_of_the_one_before(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    code = "import sys; from pathlib import Path; from live_restore.records.runs import RunFolder; "
    code += "RunFolder.open(Path(sys.argv[1])).describe('restore.json', {'ledger': {'taken': 5, 'restored': 5}})"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)
    for taken in (1, 2):
        run.describe("restore.json", {"ledger": {"taken": taken, "restored": taken}})
    said = run.described("restore.json")
    assert said["ledger"]["taken"] == 2
    assert [ledger["taken"] for ledger in said["earlier"]] == [5, 5]


def test_events_and_backlog(raw):
    hook = RunFolder.begin(run_folder(raw), "r1", raw, role="hook")
    restore = RunFolder.begin(run_folder(raw), "r1", raw)
    hook.note("attached", session="s")
    restore.note("model", name="care", path=Path("a/b"))
    hook.note("ended")
    hook.skip(KEY, 5, "busy")
    hook.skip(VolumeKey(0, "0", "RFP", "high"), 1, "nobody there")
    assert [event["event"] for event in restore.events()] == ["attached", "model", "ended"]
    assert restore.events()[1]["path"] == "a/b"
    assert restore.backlog() == [(KEY, 5, "busy"), (VolumeKey(0, "0", "RFP", "high"), 1, "nobody there")]
    hook.close()
    hook.close()


def test_a_torn_last_line_is_passed_over_and_cut(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonLines(path) as lines:
        lines.append({"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 2, "half')
    assert read_lines(path) == [{"n": 1}]
    with JsonLines(path) as lines:
        lines.append({"n": 3}, durable=True)
        lines.append({"n": 4})
    assert read_lines(path) == [{"n": 1}, {"n": 3}, {"n": 4}]


@pytest.mark.parametrize("garbage", [b"\0" * 200_000, b"{}x\n[1]\n", b""])
def test_lines_that_are_none_are_passed_over(tmp_path, garbage):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n' + garbage)
    with JsonLines(path) as lines:
        lines.append({"n": 2})
    assert read_lines(path) == [{"n": 1}, {"n": 2}]
    assert read_lines(tmp_path / "none.jsonl") == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files that could stand for a full disk")
def test_a_full_disk_raises_and_the_line_counts_as_never_written(tmp_path):
    path = tmp_path / "a.jsonl"
    code = """
import resource, sys
from pathlib import Path
from live_restore.records.json_lines import JsonLines, read_lines
lines = JsonLines(Path(sys.argv[1]))
lines.append({"n": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    lines.append({"n": "x" * 1000})
except OSError:
    assert read_lines(lines.path) == [{"n": 1}]
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    lines.append({"n": 2})
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert read_lines(path) == [{"n": 1}, {"n": 2}]


def test_lines_take_json_only(tmp_path):
    with JsonLines(tmp_path / "a.jsonl") as lines, pytest.raises(TypeError, match="JSON"):
        lines.append({"n": object()})
    assert plain({"a": (np.int64(1), np.arange(2)), 3: float("inf")}) == {"a": [1, [0, 1]], "3": None}


def test_a_lock_is_held_by_one_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    code = "import sys; from pathlib import Path; from live_restore.records.file_lock import FileLock; "
    code += "lock = FileLock(Path(sys.argv[1]), 'it'); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n" or os.name == "nt"
    with pytest.raises(
        ImageError, match=f"it is being written by process {holder.pid} on .* since .*; wait until it has ended"
    ):
        FileLock(path, "it")
    holder.kill()
    holder.wait()
    with FileLock(path, "it") as lock, pytest.raises(ImageError, match=f"process {os.getpid()} on"):
        FileLock(path, "it")
    lock.close()
    FileLock(path, "it").close()


def test_a_lock_whose_holder_said_nothing(tmp_path):
    with FileLock(tmp_path / "lock", "it"):
        (tmp_path / "lock").write_text("")
        with pytest.raises(ImageError, match="it is being written by another process"):
            FileLock(tmp_path / "lock", "it")


def test_software_names_what_is_installed():
    said = software("numpy", "no-such-package")
    assert said["numpy"] == np.__version__
    assert "no-such-package" not in said


def test_the_hook_loads_nothing_heavy():
    code = "import sys, live_restore.records.runs; print([m for m in ('scipy', 'pydantic', 'zarr', 'zmq') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


AXES = [
    ({}, VolumeKey(0, "0", "Default")),
    ({"time": 3, "z": 2}, VolumeKey(3, "0", "Default")),
    ({"time": 1, "position": 4, "channel": "GFP"}, VolumeKey(1, "4", "GFP")),
    ({"position": "A1", "channel": 2, "light": "high"}, VolumeKey(0, "A1", "2", "high")),
    ({"light": "low", "row": 1, "column": 2}, VolumeKey(0, "0_column2_row1", "Default")),
    ({"time": "late", "z": "top"}, VolumeKey(0, "0_ztop_timelate", "Default")),
    ({"time": np.int64(7), "position": np.int64(2)}, VolumeKey(7, "2", "Default")),
]


@pytest.mark.parametrize(("axes", "key"), AXES)
def test_the_volume_of_a_frame(axes, key):
    from live_restore.acquire.pycromanager_frames import place_of

    assert volume_key(axes) == key
    assert place_of(axes)[0] == key  # live, the same


# --- the account ------------------------------------------------------------------------------------------------------


def ledger(columns, **ends):
    counts = Ledger(columns)
    counts.take(sum(ends.values()))
    for name, frames in ends.items():
        if name != "waiting":
            counts.settle(name, frames)
    return counts.counts()


def journal(run, volumes):
    with JsonLines(run.path / "volumes.jsonl") as lines:
        for time, live in enumerate(volumes):
            lines.append({"time": time, "position": "0", "channel": "GFP", "planes": 2, "said": {"live": live, "frames": 5}})


def test_the_account_of_a_run_adds_up_to_the_frame(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("hook.json", {"ledger": ledger(HOOK_COLUMNS, receipted=34, skipped=10, unattached=5, lost=1)})
    run.describe("restore.json", {"ledger": ledger(RESTORE_COLUMNS, restored=20, reference=3, without_model=4, incomplete=2)})
    journal(run, [True] * 4 + [False] * 2)
    found = account(run.path)
    assert found.balanced
    assert found.offered == 50 == sum(row.frames for row in found.rows)
    assert [(row.name, row.frames) for row in found.rows] == [
        ("restored live", 20),
        ("restored later", 10),
        ("reference", 3),
        ("without_model", 4),
        ("not restored", 13),
    ]
    assert {row.name: row.frames for row in found.reasons} == {
        "skipped": 10,
        "unattached": 5,
        "lost": 1,
        "incomplete": 2,
        "interrupted": 5,
    }
    assert found.lines()[0] == "50 frames were offered"
    assert "      20  restored live (4 volumes): in the sidecar" in found.lines()[1]
    assert found.lines()[-1] == "every frame is accounted for"


def test_the_account_adds_the_tables_of_earlier_processes(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("hook.json", {"ledger": ledger(HOOK_COLUMNS, receipted=20)})
    first, second = ledger(RESTORE_COLUMNS, restored=10), ledger(RESTORE_COLUMNS, restored=5, reference=5)
    run.describe("restore.json", {"ledger": second})
    path = run.path / "restore.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "earlier": [first]}))
    journal(run, [True] * 3)
    found = account(run.path)
    assert found.balanced
    assert found.rows[-1].frames == 0
    assert not found.reasons


def test_a_killed_restore_process_has_an_older_table_than_its_journal(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("hook.json", {"ledger": ledger(HOOK_COLUMNS, receipted=40)})
    run.describe("restore.json", {"ledger": ledger(RESTORE_COLUMNS, restored=5, waiting=5)})
    journal(run, [True] * 4)  # 20 frames: ten more than its table knew of
    assert {row.name: row.frames for row in account(run.path).reasons} == {"interrupted": 20}


def test_what_a_process_counted_is_kept_when_it_then_says_something_else(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("restore.json", {"ledger": ledger(RESTORE_COLUMNS, reference=5)})
    run.describe("restore.json", {"backfill": {}})
    run.describe("restore.json", {"backfill": {}})
    assert account(run.path).offered == 5


@pytest.mark.parametrize(("recorded", "interrupted"), [(2, 15), (4, 5), (5, 0), (1, 15)])
def test_what_waited_in_a_process_that_was_killed_was_interrupted(raw, recorded, interrupted):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("hook.json", {"ledger": ledger(HOOK_COLUMNS, receipted=30)})
    run.describe("restore.json", {"ledger": ledger(RESTORE_COLUMNS, restored=5, waiting=15)})
    path = run.path / "restore.json"
    killed = {**json.loads(path.read_text()), "process": "another"}
    path.write_text(json.dumps(killed))
    run.describe("restore.json", {"ledger": ledger(RESTORE_COLUMNS, restored=5, waiting=5)})
    journal(run, [True] * recorded)
    found = account(run.path)
    assert found.balanced and found.offered == 30
    reasons = {row.name: row for row in found.reasons}
    assert reasons["waiting"].frames == 5 and reasons["waiting"].meaning == "on its way when this was written"
    assert (reasons["interrupted"].frames if interrupted else 0) == interrupted
    assert ("interrupted" in reasons) == bool(interrupted)
    if interrupted:
        assert reasons["interrupted"].meaning == "with a restore process that ended before it was done"


def test_what_waited_when_a_process_was_killed_is_interrupted_once_backfill_wrote(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("restore.json", {"ledger": ledger(RESTORE_COLUMNS, restored=5, waiting=15)})
    assert [row.name for row in account(run.path).reasons] == ["waiting", "not recorded"]
    run.describe("restore.json", {"backfill": {}})
    assert [(row.name, row.frames) for row in account(run.path).reasons] == [("interrupted", 15), ("not recorded", 5)]


@pytest.mark.parametrize("written", [(), ("hook",), ("restore",), ("journal",), ("hook", "journal")])
def test_the_account_of_a_run_that_was_just_begun(raw, written):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    if "hook" in written:
        run.describe("hook.json", {"ledger": ledger(HOOK_COLUMNS, receipted=5, waiting=2)})
    if "restore" in written:
        run.describe("restore.json", {"ledger": ledger(RESTORE_COLUMNS, reference=5)})
    if "journal" in written:
        journal(run, [True])
    found = account(run.path)
    assert found.balanced
    assert found.offered == sum(row.frames for row in found.rows)


def test_the_account_tells_what_does_not_add_up(raw):
    run = RunFolder.begin(run_folder(raw), "r1", raw)
    run.describe("hook.json", {"ledger": {**ledger(HOOK_COLUMNS, receipted=3), "taken": 4}})
    run.describe("restore.json", {"ledger": {**ledger(RESTORE_COLUMNS, restored=50), "waiting": 1}})
    journal(run, [True] * 2)
    found = account(run.path)
    assert not found.balanced
    assert found.problems == (
        "the ledger of the hook does not add up: 4 frames came in, 3 are accounted for",
        "the ledger of the restore process does not add up: 50 frames came in, 51 are accounted for",
        "6 more frames came to an end than were offered",
    )
    assert found.lines()[-1] == found.problems[-1]
    assert ("not recorded", 40) in [(row.name, row.frames) for row in found.reasons]


def test_the_journal_of_a_run_without_one(tmp_path):
    assert read_journal(tmp_path) == {}
    with pytest.raises(ImageError, match="no run folder"):
        account(tmp_path)
