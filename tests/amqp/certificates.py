"""Certificates for one test run: an authority, and what it or nobody has signed."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.rabbitmq import HOST

_DAY = timedelta(days=1)


class Authority:
    """A certificate authority.

    :ivar file: its own certificate, PEM.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._issued = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name('amphora test authority')
        builder = _builder(self._name, self._name, self._key, _now() + _DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file = directory / 'authority.pem'
        self.file.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def issue(
        self, common_name: str, *, names: tuple[str, ...] = ('localhost', HOST), expired: bool = False
    ) -> tuple[Path, Path]:
        """A certificate and its key, as files; `names` are the hosts it is for."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = _now() - _DAY if expired else _now() + _DAY
        builder = _for_hosts(_builder(_name(common_name), self._name, key, until), names)
        return self._write(builder.sign(self._key, hashes.SHA256()), key)

    def self_signed(self, common_name: str) -> tuple[Path, Path]:
        """A certificate that the authority knows nothing of, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
        builder = _for_hosts(_builder(name, name, key, _now() + _DAY), ('localhost', HOST))
        return self._write(builder.sign(key, hashes.SHA256()), key)

    def client_context(self, login: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """TLS for a client that trusts this authority, and shows a certificate of its own where it has one."""
        context = ssl.create_default_context(cafile=self.file)
        if login is not None:
            context.load_cert_chain(*login)
        return context

    def _write(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        self._issued += 1
        files = (self._directory / f'{self._issued}.pem', self._directory / f'{self._issued}.key')
        files[0].write_bytes(_pem(certificate))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - 10 * _DAY)
        .not_valid_after(until)
    )


def _for_hosts(builder: x509.CertificateBuilder, names: tuple[str, ...]) -> x509.CertificateBuilder:
    general: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
    ]
    return builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
