"""Before an experiment: does this machine keep up, by how much not, and what would help."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from live_restore.bench.demand import Arrival, Demand, demand_of_numbers, demand_of_plan
from live_restore.bench.experiment import look_ahead
from live_restore.bench.keeps_up import outlook, what_helps
from live_restore.bench.pace import Pace, measure_pace
from live_restore.cli import app
from live_restore.config import HardwareConfig
from live_restore.errors import ConfigError
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder

ROOT = Path(__file__).resolve().parents[1]
CARE = bundled_folder() / "care2d_demo"


def pace(seconds, shape=(8, 512, 512), check_s=0.0, device="a CPU"):
    return Pace(shape, f"openvino 1, f32, on {device}", "openvino", device, "f32", 0.0, seconds, check_s, shape, 3)


def test_numbers_become_volumes_that_come_evenly():
    demand = demand_of_numbers((512, 256), planes=8, interval_s=4, channels=2, times=3)
    assert [arrival.at_s for arrival in demand.arrivals] == [2, 4, 6, 8, 10, 12] and demand.seconds == 12
    assert demand.per_s == 0.5 and demand.shapes == {"channel 1": (8, 512, 256), "channel 2": (8, 512, 256)}


@pytest.mark.parametrize("changed", [{"planes": 0}, {"channels": 0}, {"frame": (0, 8)}])
def test_numbers_that_cannot_be_are_refused(changed):
    with pytest.raises(ValueError, match="are whole numbers from 1 on"):
        demand_of_numbers(**{"frame": (8, 8), **changed})


def test_an_interval_is_needed():
    with pytest.raises(ValueError, match="an interval of 0 s is not possible; say how often"):
        demand_of_numbers((8, 8), interval_s=0)


def test_a_plan_is_followed_frame_by_frame():
    demand = demand_of_plan(ROOT / "acquisitions/timelapse.toml", (2048, 2048))
    assert len(demand.arrivals) == 60 and demand.seconds == pytest.approx(120.0)
    assert demand.shapes == {"FITC": (12, 2048, 2048), "Rhodamine": (12, 2048, 2048)}
    first, second = demand.arrivals[:2]
    assert (first.channel, first.planes) == ("FITC", 12) and 0 < first.at_s < second.at_s < 4


def test_a_useq_file_is_followed_too():
    demand = demand_of_plan(ROOT / "acquisitions/stacks_at_three_places.yaml", (512, 512))
    assert len(demand.arrivals) == 3 * 3 * 2 and {arrival.planes for arrival in demand.arrivals} == {9}
    assert demand.seconds == pytest.approx(30.0)


def test_references_at_high_light_are_not_restored(tmp_path):
    plan = tmp_path / "plan.toml"
    text = '[acquisition]\nreference_every = 2\n[time]\npoints = 4\ninterval_s = 1.0\n[[channels]]\nname = "FITC"\n'
    plan.write_text(text, encoding="utf-8")
    assert len(demand_of_plan(plan, (64, 64)).arrivals) == 4
    from live_restore.acquire.planned import PlannedFrame
    from live_restore.bench.demand import demand_of_frames

    high = PlannedFrame({"time": 0, "light": "high"}, "", "FITC", 10.0, None, None, None, None, 0.0)
    with pytest.raises(ConfigError, match="takes no frame at low light"):
        demand_of_frames([high], (64, 64))


def test_a_plan_needs_useq():
    script = (
        "import sys; sys.modules['useq'] = None\n"
        "from pathlib import Path\nfrom live_restore.bench.demand import demand_of_plan\n"
        "try:\n    demand_of_plan(Path('a.toml'), (8, 8))\nexcept Exception as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "reading a.toml needs useq: pip install live_restore[acquire]" in done.stdout


def test_a_broken_useq_file_is_an_error_in_words(tmp_path):
    (tmp_path / "plan.yaml").write_text("channels: 7", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"plan.yaml is no useq sequence"):
        demand_of_plan(tmp_path / "plan.yaml", (8, 8))


# ------------------------------------------------------------------ the outlook


def test_a_machine_that_is_fast_enough_keeps_up():
    seen = outlook(demand_of_numbers((512, 512), 8, interval_s=1.0, times=50), {"*": pace(0.5, check_s=9.0)})
    assert seen.keeps_up and seen.needed_per_s == 1.0 and seen.pace_per_s == pytest.approx(1 / 0.55)  # a tenth for checking
    assert seen.most_waiting == 1 and seen.behind == 1 and seen.lag_s == pytest.approx(0.55)
    assert seen.in_words() == [
        "this CPU (openvino 1, f32, on a CPU) keeps up with 1.8 volumes/s; you need 1: 45 % of the time is left"
    ]


def test_a_machine_that_is_too_slow_says_how_far_it_lags_and_what_helps():
    demand = demand_of_numbers((512, 512), 8, interval_s=1.0, times=100)
    seen = outlook(demand, {"*": pace(2.0, device="NVIDIA card")})
    assert not seen.keeps_up and seen.load == pytest.approx(2.0)
    assert seen.behind == 51 and seen.lag_s == pytest.approx(101.0)  # of 200 s of work 99 s are done
    assert seen.backlog_gb == pytest.approx(51 * 8 * 512 * 512 * 2 / 1e9)
    first, second = seen.in_words()
    assert first.startswith("this GPU (") and "does not keep up: it restores 0.5 volumes/s; you need 1" in first
    assert "after 2 min it would be 51 volumes behind, 2 min of work and 0.21 GB" in second
    helps = what_helps(demand, seen, open_package(CARE), in_bf16=pace(1.0))
    assert helps[0].startswith("--precision bf16: about 1 volumes/s, enough")
    assert f"live-restore distill {CARE} --target-ms 112 --size 512x512 (now 250 ms)" in helps[1]
    assert helps[2:] == (
        "fewer planes: 4 instead of 8",
        "a longer interval: 2 times as long as planned",
        "a smaller field of the camera: 362x362 instead of 512x512",
    )


def test_volumes_that_come_at_once_wait():
    demand = Demand(tuple(Arrival(10.0 * time, f"c{n}", 1) for time in range(4) for n in range(3)), (64, 64), 40.0)
    seen = outlook(demand, {"*": pace(1.0, (1, 64, 64))})
    assert seen.keeps_up and seen.most_waiting == 3 and "--max-waiting 3" in seen.in_words()[1]


def test_channels_without_a_model_take_no_time():
    demand = demand_of_numbers((64, 64), interval_s=1.0, channels=2, times=10)
    seen = outlook(demand, {"channel 1": pace(0.1, (1, 64, 64))})
    assert seen.load == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no model is given for the channels channel 1, channel 2"):
        outlook(demand, {})


def test_the_real_restorer_keeps_up_with_a_slow_experiment_and_not_with_an_impossible_one():
    slow = look_ahead(demand_of_numbers((64, 64), interval_s=60.0), {"*": CARE}, "openvino", "f32", budget_s=1.0)
    assert slow.keeps_up and not slow.helps
    asked = demand_of_numbers((64, 64), interval_s=1e-6)
    fast = look_ahead(asked, {"channel x": CARE, "*": CARE}, "openvino", "f32", budget_s=1.0)
    assert not fast.keeps_up and fast.behind > 0 and any("live-restore distill" in each for each in fast.helps)
    measured = fast.paces["*"]
    assert (
        measured.restore_s > 0 and measured.check_s > 0 and measured.assemble_s > 0 and measured.measured_shape == (1, 64, 64)
    )
    with pytest.raises(ValueError, match="say which network is to restore it"):
        look_ahead(asked, {})


def test_volumes_that_take_too_long_are_measured_smaller_and_scaled():
    found = measure_pace(open_package(CARE), (1, 1024, 1024), engine="openvino", precision="f32", budget_s=1e-6)
    assert found.measured_shape == (1, 256, 256) and found.volumes == 2
    said = outlook(demand_of_numbers((1024, 1024), interval_s=3600.0), {"*": found}).in_words()
    assert said[-1] == "measured on 1x256x256 and scaled by pixels to 1x1024x1024"


# ------------------------------------------------------------------ the command


def asked(*words):
    return CliRunner().invoke(app, ["bench", *words], env={"COLUMNS": "200"})


def test_the_command_answers_and_writes(tmp_path):
    words = ["--frame", "64x64", "--interval-s", "60", "--model", str(CARE), "--engine", "openvino", "--precision", "f32"]
    done = asked(*words, "-o", str(tmp_path))
    assert done.exit_code == 0 and "keeps up with" in done.output, done.output
    said = json.loads((tmp_path / "outlook.json").read_text(encoding="utf-8"))
    assert said["format"] == "live_restore.outlook/1" and said["keeps_up"] is True and said["in_words"]


def test_a_configuration_names_the_models(tmp_path):
    config = ROOT / "hardware_configs/demo.toml"
    plan = ROOT / "acquisitions/timelapse.toml"
    channels = HardwareConfig.from_file(config).channels
    assert {channel.model for channel in channels.values()} != {"none"}
    done = asked("--plan", str(plan), "--config", str(config), "--frame", "32x32", "--engine", "identity", "--precision", "f32")
    assert done.exit_code == 0 and "you need 0.5" in done.output, done.output


def test_what_is_missing_is_asked_for():
    for words, sentence in (
        (("--interval-s", "4"), "say how large the camera's frames are"),
        (("--frame", "64x64"), "say how often a time point begins: --interval-s 4"),
    ):
        assert sentence in str(asked(*words).exception)
