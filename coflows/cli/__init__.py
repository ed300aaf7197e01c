"""The ``coflows`` command, one module per group of commands."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with the code of the error, see ``coflows --help``."""
    from coflows.cli.app import run

    run(arguments)
