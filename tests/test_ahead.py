"""Reading ahead: in order, bounded, and stopped with whoever stops."""

from __future__ import annotations

import threading
import time

import pytest

from simprompt.utils import prefetch
from simprompt.utils.prefetch import read_ahead, threads


def test_results_come_in_order_whatever_takes_longest():
    def read(i: int) -> int:
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(read_ahead(read, range(30), 7)) == [i * i for i in range(30)]
    assert list(read_ahead(read, [], 7)) == []


@pytest.mark.parametrize("most", [1, 5])
def test_no_more_items_are_asked_for_than_are_ahead(most):
    asked = 0

    def items():
        nonlocal asked
        for i in range(50):
            asked += 1
            yield i

    for taken, _ in enumerate(read_ahead(str, items(), most)):
        assert asked <= taken + most
    assert asked == 50


def test_it_reads_while_the_caller_works():
    """The second item is being read before anybody asks for it."""
    begun = threading.Event()

    def read(i: int) -> int:
        if i == 1:
            begun.set()
        return i

    results = read_ahead(read, range(3), 2)
    next(results)
    assert begun.wait(5)
    results.close()


def test_an_error_comes_in_its_items_place_and_ends_the_threads():
    def read(i: int) -> float:
        return 1 / (3 - i)

    before = set(threading.enumerate())
    results = read_ahead(read, range(100), 10)
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert set(threading.enumerate()) == before


def test_who_stops_early_stops_the_reading(monkeypatch):
    """Of what is waiting nothing more is read: all of it would take five seconds."""
    monkeypatch.setattr(prefetch, "threads", lambda: 1)
    done = []

    def read(i: int) -> None:
        time.sleep(0.005)
        done.append(i)

    before = set(threading.enumerate())
    results = read_ahead(read, range(1000), 1000)
    next(results)
    results.close()
    assert len(done) < 500
    assert set(threading.enumerate()) == before


def test_a_machine_of_many_processors_holds_eight_photos_at_most(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert threads() == 8
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert threads() == 1
