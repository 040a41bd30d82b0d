"""The family of live networks: ladders that go down steadily, of networks that are trained and served like any other."""

from itertools import pairwise

import pytest

from live_restore.models.facts import Normalisation
from live_restore.models.nets import build_net
from live_restore.training.distill import Distilling, student_options
from live_restore.training.family import CARE_DEFAULT_FLOP, family
from live_restore.training.student_choice import Conditions

LADDERS = [(2, "care"), (3, "care"), (2, "rcan"), (3, "rcan")]


@pytest.fixture(scope="module")
def ladders():
    return {words: family(*words) for words in LADDERS}


@pytest.mark.parametrize("words", LADDERS, ids=str)
def test_a_ladder_goes_down_in_operations_and_has_no_large_gaps(ladders, words):
    operations = [rung.flop_per_pixel for rung in ladders[words]]
    assert operations == sorted(operations, reverse=True)
    assert len(operations) >= 5
    assert all(above < 4.1 * below for above, below in pairwise(operations))
    assert operations[0] < 130_000
    assert len({rung.name for rung in ladders[words]}) == len(operations)


def test_the_care_ladders_go_from_a_hundred_to_three_kflop(ladders):
    for n_dim in (2, 3):
        operations = [rung.flop_per_pixel for rung in ladders[n_dim, "care"]]
        assert 80_000 < operations[0] < 110_000
        assert operations[-1] < 3_200
    # a student of a twentieth and one of a fortieth of CSBDeep's default are to be had
    twentieth, fortieth = CARE_DEFAULT_FLOP[2] / 20, CARE_DEFAULT_FLOP[2] / 40
    operations = [rung.flop_per_pixel for rung in ladders[2, "care"]]
    assert any(0.6 * twentieth < each <= twentieth for each in operations)
    assert any(0.6 * fortieth < each <= fortieth for each in operations)


def test_the_count_is_the_geometrys_and_agrees_with_the_convolutions(ladders):
    """2 x weights of a convolution x the pixels it computes, over the pixels of the image."""
    rung = next(one for one in ladders[2, "care"] if one.options["entry"] == 4 and one.options["depth"] == 1)
    net = build_net("care", rung.net_options, seed=0)
    levels = {"fold": 16, "down_level_0": 16, "middle": 64, "up_level_0": 16, "head": 16, "skip": 1}
    expected = sum(
        2 * module.weight.numel() / next(share for name, share in levels.items() if layer.startswith(name))
        for layer, module in net.convolutions()
    )
    # the rest is the unfolding, a convolution with ones and zeros
    assert expected <= rung.flop_per_pixel <= expected + 2 * 16 + 2
    assert rung.parameters == sum(weights.numel() for weights in net.parameters())


@pytest.mark.parametrize("words", LADDERS, ids=str)
def test_every_rung_can_be_trained_with_its_preset(ladders, words, tmp_path):
    wanted = Distilling(teachers=(), output=tmp_path, conditions=Conditions(10, (1, 512, 512)), steps=5)
    for rung in ladders[words]:
        options = student_options(rung, wanted, Normalisation(low_percentile=3))
        assert options.network.kind == words[1]
        assert options.fit.steps == 5
        assert options.normalisation.low_percentile == 3


def test_there_is_no_other_family():
    with pytest.raises(ValueError, match="no family of care networks with 4 axes; kinds are care and rcan, axes 2 and 3"):
        family(4)
