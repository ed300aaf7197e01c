"""Commands about flows: serve, unserve, delete, list, inspect, call, and look after what went wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from coflows.cli.access import RULE, rule_of
from coflows.cli.context import Options
from coflows.errors import CallTimeoutError, ConfigurationError, EndpointNotFoundError, NameInvalidError
from coflows.shown import as_json

if TYPE_CHECKING:
    from coflows.client import Client
    from coflows.proxy import FlowProxy

HERE = typer.Option(None, "--flow-modules", help="Folder where flow classes are looked for, besides this one.")

QUOTAS = "instances, messages, bytes_per_second, stored_bytes, turn_seconds"
EXAMPLE = """For instance --data '{"number": 1}'."""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(unserve)
    app.command()(delete)
    app.command()(flows)
    app.command()(tree)
    app.command()(instances)
    app.command()(call)
    app.command()(doctor)


def add_module_path(folder: Path | None) -> None:
    """A command finds flow classes in the folder it is run in, as a script does."""
    from coflows.flows.loading import check_folder

    check_folder(folder)
    for place in (folder, Path.cwd()):
        if place is not None and str(place.absolute()) not in sys.path:
            sys.path.insert(0, str(place.absolute()))


def serve(
    ctx: typer.Context,
    flow_class: str = typer.Argument(..., help="Package.ClassName"),
    endpoint: str = typer.Argument(..., help="The name to serve it under."),
    dispatch_point: str = typer.Option("coflows_dispatch", help="Which dispatch workers work its messages off."),
    parallel: bool = typer.Option(False, help="All messages at once, no state."),
    singleton: bool = typer.Option(False, help="One instance for all."),
    recursive: bool = typer.Option(False, help="Serve this user's subflows too."),
    access: str = typer.Option(None, help=f"Who may fetch it: {RULE}"),
    quota: list[str] = typer.Option(
        None, metavar="NAME=NUMBER", help=f"What each other user may have there ({QUOTAS}; none: no limit)."
    ),
    flow_modules: Path = HERE,
) -> None:
    """Serve a flow class at an endpoint."""
    from coflows.dispatch.membership import alive_workers
    from coflows.futures import starts_worker
    from coflows.serving import recursive_serve_flow, serve_flow

    options: Options = ctx.obj
    add_module_path(flow_modules)
    with options.client() as cl:
        act = recursive_serve_flow if recursive else serve_flow
        rule = None if access is None else rule_of(options, access)
        new = act(cl, flow_class, endpoint, dispatch_point, parallel, singleton, rule, quota=_limits(quota))
        changed = "nothing changed" if not quota else "only its quota was set"
        text = f"Serving {flow_class} at {endpoint}." if new else f"{endpoint} was served already; {changed}."
        if not alive_workers(cl.store, dispatch_point):
            text += f" No dispatch worker is there yet: {starts_worker(dispatch_point)}."
        options.show({"served": endpoint, "new": new, "user_id": cl.user_id}, text)


def _limits(given: list[str] | None) -> dict[str, float | None] | None:
    """As they are written; ``none`` is no limit."""
    limits: dict[str, float | None] = {}
    for one in given or ():
        name, _, number = one.partition("=")
        try:
            limits[name] = None if number == "none" else json.loads(number)
        except ValueError as error:
            raise ConfigurationError(
                f"--quota {one} is no limit.", hint="For instance --quota messages=100."
            ) from error
    return limits or None


def unserve(ctx: typer.Context, endpoint: str) -> None:
    """Give out no more instances; those that are there go on."""
    from coflows.serving import unserve_flow

    options: Options = ctx.obj
    with options.client() as cl:
        was = unserve_flow(cl, endpoint)
        options.show({"unserved": endpoint, "was_served": was}, "Done." if was else f"{endpoint} was not served.")


def delete(
    ctx: typer.Context,
    name: str = typer.Argument(..., help="An endpoint, or an instance id."),
    recursive: bool = typer.Option(False, help="Of an instance: its subflows at all users too."),
) -> None:
    """Delete an endpoint with its instances, or one instance."""
    from coflows.serving import delete_flow_endpoint, delete_flow_instance, recursive_delete_flow_instance

    options: Options = ctx.obj
    with options.client() as cl:
        if not _is_instance(name):
            was = delete_flow_endpoint(cl, name)
            options.show({"deleted": name, "was_there": was}, "Done." if was else f"There is no endpoint {name}.")
            return
        (recursive_delete_flow_instance if recursive else delete_flow_instance)(cl, name)
        options.show({"deleted": name}, "Done.")


def flows(
    ctx: typer.Context,
    internal: bool = typer.Option(False, "--internal", help="Those of his colonies and executors too."),
) -> None:
    """List the endpoints."""
    from coflows.access.rules import EVERYBODY
    from coflows.endpoints import endpoint_names, find_endpoint

    options: Options = ctx.obj
    with options.client() as cl:
        there = [one for name in endpoint_names(cl.store) if (one := find_endpoint(cl.store, name)) is not None]
        found = [one for one in there if internal or not one.internal]
        rows = [
            {
                "endpoint": one.name,
                "flow_class_name": one.flow_class_name,
                "dispatch_point": one.dispatch_point,
                "singleton": one.singleton,
                "parallel_dispatch": one.parallel,
                "access": str(one.access),
                "served": one.served,
            }
            for one in found
        ]
    lines = []
    for one in found:
        access = "" if one.access == EVERYBODY else f"  ({one.access})"
        lines.append(f"{one.name:<30} {one.flow_class_name}{access}{'' if one.served else '  (unserved)'}")
    options.show(rows, "\n".join(lines) or "There are no endpoints.")


def tree(ctx: typer.Context, values: bool = typer.Option(False, help="Show what the keys hold.")) -> None:
    """Print the mount tree."""
    from coflows.inspection import print_served_flows

    options: Options = ctx.obj
    with options.client() as cl:
        if options.json:
            options.show(cl.read_keys("flows:"))
        else:
            print_served_flows(cl, print_values=values)


def instances(
    ctx: typer.Context, fetched: bool = typer.Option(False, "--fetched", help="Those that he has at other users.")
) -> None:
    """List the instances."""
    from coflows.instances import fetched_instances, find_instance, instance_ids

    options: Options = ctx.obj
    with options.client() as cl:
        if fetched:
            theirs = [
                {"flow_id": one.flow_id, "endpoint": one.flow_endpoint, "user_id": one.user_id}
                for one in fetched_instances(cl.store)
            ]
            _show_instances(options, theirs)
            return
        found = [one for flow_id in instance_ids(cl.store) if (one := find_instance(cl.store, flow_id)) is not None]
    rows = [{"flow_id": one.path.flow_id, "endpoint": one.path.endpoint, "client": one.path.client} for one in found]
    _show_instances(options, rows)


def _show_instances(options: Options, rows: list[dict[str, str]]) -> None:
    lines = [f"{flow_id}  {endpoint:<30} {user}" for flow_id, endpoint, user in map(dict.values, rows)]
    options.show(rows, "\n".join(lines) or "There are no instances.")


def call(
    ctx: typer.Context,
    endpoint: str = typer.Argument(..., help="An endpoint, coflows://organization/endpoint, or a kept instance's id."),
    user: str = typer.Option("local", "--user", help="Who serves it: his id, his name if his keys are here, registry."),
    data: str = typer.Option("{}", help="The message's data: a JSON object, or @FILE, or - for standard input."),
    timeout: float = typer.Option(60.0, help="Seconds to wait, for the instance and for the reply."),
    grant: str = typer.Option(None, help="A token by which its owner lets you in."),
    keep: bool = typer.Option(False, help="Keep the instance, and print its id on standard error."),
    flow_modules: Path = HERE,
) -> None:
    """Fetch an instance, send it one message, print the reply's data."""
    from coflows.serving import release_flow_instance, reopen_flow_instance

    options: Options = ctx.obj
    message = _data(data)
    add_module_path(flow_modules)
    with options.client() as cl:
        if _is_instance(endpoint):
            reply = _ask(reopen_flow_instance(cl, endpoint), message, timeout)
        else:
            flow = _fetched(options, cl, endpoint, user, timeout, grant)
            try:
                reply = _ask(flow, message, timeout)
            finally:
                if keep:
                    print(flow.get_instance_id(), file=sys.stderr)
                else:
                    release_flow_instance(cl, flow, timeout=timeout)
        options.show(reply, as_json(reply))


