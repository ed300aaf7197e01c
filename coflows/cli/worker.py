"""``coflows worker``: the processes that work messages off and give out instances."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from coflows.cli.context import Options

if TYPE_CHECKING:
    from coflows.client import Client

POINT = typer.Option("coflows_dispatch", help="The dispatch point whose messages it works off.")
CONCURRENCY = typer.Option(8, min=1, help="Turns at once; those that wait do not count.")
SECRETS = typer.Option(None, help="File of KEY=VALUE lines for flow.secrets; COFLOWS_SECRET_KEY=VALUE works too.")
MODULES = typer.Option(None, "--flow-modules", help="Folder where flow classes are looked for, besides this one.")


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Run workers until SIGTERM or Ctrl-C.", no_args_is_help=True)
    app.add_typer(group, name="worker")

    @group.command()
    def dispatch(
        ctx: typer.Context,
        dispatch_point: str = POINT,
        concurrency: int = CONCURRENCY,
        secrets: Path = SECRETS,
        flow_modules: Path = MODULES,
    ) -> None:
        """Work messages off."""
        _run(ctx.obj, dispatch_point, concurrency, secrets, flow_modules, door=False)

    @group.command("get-instance")
    def get_instance(ctx: typer.Context, flow_modules: Path = MODULES) -> None:
        """Give instances to other users."""
        _run(ctx.obj, None, 1, None, flow_modules, door=True)

    @group.command("all")
    def run_all(
        ctx: typer.Context,
        dispatch_point: str = POINT,
        concurrency: int = CONCURRENCY,
        secrets: Path = SECRETS,
        flow_modules: Path = MODULES,
    ) -> None:
        """Both."""
        _run(ctx.obj, dispatch_point, concurrency, secrets, flow_modules, door=True)


def _run(
    options: Options,
    dispatch_point: str | None,
    concurrency: int,
    secrets_file: Path | None,
    flow_modules: Path | None,
    *,
    door: bool,
) -> None:
    from workers.process import ProcessOptions, run_process

    def ready(cl: Client) -> None:
        options.show({"ready": True, "user_id": cl.user_id}, f"Ready: user {cl.user_id} on {cl.broker.url}.")
        sys.stdout.flush()

    user = options.user_name()
    process = ProcessOptions(
        user=user,
        passphrase=options.passphrase(user),
        broker_url=options.broker_url,
        store_url=options.store_url,
        dispatch_point=dispatch_point,
        door=door,
        concurrency=concurrency,
        secrets=secrets_file,
        flow_modules=flow_modules,
        verbose=options.verbose,
    )
    run_process(process, ready)
