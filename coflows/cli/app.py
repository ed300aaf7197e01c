"""The root of the command line: its options, its groups, its exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from coflows.cli import access, colony, demo, dlq, find, flows, keys, registry, users, worker, workflow
from coflows.cli import broker as accounts
from coflows.cli.context import Options
from coflows.errors import CoflowsError

EPILOG = (
    "Exit codes: 0 done, 1 something else failed, 2 bad input or settings, 3 keys, 4 broker, 5 store, 6 flow class or "
    "config, 7 not found, 8 not allowed, 9 the flow raised, 10 no reply in time, 11 cancelled, 12 a registry, "
    "13 more than the quota."
)


def build() -> typer.Typer:
    """The application, with all its commands."""
    app = typer.Typer(
        name="coflows",
        help="Share running flows: serve them, fetch instances of others', send messages and await replies.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # Loading rich takes as long as all the rest of a command together.
    )

    def version(asked: bool) -> None:
        if asked:
            from importlib.metadata import version

            print(f"coflows {version('coflows')}")
            raise typer.Exit

    @app.callback()
    def root(
        ctx: typer.Context,
        user: str = typer.Option(None, "--as", "--user", help="Run as this user (or COFLOWS_USER)."),
        broker: str = typer.Option(None, help="Broker URL (or COFLOWS_BROKER_URL); default embedded://"),
        store: str = typer.Option(None, help="Store URL (or COFLOWS_STORE_URL); default sqlite://"),
        json: bool = typer.Option(False, "--json", help="Print results and errors as JSON."),
        verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what happens, to standard error."),
        _version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version."),
    ) -> None:
        ctx.obj = Options(user or None, broker or None, store or None, json, verbose)

    users.add_to(app)
    keys.add_to(app)
    flows.add_to(app)
    access.add_to(app)
    find.add_to(app)
    worker.add_to(app)
    dlq.add_to(app)
    colony.add_to(app)
    workflow.add_to(app)
    registry.add_to(app)
    accounts.add_to(app)
    demo.add_to(app)
    return app


def run(arguments: Sequence[str] | None = None) -> None:
    """Run and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is not None:
        words += sys.argv[1:]
    words = _options_first(words)
    options = Options(json="--json" in words, verbose="-v" in words or "--verbose" in words)
    try:
        get_command(build())(args=words, prog_name="coflows")
    except CoflowsError as error:
        sys.exit(options.fail(error))


ANYWHERE = {
    "--json": False,
    "--verbose": False,
    "-v": False,
    "--as": True,
    "--user": True,
    "--broker": True,
    "--store": True,
}
"""The root's options, and whether each takes a value."""


def _options_first(words: list[str]) -> list[str]:
    """The root's options may stand anywhere: ``coflows flows --json`` is ``coflows --json flows``. ``call --user``
    means the flow's owner and stays where it is."""
    first: list[str] = []
    rest: list[str] = []
    position = 0
    command = next((word for word in words if not word.startswith("-")), "")
    while position < len(words):
        word = words[position]
        name = word.partition("=")[0]
        if word == "--":
            rest += words[position:]
            break
        takes = ANYWHERE.get(name)
        owner = name == "--user" and "call" in words[:position] and command
        if takes is None or owner:
            rest.append(word)
        else:
            first.append(word)
            if takes and "=" not in word and position + 1 < len(words):
                position += 1
                first.append(words[position])
        position += 1
    return first + rest
