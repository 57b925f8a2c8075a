"""TLS: its contexts, and a transport that has it between the socket and everything else.

Imported when a connection wants TLS: importing OpenSSL takes longer than all of amphora's own modules.
"""

from __future__ import annotations

import ssl
from typing import Any

from amphora.amqp.errors import CertificateRefused
from amphora.amqp.gathered import Gathered
from amphora.amqp.transport import Transport
from amphora.amqp.url import AmqpUrl

# Bytes received or decrypted in one go: what a TLS record holds at most.
_RECORD = 16384


def context_of(url: AmqpUrl) -> ssl.SSLContext:
    """TLS as an AMQP URI says; reads the certificates that it names.

    :raises ValueError: a file holds no certificate or key.
    :raises OSError: a file cannot be read.
    """
    # OpenSSL says neither which file it could not read nor why one is of no use.
    for parameter in ('cacertfile', 'certfile', 'keyfile'):
        path = getattr(url, parameter)
        if path is not None:
            _check_readable(parameter, path)
    try:
        context = ssl.create_default_context(cafile=url.cacertfile)
    except ssl.SSLError as error:
        raise ValueError(
            'the query parameter cacertfile of an AMQP URI must name a file with certificates, not %r: %s'
            % (url.cacertfile, error)
        ) from error
    if url.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if url.certfile:
        try:
            context.load_cert_chain(url.certfile, url.keyfile)
        except ssl.SSLError as error:
            key = '' if url.keyfile is None else ' (keyfile: %r)' % url.keyfile
            raise ValueError(
                'the query parameter certfile of an AMQP URI must name a certificate and its key, not %r%s: %s'
                % (url.certfile, key, error)
            ) from error
    return context


def _check_readable(parameter: str, path: str) -> None:
    try:
        with open(path, 'rb'):
            pass
    except OSError as error:
        # Of the class that the number stands for, with the file's name.
        words = 'the query parameter %s of an AMQP URI names a file that cannot be read: %s' % (
            parameter,
            error.strerror,
        )
        raise OSError(error.errno, words, path) from None


class TlsTransport(Transport):
    """A `Transport` with TLS between the socket and everything else.

    The TLS engine works on memory buffers, so reading stays in the hub and writing stays one coalesced `send`.
    """

    def __init__(self, sock: Any, tls: TlsEngine, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._tls = tls
        self._on_plain, self._on_data = self._on_data, self._decrypt

    def start(self) -> None:
        super().start()
        # The peer's first words may have come together with the end of the handshake.
        self._loop.run_callback(self._decrypt, b'')

    @property
    def unsent(self) -> int:
        """See `Transport`."""
        return super().unsent + self._tls.held

    def is_congested(self) -> bool:
        """See `Transport`; what OpenSSL does not take now counts for itself."""
        if self._tls.held > self.high_water:
            self._was_congested = True
            return True
        return super().is_congested()

    def _decrypt(self, data: bytes) -> None:
        if self.closed:
            return
        try:
            with self._lock:
                plain, ended = self._tls.decrypt(data)
        except ssl.SSLError as error:
            self._lose(error)
            return
        if self._tls.wants_to_say:
            if self._push():
                self._drain()  # there may be room again
            elif not self._armed:
                self._armed = True
                self._writer.start(self._writable)
        if plain:
            self._on_plain(plain)
        if ended:
            self._lose(ConnectionResetError('the peer ended the TLS session'))

    def _encode(self, data: bytes | Gathered) -> bytes:
        return self._tls.encrypt(bytes(data))


class TlsEngine:
    """TLS on memory buffers (`ssl.SSLObject`): bytes in, bytes out, no socket."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # What OpenSSL has not taken yet.
        self._held = b''
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    def handshake(self, sock: Any, peer: str) -> None:
        """Shake hands over a connected gevent socket; blocks this greenlet only.

        :param peer: what to call the other side in an error.
        :raises CertificateRefused: when its certificate is not to be trusted.
        :raises OSError: (of which `ssl.SSLError` is a kind) when it does not speak TLS, refuses this side or goes away.
        """
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(sock)
                data = sock.recv(_RECORD)
                if not data:
                    raise ConnectionResetError('the peer closed the socket during the TLS handshake') from None
                self._incoming.write(data)
            except ssl.SSLError as error:
                self._flush(sock)  # the alert that tells the peer why
                if isinstance(error, ssl.SSLCertVerificationError):
                    text = 'the certificate of %s is refused: %s' % (peer, error.verify_message)
                    raise CertificateRefused(text) from error
                raise
            else:
                self._flush(sock)
                return

    def _flush(self, sock: Any) -> None:
        data = self._outgoing.read()
        if data:
            sock.sendall(data)

    def encrypt(self, data: bytes) -> bytes:
        """What to send for these bytes, and whatever TLS itself wants to say."""
        rest = memoryview(self._held + data if self._held else data)
        try:
            while rest:
                rest = rest[self._object.write(rest) :]
        except ssl.SSLWantReadError:
            pass  # the peer is negotiating anew, as TLS 1.2 may at any time: it has to say something first
        self._held = bytes(rest)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> tuple[bytes, bool]:
        """The plain bytes in what was received, and whether the peer has ended the session."""
        if data:
            self._incoming.write(data)
        plain: list[bytes] = []
        while True:
            try:
                piece = self._object.read(_RECORD)
            except ssl.SSLWantReadError:
                return b''.join(plain), False
            except ssl.SSLZeroReturnError:
                return b''.join(plain), True
            if not piece:
                return b''.join(plain), True
            plain.append(piece)

    @property
    def wants_to_say(self) -> bool:
        """Whether there is something to send, such as a key update of TLS itself; `encrypt` of nothing gives it."""
        return self._outgoing.pending > 0 or self.held > 0

    @property
    def held(self) -> int:
        """Bytes that were to be encrypted and cannot be before the peer has said something."""
        return len(self._held)
