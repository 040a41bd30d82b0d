"""Batches in turn: the same as one by one, overlapped or not, and no batch is lost when something goes wrong."""

import numpy as np
import pytest
from small_graphs import image, net_graph

from live_restore.engines.engine import open_engine
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.errors import EngineError, EngineMismatch

CARE = net_graph("care", n_dim=2, first_filters=4)
KINDS = ("openvino", "torch", "identity")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_in_turn_as_one_by_one(kind, count):
    batches = [(image(1, 1, 16 + 4 * (seed % 3 == 2), 32, seed=seed),) for seed in range(count)]
    with open_engine(kind, CARE) as engine:
        together = [outputs[0].copy() for outputs in engine.infer_many(iter(batches))]
        assert len(together) == count
        for found, batch in zip(together, batches, strict=True):
            np.testing.assert_array_equal(found, engine.infer(*batch)[0])


def test_the_next_batch_is_taken_while_one_is_computed():
    taken = []

    def batches():
        for seed in range(4):
            taken.append(seed)
            yield (image(1, 1, 16, 16, seed=seed),)

    with open_engine("openvino", CARE) as engine:
        for done, _ in enumerate(engine.infer_many(batches())):
            assert taken == list(range(min(done + 2, 4)))


def test_what_was_inferred_before_stays_what_it_is():
    with open_engine("openvino", CARE) as engine:
        (before,) = engine.infer(image(1, 1, 32, 32))
        kept = before.copy()
        for _ in engine.infer_many((image(1, 1, 32, 32, seed=seed),) for seed in range(1, 4)):
            np.testing.assert_array_equal(before, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_given_up_halfway(kind):
    with open_engine(kind, CARE) as engine:
        results = engine.infer_many((image(1, 1, 32, 32, seed=seed),) for seed in range(5))
        next(results)
        results.close()
        (again,) = engine.infer(image(1, 1, 32, 32))
        (found,) = next(engine.infer_many([(image(1, 1, 32, 32),)]))
        np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_a_batch_that_does_not_fit(kind):
    wrong = [(image(1, 1, 32, 32),), (image(1, 1, 32, 32),), (image(1, 3, 32, 32),)]
    with open_engine(kind, CARE) as engine:
        with pytest.raises(EngineMismatch, match="has 3 channels; the graph takes 1"):
            list(engine.infer_many(wrong))
        assert len([outputs[0].shape for outputs in engine.infer_many(wrong[:2])]) == 2


def test_the_callers_own_error_comes_through():
    def batches():
        yield (image(1, 1, 32, 32),)
        yield (image(1, 1, 32, 32),)
        raise RuntimeError("the disk is gone")

    with open_engine("openvino", CARE) as engine:
        with pytest.raises(RuntimeError, match=r"^the disk is gone$"):
            list(engine.infer_many(batches()))
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            list(engine.infer_many([(image(1, 1, 32, 32),)]))


def test_read_only_counts_are_not_copied():
    """A frame lies in memory that nobody may write into; looking at it must not cost a copy."""
    frame = np.random.default_rng(0).integers(0, 4000, (1, 1, 32, 32), np.uint16)
    frame.flags.writeable = False
    before, ranges = frame.copy(), np.float32([[100], [900]])
    with open_engine("openvino", from_counts(CARE)) as engine:
        (expected,) = engine.infer(before, ranges, ranges)
        np.testing.assert_array_equal(engine.infer(frame, ranges, ranges)[0], expected)
        for (found,) in engine.infer_many([(frame, ranges, ranges)] * 3):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(frame, before)
