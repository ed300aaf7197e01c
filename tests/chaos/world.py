"""A broker, three users, worker processes that are started again when they die, and a load that runs through them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from coflows import Client, connect
from coflows.futures import FlowFuture
from coflows.identity.home import Home
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow
from tests.chaos.nursery import Brood, Child, Nursery
from tests.chaos.oracle import Verdict, judge
from tests.services.netns import Namespace
from tests.services.rabbitmq import RabbitMQ

ROOT = Path(__file__).parents[2]
DRAIN = 90.0
logger = logging.getLogger(__name__)


class Worker:
    """A worker process; ``forever`` has it begin again when it dies, without its failpoint."""

    def __init__(self, begin: Callable[[str], Child], *, failpoint: str = "", forever: bool = True) -> None:
        self._begin = begin
        self._forever = forever
        self._stopped = False
        self.deaths = 0
        self.ready = threading.Event()
        self.died = threading.Event()
        self._child = self._start(failpoint)
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._child.signal(number)

    def finish(self) -> None:
        """End it for good, in good order."""
        self._end(signal.SIGTERM)

    def stop(self) -> None:
        """End it for good, at once."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        self._stopped = True
        self._child.signal(number)
        self._keeper.join()

    def _start(self, failpoint: str) -> Child:
        self.ready.clear()
        child = self._begin(failpoint)
        # A poison message may kill it before it can say so.
        if child.begun():
            self.ready.set()
        return child

    def _keep(self) -> None:
        while True:
            self._child.died.wait()
            self.deaths += 1
            self.died.set()
            if self._stopped or not self._forever:
                return
            self._child = self._start("")
            if self._stopped:
                self._child.signal(signal.SIGKILL)


class World:
    """``alice`` serves witnesses, ``bob`` relays in front of alice's witnesses, ``carol`` sends."""

    def __init__(
        self,
        node: RabbitMQ,
        folder: Path,
        nursery: Nursery,
        *,
        broker_url: str | None = None,
        store_url: str = "",
        account: Callable[[str], str] | None = None,
    ) -> None:
        """``account`` gives the broker URL of a user, by his id, where each has his own."""
        self.node = node
        self.url = broker_url or node.url
        self.folder = folder
        self._exit = ExitStack()
        home = Home(folder)
        made = {name: home.create_user(name) for name in ("alice", "bob", "carol")}
        self.urls = {} if account is None else {name: account(one.user_id) for name, one in made.items()}
        self.environment = {
            **os.environ,
            "COFLOWS_HOME": str(folder),
            "COFLOWS_BROKER_URL": self.url,
            "COFLOWS_LOG_LEVEL": os.environ.get("COFLOWS_LOG_LEVEL", "ERROR"),
            **({"COFLOWS_STORE_URL": store_url} if store_url else {}),
        }
        self.brood = Brood(nursery, self.environment)
        """Its worker processes, and others that know its broker and users."""
        self._store_url = store_url or None
        self.alice, self.carol = self.open("alice"), self.open("carol")
        bob = self.open("bob")
        serve_flow(self.alice, "tests.chaos.flows.Witness", "witness")
        serve_flow(self.alice, "tests.chaos.flows.Poison", "poison")
        serve_flow(bob, "tests.chaos.flows.Relay", "relay")
        self.bob = bob
        self.workers: list[Worker] = []

    def open(self, name: str, broker_url: str | None = None, **settings: str) -> Client:
        """A session of a user; ``settings`` are variables of the environment."""
        settings["COFLOWS_HOME"] = str(self.folder)
        before = {key: os.environ.get(key) for key in settings}
        os.environ.update(settings)
        try:
            return self._exit.enter_context(connect(name, broker_url or self.urls.get(name, self.url), self._store_url))
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value

    def worker(
        self,
        user: str = "alice",
        *,
        failpoint: str = "",
        forever: bool = True,
        broker_url: str | None = None,
        store_url: str | None = None,
        namespace: Namespace | None = None,
    ) -> Worker:
        """Start a worker, and wait until it is ready; in this network namespace, if one is given."""
        environment = {"COFLOWS_BROKER_URL": broker_url or self.urls.get(user, self.url)}
        if store_url is not None:
            environment["COFLOWS_STORE_URL"] = store_url
        network = None if namespace is None else namespace.place

        def begin(failpoint: str) -> Child:
            own = {**environment, "COFLOWS_FAILPOINTS": failpoint}
            return self.brood.worker(user, environment=own, network=network)

        worker = Worker(begin, failpoint=failpoint, forever=forever)
        self.workers.append(worker)
        return worker

    def witnesses(self, direct: int, relayed: int, cl: Client | None = None) -> dict[str, FlowProxy]:
        """Instances to send to: the relayed ones over two hops."""
        cl = cl or self.carol
        flows = {f"witness{n}": get_flow_instance(cl, "witness", self.alice.user_id) for n in range(direct)}
        overrides = {"subflows_config": {"next": {"user_id": self.alice.user_id, "flow_endpoint": "witness"}}}
        for number in range(relayed):
            flows[f"relay{number}"] = get_flow_instance(cl, "relay", self.bob.user_id, config_overrides=overrides)
        return flows

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.stop()
        self.brood.close()
        self._exit.close()


