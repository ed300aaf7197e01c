"""Keys in their files: readable by their owner alone, and with a passphrase not even by who has the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coflows import connect
from coflows.cli.context import Options
from coflows.cli.diagnosis import diagnose
from coflows.config import load_settings
from coflows.errors import IdentityError, PassphraseError
from coflows.identity.home import Home
from coflows.identity.passphrase import KDF
from coflows.registry.loading import service_identity
from coflows.serving import serve_flow
from tests.security.canaries import Hunt, canary


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that Argon2id takes: how long a guess lasts is not what is tested here."""
    monkeypatch.setattr(KDF, "OPSLIMIT_MODERATE", KDF.OPSLIMIT_MIN)
    monkeypatch.setattr(KDF, "MEMLIMIT_MODERATE", KDF.MEMLIMIT_MIN)


@pytest.fixture
def key(home: Path) -> Path:
    """The key file of alice."""
    Home(home).create_user("alice")
    return home / "users" / "alice" / "key"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601])
def test_a_key_that_others_may_open_is_refused(key: Path, home: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(IdentityError, match="chmod 600"):
        connect("alice")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o750, 0o701])
def test_a_folder_of_keys_that_others_may_enter_is_refused(key: Path, home: Path, mode: int) -> None:
    key.parent.chmod(mode)
    with pytest.raises(IdentityError, match="chmod 700"):
        connect("alice")
    key.parent.chmod(0o700)
    connect("alice").close()


def test_whatever_umask_a_new_key_is_private_also_under_a_new_passphrase(home: Path) -> None:
    before = os.umask(0)
    try:
        Home(home).create_user("alice")
        key = home / "users" / "alice" / "key"
        for step in (None, "first", "second"):
            if step is not None:
                Home(home).set_passphrase("alice", {"first": None, "second": "first"}[step], step)
            assert key.stat().st_mode & 0o777 == 0o600 and key.parent.stat().st_mode & 0o777 == 0o700
            assert [path.name for path in key.parent.iterdir()] == ["key"]
    finally:
        os.umask(before)


def test_guessing_a_passphrase_fails_typed_and_the_right_one_opens(key: Path, home: Path) -> None:
    keys, passphrase = Home(home), canary("passphrase")
    before = keys.load_user("alice")
    keys.set_passphrase("alice", None, passphrase)
    for guess in ("", "wrong", passphrase[:-1], passphrase + " ", passphrase.upper()):
        with pytest.raises(PassphraseError, match="not the passphrase") as refused:
            keys.load_user("alice", guess)
        assert refused.value.code == "passphrase" and refused.value.__cause__ is None
    with pytest.raises(PassphraseError, match="COFLOWS_PASSPHRASE"):
        keys.load_user("alice")
    assert keys.load_user("alice", passphrase).user_id == before.user_id
    hunt = Hunt({"seed": before.seed, "passphrase": passphrase})
    hunt.through_folder(home)
    assert hunt.found == []


