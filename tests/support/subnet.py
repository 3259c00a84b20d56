"""A subnet in memory behind the SDK's own seam: what is above it, composing the calls included, is the real SDK."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bittensor import Balance, ChainError, ExtrinsicResult

RAO = 10**9


@dataclass
class FakeSubstrate:
    """One subnet, as `bittensor.Client(substrate=...)` sees it. `submitted` are the calls and who signed them.

    `refuse` are errors by the function of a call.
    """

    netuid: int = 44
    cost_tao: float = 0.5
    open: bool = True
    balances: dict[str, float] = field(default_factory=dict)
    neurons: list[dict[str, Any]] = field(default_factory=list)
    refuse: dict[str, ChainError] = field(default_factory=dict)
    token_symbols: dict[int, str] = field(default_factory=dict)
    submitted: list[tuple[Any, str]] = field(default_factory=list)
    shielded: dict[str, tuple[Any, str]] = field(default_factory=dict)
    closed: bool = False

    def balance(self, rao: int, netuid: int = 0) -> Balance:
        return Balance.from_rao(rao, netuid)

    async def connect(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True

    async def block_hash(self, block: int | None = None) -> str:
        return f"0x{block or 1}"

    async def block_number(self) -> int:
        return 1

    async def finalized_block_number(self) -> int:
        return 1

    async def block_time(self) -> float:
        return 0.01

    async def query(
        self, module: str, storage_function: str, params: list[Any] | None = None, block_hash: str | None = None
    ) -> Any:
        if storage_function == "Burn":
            return int(self.cost_tao * RAO)
        if storage_function == "NetworkRegistrationAllowed":
            return self.open
        if storage_function == "CollateralLockShare":
            return 0
        if storage_function == "Account":
            assert params
            return {"data": {"free": int(self.balances.get(params[0], 0) * RAO)}}
        raise AssertionError(f"{module}.{storage_function} is not there")

    async def query_map(
        self, module: str, storage_function: str, params: list[Any] | None = None, block_hash: str | None = None
    ) -> list[tuple[Any, Any]]:
        assert storage_function == "TokenSymbol", storage_function
        return [(self.netuid, "x")]

    async def runtime_call(self, api: str, method: str, params: list[Any], block_hash: str | None = None) -> Any:
        assert method == "get_metagraph"
        if params != [self.netuid]:
            return None
        columns = ("hotkeys", "coldkeys", "axons", "incentives", "total_stake")
        return {
            **{name: [neuron[name] for neuron in self.neurons] for name in columns},
            **dict.fromkeys(("block", "tempo", "last_step", "blocks_since_last_step", "network_registered_at"), 1),
            "name": "[/red] Score", "symbol": "x", "owner_hotkey": "o", "owner_coldkey": "o", "max_uids": 256,
        }  # fmt: skip

    async def compose(self, call: Any) -> Any:
        return call

    async def estimate_fee(self, call: Any, keypair: Any) -> Balance:
        return Balance.from_rao(1000)

    async def account_next_index(self, address: str) -> int:
        return 0

    async def mev_next_key(self) -> bytes | None:
        return bytes(1184)

    async def sign_extrinsic(self, call: Any, keypair: Any, *, nonce: int, period: int) -> tuple[bytes, str]:
        keypair.sign(b"payload")
        self.shielded["0xinner"] = (call, keypair.ss58_address)
        return b"signed", "0xinner"

    async def find_extrinsic(self, extrinsic_hash: str, block_hash: str) -> ExtrinsicResult | None:
        return self._apply(*self.shielded.pop(extrinsic_hash))

    async def submit(
        self,
        call: Any,
        keypair: Any,
        *,
        nonce: int | None = None,
        period: int | None = None,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> ExtrinsicResult:
        keypair.sign(b"payload")
        if call.function == "submit_encrypted":
            return ExtrinsicResult(success=True, extrinsic_id="1-1")
        return self._apply(call, keypair.ss58_address)

    def add(self, hotkey: str, coldkey: str, ip: int = 0, port: int = 0, incentive: float = 0.0) -> None:
        self.neurons.append(
            {
                "hotkeys": hotkey,
                "coldkeys": coldkey,
                "axons": {"ip": ip, "port": port, "ip_type": 4, "protocol": 4},
                "incentives": round(incentive * 65535),
                "total_stake": 3 * RAO,
            }
        )

    def _apply(self, call: Any, signer: str) -> ExtrinsicResult:
        if error := self.refuse.get(call.function):
            return ExtrinsicResult(success=False, message=error.message, error=error)
        self.submitted.append((call, signer))
        if call.function == "burned_register":
            self.balances[signer] -= self.cost_tao
            self.add(call.params["hotkey"], signer)
        elif call.function == "serve_axon":
            (mine,) = [neuron for neuron in self.neurons if neuron["hotkeys"] == signer]
            mine["axons"] = {name: call.params[name] for name in ("ip", "port", "ip_type", "protocol")}
        return ExtrinsicResult(success=True, extrinsic_id=f"1-{len(self.submitted)}")
