"""A throw-away certificate authority, and what it signs."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Made in ``folder``, with ``openssl``. ``file`` is what trusts it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file, self._key = folder / "ca.pem", folder / "ca.key"
        folder.mkdir(parents=True)
        self._run("req", "-x509", "-subj", "/CN=throw-away", "-days", "2", *self._new_key(self._key), "-out", self.file)

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for ``name``, good for localhost, and its key."""
        certificate, key, request, extensions = (self._folder / f"{name}.{one}" for one in ("pem", "key", "csr", "ext"))
        extensions.write_text("subjectAltName = DNS:localhost\n")
        self._run("req", "-subj", f"/CN={name}", *self._new_key(key), "-out", request)
        authority = ("-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        self._run("x509", "-req", "-in", request, *authority, "-extfile", extensions, "-out", certificate)
        return certificate, key

    def _new_key(self, file: Path) -> tuple[str | Path, ...]:
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file

    def _run(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, stdin=subprocess.DEVNULL)
