"""``coflows colony``: make colonies, and open them to other users."""

from __future__ import annotations

import typer

from coflows.cli.context import Options

COLONY = typer.Argument(..., help="The colony's name.")


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Groups of executors that run workflows.", no_args_is_help=True)
    app.add_typer(group, name="colony")

    @group.command()
    def add(ctx: typer.Context, colony: str = COLONY) -> None:
        """Make a colony."""
        from coflows.workflow.colonies.colonies import Colonies

        options: Options = ctx.obj
        with options.client() as cl:
            new = Colonies(cl, coordinate=False).add_colony(colony)
            runs = f"`python -m workers.executor --colony {colony} --type TYPE` runs its functions."
            text = f"Made colony {colony}. {runs}" if new else f"Colony {colony} is there already; nothing changed."
            options.show({"colony": colony, "new": new, "owner": cl.user_id}, text)

    @group.command("list")
    def list_colonies(ctx: typer.Context) -> None:
        """List this user's colonies."""
        from coflows.workflow.colonies.colonies import Colonies

        options: Options = ctx.obj
        with options.client() as cl:
            names = Colonies(cl, coordinate=False).get_colonies()
        options.show(names, "\n".join(names) or "There are no colonies.")

    @group.command()
    def allow(
        ctx: typer.Context,
        colony: str = COLONY,
        user_id: str = typer.Argument(..., help="Whom: his id, which `coflows user show` prints there, or his name."),
        submit: bool = typer.Option(False, "--submit", help="Let him submit workflows."),
        execute: bool = typer.Option(False, "--execute", help="Let him run executors."),
    ) -> None:
        """Say what another user may do in a colony.

        With neither option he may do nothing any more.
        """
        from coflows.workflow.colonies.colonies import Colonies

        options: Options = ctx.obj
        with options.client() as cl:
            user_id = options.user_id(user_id)
            Colonies(cl).allow(colony, user_id, submit, execute)
        may = " and ".join(word for word, given in (("submit", submit), ("execute", execute)) if given)
        rights = {"colony": colony, "user_id": user_id, "submit": submit, "execute": execute}
        options.show(rights, f"User {user_id} may {may or 'do nothing'} in {colony}.")
