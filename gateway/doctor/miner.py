"""Checks of who this miner is: its hotkey, the chain's word on it, the address that validators call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from gateway.doctor.finding import Finding, bad, good, warning
from gateway.errors import StartupError
from gateway.settings import Settings
from gateway.subnet.hotkey import load_hotkey
from gateway.subnet.metagraph import REFRESH_INTERVAL_S, load_nodes
from gateway.subnet.standing import Endpoint, Standing, endpoint_name, open_chain, read_standing

if TYPE_CHECKING:
    from bittensor import Client

CHAIN_TIMEOUT_S: Final = 20.0
CALL_TIMEOUT_S: Final = 3.0
STALE_BLOCK_S: Final = 120.0


def hotkey(path: Path) -> Finding:
    """Whether the hotkey file can be read and used, whose it is, and who else may read it."""
    try:
        address = load_hotkey(path).ss58_address
    except StartupError as error:
        says, _, remedy = str(error).partition("; ")
        return bad("hotkey", says.removeprefix("hotkey file "), remedy)
    if path.stat().st_mode & 0o077:
        return warning("hotkey", f"{address}, but {path} is open to other users", f"chmod 600 {path}")
    return good("hotkey", address)


def hotkey_owner(path: Path, uid: int) -> Finding:
    """Whether the containers' user (MINER_UID) may read the file that only its owner may read."""
    try:
        owner = path.stat().st_uid
    except OSError as error:
        return bad("MINER_UID", f"{path}: {(error.strerror or str(error)).lower()}", "set WALLET_NAME and HOTKEY_NAME")
    if owner == uid or path.stat().st_mode & 0o004:
        return good("MINER_UID", f"{uid} may read the hotkey file")
    return bad("MINER_UID", f"{uid} may not read {path}, which is {owner}'s", f"set MINER_UID={owner} in deploy/.env")


def wallet(settings: Settings) -> Finding:
    """The public half of the coldkey; a miner needs no more of it, and not even that."""
    file = settings.wallet_path / settings.wallet_name / "coldkeypub.txt"
    if file.is_file():
        return good("wallet", f"{settings.wallet_name}, with its coldkey's public half")
    return good("wallet", f"{settings.wallet_name}, without coldkey, as a host that only serves should be")


def nodes_file(settings: Settings, now: float | None = None) -> Finding:
    """The saved nodes, which decide who is answered until the chain has been read, or for good."""
    path = settings.nodes_file
    if not path.exists():
        if settings.refresh_nodes:
            return good("saved nodes", "none yet, the chain is read at start")
        return bad("saved nodes", f"{path} is not there, and REFRESH_NODES=false", "set REFRESH_NODES=true")
    try:
        count = len(load_nodes(path))
    except StartupError as error:
        return bad("saved nodes", str(error).partition("; ")[0], f"delete {path}, or correct NODES_FILE")
    age_s = (time.time() if now is None else now) - path.stat().st_mtime
    says = f"{count} nodes, {_age(age_s)} old"
    if not count:
        return bad("saved nodes", says, f"delete {path}: nobody would be answered")
    if not settings.refresh_nodes and age_s > 86400:
        return warning("saved nodes", says, "save them anew, or set REFRESH_NODES=true: validators come and go")
    return good("saved nodes", says)


async def standing(settings: Settings, address: str) -> tuple[Standing | None, float | None, Finding]:
    """What the chain says of the hotkey, the age of its last block in seconds, and whether it could be asked."""
    where = endpoint_name(settings)
    if not settings.refresh_nodes:
        return None, None, good("chain", "not asked, because REFRESH_NODES=false")
    started = time.monotonic()
    try:
        chain = open_chain(settings)
        async with asyncio.timeout(CHAIN_TIMEOUT_S):
            await chain.connect()
        try:
            async with asyncio.timeout(CHAIN_TIMEOUT_S):
                found = await read_standing(chain, settings.netuid, address, None)
            age_s = await _block_age_s(chain)
        finally:
            await chain.close()
    except StartupError as error:
        says, _, remedy = str(error).partition("; ")
        return None, None, bad("chain", says, remedy)
    except Exception as error:  # whatever the SDK raises where there is no network
        why = " ".join(str(error).split())[:160] or f"no answer in {CHAIN_TIMEOUT_S:.0f} s"
        said = bad if not settings.nodes_file.exists() else warning
        return None, None, said("chain", f"{where}: {why}", "check the network, or set SUBTENSOR_ADDRESS")
    return found, age_s, good("chain", f"{where} answered in {time.monotonic() - started:.1f} s")


