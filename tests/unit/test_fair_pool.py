"""Whoever asks for much does not keep others waiting, and has no more threads than there are."""

from __future__ import annotations

import threading

from coflows.fair_pool import FairPool

TIMEOUT = 10


def test_one_sender_does_not_keep_another_waiting() -> None:
    pool = FairPool("test", 1)
    go_on, done = threading.Event(), threading.Event()
    ran: list[str] = []
    pool.submit("eve", lambda: ran.append("eve") if go_on.wait(TIMEOUT) else None)
    for _ in range(100):
        pool.submit("eve", lambda: ran.append("eve"))
    pool.submit("bob", lambda: ran.append("bob"))
    pool.submit("bob", done.set)
    go_on.set()
    assert done.wait(TIMEOUT)
    assert "bob" in ran[:3]


def test_no_more_than_so_many_run_at_once_and_what_fails_costs_no_thread() -> None:
    pool = FairPool("test", 2)
    inside = threading.Semaphore(2)
    problems: list[str] = []
    done = threading.Event()

    def task(number: int) -> None:
        if not inside.acquire(blocking=False):
            problems.append("too many")
        inside.release()
        if number == 99:
            done.set()
        raise ValueError("of the task's")

    for number in range(100):
        pool.submit("bob", lambda number=number: task(number))
    assert done.wait(TIMEOUT) and not problems
