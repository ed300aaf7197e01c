"""``coflows broker``: accounts on RabbitMQ for users who do not trust each other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from coflows.cli.context import Options

if TYPE_CHECKING:
    from coflows.broker.rabbitmq_accounts import Accounts

NAME = typer.Argument(help="A user id, or the name of a user whose keys are here.")
ADMIN = typer.Option(
    None, "--broker-admin-url", help="https://administrator:password@host:15671 (or COFLOWS_BROKER_ADMIN_URL)."
)
VHOST = typer.Option("/", "--vhost", help="The vhost.")
FILE = typer.Option(None, "--file", help="Write the broker URL there, for its owner alone, instead of showing it.")


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Accounts on RabbitMQ, each for one user's own queues.", no_args_is_help=True)
    app.add_typer(group, name="broker")

    @group.command("add-user")
    def add_user(
        ctx: typer.Context, name: str = NAME, admin: str = ADMIN, vhost: str = VHOST, file: Path = FILE
    ) -> None:
        """Make an account, and show its broker URL.

        The password in it is shown this once.
        """
        with _accounts(ctx.obj, admin, vhost) as accounts:
            _hand_over(ctx.obj, accounts, name, file, accounts.add)

    @group.command()
    def rotate(
        ctx: typer.Context,
        name: str = NAME,
        admin: str = ADMIN,
        vhost: str = VHOST,
        file: Path = FILE,
        keep_connections: bool = typer.Option(False, "--keep-connections", help="Let those that are open go on."),
    ) -> None:
        """Give an account a new password.

        The connections that were made with the old one are ended.
        """
        with _accounts(ctx.obj, admin, vhost) as accounts:
            _hand_over(
                ctx.obj, accounts, name, file, lambda one: accounts.rotate(one, keep_connections=keep_connections)
            )

    @group.command("remove-user")
    def remove_user(
        ctx: typer.Context,
        name: str = NAME,
        admin: str = ADMIN,
        vhost: str = VHOST,
        with_queues: bool = typer.Option(False, "--with-queues", help="Delete his queues too, and what is in them."),
    ) -> None:
        """Delete an account, and end its connections."""
        options: Options = ctx.obj
        user_id = options.user_id(name)
        with _accounts(options, admin, vhost) as accounts:
            accounts.remove(user_id, with_queues=with_queues)
        options.show({"user_id": user_id, "removed": True}, f"{user_id} has no account any more.")


@contextmanager
def _accounts(options: Options, admin_url: str | None, vhost: str) -> Iterator[Accounts]:
    from coflows.broker.rabbitmq_accounts import Accounts
    from coflows.broker.rabbitmq_admin import RabbitAdmin
    from coflows.errors import ConfigurationError

    url = admin_url or options.settings.broker_admin_url
    if not url:
        raise ConfigurationError(
            "It is not said where RabbitMQ's management is.",
            hint="Pass --broker-admin-url https://administrator:password@host:15671, or set COFLOWS_BROKER_ADMIN_URL.",
        )
    with RabbitAdmin(url, allow_plaintext=options.settings.allow_plaintext) as admin:
        yield Accounts(admin, vhost)


def _hand_over(
    options: Options, accounts: Accounts, name: str, file: Path | None, new_password: Callable[[str], str]
) -> None:
    user_id = options.user_id(name)
    said = options.broker_url or options.settings.broker_url
    place = said if said.startswith("amqp") else None
    with _private(file) as write:
        url = accounts.broker_url(user_id, new_password(user_id), place)
        write(url)
    shown = {"user_id": user_id, "broker_url": url} if file is None else {"user_id": user_id, "file": str(file)}
    options.show(shown, url if file is None else f"The broker URL of {user_id} is in {file}.")


@contextmanager
def _private(file: Path | None) -> Iterator[Callable[[str], None]]:
    """Opened before there is a password that could be lost."""
    if file is None:
        yield lambda text: None
        return
    from coflows.errors import ConfigurationError

    try:
        handle, draft = tempfile.mkstemp(dir=file.parent)  # For its owner alone.
    except OSError as error:
        raise ConfigurationError(f"Cannot write {file}: {error.strerror}.") from error
    try:
        with os.fdopen(handle, "w") as out:
            yield lambda text: print(text, file=out)
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink()
        raise
