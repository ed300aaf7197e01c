"""Serve a CounterFlow: each instance counts for itself, and what fails does not count."""

from __future__ import annotations

from rich.console import Console

from coflows import start_users
from coflows.errors import RemoteFlowError
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread

TIMEOUT = 30.0


def main(broker_url: str | None = None) -> None:
    """Run it with a throw-away user."""
    console = Console()
    (cl,) = start_users(1, broker_url)
    with cl:
        run_dispatch_worker_thread(cl)
        serve_flow(cl, "CounterFlowModule.CounterFlow", "counter")
        first, second = get_flow_instance(cl, "counter"), get_flow_instance(cl, "counter")
        for _ in range(2):
            console.print("first instance:", first.ask({}, TIMEOUT))
        try:
            first.ask({"fail": True}, TIMEOUT)
        except RemoteFlowError as error:
            console.print("first instance:", error.error_type, error.error_text)
        console.print("first instance:", first.ask({}, TIMEOUT))
        console.print("second instance:", second.ask({}, TIMEOUT))


if __name__ == "__main__":
    main()
