"""`touchline register`: the hotkey's place on the subnet, and the address that is announced for it."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands.terminal import CommandError, aside, read_settings, screen
from gateway.errors import StartupError
from gateway.settings import Settings
from gateway.subnet.hotkey import load_hotkey
from gateway.subnet.standing import Endpoint, Standing, endpoint_name, open_chain, read_standing
from local.progress import spinner

if TYPE_CHECKING:
    from bittensor import Client, Intent, Wallet

READ_TIMEOUT_S = 60.0


class RegisterError(CommandError):
    """A CommandError of this command's."""


def run_register(
    console: Console,
    settings: Settings,
    *,
    ip: str | None,
    max_cost: float | None,
    yes: bool,
    element: str | None = None,
    image: str | None = None,
) -> None:
    """Print the standing of the hotkey and what --yes does; with `yes` do it. Raises RegisterError.

    `element` and `image` are what the private track wants committed; both or none.
    """
    import bittensor  # noqa: PLC0415  slow to import

    try:
        hotkey = load_hotkey(settings.hotkey_file).ss58_address
    except StartupError as error:
        raise RegisterError(str(error)) from error
    record = _record(element, image, hotkey)
    wallet = bittensor.Wallet(settings.wallet_name, settings.hotkey_name, str(settings.wallet_path))
    try:
        asyncio.run(_register(console, settings, wallet, hotkey, ip=ip, max_cost=max_cost, yes=yes, record=record))
    except StartupError as error:
        raise RegisterError(str(error)) from error
    except bittensor.ChainError as error:
        raise RegisterError(f"the chain refused: {error.message}; {error.remediation}") from error
    except (bittensor.RpcConnectionError, OSError) as error:
        raise RegisterError(
            f"the chain at {endpoint_name(settings)} cannot be reached: {str(error) or 'no answer'}; "
            "check the network, or set SUBTENSOR_ADDRESS"
        ) from error
    except (bittensor.BittensorError, ValueError) as error:  # a wrong password among them
        raise RegisterError(f"{error}; check SUBTENSOR_NETWORK, SUBTENSOR_ADDRESS and the wallet") from error


def choose_endpoint(ip: str | None, announced: Endpoint | None, port: int, *, private: bool = False) -> Endpoint:
    """The address to announce: `ip`, else the one that is announced now, and the settings' port. Raises RegisterError.

    An address that the internet cannot reach is refused unless `private`.
    """
    if ip is None and announced is None:
        raise RegisterError("no address is announced yet: give this host's public one with --ip")
    try:
        address = ipaddress.IPv4Address(ip) if ip is not None else announced.ip  # type: ignore[union-attr]
    except ValueError as error:
        raise RegisterError(f"--ip {ip} is not an IPv4 address, which is what validators call") from error
    if not (address.is_global or private):
        raise RegisterError(
            f"validators cannot reach {address}, it is not a public address: give the public one with --ip"
        )
    return Endpoint(address, port)


def _record(element: str | None, image: str | None, hotkey: str) -> str | None:
    if element is None and image is None:
        return None
    if element is None or image is None:
        raise RegisterError("the private track wants both committed: --element OWNER/NAME and --image NAME:TAG@DIGEST")
    from gateway.subnet.commitment import commitment_record  # noqa: PLC0415  slow to import

    try:
        return commitment_record(element, image, hotkey)
    except ValueError as error:
        raise RegisterError(str(error)) from error


def steps(
    standing: Standing, netuid: int, hotkey: str, endpoint: Endpoint | None, record: str | None = None
) -> list[Intent]:
    """What is left to do, in order: registering when the hotkey is not, announcing when the address is another.

    `record` is what is committed then; whether the chain has it already is sealed.
    """
    from bittensor import BurnedRegister, ServeAxon  # noqa: PLC0415

    wanted: list[Intent] = []
    if standing.uid is None:
        wanted.append(BurnedRegister(netuid=netuid, hotkey_ss58=hotkey))
    if endpoint is not None and endpoint != standing.announced:
        # Protocol and version stay the SDK's: 4 and 1, as other miners of this protocol announce.
        wanted.append(ServeAxon(netuid=netuid, ip=str(endpoint.ip), port=endpoint.port))
    if record is not None:
        from gateway.subnet.commitment import Commit  # noqa: PLC0415

        wanted.append(Commit(netuid=netuid, record=record))
    return wanted


