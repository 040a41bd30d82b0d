"""Which volumes are sent, and that every frame ends in exactly one column."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_restore.acquire.outbox import Outbox
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.ledger import HOOK_COLUMNS, Ledger, balanced
from live_restore.wire.messages import Abandon, FrameSent

PIXELS = np.zeros((8, 8), np.uint16)  # 128 bytes


class Bench:
    def __init__(self, limit_bytes=1 << 20, credit=100):
        self.backlog = []
        self.ledger = Ledger(HOOK_COLUMNS)
        self.outbox = Outbox(lambda run, key, planes, why: self.backlog.append((key, planes, why)), limit_bytes)
        self.outbox.open("r", self.ledger)
        self.number = 0
        if credit is not None:
            self.outbox.came(credit)

    def frame(self, time, z=0, planes=2, light="low"):
        key, number = VolumeKey(time, light=light), self.number
        self.number += 1
        if self.outbox.take("r", key, planes):
            self.outbox.put(Frame(PIXELS, FrameInfo("r", number, key, z, planes)))

    def send(self):
        sent = []
        while (message := self.outbox.next()) is not None:
            sent.append(message)
        return sent

    def receipt(self, sent, credit=100, refused=""):
        self.outbox.receipt("r", [m.frame.info.sequence for m in sent if isinstance(m, FrameSent)], credit, refused)

    @property
    def ends(self):
        return {name: count for name, count in self.ledger.counts().items() if count and name != "taken"}


def test_frames_leave_in_their_order_and_are_receipted():
    bench = Bench()
    for z in range(4):
        bench.frame(z // 2, z % 2)
    sent = bench.send()
    assert [m.frame.info.sequence for m in sent] == [0, 1, 2, 3] and bench.outbox.held("r") == 4
    bench.receipt(sent)
    assert bench.ends == {"receipted": 4} and bench.outbox.held_bytes == 0 and bench.backlog == []


def test_nobody_there_is_decided_for_the_whole_volume():
    bench = Bench(credit=None)
    bench.frame(0, 0)
    bench.outbox.came(5)
    bench.frame(0, 1)
    bench.frame(1, 0)
    assert bench.ends == {"unattached": 2, "waiting": 1}
    assert bench.backlog == [(VolumeKey(0), 2, "there was no restore process")]


def test_credit_counts_volumes_that_were_not_yet_answered():
    bench = Bench(credit=2)
    for time in range(3):
        bench.frame(time, 0)
        bench.frame(time, 1)
    assert bench.ends == {"waiting": 4, "skipped": 2}
    sent = bench.send()
    bench.receipt(sent[:2], credit=1)  # of the first volume: one more beyond those begun, and one of these is unanswered
    bench.frame(3)
    assert bench.ends == {"receipted": 2, "waiting": 2, "skipped": 3}
    bench.receipt(sent[2:], credit=1)
    bench.frame(4)
    assert bench.ends["waiting"] == 1
    assert [why for *_, why in bench.backlog] == ["the restore process was busy"] * 2


def test_high_light_is_sent_without_credit_and_waits_while_nobody_is_there():
    bench = Bench(credit=None)
    bench.frame(0, light="high")
    bench.frame(0, 1, light="high")
    assert bench.send() == [] and bench.ends == {"waiting": 2}
    bench.outbox.came(0)
    assert len(bench.send()) == 2


def test_high_light_has_a_limit_too():
    bench = Bench(limit_bytes=4 * 128, credit=None)
    for time in range(4):
        bench.frame(time, 0, light="high")
        bench.frame(time, 1, light="high")
    assert bench.ends == {"waiting": 4, "unattached": 4}
    assert bench.backlog[0] == (VolumeKey(2, light="high"), 2, "too many frames were waiting for the restore process")


def test_a_volume_that_outgrows_the_limit_is_given_up():
    bench = Bench(limit_bytes=4 * 128)
    bench.frame(0, 0, planes=6)
    sent = bench.send()
    for z in range(1, 6):
        bench.frame(0, z, planes=6)
    assert bench.send() == [Abandon("r", VolumeKey(0))]
    bench.receipt(sent)
    assert bench.ends == {"receipted": 1, "lost": 5} and len(bench.backlog) == 1
    bench.frame(1)
    assert bench.ends["waiting"] == 1


def test_what_is_on_its_way_is_lost_with_the_restore_process_and_so_is_the_rest_of_the_volume():
    bench = Bench()
    for z in range(2):
        bench.frame(0, z)
    bench.receipt(bench.send())  # whole, and known to be
    bench.frame(1, 0)
    bench.receipt(bench.send())
    bench.frame(2, 0)
    bench.send()
    bench.frame(3, 0)
    bench.frame(4, 0, light="high")
    bench.outbox.went()
    for time in (1, 2, 3):
        bench.frame(time, 1)
    assert bench.ends == {"receipted": 3, "lost": 5, "waiting": 1}
    assert sorted(key.time for key, *_ in bench.backlog) == [1, 2, 3]
    bench.outbox.came(9)
    assert [m.frame.info.key.light for m in bench.send()] == ["high"]
    bench.frame(1, 1)
    bench.frame(5, 0)
    assert bench.send()[0].frame.info.key.time in {1, 5}


def test_a_volume_of_unknown_planes_is_only_in_the_backlog_if_more_of_it_comes():
    bench = Bench()
    bench.frame(0, 0, planes=0)
    bench.receipt(bench.send())
    bench.outbox.went()
    assert bench.backlog == []
    bench.frame(0, 1, planes=0)
    bench.frame(0, 2, planes=0)
    assert bench.backlog == [(VolumeKey(0), 0, "the restore process went away")] and bench.ends == {"receipted": 1, "lost": 2}


def test_refused_frames_take_their_volume_along():
    bench = Bench()
    bench.frame(0, 0)
    bench.receipt(bench.send(), refused="wrong shape")
    bench.frame(0, 1)
    assert bench.ends == {"refused": 2} and bench.backlog == [(VolumeKey(0), 2, "wrong shape")]


def test_what_could_not_go_out_stays_first():
    bench = Bench()
    bench.frame(0, 0)
    bench.frame(0, 1)
    bench.outbox.put_back(bench.outbox.next())
    assert [m.frame.info.sequence for m in bench.send()] == [0, 1]
    bench.outbox.put_back(Abandon("r", VolumeKey(9)))
    assert bench.send() == [Abandon("r", VolumeKey(9))]


def test_a_frame_that_cannot_be_read_spoils_its_volume():
    bench = Bench()
    assert bench.outbox.take("r", VolumeKey(0), 2)
    bench.outbox.spoil("r", VolumeKey(0), "the disk")
    bench.frame(0, 1)
    assert bench.ends == {"lost": 2} and bench.backlog == [(VolumeKey(0), 2, "the disk")]


def test_a_run_that_is_closed_between_the_two_halves_of_a_frame():
    bench = Bench()
    key = VolumeKey(0)
    for give_back in (
        lambda: bench.outbox.put(Frame(PIXELS, FrameInfo("r", 0, key, 0, 1))),
        lambda: bench.outbox.spoil("r", key, ""),
    ):
        bench.outbox.open("r", bench.ledger)
        assert bench.outbox.take("r", key, 1)
        bench.outbox.give_up_all("r")
        bench.outbox.close("r")
        give_back()
        assert bench.outbox.next() is None and bench.outbox.held_bytes == 0
        bench.outbox.went()
        bench.outbox.came(100)
    assert bench.ends == {"lost": 2}


def test_the_end_settles_everything():
    bench = Bench(credit=None)
    bench.frame(0, light="high")
    bench.outbox.give_up_all("r")
    assert bench.ends == {"unattached": 1} and bench.outbox.held_bytes == 0
    bench.outbox.came(5)
    bench.frame(1)
    bench.frame(2)
    bench.outbox.next()
    bench.outbox.give_up_all("r")
    assert bench.ends == {"unattached": 1, "lost": 2}
    bench.outbox.close("r")
    with pytest.raises(KeyError):
        bench.frame(3)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.integers(0, 5), st.sampled_from(["low", "high"]), st.sampled_from([0, 1, 2, 3])),
        st.tuples(st.just("send"), st.integers(1, 4)),
        st.tuples(st.just("receipt"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("went")),
        st.tuples(st.just("came"), st.integers(0, 3)),
        st.tuples(st.just("back")),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_the_ledger_adds_up_whatever_happens(steps):
    bench, flying = Bench(limit_bytes=8 * 128, credit=None), []
    for step, *said in steps:
        match step:
            case "frame":
                bench.frame(said[0], planes=said[2], light=said[1])
            case "send":
                flying += [m for _ in range(said[0]) if (m := bench.outbox.next()) is not None]
            case "receipt":
                bench.receipt(flying[: said[0] + 1], said[0], "no" if said[1] else "")
                del flying[: said[0] + 1]
            case "went":
                bench.outbox.went()
            case "came":
                bench.outbox.came(said[0])
            case "back" if (message := bench.outbox.next()) is not None:
                bench.outbox.put_back(message)
        counts = bench.ledger.counts()
        assert balanced(counts) and counts["waiting"] == bench.outbox.held("r")
        assert bench.outbox.held_bytes == 128 * counts["waiting"] >= 0
    bench.outbox.give_up_all("r")
    assert bench.ledger["waiting"] == 0 and bench.outbox.held_bytes == 0
