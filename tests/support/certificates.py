"""A CA of the tests' own, and servers' certificates that it signs."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class CertificateAuthority:
    """Its own certificate lies in `file`, those of servers beside it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "ca.pem"
        self._directory = directory
        self._key = generate_private_key(SECP256R1())
        self.file.write_bytes(self._signed("CA of a test", self._key, (), 9).public_bytes(Encoding.PEM))

    def server(self, *names: str, days: int = 9) -> ssl.SSLContext:
        """For a server of these names and addresses; of a certificate that is valid so many days from yesterday on."""
        key = generate_private_key(SECP256R1())
        file = self._directory / f"{'-'.join(names)}-{days}.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(self._signed(names[0], key, names, days).public_bytes(Encoding.PEM) + secret)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(
        self, subject: str, key: EllipticCurvePrivateKey, names: tuple[str, ...], days: int
    ) -> x509.Certificate:
        begun = datetime.now(UTC) - timedelta(days=1, hours=1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of a test")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begun)
            .not_valid_after(begun + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        )
        if names:
            certificate = certificate.add_extension(x509.SubjectAlternativeName([*map(_name, names)]), critical=False)
        return certificate.sign(self._key, hashes.SHA256())


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
