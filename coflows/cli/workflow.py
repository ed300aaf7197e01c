"""``coflows workflow``: submit graphs of functions to a colony, watch, cancel and remove them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from coflows.cli.context import Options, counted
from coflows.errors import ConfigurationError, WorkflowCancelledError, WorkflowFailedError

if TYPE_CHECKING:
    from coflows.workflow.colonies.colonies import Colonies
    from coflows.workflow.colonies.function_spec import Workflow
    from coflows.workflow.colonies.process_graph import Process, ProcessGraph

COLONY = typer.Option(None, "--colony", help="The colony; the only one, when this user has one.")
OWNER = typer.Option(
    None, "--owner", help="The colony's owner, when it is another's: his id, or his name if his keys are here."
)
GRAPH = typer.Option(..., "--processgraphid", "--workflowid", help="The id that submit printed.")
PART = typer.Option(
    ..., "--processgraphid", "--workflowid", help="The id that submit printed; with /PROCESS behind it, of one process."
)
SPEC = "--spec is a list of functions, each with funcname and executortype, as docs/workflows.md shows."
LISTS = {"ps": ("RUNNING", "running"), "psw": ("WAITING", "waiting"), "pss": ("SUCCESS", "successful")}
LISTS |= {"psf": ("FAILED", "failed")}


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Submit workflows to a colony, and look after them.", no_args_is_help=True)
    app.add_typer(group, name="workflow")
    group.command()(submit)
    for name, (state, word) in LISTS.items():
        group.command(name, help=f"List {word} workflows.")(_lister(state, word))
    group.command()(get)
    group.command()(cancel)
    group.command()(remove)
    group.command()(removeall)
    group.command()(graph)


def submit(
    ctx: typer.Context,
    spec: str = typer.Option(..., "--spec", help="A JSON or YAML file: a list of functions; - for standard input."),
    colony: str = COLONY,
    owner: str = OWNER,
    wait: bool = typer.Option(False, "--wait", help="Wait for the end, and show how it goes."),
    timeout: float = typer.Option(None, help="Seconds to wait at most."),
) -> None:
    """Submit a workflow, and print its id."""
    from coflows.workflow.colonies.asking import TIMEOUT

    options: Options = ctx.obj
    with _colonies(options, owner) as client:
        begun = time.monotonic()
        made = client.submit_workflow(
            _workflow(spec, _colony(client, colony)), timeout=TIMEOUT if timeout is None else min(timeout, TIMEOUT)
        )
        if not wait:
            options.show({"processgraphid": made.processgraphid}, made.processgraphid)
            return
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begun))
        end = client.wait(made, left, None if options.json else _Bar(len(made.rows)))
        _show(options, end)
        if end.state == "CANCELLED":
            raise WorkflowCancelledError(f"Workflow {end.processgraphid} was cancelled.")
        if end.state == "FAILED":
            raise WorkflowFailedError(f"Workflow {end.processgraphid} failed: {end.reason}")


def get(
    ctx: typer.Context,
    processgraphid: str = PART,
    owner: str = OWNER,
    wait: bool = typer.Option(False, "--wait", help="Wait for the workflow's end."),
    timeout: float = typer.Option(None, help="Seconds to wait at most."),
) -> None:
    """Show a workflow, or one process with its output."""
    from coflows.workflow.colonies.places import GraphId, ProcessId

    options: Options = ctx.obj
    one = ProcessId.parse(processgraphid) if processgraphid.count("/") > 1 else None
    graph_id = str(one.graph if one else GraphId.parse(processgraphid))
    with _colonies(options, owner) as client:
        found = client.get_processgraph(graph_id)
        if wait:
            found = client.wait(found, timeout, None if options.json else _Bar(len(found.rows)))
        if one is None:
            _show(options, found)
        else:
            _show_process(options, client.get_process(processgraphid))


def cancel(ctx: typer.Context, processgraphid: str = PART, owner: str = OWNER) -> None:
    """Stop a workflow, or with a process's id one process."""
    options: Options = ctx.obj
    with _colonies(options, owner) as client:
        client.cancel(processgraphid)
    options.show({"cancelled": processgraphid}, f"Cancelled {processgraphid}.")


def remove(ctx: typer.Context, processgraphid: str = GRAPH, owner: str = OWNER) -> None:
    """Delete a workflow that is over."""
    options: Options = ctx.obj
    with _colonies(options, owner) as client:
        removed = client.remove(processgraphid)
    text = f"Removed {processgraphid}." if removed else f"There is no {processgraphid}; nothing changed."
    options.show({"processgraphid": processgraphid, "removed": removed}, text)


