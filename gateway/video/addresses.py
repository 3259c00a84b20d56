"""Which hosts a video may come from; the address that was judged is the one that is connected to."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore
import httpx

from gateway.errors import HostRefused
from touchline import __version__

LOCATION = "touchline_location"
"""Among an answer's extensions: what its Location header says."""
CONNECT_S = 5.0
"""For the name and the connection together."""
_STAGGER_S = 0.25
"""After so long the next address of a name is tried beside the one before (RFC 8305, 5)."""
_MOST_ADDRESSES = 8

_GLOBAL_UNICAST = ip_network("2000::/3")
"""All that IANA has given to IPv6 hosts; mapped and compatible IPv4, NAT64, unique local and link-local lie outside."""
_NOT_FOR_OTHERS = [
    ip_network("192.0.0.0/24"),  # IETF protocol assignments; a cloud's metadata answers there
    ip_network("192.88.99.0/24"),  # relays of 6to4
    ip_network("168.63.129.16/32"),  # a cloud's own agent, reachable from its virtual machines alone
]

_log = logging.getLogger(__name__)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet, where what this host alone may reach is not."""
    if isinstance(address, IPv6Address):
        if address not in _GLOBAL_UNICAST or not address.is_global:
            return False
        return address.sixtofour is None or is_public(address.sixtofour)
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_FOR_OTHERS)


_NO_CAMERAS = [
    *_NOT_FOR_OTHERS,
    ip_network("0.0.0.0/8"),  # this network (RFC 1122)
    ip_network("100.100.100.200/32"),  # metadata of clouds, inside networks that cameras may be in
    ip_network("fd00:ec2::254/128"),
]
_WITH_IPV4 = [(ip_network("64:ff9b::/96"), 0), (ip_network("2002::/16"), 80)]
"""Where IPv6 addresses stand for IPv4 ones (RFC 6052, 3056), and how many bits come after those."""


class CameraPlaces:
    """Where cameras may be: private networks too, as that is where they are, but not this machine or its links.

    `allowed`, networks and host names with commas between, narrows that; its networks may be any, 127.0.0.0/8 included.
    Raises ValueError for what is neither.
    """

    def __init__(self, allowed: str = "") -> None:
        self._networks, self._names = [], set[str]()
        for one in filter(None, (part.strip().lower() for part in allowed.split(","))):
            if re.fullmatch(r"[0-9./]+|[0-9a-f:./]*:[0-9a-f:./]*", one):
                self._networks.append(ip_network(one, strict=False))
            elif re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", one):
                self._names.add(one)
            else:
                raise ValueError(f"{one} is neither a network, as 10.0.5.0/24, nor a host name")

    async def address_of(self, host: str, port: int) -> str:
        """The address of `host` to connect to. Raises HostRefused, or httpcore.ConnectError where it has none.

        All addresses of a name have to be allowed.
        """
        return self._judged(host, await resolve(host, port))

    def address_now(self, host: str, port: int) -> str:
        """The same for a thread, which waits for the name server. Raises HostRefused or OSError."""
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return self._judged(host, [str(entry[4][0]) for entry in entries])

    def _judged(self, host: str, addresses: list[str]) -> str:
        if not addresses:
            raise httpcore.ConnectError("the name has no address")
        for address in addresses:
            if not self.allows(host, ip_address(address.partition("%")[0])):
                raise HostRefused(f"cameras may not be at {host[:200]}; LIVE_ALLOWED says where they may be")
        return addresses[0]

    def allows(self, host: str, address: IPv4Address | IPv6Address) -> bool:
        """Whether `address` of `host` may be connected to."""
        if isinstance(address, IPv6Address):
            address = next(
                (
                    IPv4Address(int(address) >> after & 0xFFFFFFFF)
                    for network, after in _WITH_IPV4
                    if address in network
                ),
                address.ipv4_mapped or address,
            )
        if any(address in network for network in self._networks):
            return True
        if (self._networks or self._names) and host.lower() not in self._names:
            return False
        usual = not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
        return usual and not address.is_reserved and not any(address in network for network in _NO_CAMERAS)


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connections to names all of whose addresses are public. Raises HostRefused for others.

    A name is resolved once for a connection, so that it cannot mean one address when it is judged and another when it
    is used. Whatever a host is called (127.1, 0x7f000001, a name, a redirect's target), its addresses decide.
    """

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await resolve(host, port)
                if not self._allow_private:
                    refuse_private(host, addresses)
                return await self._first_connected(addresses[:_MOST_ADDRESSES], port, local_address, socket_options)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no connection within {timeout or 0:g} s") from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _first_connected(
        self, addresses: list[str], port: int, local_address: str | None, options: Iterable[Any] | None
    ) -> httpcore.AsyncNetworkStream:
        """The connection to the first address that takes one, each tried a moment after the one before."""
        trying: set[asyncio.Task[httpcore.AsyncNetworkStream]] = set()
        failure: BaseException = httpcore.ConnectError("the name has no address")
        waiting = list(addresses)
        try:
            while waiting or trying:
                if waiting:
                    connect = self._network.connect_tcp(waiting.pop(0), port, None, local_address, options)
                    trying.add(asyncio.create_task(connect))
                done, _ = await asyncio.wait(
                    trying, timeout=_STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    trying.remove(task)
                    if (error := task.exception()) is None:
                        return task.result()
                    failure = error
        finally:
            await _given_up(trying)
        raise failure


@asynccontextmanager
async def video_client(
    *,
    connect_s: float = CONNECT_S,
    allow_private: bool = False,
    proxy: str = "",
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """The client that downloads: public hosts alone, nothing of the environment's proxies, no cookies, no redirects.

    With `proxy` the proxy resolves the names it is asked for and may know other addresses of them; those that we know
    are judged all the same. Silence after the connection is the caller's to bound.
    """
    ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
    transport: httpx.AsyncBaseTransport
    if proxy:
        transport = _Proxied(proxy, ssl_context, allow_private=allow_private)
    else:
        pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context, keepalive_expiry=4.0, network_backend=PublicNetwork(allow_private=allow_private)
        )
        transport = _Direct(pool)
    client = httpx.AsyncClient(
        transport=transport,
        timeout=httpx.Timeout(None, connect=min(CONNECT_S, connect_s)),
        # A video is as small as it gets, and a range counts the bytes as they travel.
        headers={"user-agent": f"Touchline/{__version__}", "accept": "*/*", "accept-encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,
        follow_redirects=False,
        event_hooks={"response": [_keep_location]},
    )
    async with client:
        yield client


async def _keep_location(response: httpx.Response) -> None:
    """Put a redirect's target where httpx does not see it: it would raise for some, although it follows none."""
    if "location" in response.headers:
        response.extensions[LOCATION] = response.headers.pop("location")


class _Direct(httpx.AsyncBaseTransport):
    """httpx over a pool of httpcore, which is where httpx lets nobody choose the network."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        asked = httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
        with _as_httpx(request):
            response = await self._pool.handle_async_request(asked)
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, request),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for piece in self._response.aiter_stream():
                yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """httpcore's errors under httpx's names, which are the same."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
    ) as error:
        known: type[httpx.RequestError] = getattr(httpx, type(error).__name__)
        raise known(str(error), request=request) from error


class _Proxied(httpx.AsyncHTTPTransport):
    """Through the operator's proxy."""

    def __init__(self, proxy: str, ssl_context: ssl.SSLContext, *, allow_private: bool) -> None:
        super().__init__(verify=ssl_context, proxy=proxy, trust_env=False)
        self._allow_private = allow_private

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._allow_private:
            host = request.url.raw_host.decode("ascii").rstrip(".")
            try:
                async with asyncio.timeout(CONNECT_S):
                    addresses = await resolve(host, 0)
            except (httpcore.ConnectError, TimeoutError):
                # A name that only the proxy can resolve is the proxy's to judge; a spelling of an address is none.
                if not re.fullmatch(r"([a-z0-9_-]+\.)*[a-z][a-z0-9-]*", host):
                    raise refused(host) from None
            else:
                refuse_private(host, addresses)
        return await super().handle_async_request(request)


def refuse_private(host: str, addresses: list[str]) -> None:
    """Raises HostRefused unless all addresses of `host` are public; the log alone says which is not."""
    inner = [address for address in addresses if not is_public(ip_address(address))]
    if inner:
        _log.debug("a video of %s was asked for, which is %s", host[:200], inner[0])
        raise refused(host)


def refused(host: str) -> HostRefused:
    return HostRefused(
        f"the host {host[:200]} is not on the public internet; give a public URL "
        "(an operator who wants it all the same sets ALLOW_PRIVATE_VIDEO_HOSTS)"
    )


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host`, which may be one in any spelling, in the order they are to be tried.

    Raises httpcore.ConnectError, whose cause is the socket.gaierror.
    """
    # In a thread of its own: one that waits for a silent name server can neither be ended nor hold up our end.
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, ValueError) as error:
            _tell(loop, found.set_exception, found, error)
        else:
            _tell(loop, found.set_result, found, list(dict.fromkeys(str(entry[4][0]) for entry in entries)))

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    try:
        return await found
    except (OSError, UnicodeError, ValueError) as error:
        raise httpcore.ConnectError(f"the name cannot be resolved ({getattr(error, 'strerror', error)})") from error


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[[Any], None], future: asyncio.Future[Any], what: Any) -> None:
    def told() -> None:
        if not future.done():
            tell(what)

    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(told)


async def _given_up(tasks: set[asyncio.Task[httpcore.AsyncNetworkStream]]) -> None:
    """End attempts that nobody needs, and close what they connected to."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, BaseException):
            await result.aclose()
