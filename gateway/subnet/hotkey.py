"""The miner's own hotkey, from its wallet file as bittensor-wallet reads it."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, Final

from bittensor_wallet import CRYPTO_SR25519, Keyfile, Keypair

from gateway.errors import StartupError

NAME_IT: Final = "set WALLET_PATH, WALLET_NAME and HOTKEY_NAME"


def load_hotkey(path: Path, remedy: str = NAME_IT) -> Keypair:
    """The key pair in a hotkey file, of a seed, a phrase, a URI or a private key, able to sign as the subnet wants.

    Raises StartupError, naming the file and what to do, for a file that is missing, encrypted or damaged, a key of
    another kind than sr25519, one that cannot sign, and one whose address is not the one that the file names. `remedy`
    is how another file is named.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "it is a pipe or device")  # which could be waited for without end
        data = path.read_bytes()
    except PermissionError as error:
        raise StartupError(
            f"hotkey file {path} cannot be read: {error.strerror}; run this as its owner (MINER_UID in deploy/.env)"
        ) from error
    except (OSError, ValueError) as error:
        raise StartupError(f"hotkey file {path} cannot be read: {_reason(error)}; {remedy}") from error
    try:
        keyfile = Keyfile(str(path), path.name)
        if keyfile.is_encrypted():
            raise StartupError(
                f"hotkey file {path} is encrypted, and a miner signs with nobody there to type a password; "
                "`btcli wallet regen-hotkey --overwrite` writes the same key unencrypted, from its mnemonic"
            )
        told = _told(data)
        # Before the library reads it, which would take some ed25519 files for sr25519 ones of another address.
        if str(told.get("cryptoType", CRYPTO_SR25519)).strip().lower() not in (str(CRYPTO_SR25519), "sr25519", "none"):
            raise _wrong_kind(path)
        key = keyfile.get_keypair()
        if key.crypto_type != CRYPTO_SR25519:
            raise _wrong_kind(path)
        address = told.get("ss58Address")
        if address is not None and not _same(key, address):
            raise StartupError(
                f"hotkey file {path} names the address {address}, its key is that of {key.ss58_address}: "
                f"the file was changed or mixed up; {remedy}, or `btcli wallet regen-hotkey --overwrite`"
            )
        if not key.verify(b"touchline", key.sign(b"touchline")):
            raise ValueError("its signatures do not verify")
    except StartupError:
        raise
    except Exception as error:  # the library raises types of its own, and bare ones, for what it cannot read
        raise StartupError(
            f"hotkey file {path} holds no usable key ({_reason(error)}); "
            f"`btcli wallet regen-hotkey --overwrite` writes it anew, from its mnemonic; or {remedy}"
        ) from error
    return key


def _told(data: bytes) -> dict[str, Any]:
    told = json.loads(data)
    if not isinstance(told, dict):
        raise ValueError("no JSON object")
    return told


def _same(key: Keypair, address: object) -> bool:
    """Whether an address, of whatever network's format, is the key's."""
    try:
        return bool(Keypair(ss58_address=str(address)).public_key == key.public_key)
    except ValueError:
        return False


def _wrong_kind(path: Path) -> StartupError:
    return StartupError(
        f"hotkey file {path} is no sr25519 key, and the subnet's signatures are sr25519; "
        "`btcli wallet new-hotkey` makes one (before registering: another key is another address)"
    )


def _reason(error: Exception) -> str:
    """In a line, and without the library's habit of naming the kind of error twice."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError | json.JSONDecodeError):
        return "it is not JSON"
    return " ".join(str(error).split()) or type(error).__name__
