"""`touchline register` on a subnet in memory, with the real SDK above it, real keys and real signatures."""

from __future__ import annotations

import inspect
import io
import json
import os
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

import bittensor
import pytest
from rich.console import Console

from commands import register as register_module
from commands.register import RegisterError, choose_endpoint, run_register
from gateway.settings import Settings
from gateway.subnet.standing import Endpoint
from tests.support.keys import key_of
from tests.support.subnet import FakeSubstrate

PUBLIC = "203.0.113.7"  # of a range for documentation, which ipaddress does not call global


@dataclass
class Miner:
    """A wallet with an unencrypted coldkey, and the chain it meets."""

    wallet: bittensor.Wallet
    chain: FakeSubstrate
    settings: Settings

    @property
    def hotkey(self) -> str:
        return str(self.wallet.hotkey.ss58_address)

    @property
    def coldkey(self) -> str:
        return str(self.wallet.coldkeypub.ss58_address)

    def register(
        self, ip: str | None = "8.8.4.4", *, yes: bool = False, max_cost: float | None = None, **settings: object
    ) -> str:
        """What is printed. The same chain is asked each time."""
        told = io.StringIO()
        run_register(
            Console(file=told, width=200, color_system=None),
            self.settings.model_copy(update=settings),
            ip=ip,
            max_cost=max_cost,
            yes=yes,
        )
        return told.getvalue()

    @property
    def calls(self) -> list[str]:
        return [call.function for call, _ in self.chain.submitted]


@pytest.fixture
def miner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Miner:
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path / "symbols.json"))
    wallet = bittensor.Wallet("mine", "hot", str(tmp_path))
    wallet.create_new_coldkey(use_password=False, suppress=True)
    wallet.create_new_hotkey(suppress=True)
    chain = FakeSubstrate()
    monkeypatch.setattr(register_module, "open_chain", lambda _: bittensor.Client("test", substrate=chain))
    settings = Settings(_env_file=None, wallet_path=tmp_path, wallet_name="mine", hotkey_name="hot", port=8123)
    chain.balances[str(wallet.coldkeypub.ss58_address)] = 2.0
    return Miner(wallet, chain, settings)


def test_without_yes_nothing_is_changed(miner: Miner) -> None:
    told = miner.register()
    assert not miner.chain.submitted and not miner.chain.shielded
    for expected in (
        miner.hotkey,
        miner.coldkey,
        "finney",
        "44 [/red] Score",
        "wallet",
        "0.500000000 to register",
        "2.000000000",
    ):
        assert expected in told
    assert f"--yes would 1. register {miner.hotkey} on netuid 44" in told
    assert "--yes would 2. serve axon 8.8.4.4:8123 on netuid 44" in told
    assert "curl http://8.8.4.4:8123/availability" in told
    assert miner.chain.closed


def test_registers_and_then_announces(miner: Miner) -> None:
    told = miner.register(yes=True)
    (registering, payer), (serving, server) = miner.chain.submitted
    assert registering == bittensor.calls.SubtensorModule.burned_register(netuid=44, hotkey=miner.hotkey)
    assert payer == miner.coldkey
    assert serving == bittensor.calls.SubtensorModule.serve_axon(
        netuid=44,
        version=1,
        ip=int(IPv4Address("8.8.4.4")),
        port=8123,
        ip_type=4,
        protocol=4,
        placeholder1=0,
        placeholder2=0,
    )
    assert server == miner.hotkey
    assert told.count("done:") == 2
    again = miner.register(yes=True)
    assert "nothing to do" in again
    assert "uid 0" in again
    assert len(miner.chain.submitted) == 2


def test_a_registered_hotkey_keeps_its_address_unless_told(miner: Miner) -> None:
    miner.chain.add("other", "somebody")
    miner.chain.add(miner.hotkey, miner.coldkey, int(IPv4Address("8.8.8.8")), 7000, incentive=0.25)
    told = miner.register(None)
    assert "uid 1" in told and "incentive 0.2500" in told and "8.8.8.8:7000" in told
    assert "serve axon 8.8.8.8:8123" in told, "PORT has changed"
    assert "nothing to do" in miner.register(None, external_port=7000)
    miner.register(external_port=7000, yes=True)
    assert miner.calls == ["serve_axon"]


