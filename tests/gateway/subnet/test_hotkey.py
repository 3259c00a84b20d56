"""The miner's hotkey file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bittensor_wallet import Keyfile, Keypair

from gateway.errors import StartupError
from gateway.subnet.hotkey import load_hotkey
from tests.support.keys import key_of


def test_the_seed_gives_the_address(tmp_path: Path) -> None:
    seed = "0x" + "07" * 32
    (tmp_path / "hot").write_text(json.dumps({"secretSeed": seed, "accountId": "0x"}))
    assert load_hotkey(tmp_path / "hot").ss58_address == key_of(seed).ss58_address


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"secretSeed": "0x12"}', '{"secretSeed": null}', "\x00\xff"])
def test_a_broken_file_is_named_with_the_remedy(text: str, tmp_path: Path) -> None:
    (tmp_path / "hot").write_text(text)
    with pytest.raises(StartupError, match=r"hot.*HOTKEY_NAME"):
        load_hotkey(tmp_path / "hot")


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"nowhere.*WALLET_NAME"):
        load_hotkey(tmp_path / "nowhere")


PHRASE = "grape axis cross mushroom supreme devote rude park pause host claim acquire"
MADE = {
    "a URI": Keypair.create_from_uri("//Alice"),
    "a phrase": Keypair.create_from_mnemonic(PHRASE),
    "derivation from a phrase": Keypair.create_from_uri(f"{PHRASE}//hard/soft"),
    "a private key": Keypair.create_from_private_key(
        "0x98abb15447c6f89eed3058da7fadbabc4ab1b180106189d644f739c568840c0f410923ef8b08423dbacb96a504766c2dfd3835bfe0d4e389f3d3aa90567c8700"
    ),
}


def write(path: Path, key: Keypair, **changed: object) -> Path:
    """A hotkey file by the library, with some fields changed."""
    Keyfile(str(path), "hot").set_keypair(key, encrypt=False, overwrite=True)
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return path


@pytest.mark.parametrize("made", MADE)
def test_a_key_made_from_anything_signs(made: str, tmp_path: Path) -> None:
    key = load_hotkey(write(tmp_path / "hot", MADE[made]))
    assert key.ss58_address == MADE[made].ss58_address
    assert MADE[made].verify("message", key.sign("message"))


def test_a_phrase_beside_a_null_seed(tmp_path: Path) -> None:
    (tmp_path / "hot").write_text(json.dumps({"secretPhrase": PHRASE, "secretSeed": None}))
    assert load_hotkey(tmp_path / "hot").ss58_address == MADE["a phrase"].ss58_address


def test_the_address_in_another_networks_format_is_the_same_key(tmp_path: Path) -> None:
    polkadot = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5"
    load_hotkey(write(tmp_path / "hot", MADE["a URI"], ss58Address=polkadot))


def test_an_address_of_another_key_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "hot", MADE["a URI"], ss58Address=MADE["a phrase"].ss58_address)
    with pytest.raises(StartupError, match=MADE["a phrase"].ss58_address):
        load_hotkey(path)


@pytest.mark.parametrize("kind", [0, "0", "ed25519"])
def test_an_ed25519_key_is_refused_by_name(kind: object, tmp_path: Path) -> None:
    seed = "0x" + "07" * 32
    (tmp_path / "hot").write_text(json.dumps({"secretSeed": seed, "cryptoType": kind}))
    with pytest.raises(StartupError, match="no sr25519"):
        load_hotkey(tmp_path / "hot")


def test_an_ed25519_key_as_the_library_writes_it_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "hot", key_of("0x" + "11" * 32, 0))
    with pytest.raises(StartupError, match="no sr25519"):
        load_hotkey(path)


def test_a_public_key_alone_signs_nothing(tmp_path: Path) -> None:
    key = MADE["a URI"]
    assert key.public_key is not None
    (tmp_path / "hot").write_text(json.dumps({"publicKey": key.public_key.hex(), "ss58Address": key.ss58_address}))
    with pytest.raises(StartupError, match=r"[Nn]o private key"):
        load_hotkey(tmp_path / "hot")


@pytest.mark.parametrize("start", [b"$NACL", b"$ANSIBLE_VAULT;1.1;AES256\n", b"gAAAAA"])
def test_an_encrypted_file_is_called_so(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "hot").write_bytes(start + bytes(range(120, 255)))
    with pytest.raises(StartupError, match=r"is encrypted.*regen-hotkey"):
        load_hotkey(tmp_path / "hot")


def test_a_folder_is_no_hotkey_file(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"directory.*HOTKEY_NAME"):
        load_hotkey(tmp_path)
