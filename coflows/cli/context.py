"""What all commands share: as whom, on which broker and store, and how results and errors are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from getpass import getpass
from typing import TYPE_CHECKING, Any

from coflows.errors import CoflowsError, NameInvalidError, RemoteFlowError
from coflows.shown import printable

if TYPE_CHECKING:
    from coflows.client import Client
    from coflows.config import Settings


@dataclass(slots=True)
class Options:
    """The options before the command."""

    user: str | None = None
    broker_url: str | None = field(default=None, repr=False)
    store_url: str | None = field(default=None, repr=False)
    json: bool = False
    verbose: bool = False

    @property
    def settings(self) -> Settings:
        """The environment's settings."""
        from coflows.config import load_settings

        return load_settings()

    def user_name(self) -> str:
        """Who the command is run as: --as, COFLOWS_USER, or the only user there is."""
        from coflows.connecting import which_user

        return which_user(self.user)

    def passphrase(self, name: str) -> str | None:
        """The passphrase of a user's keys where they have one: COFLOWS_PASSPHRASE, or what is typed at the terminal."""
        from coflows.identity.home import Home

        settings = self.settings
        if settings.passphrase is None and sys.stdin.isatty() and Home(settings.home).is_locked(name):
            return getpass(f"Passphrase of {name}: ")
        return settings.passphrase

    def user_id(self, name_or_id: str) -> str:
        """A user's id; he may be named by his name when his keys are in this home. "local" and "registry" stay. Raises
        NameInvalidError."""
        from coflows.identity.home import Home
        from coflows.model.flow_names import REGISTRY
        from coflows.model.names import LOCAL, check_user_id

        if name_or_id in (LOCAL, REGISTRY):
            return name_or_id
        known = dict(Home(self.settings.home).list_users())
        try:
            return known.get(name_or_id) or check_user_id(name_or_id)
        except NameInvalidError as error:
            here = ", ".join(known) or "none"
            raise NameInvalidError(
                f"{name_or_id[:100]!r} is neither a user id nor a user whose keys are here ({here}).",
                hint="Pass the 52 characters that `coflows user show` prints where he is.",
            ) from error

    @contextmanager
    def client(self) -> Iterator[Client]:
        """The user's session; the broker is reached when it is first needed."""
        from coflows.connecting import open_client

        name = self.user_name()
        with open_client(name, self.broker_url, self.store_url, passphrase=self.passphrase(name)) as cl:
            yield cl

    def show(self, value: Any, text: str | None = None) -> None:
        """Print a result: as JSON when that was asked for, else ``text`` or the value itself."""
        if self.json:
            print(json.dumps(value, default=str))
        elif text is not None:
            if text:
                print(printable(text))
        else:
            print(printable(value) if isinstance(value, str) else json.dumps(value, indent=2, default=str))

    def fail(self, error: CoflowsError) -> int:
        """Print an error for a person, or as JSON; with the traceback of a flow of his own. Gives the exit code."""
        trace = error.remote_traceback if isinstance(error, RemoteFlowError) else None
        if self.json:
            fields = {"code": error.code, "message": error.message, "hint": error.hint}
            if trace is not None:
                fields["remote_traceback"] = trace
            print(json.dumps({"error": fields}), file=sys.stderr)
        else:
            if self.verbose and trace is not None:
                print(printable(trace.rstrip()), file=sys.stderr)
            print(f"coflows: {printable(error.message)}", file=sys.stderr)
            more = "-v shows the traceback." if trace is not None and not self.verbose else ""
            if hint := f"{error.hint} {more}".strip():
                print(f"         {printable(hint)}", file=sys.stderr)
        return error.exit_code


def counted(number: int, noun: str) -> str:
    """ "1 user", "2 users"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