def _fetched(options: Options, cl: Client, endpoint: str, user: str, timeout: float, grant: str | None) -> FlowProxy:
    from coflows.serving import get_flow_instance

    try:
        return get_flow_instance(cl, endpoint, options.user_id(user), timeout=timeout, grant=grant)
    except EndpointNotFoundError as error:
        if user != "local":
            raise
        raise EndpointNotFoundError(error.message, hint=f"{error.hint} --user ID says who else serves it.") from error


def _is_instance(name: str) -> bool:
    from coflows.model.names import check_flow_id

    try:
        check_flow_id(name)
    except NameInvalidError:
        return False
    return True


def _ask(flow: FlowProxy, message: dict[str, Any], timeout: float) -> dict[str, Any]:
    try:
        return flow.ask(message, timeout=timeout)
    except CallTimeoutError as error:
        raise CallTimeoutError(
            error.message,
            hint=f"Is a dispatch worker for {flow.address.dispatch_point!r} running there (coflows worker all), and "
            "does the flow's run return a reply? --timeout waits longer.",
        ) from error


def _data(text: str) -> dict[str, Any]:
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        value = json.loads(text)
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"--data is no JSON: {error}.", hint=EXAMPLE) from error
    if not isinstance(value, dict):
        raise ConfigurationError("--data is no JSON object.", hint=EXAMPLE)
    return value


def doctor(ctx: typer.Context) -> None:
    """Say what is wrong, and how to mend it.

    Looks at keys, store, broker, workers and clock.
    """
    from coflows.cli.diagnosis import diagnose

    options: Options = ctx.obj
    checks = diagnose(options)
    lines = [f"{'ok  ' if one.ok else 'FAIL'} {one.name:<8} {one.text}" for one in checks]
    options.show([{"check": one.name, "ok": one.ok, "text": one.text} for one in checks], "\n".join(lines))
    worst = max((one.exit_code for one in checks if not one.ok), default=0)
    if worst:
        raise typer.Exit(worst)