def test_announcing_needs_the_hotkey_file_alone(miner: Miner, tmp_path: Path) -> None:
    """As in the gateway's container: one file with a seed, in a folder that may not be written."""
    miner.chain.add(miner.hotkey, miner.coldkey)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "hot":
            path.unlink()
    folder = tmp_path / "mine" / "hotkeys"
    seed = json.loads((folder / "hot").read_text())["secretSeed"]
    (folder / "hot").write_text(json.dumps({"secretSeed": seed}))
    folder.chmod(0o500)
    told = miner.register(yes=True)
    assert miner.coldkey in told and "2.000000000" in told, "the chain says whose the hotkey is"
    assert miner.calls == ["serve_axon"]
    assert [path.name for path in folder.iterdir()] == ["hot"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"balance": 0.4}, "has τ0.400000000, registering costs τ0.500000000"),
        ({"open": False}, "takes no registrations"),
        ({"max_cost": 0.1}, "more than --max-cost 0.1"),
        ({"lost": "coldkey"}, "mine/coldkey cannot be read here"),
        ({"lost": "coldkeypub.txt"}, "mine/coldkeypub.txt cannot be read here"),
        ({"ip": None}, "--ip"),
        ({"ip": "192.168.1.5"}, "192.168.1.5, it is not a public address"),
        ({"ip": "example.org"}, "example.org is not an IPv4 address"),
    ],
)
def test_what_stands_in_the_way_is_said_before_anything_is_paid(
    change: dict[str, object], expected: str, miner: Miner, tmp_path: Path
) -> None:
    miner.chain.open = bool(change.get("open", True))
    miner.chain.balances[miner.coldkey] = float(str(change.get("balance", 2)))
    if "lost" in change:
        (tmp_path / "mine" / str(change["lost"])).unlink()
    options = {"ip": change.get("ip", "8.8.4.4"), "max_cost": change.get("max_cost")}
    told = miner.register(**options)  # type: ignore[arg-type]
    assert expected in told.split("--yes would be refused: ")[1]
    with pytest.raises(RegisterError) as refused:
        miner.register(**options, yes=True)  # type: ignore[arg-type]
    assert expected in str(refused.value)
    assert not miner.chain.submitted


def test_a_subnet_that_is_not_there(miner: Miner) -> None:
    with pytest.raises(RegisterError, match=r"no subnet 261 .* NETUID"):
        miner.register(netuid=261)


def test_a_missing_hotkey_is_named(miner: Miner) -> None:
    with pytest.raises(RegisterError, match=r"other.*HOTKEY_NAME"):
        miner.register(hotkey_name="other")


def test_what_the_chain_refuses_is_told_and_ends_it(miner: Miner) -> None:
    miner.chain.refuse["burned_register"] = bittensor.ChainError("too many", "TooManyRegistrationsThisBlock")
    with pytest.raises(RegisterError, match="the chain refused: too many; "):
        miner.register(yes=True)
    assert not miner.chain.submitted


def test_what_was_paid_is_not_paid_again(miner: Miner) -> None:
    miner.chain.refuse["serve_axon"] = bittensor.ChainError("too soon", "ServingRateLimitExceeded")
    with pytest.raises(RegisterError, match="too soon; wait"):
        miner.register(yes=True)
    assert miner.calls == ["burned_register"]
    miner.chain.refuse.clear()
    miner.register(yes=True)
    assert miner.calls == ["burned_register", "serve_axon"]


def test_a_wrong_password_of_the_coldkey(miner: Miner, monkeypatch: pytest.MonkeyPatch) -> None:
    miner.wallet.create_new_coldkey(overwrite=True, suppress=True, coldkey_password="right")
    miner.chain.balances[miner.coldkey] = 2
    monkeypatch.setenv("BT_WALLET_PASSWORD", "wrong")
    with pytest.raises(RegisterError, match="wrong password"):
        miner.register(yes=True)
    assert not miner.chain.submitted
    monkeypatch.setenv("BT_WALLET_PASSWORD", "right")
    told = miner.register(yes=True)
    assert miner.calls == ["burned_register", "serve_axon"]
    assert "right" not in told


