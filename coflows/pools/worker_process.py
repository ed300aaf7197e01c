"""One worker process as its pool sees it: started, spoken to without waiting, ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from coflows.errors import WorkerDiedError, WorkerMemoryError
from coflows.pools import wire

_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from coflows.pools.child import main
main(int(sys.argv[1]))
"""
# Neither forked, for the pool's process has threads, nor running the parent's __main__ again.


class WorkerProcess:
    """Used by the pool's one thread; ``on_exit`` is called from another one, once, when the process has ended.
    Raises OSError when there can be no further process."""

    def __init__(self, on_exit: Callable[[], None]) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.ending = False
        """Whether it was told to end."""
        self._frames = wire.unpacker()
        self._outgoing: deque[memoryview] = deque()
        with theirs:
            try:
                # A group of its own: Ctrl-C on a terminal is not for it, and what it starts ends with it.
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), json.dumps(sys.path)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
            except BaseException:
                self.socket.close()
                raise
        threading.Thread(target=self._wait, args=(on_exit,), name="coflows-worker-wait", daemon=True).start()

    def send(self, *frame: Any) -> None:
        """Say something to it, as far as it takes it now; ``flush`` goes on."""
        self._outgoing.append(memoryview(wire.pack(*frame)))
        self.flush()

    def flush(self) -> None:
        """Write what is still to be written."""
        with contextlib.suppress(BlockingIOError, ConnectionError):  # Of its end ``on_exit`` tells.
            while self._outgoing:
                sent = self.socket.send(self._outgoing[0])
                if sent == len(self._outgoing[0]):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = self._outgoing[0][sent:]

    @property
    def has_outgoing(self) -> bool:
        """Whether there is something to flush."""
        return bool(self._outgoing)

    def receive(self) -> list[wire.Frame] | None:
        """What it has said since; None when it will say no more."""
        ended = False
        try:
            while chunk := self.socket.recv(wire.CHUNK):
                self._frames.feed(chunk)
            ended = True
        except BlockingIOError:
            pass
        except ConnectionError:
            ended = True
        frames = list(self._frames)
        return frames if frames or not ended else None

    def kill(self) -> None:
        """End it, and all processes that it started."""
        self.ending = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def bury(self) -> int:
        """After ``on_exit``: let go of everything; gives the exit code, negative for a signal."""
        self.kill()  # It is gone, but what it started may not be; its number is not given to others before the wait.
        self.socket.close()
        return self._process.wait()

    def _wait(self, on_exit: Callable[[], None]) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        on_exit()


def death(code: int, task: str, memory_limit: int | None) -> WorkerDiedError:
    """Why a worker process ended over a task, as an error."""
    if code == wire.MEMORY_EXIT:
        return out_of_memory(task, memory_limit, code=code)
    if code >= 0:
        how, hint = f"exited with code {code}", "It must not call os._exit; sys.exit ends the task alone."
    else:
        how = f"was ended by {signal_name(-code)}"
        hint = "A library may have crashed: look into its output."
        if -code == signal.SIGKILL:
            hint = "The machine may have run out of memory: give the task less, or set a memory limit."
    error = WorkerDiedError(f"The worker process of task {task} {how}.", hint=hint)
    error.returncode = code
    return error


def out_of_memory(task: str, memory_limit: int | None, *, code: int | None = None) -> WorkerMemoryError:
    """The task's worker process could not get the memory that it asked for."""
    limit = "" if memory_limit is None else f" (limit {memory_limit} bytes)"
    error = WorkerMemoryError(
        f"The worker process of task {task} ran out of memory{limit}.", hint="Give it less at once, or more memory."
    )
    error.returncode = code
    return error


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
