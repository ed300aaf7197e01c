"""Secrets are found in what is kept, sent and logged, however they are encoded, and nothing else is taken for one."""

from __future__ import annotations

import base64
import logging
import textwrap
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.redaction import SHORTEST, RedactingFormatter, Redactor, url_secrets

KEY = "-----BEGIN KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v\nVpguoRK9JLsLMREScVpezJpGXA7rAMcr\n-----END KEY-----"


@given(st.text(min_size=SHORTEST), st.binary(max_size=5), st.binary(max_size=5))
def test_base64_finds_it_wherever_it_begins(secret: str, before: bytes, after: bytes) -> None:
    try:
        raw = secret.encode()
    except UnicodeEncodeError:
        return
    redactor = Redactor({"x": secret})
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert redactor.found_in(encode(before + raw + after)) == "x"
    assert redactor.found_in(before + raw + after) == redactor.found_in(raw.hex().encode()) == "x"
    assert redactor.clean(f"a{secret}b{quote(secret)}c") == "a[secret x]b[secret x]c"


def test_the_longer_one_of_two_goes_first_and_none_is_left_in_part() -> None:
    redactor = Redactor({"short": "12345678", "long": "123456789abcdef"})
    assert redactor.clean("key 123456789abcdef, 12345678.") == "key [secret long], [secret short]."


def test_a_key_of_many_lines_is_found_when_they_are_indented() -> None:
    shown = Redactor({"pem": KEY}).clean(textwrap.indent(KEY, "  | "))
    assert "MC4CAQ" not in shown and "VpguoRK9" not in shown


def test_short_values_are_looked_for_nowhere_and_names_are_all_that_is_shown() -> None:
    redactor = Redactor({"pin": "1234", "empty": ""})
    assert not redactor and redactor.clean("1234") == "1234" and redactor.found_in(b"1234") is None
    assert repr(Redactor({"token": "geheimgeheim"})) == "<Redactor of token>"


def test_a_log_shows_it_neither_in_arguments_nor_in_tracebacks_however_often_it_is_wrapped() -> None:
    redactor = Redactor({"token": "geheimgeheim"})
    formatter = RedactingFormatter(redactor, RedactingFormatter(Redactor({}), logging.Formatter("%(message)s")))
    try:
        raise ValueError("geheimgeheim")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "with %s", ("geheimgeheim",), info)
    text = formatter.format(record)
    assert "geheim" not in text and text.startswith("with [secret token]") and "Traceback" in text


@pytest.mark.parametrize("url", ["sqlite://", "amqp://host/", "amqp://user@host/", "amqp://[::1/", ""])
def test_urls_without_a_password_have_no_secret(url: str) -> None:
    assert url_secrets(broker=url) == {}


def test_a_password_of_a_url_is_known_as_it_is_meant() -> None:
    assert url_secrets(broker="amqp://u:a%2Fb@host/", store="postgresql://u:c@h/d") == {"broker": "a/b", "store": "c"}
