"""Canary strings: planted as secrets, then searched for in whatever was written, sent or shown, in many encodings."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote


def canary(name: str) -> str:
    """A secret that is nowhere else; its last signs look otherwise in every encoding."""
    return f"canary-{name}-{secrets.token_hex(8)}-/+&ü?"


def forms(value: str | bytes) -> set[bytes]:
    """What a canary may look like. Base64 is looked for at each of its three alignments."""
    raw = value if isinstance(value, bytes) else value.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode()}
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw)[4:-4]  # The ends depend on the neighbours.
        found |= {text, text.translate(bytes.maketrans(b"+/", b"-_"))}
    if isinstance(value, str):
        found |= {quote(value).encode(), quote(value, safe="").encode(), ascii(value)[1:-1].encode()}
        found.add(value.encode("utf-16-le"))
        found.add(value.split("-")[2].encode())  # Its middle alone, whatever was done to the rest.
    return found


class Hunt:
    """Looks for canaries, by name, and keeps where it found which."""

    def __init__(self, canaries: Mapping[str, str | bytes]) -> None:
        self._forms = {name: forms(value) for name, value in canaries.items()}
        self.found: list[tuple[str, str]] = []
        self.bytes = 0
        """How much was searched: a hunt through nothing finds nothing."""

    def through(self, where: str, data: bytes | str, but: Iterable[str] = ()) -> None:
        """Search these bytes for all canaries ``but`` some."""
        raw = data if isinstance(data, bytes) else data.encode(errors="surrogatepass")
        self.bytes += len(raw)
        for name, looks in self._forms.items():
            if name not in but and any(look in raw for look in looks):
                self.found.append((name, where))

    def through_folder(self, folder: Path, but: Iterable[str] = ()) -> None:
        """Search all files below, and their names; not those called one of ``but``."""
        before = self.bytes
        for path in sorted(folder.rglob("*")):
            self.through(f"the name {path}", str(path))
            if path.is_file() and not path.is_symlink() and path.name not in but:
                self.through(str(path), path.read_bytes())
        assert self.bytes > before, f"nothing to search in {folder}"