def removeall(ctx: typer.Context, colony: str = COLONY, owner: str = OWNER) -> None:
    """Delete all workflows that are over.

    Says which stay, and why.
    """
    options: Options = ctx.obj
    with _colonies(options, owner) as client:
        removed, kept = client.removeall(_colony(client, colony))
    lines = [f"Removed {counted(len(removed), 'workflow')}.", *(f"Not removed: {name}: {why}." for name, why in kept)]
    options.show(
        {"removed": removed, "kept": [{"processgraphid": one, "why": why} for one, why in kept]}, "\n".join(lines)
    )


def graph(
    ctx: typer.Context,
    processgraphid: str = GRAPH,
    owner: str = OWNER,
    svg: bool = typer.Option(False, "--svg", help="An SVG image instead of a Mermaid diagram."),
) -> None:
    """Draw a workflow, coloured by state."""
    from coflows.workflow.pictures.mermaid import to_mermaid
    from coflows.workflow.pictures.svg import to_svg

    options: Options = ctx.obj
    with _colonies(options, owner) as client:
        picture = client.get_picture(processgraphid)
    drawn = to_svg(picture) if svg else to_mermaid(picture)
    options.show({"processgraphid": processgraphid, "svg" if svg else "mermaid": drawn}, drawn)


def _lister(state: str, word: str) -> Any:
    def listed(
        ctx: typer.Context,
        colony: str = COLONY,
        owner: str = OWNER,
        limit: int = typer.Option(100, min=1, help="How many at most; the newest first."),
    ) -> None:
        from coflows.cli.workflow_tables import graphs_table

        options: Options = ctx.obj
        with _colonies(options, owner) as client:
            found = client.get_processgraphs(_colony(client, colony), [state], limit)
        text = graphs_table(found) if found and not options.json else f"There are no {word} workflows."
        options.show([_plain(one) for one in found], text)

    return listed


@contextmanager
def _colonies(options: Options, owner: str | None) -> Iterator[Colonies]:
    from coflows.workflow.colonies.colonies import Colonies

    with options.client() as cl:
        yield Colonies(cl, None if owner is None else options.user_id(owner), coordinate=False)


def _colony(client: Colonies, name: str | None) -> str:
    if name:
        return name
    known = client.get_colonies()
    if len(known) == 1:
        return known[0]
    raise ConfigurationError(
        f"Which colony? There {'are ' + ', '.join(known) if known else 'is none'}.",
        hint="Give --colony NAME." if known else "Run: coflows colony add NAME; or give --colony, and --owner of it.",
    )


def _workflow(place: str, colony: str) -> Workflow:
    import yaml

    from coflows.workflow.colonies.function_spec import Workflow, read_specs

    try:
        text = sys.stdin.read() if place == "-" else Path(place).read_text(encoding="utf-8")
        value = yaml.safe_load(text)  # JSON is YAML.
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--spec {place} cannot be read: {error}.", hint=SPEC) from error
    functions = value.get("functionspecs") if isinstance(value, dict) else value
    if not isinstance(functions, list) or not functions or not all(isinstance(one, dict) for one in functions):
        raise ConfigurationError(f"--spec {place} has no functions.", hint=SPEC)
    for one in functions:
        one.setdefault("nodename", one.get("funcname"))
    workflow = Workflow(colony)
    workflow.functionspecs += read_specs(functions)
    return workflow


def _show(options: Options, found: ProcessGraph) -> None:
    from coflows.cli.workflow_tables import graphs_table, processes_table

    text = "" if options.json else f"{graphs_table([found])}\n{processes_table(found)}"
    options.show(_plain(found), f"{text}\n{found.reason}".rstrip())


def _show_process(options: Options, found: Process) -> None:
    value = {**asdict(found), "executortype": found.spec.executortype}
    del value["spec"]
    said = found.reason or json.dumps(found.output, default=str)
    options.show(value, f"{found.state}\n{said}" if found.ended_at else str(found.state))


def _plain(found: ProcessGraph) -> dict[str, Any]:
    value = asdict(found)
    rows = value.pop("rows")
    return {**value, "processes": [row._asdict() for row in found.rows]} if rows else value


class _Bar:
    """How far a workflow is, on standard error."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=Console(stderr=True))
        self._task = self._bars.add_task("steps", total=total)
        self._bars.start()

    def __call__(self, now: ProcessGraph) -> None:
        self._bars.update(self._task, completed=now.done, total=len(now.rows), description=str(now.state))
        if now.ended:
            self._bars.stop()
