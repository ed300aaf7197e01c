"""``coflows key``: what a user's keys are, new ones, and the passphrase that they are kept under."""

from __future__ import annotations

import sys
import time
from getpass import getpass
from typing import TYPE_CHECKING

import typer

from coflows.cli.context import Options, counted
from coflows.errors import CertificateError, ConfigurationError

if TYPE_CHECKING:
    from coflows.identity.certificate import Certificate

DAYS = 86400.0


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Show, renew and protect a user's keys.", no_args_is_help=True)
    app.add_typer(group, name="key")

    @group.command()
    def show(ctx: typer.Context) -> None:
        """Print which keys count, and the certificate.

        That is what peers may be given by hand (`coflows key learn`).
        """
        options: Options = ctx.obj
        with options.client() as cl:
            cl.keyring.reread()
            _show(options, cl.user_id, cl.keyring.own)

    @group.command()
    def rotate(
        ctx: typer.Context,
        overlap: float = typer.Option(90.0, min=0.0, help="Days for which the key before still counts."),
        epoch: int = typer.Option(0, min=0, max=2**30, help="At least this epoch: for who has lost his store."),
    ) -> None:
        """Make a new key. Workers go over to it while they run; peers learn it from the next message."""
        from coflows.rotation import announce, rotate

        options: Options = ctx.obj
        with options.client() as cl:
            certificate = rotate(cl, overlap * DAYS, epoch)
            _show(options, cl.user_id, certificate, announce(cl))

    @group.command()
    def revoke(
        ctx: typer.Context,
        identity: bool = typer.Option(False, "--identity", help="End the user himself, for good."),
        yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    ) -> None:
        """Make a new key, let none before it count, and tell the peers."""
        from coflows.rotation import announce, end, revoke

        options: Options = ctx.obj
        with options.client() as cl:
            if identity:
                if not yes:
                    typer.confirm(f"User {cl.user_id} is lost for ever. Go on?", abort=True)
                certificate, told = end(cl), None
            else:
                certificate = revoke(cl)
                told = announce(cl)
            _show(options, cl.user_id, certificate, told)

    @group.command()
    def learn(ctx: typer.Context, certificate: str) -> None:
        """Take in the certificate of another user.

        It is what his `coflows key show` prints.
        """
        from coflows.rotation import learn

        options: Options = ctx.obj
        try:
            raw = bytes.fromhex(certificate)
        except ValueError:
            raise CertificateError("This is no certificate.", hint="`coflows key show` prints one.") from None
        with options.client() as cl:
            read = learn(cl, raw)
            _show(options, read.user_id, cl.keyring.peer(read.user_id))

    @group.command()
    def passphrase(
        ctx: typer.Context, remove: bool = typer.Option(False, "--remove", help="Keep the keys without one.")
    ) -> None:
        """Put the keys under a passphrase, or under another one. It is asked for, or the first line of standard input
        when that is no terminal; the one before is COFLOWS_PASSPHRASE, or asked for."""
        from coflows.identity.home import Home

        options: Options = ctx.obj
        name = options.user_name()
        before = options.passphrase(name)
        after = None if remove else _new_passphrase()
        Home(options.settings.home).set_passphrase(name, before, after)
        text = f"The keys of {name} are under {'no' if remove else 'a'} passphrase now."
        options.show({"name": name, "passphrase": not remove}, text)


def _new_passphrase() -> str:
    if not sys.stdin.isatty():
        given = sys.stdin.readline().rstrip("\n")
    else:
        given = getpass("New passphrase: ")
        if getpass("Once more: ") != given:
            raise ConfigurationError("These were two different passphrases.", hint="Try again.")
    if not given:
        raise ConfigurationError("The passphrase is empty.", hint="--remove keeps the keys without one.")
    return given


def _show(options: Options, user_id: str, certificate: Certificate | None, told: int | None = None) -> None:
    from coflows.identity.certificate import LAST

    epoch = 0 if certificate is None else certificate.epoch
    earlier = {} if certificate is None else certificate.earlier
    raw = "" if certificate is None else certificate.raw.hex()
    value = {"user_id": user_id, "epoch": epoch, "earlier": earlier, "certificate": raw}
    lines = [f"User {user_id} has {'ended' if epoch == LAST else f'the key of epoch {epoch}'}."]
    lines += [
        f"Epoch {one} counts until {time.strftime('%F %T', time.localtime(end))}." for one, end in earlier.items()
    ]
    if told is not None:
        value["told"] = told
        lines.append(f"Told {counted(told, 'peer')}.")
    options.show(value, "\n".join([*lines, raw]).rstrip())
