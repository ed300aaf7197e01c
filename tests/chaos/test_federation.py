"""Registries that were killed and cut off from each other agree again once they are back."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.federation import Federation


def test_registries_agree_after_faults(tmp_path: Path) -> None:
    federation = Federation(tmp_path, services=6, flows=60, seed=3)
    try:
        federation.start_all()
        killed, apart = federation.hurt()
        assert killed and apart
        federation.heal()
    finally:
        federation.close()
