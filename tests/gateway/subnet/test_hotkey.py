"""The miner's hotkey file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bittensor_wallet import Keypair

from gateway.errors import StartupError
from gateway.subnet.hotkey import load_hotkey


def test_the_seed_gives_the_address(tmp_path: Path) -> None:
    seed = "0x" + "07" * 32
    (tmp_path / "hot").write_text(json.dumps({"secretSeed": seed, "ss58Address": "ignored", "accountId": "0x"}))
    assert load_hotkey(tmp_path / "hot").ss58_address == Keypair.create_from_seed(seed).ss58_address


@pytest.mark.parametrize("text", ["", "{}", '{"secretSeed": "0x12"}', '{"secretSeed": null}'])
def test_a_broken_file_is_named_with_the_remedy(text: str, tmp_path: Path) -> None:
    (tmp_path / "hot").write_text(text)
    with pytest.raises(StartupError, match=r"hot.*HOTKEY_NAME"):
        load_hotkey(tmp_path / "hot")


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"nowhere.*WALLET_NAME"):
        load_hotkey(tmp_path / "nowhere")
