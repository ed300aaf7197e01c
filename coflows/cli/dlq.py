"""``coflows dlq``: the messages that could not be worked off."""

from __future__ import annotations

import time
from dataclasses import asdict

import typer

from coflows.cli.context import Options
from coflows.shown import in_one_line

LETTER = typer.Argument(help="The id that `coflows dlq list` shows.")


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Messages that could not be worked off.", no_args_is_help=True)
    app.add_typer(group, name="dlq")

    @group.command("list")
    def list_letters(ctx: typer.Context) -> None:
        """List them, the oldest first."""
        from coflows.dead_letters import list_dead_letters

        options: Options = ctx.obj
        with options.client() as cl:
            letters = list_dead_letters(cl)
        lines = [
            f"{one.id}  {time.strftime('%F %T', time.localtime(one.at))}  {one.size:>8} B  "
            + in_one_line(f"{one.queue}  {one.reason}")
            for one in letters
        ]
        options.show([asdict(one) for one in letters], "\n".join(lines) or "There are no dead letters.")

    @group.command()
    def show(ctx: typer.Context, letter: str = LETTER) -> None:
        """Show one, with what is in it where it could be opened."""
        from coflows.dead_letters import show_dead_letter

        options: Options = ctx.obj
        with options.client() as cl:
            found, payload = show_dead_letter(cl, letter)
        options.show({**asdict(found), "payload": payload})

    @group.command()
    def replay(ctx: typer.Context, letter: str = LETTER) -> None:
        """Have it worked on again; twice is once. What does not open any more stays, and the error says why."""
        from coflows.dead_letters import replay_dead_letter

        options: Options = ctx.obj
        with options.client() as cl:
            found = replay_dead_letter(cl, letter)
        options.show(asdict(found), f"Sent again: {found.id}.")

    @group.command()
    def discard(ctx: typer.Context, letter: str = LETTER) -> None:
        """Forget it."""
        from coflows.dead_letters import discard_dead_letter

        options: Options = ctx.obj
        with options.client() as cl:
            found = discard_dead_letter(cl, letter)
        options.show(asdict(found), f"Discarded: {found.id}.")
