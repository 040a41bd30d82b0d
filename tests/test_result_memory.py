"""Memory of results: handed out again only when nobody can see it any more."""

import threading

import numpy as np

from live_restore.engines.openvino.result_memory import ResultMemory

SHAPE, DTYPE = (1, 1, 64, 48), np.dtype(np.float32)


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_nobody_holds_it():
    memory = ResultMemory(SHAPE, DTYPE)
    first = memory.array()
    assert (first.shape, first.dtype, first.flags.writeable, first.flags.c_contiguous) == (SHAPE, DTYPE, True, True)
    where = place(first)
    assert place(memory.array()) != where  # and this one is let go at once
    del first
    assert where in {place(array) for array in [memory.array() for _ in range(2)]}


def test_any_view_holds_it():
    memory = ResultMemory(SHAPE, DTYPE)
    whole = memory.array()
    whole[...] = 7
    views = [whole[0], whole[0, 0, 10:20, ::2], whole.reshape(-1), whole.view(np.uint32), memoryview(whole)]
    where = place(whole)
    del whole
    while views:
        taken = [memory.array() for _ in range(4)]
        assert where not in map(place, taken)
        for array in taken:
            array[...] = 0
        assert (np.asarray(views[0]).view(np.float32) == 7).all()
        del taken, array
        views.pop(0)
    assert where in map(place, [memory.array() for _ in range(3)])


def test_little_is_kept():
    memory = ResultMemory(SHAPE, DTYPE)
    many = [memory.array() for _ in range(9)]
    places = set(map(place, many))
    many.clear()
    kept = [memory.array() for _ in range(2)]
    assert {place(array) for array in kept} <= places
    assert len(memory._free) == 0


def test_it_may_be_let_go_in_any_thread():
    memory = ResultMemory(SHAPE, DTYPE)
    wrong = []

    def work(number):
        for turn in range(300):
            array = memory.array()
            array[...] = number
            held = array[0, 0]
            del array
            if not (held == number).all():
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_it_outlives_the_engine_that_made_it():
    memory = ResultMemory(SHAPE, DTYPE)
    array = memory.array()
    array[...] = 3
    del memory
    assert (array == 3).all()
