"""Processes that begin in milliseconds: forked from one that has imported everything, and killed for real."""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.services import netns

ROOT = Path(__file__).parents[2]
WARM = (
    "workers.process",
    "coflows.broker.rabbitmq",
    "coflows.broker.embedded",
    "coflows.store.sqlite",
    "coflows.store.postgres",
    "tests.chaos.flows",
)
Say = Callable[[Any], None]
"""What a job tells its nursery's owner; it is added to ``Child.heard``."""


class Child:
    """A process of a nursery. ``heard``: what its job has said. Thread-safe."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._news = threading.Condition()
        self.pid = 0
        self.heard: list[Any] = []
        self.born = threading.Event()
        self.ready = threading.Event()
        """Set once the job has said something, as a worker does when it runs."""
        self.died = threading.Event()

    def hear(self, said: Any) -> None:
        """For the nursery."""
        with self._news:
            self.heard.append(said)
            self._news.notify_all()
        self.ready.set()

    def bury(self) -> None:
        """For the nursery."""
        with self._news:
            self.died.set()
            self._news.notify_all()

    def begun(self, timeout: float = 60.0) -> bool:
        """Wait until it has said something, or has ended without a word: False."""
        with self._news:
            self._news.wait_for(lambda: self.heard or self.died.is_set(), timeout)
            return bool(self.heard)

    def wait_for(self, count: int, timeout: float = 60.0) -> list[Any]:
        """Wait until it has said that much, and give all it has said."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.heard) >= count, timeout), self.heard
            return list(self.heard)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        self.born.wait(60)
        self._nursery.signal(self, number)

    def stop(self) -> None:
        """Kill it, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.died.wait(60)


class Nursery:
    """Forks children as they are asked for. They end with it. Thread-safe."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            cwd=ROOT,
        )
        self._children: dict[int, Child] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def fork(self, job: str, *, environment: Mapping[str, str] | None = None, **arguments: Any) -> Child:
        """Run ``job`` (``module:function``, called with a ``Say`` and the arguments) in a process of its own;
        ``environment`` is added to the nursery's."""
        child = Child(self)
        with self._lock:
            self._next += 1
            self._children[self._next] = child
            order = {"child": self._next, "job": job, "environment": environment or {}, "arguments": arguments}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        return child

    def signal(self, child: Child, number: signal.Signals) -> None:
        """Send a signal to a child that lives."""
        with self._lock:
            if not child.died.is_set():
                os.kill(child.pid, number)

    def close(self) -> None:
        """End all children and the nursery. Idempotent."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            child = self._children[news["child"]]
            if "pid" in news:
                child.pid = news["pid"]
                child.born.set()
            elif "said" in news:
                child.hear(news["said"])
            else:
                with self._lock:
                    child.bury()


class Brood:
    """The children of one test: they have its environment, and end with it. Thread-safe."""

    def __init__(self, nursery: Nursery, environment: Mapping[str, str]) -> None:
        """What is put into ``environment`` later is there for those that come then."""
        self._nursery = nursery
        self._environment = environment
        self._children: list[Child] = []

    def fork(self, job: str, *, environment: Mapping[str, str] | None = None, **arguments: Any) -> Child:
        """See Nursery."""
        child = self._nursery.fork(job, environment={**self._environment, **(environment or {})}, **arguments)
        self._children.append(child)
        return child

    def worker(self, user: str, *, environment: Mapping[str, str] | None = None, **options: Any) -> Child:
        """A worker process, as ``coflows worker all`` runs one."""
        return self.fork("tests.chaos.nursery:work", environment=environment, user=user, **options)

    def close(self) -> None:
        """Kill all that live, and wait until they are gone."""
        for child in self._children:
            child.stop()


def work(say: Say, user: str, door: bool = True, dispatch: bool = True, network: str | None = None) -> None:
    """The job of a worker; ``network``: in which namespace it lives."""
    if network is not None:
        netns.enter(network)
    from coflows.serving import DISPATCH_POINT
    from workers.process import ProcessOptions, run_process

    options = ProcessOptions(user=user, dispatch_point=DISPATCH_POINT if dispatch else None, door=door)
    run_process(options, lambda _cl: say("ready"))


# -- inside ----------------------------------------------------------------------------------------------------


def _tell(news: Mapping[str, Any]) -> None:
    # Shorter than PIPE_BUF, so that lines of several processes do not mix.
    os.write(1, json.dumps(news).encode() + b"\n")


def _child(order: Mapping[str, Any]) -> None:
    os.environ.update(order["environment"])
    module, _, name = order["job"].partition(":")
    job = getattr(importlib.import_module(module), name)
    job(lambda said: _tell({"child": order["child"], "said": said}), **order["arguments"])


def _fork(order: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _child(order)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def main() -> None:
    """Fork what standard input asks for, tell on standard output what becomes of it; end when standard input does."""
    for name in WARM:
        importlib.import_module(name)
    children: dict[int, int] = {}
    bell, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    selector = selectors.DefaultSelector()
    for source in (0, bell):
        selector.register(source, selectors.EVENT_READ)
    waiting = b""
    while True:
        for key, _ in selector.select():
            data = os.read(key.fd, 65536)
            if key.fd == bell:
                _bury(children)
                continue
            if not data:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for order in map(json.loads, lines):
                pid = _fork(order)
                children[pid] = order["child"]
                _tell({"child": order["child"], "pid": pid})


def _bury(children: dict[int, int]) -> None:
    for pid in [pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]]:
        _tell({"child": children.pop(pid), "died": True})


if __name__ == "__main__":
    main()
