"""``coflows demo``: the main job, with two throw-away users."""

from __future__ import annotations

import typer

from coflows.cli.context import Options


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def demo(ctx: typer.Context) -> None:
        """Two users; the flow of one has subflows that live at the other."""
        from flow_modules.ReverseNumberFlowModule.demo import main

        options: Options = ctx.obj
        main(options.broker_url, options.store_url)
