"""Where users' keys are kept: one folder a user, readable by nobody else."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coflows.errors import IdentityError, NameInvalidError, PassphraseError, UserExistsError, UserNotFoundError
from coflows.identity.keys import Identity
from coflows.model.names import check_user_id, check_user_name

OPEN, LOCKED = 1, 2
"""Versions of the key file: the seed as it is, or under a passphrase."""


class Home:
    """A folder of users. Safe for several processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def user_dir(self, name: str) -> Path:
        """The folder of one user; raises NameInvalidError."""
        return self.path / "users" / check_user_name(name)

    def create_user(self, name: str) -> Identity:
        """Make keys for a new user. Raises UserExistsError, NameInvalidError, or IdentityError when the folder cannot
        be written."""
        folder, identity = self.user_dir(name), Identity.generate()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for one in (self.path, self.path / "users", folder):
                one.chmod(0o700)
            with _draft(folder, {"version": OPEN, "seed": identity.seed.hex()}) as draft:
                # A hard link fails when the name is taken, so of two who create it one is told, and no reader ever
                # sees half a file.
                os.link(draft, folder / "key")
        except FileExistsError as error:
            raise UserExistsError(
                f"User {name!r} exists already in {self.path}.", hint="Choose another name, or use this one."
            ) from error
        except OSError as error:
            raise IdentityError(f"Cannot write keys to {folder}: {error}.") from error
        return identity

    def load_user(self, name: str, passphrase: str | None = None) -> Identity:
        """A user's keys. Raises UserNotFoundError, PassphraseError, or IdentityError when the file is damaged or others
        may read it."""
        content, damaged = self._read(name), self._damaged(name)
        try:
            if content["version"] == OPEN:
                return Identity.from_seed(bytes.fromhex(content["seed"]))
            if passphrase is None:
                raise PassphraseError(
                    f"The keys of user {name!r} are under a passphrase.",
                    hint="Set COFLOWS_PASSPHRASE, or run the command at a terminal, where it is asked for.",
                )
            from coflows.identity.passphrase import unlock  # Takes as long as all of this, and few need it.

            identity = Identity.from_seed(unlock(content["locked"], passphrase, content["user_id"]))
        except (ValueError, KeyError, TypeError) as error:
            raise damaged from error
        if identity.user_id != content["user_id"]:
            raise damaged
        return identity

    def user_id(self, name: str) -> str:
        """A user's id, for which no passphrase is needed. Raises as ``load_user``."""
        content = self._read(name)
        return str(content["user_id"]) if content["version"] == LOCKED else self.load_user(name).user_id

    def is_locked(self, name: str) -> bool:
        """Whether a user's keys are under a passphrase. Raises as ``load_user``."""
        return bool(self._read(name)["version"] == LOCKED)

    def set_passphrase(self, name: str, old: str | None, new: str | None) -> None:
        """Put a user's keys under a passphrase, or under none any more. No reader ever sees half a file. Raises as
        ``load_user`` with the ``old`` one, or IdentityError."""
        identity, folder = self.load_user(name, old), self.user_dir(name)
        content: dict[str, Any] = {"version": OPEN, "seed": identity.seed.hex()}
        if new is not None:
            from coflows.identity.passphrase import lock

            locked = lock(identity.seed, new, identity.user_id)
            content = {"version": LOCKED, "user_id": identity.user_id, "locked": locked}
        try:
            with _draft(folder, content) as draft:
                Path(draft).replace(folder / "key")
        except OSError as error:
            raise IdentityError(f"Cannot write keys to {folder}: {error}.") from error

    def _read(self, name: str) -> dict[str, Any]:
        file = self.user_dir(name) / "key"
        try:
            mode, text, around = file.stat().st_mode, file.read_text(), file.parent.stat().st_mode
        except FileNotFoundError:
            known = ", ".join(self.user_names()) or "none"
            raise UserNotFoundError(
                f"There is no user {name!r} in {self.path} (known: {known}).",
                hint=f"Run: coflows user create {name}",
            ) from None
        except OSError as error:
            raise IdentityError(f"Cannot read {file}: {error}.") from error
        if mode & 0o077:
            raise IdentityError(f"Others may read the key file {file}.", hint=f"Run: chmod 600 {file}")
        if around & 0o077:
            # Who may write there puts another file in its place.
            raise IdentityError(
                f"Others may look or write into the folder of keys {file.parent}.", hint=f"Run: chmod 700 {file.parent}"
            )
        try:
            content: dict[str, Any] = json.loads(text)
            if content["version"] not in (OPEN, LOCKED):
                raise ValueError(f"version {content['version']}")
            if content["version"] == LOCKED:
                check_user_id(content["user_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(name) from error
        return content

    def _damaged(self, name: str) -> IdentityError:
        return IdentityError(
            f"The key file {self.user_dir(name) / 'key'} is damaged.",
            hint="Restore it from a backup; without it the user is lost.",
        )

    def user_names(self) -> list[str]:
        """The names of all users, in order, also of those whose keys cannot be read."""
        found = []
        for file in sorted(self.path.glob("users/*/key")):
            with suppress(NameInvalidError):
                found.append(check_user_name(file.parent.name))
        return found

    def list_users(self) -> list[tuple[str, str]]:
        """Names and user ids of all users whose keys can be read, by name; no passphrase is needed."""
        found = []
        for name in self.user_names():
            with suppress(IdentityError, ValueError):
                found.append((name, self.user_id(name)))
        return found


@contextmanager
def _draft(folder: Path, content: dict[str, Any]) -> Iterator[str]:
    """A file of that content that nobody else may read, safe on disk; it is gone afterwards."""
    handle, draft = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        Path(draft).unlink(missing_ok=True)
