"""Who may ask: the nodes of the subnet and their stake, from a file and from the chain."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gateway.errors import Forbidden, StartupError
from gateway.settings import Settings
from touchline.atomic_file import replacing

REFRESH_INTERVAL_S = 300.0
FETCH_TIMEOUT_S = 120.0

_log = logging.getLogger(__name__)


class Node(BaseModel):
    """One node of the saved metagraph; what else the file says of it is kept."""

    model_config = ConfigDict(extra="allow")

    hotkey: str
    stake: float
    node_id: int | None = None
    incentive: float = 0.0


Nodes = dict[str, Node]
FetchNodes = Callable[[Settings], Awaitable[Nodes]]
_NODES = TypeAdapter(Nodes)


def load_nodes(path: Path) -> Nodes:
    """The nodes of a saved metagraph, {hotkey: node}. Raises StartupError naming the file."""
    try:
        return _NODES.validate_json(path.read_bytes())
    except OSError as error:
        raise StartupError(
            f"NODES_FILE {path} cannot be read: {error.strerror}; save one or set REFRESH_NODES=true"
        ) from error
    except ValidationError as error:
        raise StartupError(
            f"NODES_FILE {path} is not a saved metagraph: {error.errors()[0]['msg']}; delete it, or name another"
        ) from error


def save_nodes(path: Path, nodes: Nodes) -> None:
    """Replace the saved metagraph in one step."""
    data = {hotkey: node.model_dump() for hotkey, node in nodes.items()}
    with replacing(path) as part:
        part.write_text(json.dumps(data))


async def fetch_nodes(settings: Settings) -> Nodes:
    """Read the nodes of the subnet from the chain. The one function that speaks to it."""
    import bittensor  # noqa: PLC0415  slow to import and not needed with REFRESH_NODES=false

    async with bittensor.Client(settings.subtensor_address or settings.subtensor_network) as chain:
        metagraph = await chain.subnets.metagraph(settings.netuid)
    return {
        neuron.hotkey: Node(
            hotkey=neuron.hotkey,
            coldkey=neuron.coldkey,
            node_id=neuron.uid,
            netuid=settings.netuid,
            stake=float(neuron.total_stake.amount),
            alpha_stake=float(neuron.alpha_stake.amount),
            tao_stake=float(neuron.tao_stake.amount),
            incentive=neuron.incentive,
            trust=neuron.trust,
            last_updated=neuron.last_update,
        )
        for neuron in metagraph.neurons
    }


class Metagraph:
    """The nodes known now. `refresh_forever` keeps them fresh beside the requests, never inside one."""

    def __init__(self, settings: Settings, fetch: FetchNodes = fetch_nodes) -> None:
        self._settings = settings
        self._fetch = fetch
        self._nodes: Nodes = {}
        self._updated: float | None = None
        if not settings.refresh_nodes or (settings.load_old_nodes and settings.nodes_file.exists()):
            self._take(load_nodes(settings.nodes_file))

    @property
    def age_s(self) -> float | None:
        """Seconds since the nodes were read; None before the first time."""
        return None if self._updated is None else time.monotonic() - self._updated

    def __len__(self) -> int:
        return len(self._nodes)

    def find(self, hotkey: str) -> Node | None:
        """The node of a hotkey, if it is on the subnet."""
        return self._nodes.get(hotkey)

    def check_stake(self, hotkey: str) -> None:
        """Raises Forbidden for a hotkey that is not on the subnet or whose stake is under MIN_STAKE_THRESHOLD."""
        node = self._nodes.get(hotkey)
        if node is None:
            raise Forbidden(f"hotkey {hotkey} is not registered on subnet {self._settings.netuid}")
        if node.stake < self._settings.min_stake_threshold:
            raise Forbidden(
                f"hotkey {hotkey} has a stake of {node.stake:g}, "
                f"MIN_STAKE_THRESHOLD is {self._settings.min_stake_threshold:g}"
            )

    async def refresh(self) -> None:
        """Read the nodes from the chain once and save them."""
        async with asyncio.timeout(FETCH_TIMEOUT_S):  # a dead connection may never say so
            nodes = await self._fetch(self._settings)
        self._take(nodes)
        try:
            await asyncio.to_thread(save_nodes, self._settings.nodes_file, nodes)
        except OSError as error:
            _log.warning("NODES_FILE %s cannot be written: %s", self._settings.nodes_file, error.strerror or error)

    async def refresh_forever(self) -> None:
        while True:
            try:
                await self.refresh()
                _log.info("%d nodes read from the chain", len(self._nodes))
            except Exception as error:  # whatever the chain does, the last known nodes go on serving
                _log.warning("the nodes could not be read from the chain, the last known stay: %r", error)
            await asyncio.sleep(REFRESH_INTERVAL_S)

    def _take(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._updated = time.monotonic()
