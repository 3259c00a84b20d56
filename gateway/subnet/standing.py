"""What the chain says of the subnet and of one hotkey on it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import StartupError
from gateway.settings import Settings

if TYPE_CHECKING:
    from bittensor import Balance, Client


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where validators send challenges."""

    ip: ipaddress.IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the chain says of the subnet and of one hotkey on it.

    `cost` and `balance` are in TAO, the balance None while no coldkey is known; `stake` is in the subnet's own unit.
    `uid` is None while the hotkey is not registered, `announced` while nothing (or an IPv6 address) is served.
    """

    subnet: str
    uids: int
    max_uids: int
    registration_open: bool
    cost: Balance
    uid: int | None
    stake: Balance | None
    incentive: float
    announced: Endpoint | None
    coldkey: str | None
    balance: Balance | None


def open_chain(settings: Settings) -> Client:
    """The client of the chain, not connected. The one function that decides which chain is spoken to."""
    import bittensor  # noqa: PLC0415  slow to import

    return bittensor.Client(settings.subtensor_address or settings.subtensor_network)


async def read_standing(chain: Client, netuid: int, hotkey: str, coldkey: str | None) -> Standing:
    """Ask the chain. `coldkey` is the wallet's own, if known here. Raises StartupError, and what the SDK raises."""
    from bittensor import storage  # noqa: PLC0415

    metagraph = await chain.subnets.metagraph(netuid, commitments=False)
    if metagraph is None:
        raise StartupError(f"there is no subnet {netuid} on this network; check NETUID and SUBTENSOR_NETWORK")
    neuron = metagraph.by_hotkey(hotkey)
    owner = neuron.coldkey if neuron else coldkey
    return Standing(
        subnet=metagraph.name,
        uids=len(metagraph),
        max_uids=metagraph.max_uids,
        registration_open=bool(await chain.query(storage.SubtensorModule.NetworkRegistrationAllowed, [netuid])),
        cost=await chain.subnets.burn(netuid),
        uid=neuron.uid if neuron else None,
        stake=neuron.total_stake if neuron else None,
        incentive=neuron.incentive if neuron else 0.0,
        announced=_parse_axon(neuron.axon) if neuron else None,
        coldkey=owner,
        balance=await chain.balances.get(owner) if owner else None,
    )


def endpoint_name(settings: Settings) -> str:
    """Which chain that is, for people."""
    return settings.subtensor_address or settings.subtensor_network


def _parse_axon(text: str | None) -> Endpoint | None:
    """What the SDK writes as `ip:port`."""
    if text is None or text.startswith("["):
        return None
    ip, _, port = text.rpartition(":")
    return Endpoint(ipaddress.IPv4Address(ip), int(port))
