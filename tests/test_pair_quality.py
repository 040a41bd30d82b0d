"""The quality check of a pair: figures that are right, and for every bad pair a sentence with value, limit and cure."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pair_folders import GAIN, OFFSET, RATIO, READ_NOISE_E, camera, cells, moved, pair
from scipy.ndimage import gaussian_filter

from live_restore.errors import ConfigError
from live_restore.pairs.pixels import saturated_share
from live_restore.pairs.quality import QualityLimits, measure_pair, read_limits
from live_restore.records.pairs import read_pairs
from live_restore.restore.noise import CameraNoise

NOISE = CameraNoise(OFFSET, GAIN, READ_NOISE_E)
SIZE_UM = (None, 0.1, 0.1)
PEAK = 20.0
FIELD = cells(3, (192, 192))


def parted(image):
    """The right half has moved."""
    image = image.copy()
    image[:, 96:] = np.roll(image, 5, 0)[:, 96:]
    return image


@pytest.mark.parametrize("noise", [NOISE, None], ids=["known", "estimated"])
@pytest.mark.parametrize("kind", ["filaments", "nuclei"])
def test_the_figures_of_a_good_pair(kind, noise):
    field = cells(3, (192, 192), kind)
    low, high, again = camera(PEAK * field), camera(RATIO * PEAK * moved(field, 0.6, -0.3), 1), camera(PEAK * field, 2)
    facts = measure_pair(low, high, low_again=again, dose_ratio=RATIO, noise=noise, pixel_size_um=SIZE_UM)
    assert facts.accepted, facts.reason
    assert facts.shift_px == pytest.approx((0.6, -0.3), abs=0.1)
    assert facts.drift_px == pytest.approx((0, 0), abs=0.15)
    assert facts.mean_ratio == pytest.approx(RATIO, rel=0.05)
    assert facts.bleaching == pytest.approx(0, abs=0.06)
    assert facts.likeness == pytest.approx(1, abs=0.05)
    assert facts.blur_px == pytest.approx(0, abs=0.9)
    assert facts.motion_px == 0
    assert (facts.saturated_low, facts.saturated_high) == (0, 0)
    background, peak = PEAK * np.quantile(field, (0.1, 0.999))
    expected = (peak - background) / np.sqrt(peak + READ_NOISE_E**2)
    assert facts.snr == pytest.approx(expected, rel=0.12)
    # the shot noise of both, and the read noise of low
    assert 4 < facts.noise_ratio < 12


def test_bleaching_is_measured_and_an_unknown_offset_does_not_matter():
    low, high = pair(PEAK, field=FIELD)
    facts = measure_pair(low + 400, high + 400, low_again=camera(0.8 * PEAK * FIELD, 9) + np.uint16(400))
    assert facts.bleaching == pytest.approx(0.2, abs=0.05)
    assert facts.mean_ratio == pytest.approx(RATIO, rel=0.05)


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_blur_is_told_in_pixels_of_either_image(sigma):
    low, high = pair(5 * PEAK, field=FIELD)
    blurred = camera(5 * PEAK * gaussian_filter(FIELD, sigma), 5)
    assert measure_pair(blurred, high).blur_px == pytest.approx(sigma, abs=0.3)
    assert measure_pair(low, camera(RATIO * 5 * PEAK * gaussian_filter(FIELD, sigma), 5)).blur_px == pytest.approx(
        -sigma, abs=0.3
    )


@pytest.mark.parametrize("peak", [0.2, 0.5])
def test_hardly_any_light_is_accepted_with_the_shift_unknown(peak):
    facts = measure_pair(*pair(peak, field=cells(3, (128, 128), "vesicles")), dose_ratio=RATIO)
    assert facts.accepted, facts.reason
    assert facts.shift_px == ()
    assert facts.motion_px is None


def test_stacks_are_measured_as_a_whole():
    stack = cells(3, (9, 128, 128), "mitochondria")
    facts = measure_pair(camera(PEAK * stack), camera(RATIO * PEAK * stack, 1), dose_ratio=RATIO, noise=NOISE)
    assert facts.accepted, facts.reason
    assert facts.shift_px == pytest.approx((0, 0, 0), abs=0.15)


def test_real_numbers_of_any_scale_are_measured_alike():
    low, high = pair(PEAK, field=FIELD)
    counts, scaled = (measure_pair(low.astype(np.float32) / k, high.astype(np.float32) / k) for k in (1, 65535))
    assert counts.accepted
    assert counts.snr == pytest.approx(scaled.snr, rel=0.05)


@dataclass(frozen=True)
class Bad:
    name: str
    low: Any
    high: Any
    match: str
    again: Any = None
    limits: QualityLimits | None = None
    dose_ratio: float | None = RATIO


LOW, HIGH = pair(PEAK, field=FIELD)
NAN = np.where(np.arange(192) == 3, np.nan, HIGH).astype(np.float32)
CUT = np.minimum(HIGH, int(np.percentile(HIGH, 97)))
BLURRED = gaussian_filter(FIELD, 4)
EMPTY = np.ones_like(FIELD)
STRETCHED = [np.interp(i, (i.min(), i.max()), (0, 255)).astype(np.uint16) for i in (LOW, HIGH)]
BAD = [
    Bad(
        "saturated",
        LOW,
        np.minimum(HIGH, int(np.percentile(HIGH, 97))),
        r"3 % of high is saturated \(limit 0.5 %\); take .* less",
    ),
    Bad("saturated low", np.minimum(HIGH, int(np.percentile(HIGH, 97))), HIGH, "3 % of low is saturated", dose_ratio=None),
    Bad("shifted", LOW, np.roll(HIGH, 20, 1), r"high lies 20.0 pixels \(2 µm\) from low \(limit 5\)"),
    Bad("drifted", LOW, HIGH, "the field drifted 8.. pixels", again=camera(PEAK * moved(FIELD, 8.0, 0.0), 7)),
    Bad("moved", LOW, camera(RATIO * PEAK * parted(FIELD), 1), "parts of the field moved by [45].. pixels"),
    Bad(
        "defocused high",
        LOW,
        camera(RATIO * PEAK * gaussian_filter(FIELD, 4), 1),
        r"high is blurrier .* [34].. pixels sigma \(limit 2\)",
    ),
    Bad("defocused low", camera(PEAK * BLURRED, 1), HIGH, "low is blurrier"),
    Bad("half the dose", LOW, camera(0.4 * RATIO * PEAK * FIELD, 1), r"high is 12.* times brighter .* 30 times the light"),
    Bad("bleached", LOW, HIGH, r"of the light was bleached between .* \(limit 25 %\)", again=camera(0.5 * PEAK * FIELD, 7)),
    Bad("swapped", HIGH, LOW, "low and high may be swapped: exchange them"),
    Bad("swapped, dose unknown", HIGH, LOW, "high is noisier than low .* may be swapped", dose_ratio=None),
    Bad("the same light", LOW, camera(PEAK * FIELD, 4), "high is as noisy as low", dose_ratio=None),
    Bad("another field", LOW, camera(RATIO * PEAK * cells(8, (192, 192)), 1), "low and high show different things"),
    Bad("empty", camera(EMPTY), camera(30 * EMPTY, 1), r"the field is empty: 0 % .* \(limit 0.1 %\); move to cells"),
    Bad("NaN", LOW.astype(np.float32), NAN, "high has 192 pixels that are NaN"),
    Bad("constant", LOW, np.full_like(HIGH, 100), "high is constant at 100 counts"),
    Bad("unequal shapes", LOW, HIGH[:-1], r"high has shape \(191, 192\) and low \(192, 192\); crop"),
    Bad("unequal second low", LOW, HIGH, r"second low has shape \(2, 2\)", again=LOW[:2, :2]),
    Bad("unequal bit depth", (LOW // 256).astype(np.uint8), HIGH, "high is uint16 and low uint8; give both as the"),
    Bad("stretched to 8 bit", *STRETCHED, "both images end at 255 counts: 8-bit copies"),
    Bad("too small", LOW[:20], HIGH[:20], "20 x 192 pixels; at least 32"),
    Bad("four axes", LOW[None, None], HIGH[None, None], "have 4 axes"),
    Bad("strict limits", LOW, np.roll(HIGH, 2, 0), r"2.0 pixels .*\(limit 1\)", limits=QualityLimits(shift_px=1)),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_pair_is_rejected_with_its_reason(bad):
    facts = measure_pair(
        bad.low, bad.high, low_again=bad.again, dose_ratio=bad.dose_ratio, pixel_size_um=SIZE_UM, limits=bad.limits
    )
    assert not facts.accepted
    assert re.search(bad.match, facts.reason), facts.reason
    assert facts.as_json()["reason"] == facts.reason


def test_a_stack_out_of_focus_by_planes_is_rejected():
    fine = cells(3, (14, 128, 128), "mitochondria")
    facts = measure_pair(camera(PEAK * fine[3:12]), camera(RATIO * PEAK * fine[:9], 1), pixel_size_um=(0.3, 0.1, 0.1))
    assert re.search(r"high lies 3.. planes \(0.9.? µm\) above low \(limit 1.5\)", facts.reason), facts.reason


@pytest.mark.parametrize(
    ("pixels", "told_adu", "share"),
    [
        (np.array([[255, 255], [3, 4]], np.uint8), None, 0.5),
        (np.array([[255, 255], [3, 4]], np.float32), None, 0.5),
        (np.array([[4095, 1], [3, 4]], np.uint16), None, 0.25),
        (np.array([[3000, 1], [3, 4]], np.uint16), None, 0.25),
        (np.array([[90, 90], [90, 4]], np.uint16), None, 0.0),
        (np.array([[90, 90], [90, 4]], np.uint16), 80.0, 0.75),
    ],
)
def test_saturation_is_a_full_scale_or_a_plateau(pixels, told_adu, share):
    assert saturated_share(pixels, told_adu) == share


def test_limits_are_read_from_a_plan(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text("[calibration]\nname = 'x'\n[limits]\nshift_px = 1.5\n", encoding="utf-8")
    assert read_limits(plan).shift_px == 1.5
    for text, match in (("", "has no .limits."), ("[limits]\nshift = 1", "shift_px"), ("[", "cannot be read as TOML")):
        plan.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=match):
            read_limits(plan)


@pytest.mark.realdata
def test_real_pairs_are_good(shared_data):
    """One widefield frame against the mean of 400: the noise ratio is the root of 400."""
    pairs = read_pairs(shared_data / "pairs_widefield_w2s").pairs
    for one in (pairs[0], pairs[-1]):
        facts = measure_pair(*one.read())
        assert facts.accepted, facts.reason
        assert facts.noise_ratio == pytest.approx(20, rel=0.15)
        assert facts.shift_px == pytest.approx((0, 0), abs=0.3)