def chain_age(age_s: float | None) -> Finding:
    """Whether the endpoint follows the chain."""
    if age_s is None:
        return warning("chain age", "not told by this endpoint", "see that SUBTENSOR_ADDRESS follows the chain")
    says = f"last block {_age(age_s)} ago"
    if age_s > STALE_BLOCK_S:
        return bad("chain age", says, "the endpoint or this host's clock is wrong: set another SUBTENSOR_ADDRESS")
    return good("chain age", says)


def registration(found: Standing, settings: Settings) -> list[Finding]:
    """Whether the hotkey is on the subnet, and what it earns."""
    if found.uid is None:
        return [
            bad(
                "registration",
                f"not on subnet {settings.netuid} {found.subnet}; registering costs {found.cost} now",
                "`touchline register --ip ADDRESS`, where the wallet is",
            )
        ]
    earned = f"{found.incentive:.4f}"
    return [
        good("registration", f"uid {found.uid} of subnet {settings.netuid} {found.subnet}"),
        good("stake", str(found.stake)),
        good("incentive", earned)
        if found.incentive > 0
        else warning("incentive", earned, "new miners wait hours for it; else look at the console for what is refused"),
    ]


def announced(found: Standing, settings: Settings, own: Collection[str]) -> Finding:
    """The address that validators call, against this host's."""
    port = settings.external_port or settings.port
    if found.announced is None:
        return bad("announced address", "none", "`touchline register --ip ADDRESS`, this host's public one")
    says = f"{found.announced}"
    if found.announced.port != port:
        return bad(
            "announced address", f"{says}, this gateway is at port {port}", "`touchline register`, or set EXTERNAL_PORT"
        )
    if str(found.announced.ip) in own:
        return good("announced address", f"{says}, this host's")
    return warning(
        "announced address",
        f"{says}; this host's are {', '.join(sorted(own)) or 'unknown'}",
        "right where a router or provider passes that address on to this host; else `touchline register --ip ADDRESS`",
    )


async def reachable(endpoint: Endpoint) -> Finding:
    """Whether the announced address answers when it is called from here."""
    about, outside = "reachability", f"from another host: curl http://{endpoint}/availability"
    try:
        # Without the environment's proxies, which would answer in its place.
        async with httpx.AsyncClient(trust_env=False, timeout=CALL_TIMEOUT_S) as client:
            answer = await client.get(f"http://{endpoint}/availability")
            told = answer.json()
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        return warning(about, f"{endpoint} does not answer from here: {why}", f"open the port; {outside}")
    except ValueError:
        return bad(about, f"{endpoint} answers, but it is no gateway", "see what listens there")
    if isinstance(told, dict) and "available" in told:
        return good(about, f"{endpoint} answers from here; {outside}")
    return bad(about, f"{endpoint} answers, but it is no gateway", "see what listens there")


async def _block_age_s(chain: Client) -> float | None:
    from bittensor import storage  # noqa: PLC0415  slow to import

    try:
        async with asyncio.timeout(CHAIN_TIMEOUT_S):
            stamp_ms = await chain.query(storage.Timestamp.Now, [])
        return time.time() - float(stamp_ms) / 1000
    except Exception:  # an endpoint that does not tell it is asked for nothing else
        return None


def _age(seconds: float) -> str:
    if seconds < 2 * REFRESH_INTERVAL_S:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
