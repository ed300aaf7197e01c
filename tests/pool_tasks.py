"""What the tests run in worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from coflows.errors import ConflictError
from coflows.pools.child import Caller


def double(value: Any) -> Any:
    return value * 2


def process_id() -> int:
    return os.getpid()


def begin(marker: str) -> NoReturn:
    """Say who works on it, and never end."""
    Path(marker).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def spin(marker: str) -> NoReturn:
    """The same without ever giving the interpreter back in C."""
    Path(marker).write_text(str(os.getpid()))
    while True:
        pass


def begin_with_a_process(marker: str) -> NoReturn:
    """The same, and start another process that would go on for ever."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(marker).write_text(str(other.pid))
    while True:
        time.sleep(60)


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def leave(code: int) -> NoReturn:
    os._exit(code)


def leave_in_order(code: int) -> NoReturn:
    sys.exit(code)


def allocate(size: int) -> int:
    return len(bytearray(size))


def allocate_slowly() -> int:
    held = []
    while True:
        held.append("x" * 1_000_000 + str(len(held)))


def fail(text: str) -> NoReturn:
    raise ValueError(text)


def conflict() -> NoReturn:
    raise ConflictError("Two wrote.", keys=("a", "b"), hint="Again.")


class OddError(Exception):
    """Can be pickled, and then not be made again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


def odd() -> NoReturn:
    raise OddError("one", "two")


def a_lock() -> Any:
    return threading.Lock()


class Unreadable:
    """Can be pickled; unpickling raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fail, ("unreadable",)


def unreadable() -> Unreadable:
    return Unreadable()


def ask(caller: Caller, question: bytes) -> bytes:
    return caller.call(question).result()


def ask_and_wait(caller: Caller, question: bytes) -> bytes:
    with caller.waiting():
        return caller.call(question).result()


def leave_a_process_behind(seconds: float) -> int:
    """It holds this worker's socket, as a forked process does."""
    pid = os.fork()
    if not pid:
        time.sleep(seconds)
        os._exit(0)
    return pid
