"""The scheduler: whose turn it is, how much more is taken, and that the columns add up."""

import numpy as np
import pytest

from live_restore.frames import FrameInfo, Volume, VolumeKey
from live_restore.ledger import balanced
from live_restore.restore.scheduler import Scheduler


def volume(time=0, planes=2, run="run"):
    key = VolumeKey(time)
    infos = tuple(FrameInfo(run, 10 * time + z, key, z, planes) for z in range(planes))
    return Volume(run, key, np.zeros((planes, 10, 10), np.uint16), infos, planes)


def test_first_come_first_restored():
    scheduler = Scheduler()
    volumes = [volume(time) for time in range(3)]
    for each in volumes:
        scheduler.offer(each, now_ns=5, arrived_ns=3)
    jobs = [scheduler.take() for _ in volumes]
    assert [job.volume for job in jobs] == volumes
    assert (jobs[0].offered_ns, jobs[0].arrived_ns, jobs[0].slab) == (5, 3, False)
    assert scheduler.take() is None and not scheduler


def test_credit_is_what_may_still_come():
    scheduler = Scheduler(max_waiting=4)
    assert scheduler.credit(0) == 5  # four may wait, and one may be coming in
    assert scheduler.credit(2, at_once=3) == 5
    scheduler.offer(volume(0))
    assert scheduler.credit(1) == 3
    assert scheduler.credit(1, behind=2) == 1
    for time in range(1, 6):
        scheduler.offer(volume(time))
    assert scheduler.credit(1) == 0
    scheduler.take()
    scheduler.take()
    assert scheduler.credit(0) == 1


def test_credit_ends_where_memory_does_but_one_volume_is_always_taken():
    scheduler = Scheduler(max_waiting_bytes=500)
    assert scheduler.credit(0) == 5
    assert scheduler.credit(1, nbytes=600) == 0
    scheduler.offer(volume(0, planes=3))  # 600 bytes
    assert scheduler.credit(0) == 0
    scheduler.take()
    assert scheduler.credit(0) == 5


def test_a_slab_is_shown_where_nothing_else_waits_and_the_newest_counts():
    scheduler = Scheduler()
    scheduler.offer_slab(volume(5, 1))
    scheduler.offer_slab(volume(6, 1))
    scheduler.offer(volume(1))
    assert not scheduler.take().slab
    job = scheduler.take()
    assert job.slab and job.volume.key.time == 6
    assert scheduler.take() is None and scheduler.taken == 1


def test_a_slab_has_had_its_time_when_its_volume_is_whole():
    scheduler = Scheduler()
    scheduler.offer_slab(volume(1, 1))
    scheduler.offer(volume(1))
    assert [scheduler.take() is not None for _ in range(2)] == [True, False]
    scheduler.offer_slab(volume(2, 1))
    scheduler.offer_slab(None)
    assert scheduler.take() is None


def test_every_frame_ends_in_one_column():
    scheduler = Scheduler()
    for time, column in enumerate(("restored", "failed", "reference", "incomplete")):
        each = volume(time, planes=time + 1)
        scheduler.ledger("run").take(len(each.infos))
        if column in ("restored", "failed"):
            scheduler.offer(each)
            scheduler.take()
        scheduler.settle(each, column)
    assert balanced(scheduler.ledger("run").counts()) and scheduler.ledger("run")["incomplete"] == 4
    assert (scheduler.offered, scheduler.taken, scheduler.settled) == (2, 2, 4)
    assert "offered 2, waiting 0, taken 2, settled 4" in repr(scheduler) and "restored 1" in repr(scheduler)


def test_runs_have_tables_of_their_own_until_they_are_forgotten():
    scheduler = Scheduler()
    scheduler.ledger("a").take(3)
    assert scheduler.ledger("b")["taken"] == 0
    scheduler.forget("a")
    assert scheduler.ledger("a")["taken"] == 0


def test_what_waits_can_be_withdrawn():
    scheduler = Scheduler()
    scheduler.offer(volume(0))
    scheduler.offer(volume(1, run="other"))
    scheduler.offer_slab(volume(2, 1))
    assert scheduler.waits("other") and not scheduler.waits("third")
    assert [each.key.time for each in scheduler.withdraw()] == [0, 1]
    assert not scheduler and scheduler.offered == scheduler.waiting + scheduler.taken


@pytest.mark.parametrize("limits", [{"max_waiting": -1}, {"max_waiting_bytes": 0}])
def test_limits_that_hold_nothing(limits):
    with pytest.raises(ValueError, match=r"must be at least 0, max_waiting_bytes -?[0-9]+ at least 1"):
        Scheduler(**limits)
