"""Finds secrets in what is about to be kept, sent or shown: as they are, and in the usual encodings."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote, urlsplit

from coflows.shown import printable

SHORTEST = 8
"""Characters; shorter values are found everywhere, and are looked for nowhere."""
LONG_LINE = 24
"""Characters of a line that is no header."""


class Redactor:
    """Knows some secrets by name. Immutable, so safe for threads; shows names only."""

    __slots__ = ("_forms", "_names")

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms: dict[str, str] = {}
        for name, value in secrets.items():
            # Of a key of many lines each one is a secret: what shows it may have indented them.
            for part in (value, *(line for line in value.splitlines() if len(line) >= LONG_LINE)):
                if len(part) >= SHORTEST:
                    forms |= dict.fromkeys(_forms(part), name)
        # The longest first: what replaces a part of a secret must not hide the rest of it from being found.
        self._forms = sorted(
            ((form, form.encode(errors="surrogatepass"), name) for form, name in forms.items()),
            key=lambda form: -len(form[0]),
        )
        self._names = tuple(sorted(secrets))

    def __bool__(self) -> bool:
        return bool(self._forms)

    def clean(self, text: str) -> str:
        """The text with ``[secret NAME]`` wherever a secret was."""
        for form, _, name in self._forms:
            if form in text:
                text = text.replace(form, f"[secret {name}]")
        return text

    def found_in(self, data: bytes) -> str | None:
        """The name of a secret that is in there, or None."""
        return next((name for _, form, name in self._forms if form in data), None)

    def __repr__(self) -> str:
        return f"<Redactor of {', '.join(self._names) or 'nothing'}>"


NOTHING = Redactor({})


class RedactingFormatter(logging.Formatter):
    """Formats as another one does, without the secrets: whoever logs, and also in tracebacks. What others wrote, flows'
    errors included, commands no terminal, and begins no line: all but a record's first are indented."""

    def __init__(self, redactor: Redactor, inner: logging.Formatter) -> None:
        super().__init__()
        self._redactor = redactor
        self._inner: logging.Formatter = inner._inner if isinstance(inner, RedactingFormatter) else inner

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines of a record."""
        return printable(self._redactor.clean(self._inner.format(record))).replace("\n", "\n    ")


def redact_logs(redactor: Redactor) -> None:
    """Let no handler of the root logger write these secrets any more; without any, not the one of last resort."""
    last = [] if logging.lastResort is None else [logging.lastResort]
    for handler in logging.getLogger().handlers or last:
        handler.setFormatter(RedactingFormatter(redactor, handler.formatter or logging.Formatter()))


def url_secrets(**urls: str) -> dict[str, str]:
    """The passwords in URLs, each under the name that was given for its URL."""
    found = {}
    for name, url in urls.items():
        try:
            password = urlsplit(url).password
        except ValueError:
            continue
        if password:
            found[name] = unquote(password)
    return found


def _forms(value: str) -> Iterator[str]:
    raw = value.encode(errors="surrogatepass")
    yield value
    yield json.dumps(value)[1:-1]
    yield repr(json.dumps(value)[1:-1])[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield quote(value, safe="", errors="replace")
    yield quote(value, errors="replace")
    yield quote_plus(value, errors="replace")
    yield raw.hex()
    yield raw.hex().upper()
    # In base64 what stands before shifts the letters; those at the ends depend on the neighbours too.
    for before in range(3):
        letters = base64.b64encode(b"\0" * before + raw).rstrip(b"=").decode()
        middle = letters[(0, 2, 3)[before] : len(letters) - (1 if (before + len(raw)) % 3 else 0)]
        yield middle
        yield middle.replace("+", "-").replace("/", "_")
