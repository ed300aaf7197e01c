"""Where users' keys are kept: one folder a user, readable by nobody else."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from coflows.errors import IdentityError, UserExistsError, UserNotFoundError
from coflows.identity.keys import Identity
from coflows.model.names import check_user_name

VERSION = 1


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
        content = json.dumps({"version": VERSION, "seed": identity.seed.hex()})
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for one in (self.path, self.path / "users", folder):
                one.chmod(0o700)
            handle, draft = tempfile.mkstemp(dir=folder)
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                # A hard link fails when the name is taken, so of two who create it one is told, and no reader ever
                # sees half a file.
                os.link(draft, folder / "key")
            finally:
                Path(draft).unlink()
        except FileExistsError as error:
            raise UserExistsError(
                f"User {name!r} exists already in {self.path}.", hint="Choose another name, or use this one."
            ) from error
        except OSError as error:
            raise IdentityError(f"Cannot write keys to {folder}: {error}.") from error
        return identity

    def load_user(self, name: str) -> Identity:
        """A user's keys. Raises UserNotFoundError, or IdentityError when the file is damaged or others may read it."""
        file = self.user_dir(name) / "key"
        try:
            mode, text = file.stat().st_mode, file.read_text()
        except FileNotFoundError:
            known = ", ".join(user for user, _ in self.list_users()) or "none"
            raise UserNotFoundError(
                f"There is no user {name!r} in {self.path} (known: {known}).",
                hint=f"Run: coflows user create {name}",
            ) from None
        except OSError as error:
            raise IdentityError(f"Cannot read {file}: {error}.") from error
        if mode & 0o077:
            raise IdentityError(f"Others may read the key file {file}.", hint=f"Run: chmod 600 {file}")
        try:
            content = json.loads(text)
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}")
            return Identity.from_seed(bytes.fromhex(content["seed"]))
        except (ValueError, KeyError, TypeError) as error:
            raise IdentityError(
                f"The key file {file} is damaged.", hint="Restore it from a backup; without it the user is lost."
            ) from error

    def list_users(self) -> list[tuple[str, str]]:
        """Names and user ids of all users whose keys can be read, by name."""
        found = []
        for file in sorted(self.path.glob("users/*/key")):
            try:
                found.append((file.parent.name, self.load_user(file.parent.name).user_id))
            except (IdentityError, ValueError):
                continue
        return found
