"""Where cameras may be: private networks, and neither this machine nor what clouds hide behind link-local addresses."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from gateway.errors import HostRefused
from gateway.video import addresses
from gateway.video.addresses import CameraPlaces


@pytest.mark.parametrize("address", ["10.0.5.3", "192.168.1.9", "8.8.8.8", "fd00::1", "2001:4860::8888"])
def test_private_and_public_networks_are_where_cameras_are(address: str) -> None:
    assert CameraPlaces().allows("camera", ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::7f00:1", "0.0.0.0", "0.0.0.1"),
        *("169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"),
        *("224.0.0.1", "ff02::1", "255.255.255.255"),
    ],
)
def test_this_machine_its_links_and_metadata_are_not(address: str) -> None:
    assert not CameraPlaces().allows("camera", ip_address(address))
    assert not CameraPlaces("camera").allows("camera", ip_address(address))


def test_a_list_narrows_it_and_its_networks_may_be_any() -> None:
    places = CameraPlaces("10.0.5.0/24, cams.example,127.0.0.0/8")
    assert places.allows("x", ip_address("10.0.5.200")) and places.allows("x", ip_address("127.0.0.1"))
    assert places.allows("CAMS.example", ip_address("10.9.9.9"))
    assert not places.allows("x", ip_address("10.9.9.9"))


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "rtsp://x/", "a b"])
def test_what_is_neither_network_nor_name_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        CameraPlaces(wrong)


def test_all_addresses_of_a_name_have_to_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["10.0.5.3", "127.0.0.1"]

    monkeypatch.setattr(addresses, "resolve", two)
    with pytest.raises(HostRefused, match=r"cameras may not be at both\.example"):
        asyncio.run(CameraPlaces().address_of("both.example", 554))


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "localhost"])
def test_any_spelling_of_this_machine_is_found_out(host: str) -> None:
    with pytest.raises(HostRefused):
        asyncio.run(CameraPlaces().address_of(host, 554))
