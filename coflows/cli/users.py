"""``coflows user``: make and show users."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from coflows.cli.context import Options
from coflows.errors import IdentityError

if TYPE_CHECKING:
    from coflows.identity.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Make and show users.", no_args_is_help=True)
    app.add_typer(group, name="user")

    @group.command()
    def create(ctx: typer.Context, name: str) -> None:
        """Make keys for a new user, and print the user id."""
        options: Options = ctx.obj
        identity = _home(options).create_user(name)
        options.show({"name": name, "user_id": identity.user_id}, identity.user_id)

    @group.command("list")
    def list_users(ctx: typer.Context) -> None:
        """List the users whose keys are in COFLOWS_HOME."""
        options: Options = ctx.obj
        home = _home(options)
        found = home.list_users()
        names = home.user_names()
        for name in sorted(set(names) - {name for name, _ in found}):
            try:
                home.user_id(name)
            except IdentityError as error:
                print(f"coflows: {error}", file=sys.stderr)
        text = "\n".join(f"{name:<20} {user_id}" for name, user_id in found)
        options.show(
            [{"name": name, "user_id": user_id} for name, user_id in found], text if names else "There are no users."
        )

    @group.command()
    def show(ctx: typer.Context, name: str = typer.Argument(None)) -> None:
        """Print a user's id: what others need to fetch his flows."""
        options: Options = ctx.obj
        name = name or options.user_name()
        home = _home(options)
        user_id = home.user_id(name)
        options.show({"name": name, "user_id": user_id, "folder": str(home.user_dir(name))}, user_id)


def _home(options: Options) -> Home:
    from coflows.identity.home import Home

    return Home(options.settings.home)