Worlds = Callable[..., AbstractContextManager[World]]
"""``world``, with the broker, the folder and the nursery of a test."""


class Load:
    """Sends uniquely numbered messages to each of the flows, in order, and keeps what is needed to judge."""

    def __init__(self, flows: dict[str, FlowProxy]) -> None:
        self._flows = flows
        self._next = 0
        self._sent = threading.Condition()
        self.sent: dict[str, list[int]] = {name: [] for name in flows}
        self._futures: dict[str, list[FlowFuture]] = {name: [] for name in flows}

    def send(self, rounds: int, *, seconds: float = 0.0) -> None:
        """``rounds`` messages to each flow; each is accepted when this returns."""
        for _ in range(rounds):
            for name in self._flows:
                self.send_one(name, seconds=seconds)
            with self._sent:
                self._sent.notify_all()

    def send_one(self, name: str, *, seconds: float = 0.0) -> None:
        """One message to one of the flows."""
        flow = self._flows[name]
        self._next += 1
        message = flow.package_input_message({"number": self._next, "seconds": seconds})
        self._futures[name].append(flow.get_reply_future(message))
        self.sent[name].append(self._next)

    @property
    def count(self) -> int:
        """How many messages were sent."""
        return self._next

    def wait_for(self, count: int) -> None:
        """Wait until another thread has sent that many."""
        with self._sent:
            self._sent.wait_for(lambda: self._next >= count, DRAIN)

    def wait(self) -> None:
        """Wait for the end of every future so far."""
        for futures in self._futures.values():
            for future in list(futures):
                with suppress(Exception):  # What became of it, the verdict tells.
                    future.get_data(DRAIN)

    def send_until(self, ended: threading.Event, window: int = 4) -> None:
        """Send until the event is set, with at most ``window`` messages under way to each flow."""
        while not ended.is_set():
            self.send(1)
            for futures in self._futures.values():
                if len(futures) > window:
                    with suppress(Exception):  # What became of it, the verdict tells.
                        futures[-window].get_data(DRAIN)

    def futures(self) -> list[FlowFuture]:
        """All so far."""
        return [future for futures in self._futures.values() for future in list(futures)]

    @property
    def answered(self) -> int:
        """How many futures have ended."""
        return sum(future.done() for future in self.futures())

    @property
    def answered_each(self) -> list[int]:
        """How many of each flow's."""
        return [sum(future.done() for future in list(futures)) for futures in self._futures.values()]

    def verdict(self) -> Verdict:
        """Wait for every future, ask the witnesses, and judge."""
        answered: dict[str, list[int | None]] = {}
        for name, futures in self._futures.items():
            answered[name] = []
            for future in futures:
                try:
                    answered[name].append(future.get_data(DRAIN)["number"])
                except TimeoutError:
                    break
                except Exception as error:
                    logger.warning("%s, number %d: %r", name, self.sent[name][len(answered[name])], error)
                    answered[name].append(None)
        seen = {name: flow.ask({"report": True}, DRAIN)["seen"] for name, flow in self._flows.items()}
        return judge(self.sent, answered, seen)


@contextmanager
def world(
    node: RabbitMQ,
    folder: Path,
    nursery: Nursery,
    *,
    broker_url: str | None = None,
    store_url: str = "",
    account: Callable[[str], str] | None = None,
) -> Iterator[World]:
    """A world that ends with the block."""
    made = World(node, folder, nursery, broker_url=broker_url, store_url=store_url, account=account)
    try:
        yield made
    finally:
        made.close()
