"""Run the workflow here, with its progress; then have another user ask the flow that serves it."""

from __future__ import annotations

from rich.console import Console

from coflows import start_users
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

from .workflow import WordRank

TIMEOUT = 110.0


def main(broker_url: str | None = None) -> None:
    """Run it with two throw-away users."""
    console = Console()
    flow = WordRank("word-rank", {"parts": 2, "letters": 6, "top": 8})
    flow.run(progress=console.is_terminal)
    console.print(flow.get_result(flow.chart))
    owner, guest = start_users(2, broker_url)
    with owner, guest:
        run_dispatch_worker_thread(owner)
        run_get_instance_worker_thread(owner)
        serve_flow(owner, "WordRankFlowModule.WordRankFlow", "word_rank")
        reply = get_flow_instance(guest, "word_rank", owner.user_id).ask({"top": 3, "parts": 2}, TIMEOUT)
        console.print("asked for three:", reply["ranking"])


if __name__ == "__main__":
    main()
