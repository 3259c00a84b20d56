"""Certificates of cameras: whom to trust, and what is wrong with one that is not trusted."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import certifi

from touchline.video_live import StreamFailed, Trust


def trusted_cas(ca_file: Path | None) -> Path:
    """PEM file of the CAs that are trusted: `ca_file`, or else those that browsers trust.

    Raises OSError when it cannot be read, ValueError when there is no certificate in it.
    """
    if ca_file is None:
        return Path(certifi.where())
    with ca_file.open("rb"):
        pass
    try:
        context_of(Trust(ca_file, ""))
    except ssl.SSLError:
        raise ValueError("no certificates in PEM are in it") from None
    return ca_file


def context_of(trust: Trust | None) -> ssl.SSLContext:
    """For connections to cameras; without `trust` any certificate will do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trust is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_verify_locations(trust.ca_file)
    return context


def why_not_trusted(peer: tuple[str, int], trust: Trust, timeout_s: float) -> StreamFailed | None:
    """What is wrong with the certificate at an address and port; None: nothing, as far as can be seen.

    FFmpeg says nothing but that it could not connect.
    """
    try:
        with (
            socket.create_connection(peer, timeout_s) as connection,
            context_of(trust).wrap_socket(connection, server_hostname=trust.name),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return untrusted(error)
    except ssl.SSLError:
        return StreamFailed("bad_url", "the camera does not speak TLS at this port; try rtsp:// or http://")
    except OSError:
        return None


def untrusted(error: ssl.SSLCertVerificationError) -> StreamFailed:
    """What a certificate is refused for, and what an operator can do about it."""
    why = error.verify_message.rstrip(".")
    return StreamFailed(
        "certificate",
        f"the camera's certificate is not trusted: {why[:1].lower()}{why[1:]}; name its CA, or itself, in "
        "LIVE_CA_FILE, or set the camera's `verify` to false",
    )
