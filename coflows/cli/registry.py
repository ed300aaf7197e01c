"""``coflows registry``: run a node, registry or provider, and say where it connects to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import typer

from coflows.cli.context import Options, counted
from coflows.shown import printable

if TYPE_CHECKING:
    from coflows.registry import Registry

SERVICE = typer.Option("http://localhost:3366", "--service", help="The URL of the service.")


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Nodes, registries and providers: who serves which flows.", no_args_is_help=True)
    app.add_typer(group, name="registry")

    @group.command()
    def run(
        ctx: typer.Context,
        loader: str = typer.Option(None, help="A YAML file, module:callable, or store:USER for what he serves."),
        url: str = typer.Option("http://localhost:3366", help="By which others know it."),
        listen: str = typer.Option(None, help="HOST:PORT to listen at, when that is not the URL's."),
        tls_certificate: str = typer.Option(None, help="A PEM file; the service speaks TLS then, at an https URL."),
        tls_key: str = typer.Option(None, help="The PEM file of its key."),
        allow_plaintext: bool = typer.Option(
            False, "--allow-plaintext", help="Let other machines reach it without TLS."
        ),
        organization: str = typer.Option(None, help="Whose it is."),
        connect: list[str] = typer.Option(None, help="The URL of a registry; may be given several times."),
        registry: bool = typer.Option(True, help="Whether others connect to it."),
        feed: bool = typer.Option(True, help="Whether it takes in what other registries know."),
        cache_data: str = typer.Option(None, help="The file in which it remembers."),
        cache_reset: bool = typer.Option(False, "--cache-reset", help="Begin with nothing remembered."),
        screen_level: str = typer.Option("INFO", help="What it logs to standard error."),
        log_file: str = typer.Option(None, help="Where it logs."),
        log_file_level: str = typer.Option("DEBUG", help="What it logs there."),
        timeout: float = typer.Option(30.0, help="Seconds for a request to another service."),
        retry: int = typer.Option(9, help="How often a failed connection is tried again; -1: for ever."),
    ) -> None:
        """Run a service until Ctrl-C."""
        from coflows.registry import run_service

        options: Options = ctx.obj
        said = {name: value for name, value in ctx.params.items() if name != "ctx"}
        # It may be needed twice; it is asked for once.
        run_service(**said, user=options.user, passphrase=cache(options.passphrase))

    @group.command()
    def show(ctx: typer.Context, service: str = SERVICE) -> None:
        """Tell what a service is, and to whom it is connected."""
        with _asked(ctx.obj, service) as asked:
            found = {**asked.info(), **asked.connections()}
        lines = [f"{found['url']} is a {found['role']} of {found['user_id']} with {counted(found['total'], 'flow')}."]
        lines += [f"connects to {one['url']}: {one['state']}. {one['error']}".rstrip() for one in found["connections"]]
        lines += [f"is connected from {one['url']}: {one['role']}, {one['status']}" for one in found["peers"]]
        ctx.obj.show(found, "\n".join(map(printable, lines)))

    @group.command()
    def connect(
        ctx: typer.Context, url: str = typer.Argument(..., help="The registry."), service: str = SERVICE
    ) -> None:
        """Connect a service of this user's to a registry."""
        with _asked(ctx.obj, service) as asked:
            asked.connect_to(url)
        ctx.obj.show({"service": service, "registry": url}, f"{service} connects to {url}.")

    @group.command()
    def disconnect(
        ctx: typer.Context,
        url: str = typer.Argument(None, help="The registry; all, when none is named."),
        service: str = SERVICE,
    ) -> None:
        """Have a service of this user's leave a registry."""
        from coflows.registry.urls import check_url

        with _asked(ctx.obj, service) as asked:
            connected = [str(one["url"]) for one in asked.connections()["connections"]]
            left = connected if url is None else [one for one in connected if one == check_url(url).url]
            if left:
                asked.disconnect(url)
        nothing = f"{service} is not connected to {url or 'any registry'}; nothing changed."
        text = f"{service} left {', '.join(left)}." if left else nothing
        ctx.obj.show({"service": service, "registry": url, "left": left}, printable(text))


@contextmanager
def _asked(options: Options, url: str) -> Iterator[Registry]:
    from coflows.registry import Registry
    from coflows.registry.loading import service_identity

    with Registry(url, identity=service_identity(options.user, options.settings, options.passphrase)) as asked:
        yield asked
