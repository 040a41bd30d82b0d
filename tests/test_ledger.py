"""The ledger adds up, at any moment, whoever writes into it."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from live_restore.ledger import HOOK_COLUMNS, RESTORE_COLUMNS, Ledger, balanced


def test_a_new_ledger_is_empty_and_balanced():
    ledger = Ledger(HOOK_COLUMNS)
    assert ledger.counts() == {"taken": 0, "waiting": 0, **dict.fromkeys(HOOK_COLUMNS, 0)}
    assert balanced(ledger.counts())


def test_frames_wait_until_they_are_settled():
    ledger = Ledger(RESTORE_COLUMNS)
    ledger.take(5)
    ledger.settle("restored", 3)
    ledger.settle("incomplete")
    assert (ledger["taken"], ledger["waiting"], ledger["restored"], ledger["incomplete"]) == (5, 1, 3, 1)
    assert repr(ledger) == "<Ledger taken 5, waiting 1, restored 3, incomplete 1>"


def test_an_empty_ledger_shows_that_it_is():
    assert repr(Ledger(HOOK_COLUMNS)) == "<Ledger taken 0>"


def test_a_column_that_is_not_there():
    ledger = Ledger(HOOK_COLUMNS)
    ledger.take()
    with pytest.raises(ValueError, match="no column 'dropped'; its columns are receipted, skipped, unattached, lost, refused"):
        ledger.settle("dropped")
    assert ledger["waiting"] == 1


def test_more_frames_than_are_waiting():
    ledger = Ledger(HOOK_COLUMNS)
    ledger.take(2)
    with pytest.raises(ValueError, match=r"3 frame\(s\) cannot end as 'lost': only 2 are waiting"):
        ledger.settle("lost", 3)
    assert ledger.counts()["waiting"] == 2


def test_a_table_that_does_not_add_up():
    assert not balanced({"taken": 3, "waiting": 1, "lost": 1})
    assert balanced({"taken": 3, "waiting": 1, "lost": 2})


@given(
    st.dictionaries(st.text(min_size=1).filter(lambda name: name not in ("taken", "waiting")), st.integers(0, 9), max_size=5)
)
def test_any_table_that_adds_up_is_balanced(ends):
    assert balanced({"taken": sum(ends.values()) + 2, "waiting": 2, **ends})
    assert not balanced({"taken": sum(ends.values()) + 3, "waiting": 2, **ends})


class AnyUse(RuleBasedStateMachine):
    """Take and settle in any order, rightly and wrongly: the columns add up all the time."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(RESTORE_COLUMNS)

    @rule(frames=st.integers(0, 20))
    def take(self, frames):
        self.ledger.take(frames)

    @rule(column=st.sampled_from([*RESTORE_COLUMNS, "nowhere"]), frames=st.integers(0, 20))
    def settle(self, column, frames):
        try:
            self.ledger.settle(column, frames)
        except ValueError:
            assert column == "nowhere" or frames > self.ledger["waiting"]

    @invariant()
    def adds_up(self):
        assert balanced(self.ledger.counts())


TestAnyUse = AnyUse.TestCase


def test_it_adds_up_while_threads_write():
    ledger, unbalanced, done = Ledger(RESTORE_COLUMNS), [], threading.Event()

    def write(column):
        for _ in range(3000):
            ledger.take(2)
            ledger.settle(column, 2)

    def read():
        while not done.is_set():
            if not balanced(counts := ledger.counts()):
                unbalanced.append(counts)

    writers = [threading.Thread(target=write, args=(column,)) for column in RESTORE_COLUMNS]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert not unbalanced
    assert ledger.counts() == {"taken": 30_000, "waiting": 0, **dict.fromkeys(RESTORE_COLUMNS, 6000)}
