"""The enrolment service: HTTPS with three paths, for strangers.

| path | who | gets |
|---|---|---|
| `GET /authority.pem` | anybody | the authority's certificate; its SHA-256 is in the token |
| `POST /enrol` | who has a token | a first certificate |
| `POST /renew` | who shows a certificate of ours in TLS | the next one |

One request a connection, with bounds on its size, its time, the connections and the requests a second, all before
anything is parsed. A client that shows no certificate is let in, one whose certificate is not ours is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httptools
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edgekit.fleet.authority import CERTIFICATE_NAME, Authority
from edgekit.fleet.enrolment import grant_for_certificate, grant_for_token
from edgekit_contracts import limits
from edgekit_contracts.decode import encode_json
from edgekit_contracts.enrolment import AUTHORITY_PATH, ENROL_PATH, RENEW_PATH, Refusal, decode_request
from edgekit_contracts.errors import EdgekitError, EnvironmentFault, PortInUse
from edgekit_runtime.identity import private_pem
from edgekit_runtime.replacing import replace
from edgekit_runtime.strategies.budget import TokenBucket

SERVICE_NAME: Final = "service.pem"
SERVICE_DAYS: Final = 90
REISSUE_S: Final = 30 * 86_400.0
RETRY_S: Final = 3600.0

REQUEST_S: Final = 10.0
"""From the connection to the answer, the handshake included."""
CONNECTIONS_MAX: Final = 64
RATE: Final = 20.0
"""Requests a second, over all clients; what is more is answered with 429."""
CLIENT_RATE: Final = 1.0
CLIENT_DEPTH: Final = 10.0
CLIENTS_MAX: Final = 4096
"""Addresses whose rate is remembered."""

log = logging.getLogger(__name__)


class _Parsed:
    """Takes one request from httptools."""

    def __init__(self) -> None:
        self.path, self.body, self.done = "", b"", False

    def on_url(self, url: bytes) -> None:
        self.path += url.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True


class EnrolmentServer:
    """The service, on a thread with an event loop of its own.

    Args:
        folder: The authority's.
        hosts: Names and addresses by which devices reach it; in its certificate.
        listen: Address to listen on.
        port: 0 takes a free one.
    """

    def __init__(self, folder: Path, hosts: tuple[str, ...], *, listen: str = "127.0.0.1", port: int = 0) -> None:
        self._folder, self._hosts, self._listen, self.port = folder, hosts, listen, port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._open = 0
        self._all = TokenBucket(RATE, 2 * RATE)
        self._clients: dict[str, TokenBucket] = {}
        self._runner = asyncio.Runner()
        self._started = threading.Event()
        self._fault: Exception | None = None
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="enrolment", daemon=True)

    def __enter__(self) -> Self:
        """Starts to answer.

        Raises:
            PortInUse: The address is taken.
            EdgekitError: The authority cannot be used.
        """
        self._thread.start()
        self._started.wait()
        if self._fault is not None:
            self._thread.join()
            raise self._fault
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._runner.get_loop().call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._runner:  # ends what is under way, too
                self._runner.run(self._serve())
        except Exception as error:
            self._fault = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        with Authority(self._folder) as authority:
            self._context.load_verify_locations(str(self._folder / CERTIFICATE_NAME))
            self._certify(authority)

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._connection(authority, reader, writer)

            try:
                server = await asyncio.start_server(
                    answer,
                    self._listen,
                    self.port,
                    ssl=self._context,
                    ssl_handshake_timeout=REQUEST_S,
                    limit=limits.ENROLMENT_MAX_BYTES,
                    backlog=CONNECTIONS_MAX,
                )
            except OSError as error:
                # asyncio's own words name the address a second time.
                reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
                raise PortInUse(f"{self._listen}:{self.port}", reason, error.errno) from error
            async with server:
                self.port = server.sockets[0].getsockname()[1]
                self._started.set()
                wait_s = REISSUE_S
                while not await self._ends_within(wait_s):
                    try:
                        self._certify(authority)
                        wait_s = REISSUE_S
                    except Exception:
                        # The one in force is good for weeks yet.
                        log.exception("the service's own certificate cannot be made anew; it is tried again")
                        wait_s = RETRY_S

    async def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)
        return self._ended.is_set()

    def _certify(self, authority: Authority) -> None:
        """A certificate for the service itself; what connects from now on sees it."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = authority.issue_server(self._hosts, key.public_key(), SERVICE_DAYS)
        path = self._folder / SERVICE_NAME
        replace(path, private_pem(key) + issued.pem, 0o600)
        self._context.load_cert_chain(str(path))

    async def _connection(
        self, authority: Authority, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer = str(writer.get_extra_info("peername")[0])
        self._open += 1
        try:
            status, body = await asyncio.wait_for(self._answer(authority, reader, writer, peer), REQUEST_S)
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await asyncio.wait_for(writer.drain(), REQUEST_S)
        except (TimeoutError, OSError, httptools.HttpParserError) as error:
            log.info("%s: no request (%s)", peer, str(error) or type(error).__name__)
        except Exception:
            log.exception("a request of %s failed", peer)
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), REQUEST_S)

    async def _answer(
        self, authority: Authority, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> tuple[str, bytes]:
        if self._open > CONNECTIONS_MAX or not self._admitted(peer):
            return "429 Too Many Requests", _refusal("too many ask at once", "try again in a minute")
        method, parsed = await _request(reader)
        if (method, parsed.path) == ("GET", AUTHORITY_PATH):
            return "200 OK", authority.pem
        if method != "POST" or parsed.path not in {ENROL_PATH, RENEW_PATH}:
            return "404 Not Found", _refusal("there is nothing here", "POST /enrol or /renew")
        try:
            request = decode_request(parsed.body)
            if parsed.path == ENROL_PATH:
                grant = grant_for_token(authority, request)
            else:
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                if shown is None:
                    return "401 Unauthorized", _refusal("no certificate was shown", "enrol with a token")
                grant = grant_for_certificate(authority, request, shown)
        except EnvironmentFault as error:
            log.error("%s: %s; %s", peer, error.sentence, error.next_step)
            return "503 Service Unavailable", _refusal("the authority cannot write at present", "try again later")
        except EdgekitError as error:
            # A name that is refused may hold a line's end.
            log.warning("%s: refused on %s: %s", peer, parsed.path, error.sentence.encode("unicode_escape").decode())
            return "403 Forbidden", _refusal(error.sentence, error.next_step)
        name = x509.load_pem_x509_certificate(grant.certificate.encode()).subject.rfc4514_string()
        log.info("%s: a certificate for %s (%s)", peer, name, parsed.path)
        return "200 OK", encode_json(grant)

    def _admitted(self, peer: str) -> bool:
        now = time.monotonic()
        if peer not in self._clients and len(self._clients) >= CLIENTS_MAX:
            self._clients.clear()
        own = self._clients.setdefault(peer, TokenBucket(CLIENT_RATE, CLIENT_DEPTH))
        return own.take(1.0, now) and self._all.take(1.0, now)


async def _request(reader: asyncio.StreamReader) -> tuple[str, _Parsed]:
    parsed, read = _Parsed(), 0
    parser = httptools.HttpRequestParser(parsed)
    while not parsed.done:
        data = await reader.read(4096)
        read += len(data)
        if not data or read > 2 * limits.ENROLMENT_MAX_BYTES:
            raise ConnectionError("cut short, or too long")
        parser.feed_data(data)
    return parser.get_method().decode(), parsed


def _refusal(error: str, next_step: str) -> bytes:
    return msgspec.json.encode(Refusal(error=error[:512], next_step=next_step[:512]))