def test_a_chain_that_cannot_be_reached(tmp_path: Path) -> None:
    """The SDK's own connection."""
    (tmp_path / "w" / "hotkeys").mkdir(parents=True)
    (tmp_path / "w" / "hotkeys" / "h").write_text(json.dumps({"secretSeed": f"0x{os.urandom(32).hex()}"}))
    settings = Settings(
        _env_file=None, wallet_path=tmp_path, wallet_name="w", hotkey_name="h", subtensor_address="ws://127.0.0.1:1"
    )
    with pytest.raises(RegisterError, match=r"ws://127.0.0.1:1 cannot be reached.*SUBTENSOR_ADDRESS"):
        run_register(Console(file=io.StringIO()), settings, ip=None, max_cost=None, yes=False)


def test_the_address_to_announce() -> None:
    now = Endpoint(IPv4Address("8.8.8.8"), 1)
    assert choose_endpoint(None, now, 2) == replace(now, port=2)
    assert choose_endpoint("8.8.4.4", now, 2) == Endpoint(IPv4Address("8.8.4.4"), 2)
    assert choose_endpoint("127.0.0.1", None, 2, private=True) == Endpoint(IPv4Address("127.0.0.1"), 2)
    for private in ("127.0.0.1", "10.1.2.3", "100.64.0.1", "0.0.0.0", PUBLIC):
        with pytest.raises(RegisterError, match="not a public address"):
            choose_endpoint(private, now, 2)


def test_the_chain_in_memory_keeps_the_contract_of_the_sdk() -> None:
    """Whatever the fake answers, the SDK's own substrate takes the same arguments."""
    methods = [
        (name, method)
        for name, method in inspect.getmembers(FakeSubstrate, inspect.isfunction)
        if not name.startswith("_") and name != "add"
    ]
    assert len(methods) > 10
    for name, method in methods:
        for backend in (bittensor.Substrate, bittensor.RpcSubstrate):
            real = inspect.signature(getattr(backend, name)).parameters
            assert list(inspect.signature(method).parameters) == list(real), name


def test_the_calls_have_the_arguments_of_the_sdk() -> None:
    """What register.py uses of it, by name: a change of the SDK is seen here and not on the chain."""
    takes = {
        bittensor.Client: ["network", "substrate"],
        bittensor.Client.query: ["item", "params"],
        bittensor.Client.execute: ["intent", "wallet"],
        bittensor.Wallet: ["name", "hotkey", "path"],
        bittensor.BurnedRegister: ["netuid", "hotkey_ss58"],
        bittensor.ServeAxon: ["netuid", "ip", "port"],
        bittensor.namespaces.Subnets.metagraph: ["netuid", "commitments"],
        bittensor.namespaces.Subnets.burn: ["netuid"],
        bittensor.namespaces.Balances.get: ["address"],
    }
    for called, names in takes.items():
        assert set(names) <= set(inspect.signature(called).parameters), called
    assert bittensor.storage.SubtensorModule.NetworkRegistrationAllowed[:2] == (
        "SubtensorModule",
        "NetworkRegistrationAllowed",
    )
    serve = bittensor.ServeAxon(netuid=1, ip="8.8.8.8", port=1)
    assert (serve.protocol, serve.version, serve.signer) == (4, 1, "hotkey")
    assert bittensor.BurnedRegister.signer == "coldkey"


def test_a_hotkey_that_the_subnet_cannot_use_is_refused_before_anything_is_paid(miner: Miner) -> None:
    path = miner.settings.hotkey_file
    ed25519 = key_of("0x" + "11" * 32, 0)
    path.write_text(json.dumps({"secretSeed": "0x" + "11" * 32, "cryptoType": 0, "ss58Address": ed25519.ss58_address}))
    with pytest.raises(RegisterError, match="no sr25519"):
        miner.register(yes=True)
    assert not miner.chain.submitted and not miner.chain.shielded
