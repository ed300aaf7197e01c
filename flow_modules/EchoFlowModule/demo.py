"""Serve an EchoFlow, and ask it."""

from __future__ import annotations

from rich.console import Console

from coflows import start_users
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread


def main(broker_url: str | None = None) -> None:
    """Run it with a throw-away user."""
    (cl,) = start_users(1, broker_url)
    with cl:
        run_dispatch_worker_thread(cl)
        serve_flow(cl, "EchoFlowModule.EchoFlow", "echo")
        flow = get_flow_instance(cl, "echo")
        Console().print(flow.ask({"text": "hello"}, timeout=30.0))


if __name__ == "__main__":
    main()
