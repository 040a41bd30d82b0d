"""The demo that learns, whole but short: real devices, real training, a real restore process, a real promotion."""

import pytest
from own_process import run_alone

from live_restore.config import HardwareConfig

SCRIPT = """
import json, sys
from pathlib import Path
from live_restore.demo_learn import run_learn

class Listener:
    def say(self, sentence):
        print(sentence, flush=True)
    def frames(self, done, total):
        pass

learned = run_learn(Path(sys.argv[1]), minutes=0.75, listener=Listener(), browser=False, positions=6, points=10)
print(json.dumps(learned.as_json()))
"""


@pytest.mark.slow
@pytest.mark.microscope
def test_pairs_a_network_and_its_promotion_into_a_running_acquisition(tmp_path):
    learned = run_alone(SCRIPT, tmp_path, timeout_s=600)
    assert learned["accepted"] == 6
    before = [one for one in learned["compared"] if one["restored_db"] is None]
    after = [one for one in learned["compared"] if one["restored_db"] is not None]
    assert before and after, "the network was promoted in the middle of the acquisition"
    assert max(one["time"] for one in before) < min(one["time"] for one in after)
    assert learned["gain_db"] > 1.0
    assert (tmp_path / "learned.bioimageio" / "report.html").exists()
    journal = (tmp_path / "models" / "FITC" / "promotions.jsonl").read_text(encoding="utf-8")
    assert "learned" in journal
    gain = HardwareConfig.from_file(tmp_path / "rig.toml").camera.gain_adu_per_e
    assert gain == pytest.approx(2.18, rel=0.1), "the camera was measured on the pairs"
