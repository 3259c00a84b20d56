"""Settings as people have them in their .env."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.app import address_of, build_app
from gateway.errors import StartupError
from gateway.settings import Settings
from local.stack import make_keys


def given(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> object:
    """What the setting is then."""
    monkeypatch.setenv(name, value)
    return getattr(Settings(_env_file=None), name.lower())


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("LOG_LEVEL", "INFO", "info"),
        ("LOG_LEVEL", "Warn", "warning"),
        ("LOG_LEVEL", "CRITICAL ", "critical"),
        ("DEVICE", "CUDA", "cuda"),
        ("DEVICE", " cuda:0 ", "cuda"),
        ("DEVICE", "MPS", "mps"),
        ("SUBTENSOR_NETWORK", "Finney ", "finney"),
        ("TRITON_SHARED_MEMORY", "\tOFF", "off"),
        ("VIDEO_DECODER", "NVDEC", "nvdec"),
        ("REFRESH_NODES", " False ", False),
        ("PORT", "8000 ", 8000),
        ("PORT", " ", 7999),
        ("LOG_LEVEL", " ", "info"),
        ("WALLET_NAME", " mine", "mine"),
        ("CONSOLE_TOKEN", " kept ", " kept "),
    ],
)
def test_blanks_and_case_of_a_choice_mean_nothing(
    name: str, value: str, meant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert given(monkeypatch, name, value) == meant


@pytest.mark.parametrize(("name", "value"), [("DEVICE", "rocm"), ("DEVICE", "cuda:x"), ("LOG_LEVEL", "loud")])
def test_what_is_no_choice_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        given(monkeypatch, name, value)


def test_mps_is_the_cpu_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own: dict[str, Any] = {name.lower(): value for name, value in make_keys(tmp_path).environment().items()}
    settings = Settings(_env_file=None, device="mps", console_port=0, metrics_port=0, **own)
    assert not settings.on_gpu
    with caplog.at_level(logging.WARNING):
        build_app(settings)
    assert "DEVICE=mps" in caplog.text


@pytest.mark.parametrize(
    ("protocols", "verify_enabled", "wanted"),
    [
        ("predict", True, False),
        ("private", False, False),
        ("private,predict", False, False),
        ("private", True, True),
        ("soccer,private", False, True),
    ],
)
def test_a_wallet_is_wanted_only_where_something_is_signed_for_it(
    protocols: str, verify_enabled: bool, wanted: bool, tmp_path: Path
) -> None:
    settings = Settings(
        _env_file=None, wallet_path=tmp_path / "none", protocols=protocols, verify_enabled=verify_enabled
    )
    if wanted:
        with pytest.raises(StartupError, match="hotkey file"):
            address_of(settings)
    else:
        assert address_of(settings) == ""
        keys = make_keys(tmp_path)
        own: dict[str, Any] = {name.lower(): value for name, value in keys.environment().items()}
        assert address_of(Settings(_env_file=None, protocols=protocols, **own)) == keys.miner.ss58_address


@pytest.mark.parametrize(
    ("value", "meant"),
    [("soccer", ("soccer",)), ("Predict, private,", ("predict", "private")), ("predict,predict", ("predict",))],
)
def test_protocols_are_named_with_commas_between(
    value: str, meant: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOCOLS", value)
    assert Settings(_env_file=None).protocol_names == meant


@pytest.mark.parametrize("value", [",", "soccer,football"])
def test_protocols_that_are_none_are_refused_with_those_there_are(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOLS", value)
    with pytest.raises(ValidationError, match="soccer, predict, private"):
        Settings(_env_file=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MIN_STAKE_THRESHOLD", "inf"), ("CHALLENGE_TIMEOUT_S", "inf"), ("CONFIDENCE", "nan"), ("NETUID", "-1")],
)
def test_numbers_that_mean_nothing_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        given(monkeypatch, name, value)


def test_a_home_that_nobody_knows_is_left_for_whoever_looks_there(monkeypatch: pytest.MonkeyPatch) -> None:
    path = given(monkeypatch, "WALLET_PATH", "~nobody-of-this-name/wallets")
    assert path == Path("~nobody-of-this-name/wallets")
