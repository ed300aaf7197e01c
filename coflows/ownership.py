"""Whose a file or folder is: what somebody else may change is no place for what a user keeps, and believes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_owner(path: Path) -> None:
    """Raise PermissionError when a file or folder is another user's of this machine, or everybody may write there (in
    a folder like /tmp nobody changes others' files). The superuser may use whosesoever it is."""
    found, me = path.stat(), os.geteuid()
    if me != 0 and found.st_uid not in (me, 0):
        raise PermissionError(
            errno.EPERM, f"it belongs to another user ({found.st_uid}), who could change it", str(path)
        )
    if found.st_mode & stat.S_IWOTH and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        raise PermissionError(errno.EPERM, "everybody may write to it", str(path))
