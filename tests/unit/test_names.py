"""Names: what passes can be part of a store key, a queue name and a path, and nothing else passes."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.errors import NameInvalidError
from coflows.model import names

CHECKS = [
    names.check_user_id,
    names.check_endpoint,
    names.check_dispatch_point,
    names.check_subflow_key,
    names.check_user_name,
    names.check_flow_id,
    names.check_token,
]
LIKELY = st.text(st.sampled_from("abzAZ09_-.:/*#\\ \n\0\u00e9\u0660"), max_size=70)


@given(public_key=st.binary(min_size=32, max_size=32))
def test_user_ids_are_one_to_one_with_keys(public_key: bytes) -> None:
    user_id = names.encode_user_id(public_key)
    assert len(user_id) == names.USER_ID_LENGTH and names.decode_user_id(user_id) == public_key


@given(text=st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"), min_size=52, max_size=52))
def test_no_key_has_two_user_ids(text: str) -> None:
    try:
        assert names.encode_user_id(names.decode_user_id(text)) == text
    except NameInvalidError:
        assert text[-1] not in "aq"


@pytest.mark.parametrize("check", CHECKS)
@given(value=LIKELY | st.text() | st.none() | st.integers() | st.binary())
def test_what_passes_is_inert(check: Callable[[object], str], value: object) -> None:
    try:
        name = check(value)
    except NameInvalidError as error:
        assert error.hint and len(str(error)) < 400 and "\n" not in str(error)
    else:
        assert name == value and name.isascii() and 1 <= len(name) <= 64
        assert ".." not in name and not name.startswith(".") and not set(name) & set(':/\\*#> \n\t\0"')


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "_x", "9", "a" * 64, "ReverseNumber.v2"])
def test_endpoints_that_are_fine(name: str) -> None:
    assert names.check_endpoint(name) == name


@pytest.mark.parametrize("name", ["", "a:b", "a..b", "..", ".a", "-a", "a" * 65, "a\n", "a\x00", "a b", "é", None, 7])
def test_endpoints_that_are_not(name: object) -> None:
    with pytest.raises(NameInvalidError, match="Endpoint name") as caught:
        names.check_endpoint(name)
    assert caught.value.code == "name_invalid"


@given(value=st.uuids())
def test_instance_ids(value: uuid.UUID) -> None:
    assert names.check_flow_id(str(value)) == str(value)
    assert names.check_token(value.hex) == value.hex
