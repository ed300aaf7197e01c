"""One command: ``python -m benchmarks [SECTION...] [--broker URL] [--quick] [--json FILE] [--markdown FILE]``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from benchmarks import calls, idle, plot, quotas, reference, registries, startup, trees, trust
from benchmarks.contest import WINDOW, Comparison, Contestant, compare
from benchmarks.peers import contest as peers
from benchmarks.report import Results
from benchmarks.world import world

DEFAULT = ("calls", "embedded", "postgres", "styles", "trees", "startup", "idle", "memory", "turns", "registries")
SECTIONS = (*DEFAULT, "trust", "quotas", "peers", "curves")
QUICK = ("embedded", "trees", "startup", "idle", "memory", "turns", "registries", "curves")
QUICK_PART = 0.02
ASKED = {
    "RabbitMQ: stateless": "1.3 x, 3 x",
    "RabbitMQ: stateful, 1,000 instances": "1.6 x, 2 x",
    "RabbitMQ: stateful, one instance": "1.6 x, 1.5 x",
    "embedded: stateless": "1 ms, 5,000",
    "embedded: stateful, 1,000 instances": "1 ms, 5,000",
    "embedded: stateful, one instance": "1 ms, 5,000",
}


class Run:
    """One run: what was asked for, the services that it started, and what it found."""

    def __init__(self, given: argparse.Namespace, exit_stack: ExitStack) -> None:
        self.quick = given.quick
        self.part = given.part
        self.rounds = 1 if given.quick else given.rounds
        self.results = Results(self.rounds, asked=ASKED)
        self.plot = given.plot
        self._broker: str | None = given.broker
        self._reference: Contestant | None = None
        self._exit = exit_stack

    @property
    def broker(self) -> str:
        """A RabbitMQ, started when it is first needed; embedded in a quick run."""
        if self._broker is None:
            if self.quick:
                return "embedded://"
            from tests.services.rabbitmq import RabbitMQ

            node = RabbitMQ()
            self._exit.callback(node.stop)
            self._broker = node.start().url
        return self._broker

    def _compared(self, other: Contestant, windows: Sequence[int] = (1, WINDOW)) -> Comparison:
        """To the reference; in a quick run, without RabbitMQ, to itself."""
        if self.quick:
            few = other.part(QUICK_PART)
            return compare(replace(few, name="itself"), few, 1, windows)
        if self._reference is None:
            self._reference = self._exit.enter_context(reference.running(self.broker))
        return compare(self._reference.part(self.part), other.part(self.part), self.rounds, windows)

    def compare(self, other: Contestant) -> None:
        """One more row."""
        self.results.comparisons.append(self._compared(other))
        print(self.results.rows()[-1], file=sys.stderr)

    # -- sections ----------------------------------------------------------------------------------------------

    def calls(self) -> None:
        """CoFlows over RabbitMQ."""
        self._calls("RabbitMQ", self.broker)

    def embedded(self) -> None:
        """CoFlows without any service."""
        self._calls("embedded", "embedded://")

    def postgres(self) -> None:
        """CoFlows over RabbitMQ with states in PostgreSQL."""
        from tests.services.postgres import Postgres

        server = Postgres()
        self._exit.callback(server.stop)
        self._calls("RabbitMQ, PostgreSQL", self.broker, server.start().url)

    def styles(self) -> None:
        """How the caller keeps many calls in flight."""
        with world(self.broker) as within:
            for contestant in calls.contestants("RabbitMQ", within, ("await", "threads")):
                if contestant.target.startswith("many"):
                    self.compare(contestant)

    def peers(self) -> None:
        """Other systems."""
        with peers.servers(self.broker) as urls:
            peers.each(urls, self.compare, self.results.missing.__setitem__)

    def curves(self) -> None:
        """The plot."""
        windows = (1, 4) if self.quick else plot.WINDOWS
        found = []
        urls: AbstractContextManager[dict[str, str] | None]
        brokers = {"CoFlows, RabbitMQ": self.broker, "CoFlows, embedded": "embedded://"}
        for name, url in list(brokers.items())[-1:] if self.quick else brokers.items():
            with world(url) as within:
                for contestant in calls.contestants(name, within):
                    if not contestant.target.startswith("hot"):
                        found.append(self._compared(contestant, windows))
        urls = peers.servers(self.broker) if peers.PYTHON.exists() and not self.quick else nullcontext()
        with urls as known:
            if known is not None:
                peers.each(
                    known,
                    lambda one: found.append(self._compared(one, windows)),
                    self.results.missing.__setitem__,
                )
        for path in plot.draw(plot.curves(found), self.plot):
            print(path)

    def trees(self) -> None:
        """Fetching instances."""
        if not self.quick:
            self.results.figures += trees.figures("RabbitMQ", self.broker, self.rounds)
        self.results.figures += trees.figures("embedded", None, self.rounds)

    def startup(self) -> None:
        """Cold starts."""
        self.results.figures += startup.figures(max(self.rounds, 3))

    def idle(self) -> None:
        """What much of everything costs."""
        for burden in idle.burdened(self.broker, self._sizes, self.rounds, QUICK_PART if self.quick else self.part):
            self.results.burdens.append(burden)
            print(self.results.burden_rows()[-1], file=sys.stderr)

    def trust(self) -> None:
        """What sealing costs."""
        part = QUICK_PART if self.quick else self.part
        self.results.figures += trust.figures(part)
        brokers = {"embedded": "embedded://"} if self.quick else {"RabbitMQ": self.broker, "embedded": "embedded://"}
        for name, url in brokers.items():
            for burden in trust.burdens(name, url, self.rounds, part):
                self.results.burdens.append(burden)
                print(self.results.burden_rows()[-1], file=sys.stderr)

    def memory(self) -> None:
        """What instances cost in a worker."""
        self.results.figures.append(idle.memory(self.broker, self._sizes))

    def turns(self) -> None:
        """What turns cost that wait."""
        self.results.figures.append(idle.waiting_turns(self.broker, self._sizes))

    def registries(self) -> None:
        """What a registry of many flows answers."""
        self.results.figures += registries.figures(self.quick)

    def quotas(self) -> None:
        """What a flood of one user does to others."""
        self.results.figures += quotas.figures(self.broker, quick=self.quick, rounds=self.rounds)

    @property
    def _sizes(self) -> idle.Sizes:
        return idle.QUICK if self.quick else idle.Sizes().part(self.part)

    def _calls(self, name: str, broker_url: str, store_url: str | None = None) -> None:
        with world(broker_url, store_url, 100 if self.quick else 1000) as within:
            for contestant in calls.contestants(name, within):
                self.compare(contestant)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--broker", help="a RabbitMQ to use; without it a private node is started")
    parser.add_argument("--quick", action="store_true", help="few calls, embedded only: shows that it works")
    parser.add_argument(
        "--part", type=float, default=1.0, help="make only this part of the calls, 0.2 for a first look"
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians of how many rounds")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--markdown", type=Path, help="write the tables here too, between its marks when it has them")
    parser.add_argument("--plot", type=Path, default=Path("docs"), help="folder for the plot of the section curves")
    given = parser.parse_args()
    sections = given.sections or (QUICK if given.quick else DEFAULT)
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    # Told to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as exit_stack:
        run = Run(given, exit_stack)
        try:
            for section in sections:
                print(f"{time.strftime('%X')} {section}", file=sys.stderr)
                getattr(run, section)()
        finally:
            run.results.show()
    if given.json is not None:
        run.results.write(given.json)
    if given.markdown is not None:
        run.results.put_into(given.markdown)


if __name__ == "__main__":
    main()