def obstacles(standing: Standing, wallet: Wallet, max_cost: float | None) -> list[str]:
    """Why registering would fail or is not wanted at this price; nothing for a hotkey that is registered."""
    from bittensor import tao  # noqa: PLC0415

    if standing.uid is not None:
        return []
    found = []
    if not standing.registration_open:
        found.append("the subnet takes no registrations now")
    if max_cost is not None and standing.cost > tao(max_cost):
        found.append(f"registering costs {standing.cost}, more than --max-cost {max_cost:g}")
    for file in (wallet.coldkey_file, wallet.coldkeypub_file):
        if not file.is_readable():
            found.append(
                f"registering is paid by the coldkey, and {file.path} cannot be read here: run this where the wallet is"
            )
            break
    if standing.balance is not None and standing.balance < standing.cost:
        found.append(f"the coldkey {standing.coldkey} has {standing.balance}, registering costs {standing.cost}")
    return found


async def _register(
    console: Console,
    settings: Settings,
    wallet: Wallet,
    hotkey: str,
    *,
    ip: str | None,
    max_cost: float | None,
    yes: bool,
    record: str | None,
) -> None:
    coldkey = wallet.coldkeypub.ss58_address if wallet.coldkeypub_file.is_readable() else None
    with spinner(aside, "asking the chain"):
        async with asyncio.timeout(READ_TIMEOUT_S):
            chain = open_chain(settings)
            await chain.connect()
    try:
        with spinner(aside, "hotkey's standing"):
            async with asyncio.timeout(READ_TIMEOUT_S):
                standing = await read_standing(chain, settings.netuid, hotkey, coldkey)
        in_the_way = obstacles(standing, wallet, max_cost)
        endpoint = None
        try:
            port = settings.external_port or settings.port
            endpoint = choose_endpoint(ip, standing.announced, port, private=settings.subtensor_network == "local")
        except RegisterError as error:
            in_the_way.append(str(error))
        console.print(standing_table(settings, hotkey, standing))
        wanted = steps(standing, settings.netuid, hotkey, endpoint, record)
        refused = "\n".join(in_the_way)
        if yes and refused:
            raise RegisterError(refused)
        for number, step in enumerate(wanted, 1):
            if yes:
                await _carry_out(console, chain, step, wallet)
            else:
                _say(console, f"--yes would {number}. {step.summary()}")
        if refused:
            _say(console, f"--yes would be refused: {refused}")
        elif not wanted:
            _say(console, "nothing to do: registered, and this address is announced")
        if endpoint is not None:
            _say(console, f"from another host: curl http://{endpoint}/availability")
    finally:
        await chain.close()


async def _carry_out(console: Console, chain: Client, step: Intent, wallet: Wallet) -> None:
    _say(console, f"{step.summary()} ...")
    result = (await chain.execute(step, wallet)).raise_for_failure()
    told = [f"extrinsic {result.extrinsic_id}", result.fee and f"fee {result.fee}", result.explorer_url]
    _say(console, f"done: {', '.join(filter(None, told))}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def standing_table(settings: Settings, hotkey: str, standing: Standing) -> Table:
    """The standing, a line each."""
    table = Table.grid(padding=(0, 2))
    registered = "no"
    if standing.uid is not None:
        registered = f"uid {standing.uid}, stake {standing.stake}, incentive {standing.incentive:.4f}"
    rows: dict[str, Any] = {
        "network": endpoint_name(settings),
        "subnet": f"{settings.netuid} {standing.subnet}, {standing.uids} of {standing.max_uids} places taken",
        "wallet": f"{settings.wallet_name}, hotkey {settings.hotkey_name}",
        "hotkey": hotkey,
        "registered": registered,
        "cost": f"{standing.cost} to register now",
        "coldkey": standing.coldkey or "not known here",
        "balance": standing.balance if standing.balance is not None else "not known here",
        "announced": standing.announced or "nothing",
    }
    for name, value in rows.items():
        # As text: a subnet's name is whatever its owner wrote.
        table.add_row(name, Text(str(value)))
    return table


def command(
    ip: Annotated[
        str | None, typer.Option(help="This host's public IPv4 address. Default: the one that is announced now.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="TAO that registering may cost at most.")] = None,
    element: Annotated[
        str | None, typer.Option(help="Private track: the element's id to commit, as its manifest has it.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Private track: the image to commit, REGISTRY/NAME:TAG@sha256:DIGEST.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
) -> None:
    """Register the hotkey with the subnet and announce this miner's address. Settings as for `serve`."""
    run_register(screen, read_settings(), ip=ip, max_cost=max_cost, yes=yes, element=element, image=image)
