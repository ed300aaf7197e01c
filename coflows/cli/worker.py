"""``coflows worker``: the processes that work messages off and give out instances."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from coflows.cli.context import Options, set_up_logging
from coflows.cli.flows import add_module_path

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
    from coflows.config import load_secrets_file, secrets_from_environment
    from workers import run_dispatch_worker_thread, run_get_instance_worker_thread
    from workers.handle import run_until_signal

    set_up_logging("DEBUG" if options.verbose else options.settings.log_level)
    add_module_path(flow_modules)
    with options.client() as cl:
        handles = []
        if dispatch_point is not None:
            secrets = secrets_from_environment()
            if secrets_file is not None:
                secrets |= load_secrets_file(secrets_file)
            handles.append(
                run_dispatch_worker_thread(cl, dispatch_point, flow_modules, concurrency=concurrency, secrets=secrets)
            )
        if door:
            handles.append(run_get_instance_worker_thread(cl, flow_modules))
        options.show({"ready": True, "user_id": cl.user_id}, f"Ready: user {cl.user_id} on {cl.broker.url}.")
        sys.stdout.flush()
        run_until_signal(handles)