def test_without_the_passphrase_a_user_is_listed_and_nothing_else(
    key: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Home(home)
    user_id = keys.user_id("alice")
    keys.set_passphrase("alice", None, "geheim")
    assert keys.list_users() == [("alice", user_id)] and keys.user_id("alice") == user_id
    for use in (lambda: connect("alice"), lambda: service_identity("alice", load_settings())):
        with pytest.raises(PassphraseError):
            use()
    with pytest.raises(PassphraseError):
        keys.set_passphrase("alice", None, "other")
    monkeypatch.setenv("COFLOWS_PASSPHRASE", "geheim")
    with connect("alice") as cl:
        assert cl.user_id == user_id == service_identity("alice", load_settings()).user_id


def test_putting_another_users_key_under_a_name_is_noticed(key: Path, home: Path) -> None:
    keys = Home(home)
    keys.create_user("eve")
    for name in ("alice", "eve"):
        keys.set_passphrase(name, None, "same")
    eve = json.loads((key.parents[1] / "eve" / "key").read_text())
    content = json.loads(key.read_text())
    key.write_text(json.dumps({**content, "locked": eve["locked"]}))
    with pytest.raises(IdentityError):
        keys.load_user("alice", "same")


@pytest.mark.parametrize(
    "change",
    [{"ops": 2**31}, {"memory": 2**40}, {"ops": 0}, {"kdf": "none"}, {"salt": "00"}, {"sealed": ""}, {"salt": None}],
)
def test_a_damaged_file_is_told_and_asks_for_no_endless_work(key: Path, home: Path, change: dict[str, object]) -> None:
    Home(home).set_passphrase("alice", None, "geheim")
    content = json.loads(key.read_text())
    content["locked"] |= change
    key.write_text(json.dumps(content))
    with pytest.raises(IdentityError):
        Home(home).load_user("alice", "geheim")


@pytest.mark.usefixtures("key")
def test_the_doctor_asks_for_it_and_says_that_it_is_the_keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Home(home).set_passphrase("alice", None, "geheim")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for typed, ok in (("wrong", False), ("geheim", True)):
        monkeypatch.setattr("coflows.cli.context.getpass", lambda _prompt, typed=typed: typed)
        checks = {one.name: one.ok for one in diagnose(Options())}
        assert checks["keys"] is ok and ("store" in checks) is ok


def test_the_command_line_sets_changes_and_removes_it_and_shows_it_nowhere(key: Path, home: Path) -> None:
    first, second = canary("first"), canary("second")
    hunt = Hunt({"first": first, "second": second})

    def command(*words: str, known: str | None = None, typed: str = "") -> int:
        environment = {**os.environ, **({} if known is None else {"COFLOWS_PASSPHRASE": known})}
        done = subprocess.run(
            [sys.executable, "-m", "coflows.cli", *words], env=environment, input=typed, capture_output=True, text=True
        )
        hunt.through(" ".join(words), done.stdout + done.stderr + " ")
        return done.returncode

    Home(home).set_passphrase("alice", None, first)
    assert command("key", "passphrase", known="wrong", typed=f"{second}\n") == 3
    assert command("key", "passphrase", known=first, typed=f"{second}\n") == 0
    assert command("key", "passphrase", "--remove", known=second) == 0
    assert not Home(home).is_locked("alice") and hunt.found == []


@pytest.mark.parametrize(
    ("words", "then"),
    [
        ("registry run --url http://localhost:0 --loader store", "startup complete"),
        ("registry run --url http://localhost:0 --loader {home}/loader.yaml", "startup complete"),
        ("registry show --service http://localhost:1", "localhost:1"),
        ("doctor", "can be read and written"),
        ("flows", "echo"),
    ],
)
def test_a_command_at_a_terminal_asks_once_and_shows_it_nowhere(key: Path, home: Path, words: str, then: str) -> None:
    with connect("alice") as cl:
        serve_flow(cl, "EchoFlowModule.EchoFlow", "echo")
    (home / "loader.yaml").write_text("flows: [{endpoint: other, name: Other, description: One.}]\nuser: alice\n")
    Home(home).set_passphrase("alice", None, passphrase := canary("passphrase"))
    command = [sys.executable, "-m", "coflows.cli", *words.format(home=home).split()]
    # At a terminal of its own, which goes with it.
    terminal = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *command]
    with subprocess.Popen(terminal, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None
        shown = b""
        while b"Passphrase of alice: " not in shown:
            shown += (more := process.stdout.read(1000))
            assert more, shown
        process.stdin.write(f"{passphrase}\n".encode())
        while then.encode() not in shown:
            shown += (more := process.stdout.read(1000))
            assert more, shown
        # The terminal's end would do, but for who is told to outlive it (nohup).
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        process.kill()
    assert shown.count(b"Passphrase") == 1 and passphrase.encode() not in shown
