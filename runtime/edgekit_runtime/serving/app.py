"""What a request means: which path is what, and which error is which status. A request in, a response out; no sockets.

Inference runs on the event loop: a call takes microseconds, and a thread's hand-over costs more than most models.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

from edgekit_contracts.errors import BadInput, EdgekitError, FormatError, TooLarge
from edgekit_runtime import __version__
from edgekit_runtime.config import Serve
from edgekit_runtime.resent import Resent
from edgekit_runtime.ring import Held
from edgekit_runtime.route import Route
from edgekit_runtime.served import Served
from edgekit_runtime.serving import binary, commands, decoding, message, metrics, oip
from edgekit_runtime.serving.deadline import Deadline, Late, deadline_of
from edgekit_runtime.serving.message import Later, Request, Response
from edgekit_runtime.serving.metrics import Metrics, Traffic
from edgekit_runtime.serving.rate import RequestRate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekit_runtime.engine import Answers, Batch
    from edgekit_runtime.serving.grouping import Groups
    from edgekit_runtime.serving.loop import Loop
    from edgekit_runtime.uplink import UplinkState

KEY: Final = "edgekit_key"
"""A request's parameter: what it is about. Requests of one key are answered by one bundle."""

_MODEL: Final = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?")
_TYPES: Final = frozenset(
    # The last is what curl says of any data unless it is told.
    {None, b"application/json", b"application/octet-stream", b"application/x-www-form-urlencoded"}
)

_log = logging.getLogger("edgekit.serving")


class _Status(Exception):
    """Ends a request with a status and a sentence."""

    def __init__(self, status: int, sentence: str, headers: bytes = b"") -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


class App:
    """Open Inference Protocol v2, `GET /metrics`, `GET /edgekit/status` and commands.

    Args:
        models: Name -> the model.
        status: What `/edgekit/status` shows.
        settings: The limits.
        obey: Carries out a command; None where there is none to carry out.
        uplink: Tells how the uplink stands; None where there is none.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        status: Callable[[], dict[str, Any]],
        settings: Serve | None = None,
        obey: commands.Obey | None = None,
        uplink: Callable[[], UplinkState | None] = lambda: None,
    ) -> None:
        self._obey, self._uplink = obey, uplink
        self._models, self._status, self._settings = models, status, settings or Serve()
        self._metrics = Metrics()
        self._bucket = None if self._settings.max_rate is None else RequestRate(self._settings.max_rate)
        self._resent = Resent()
        self._loop: Loop | None = None
        self._groups: Groups | None = None
        self._pages: Mapping[str, Callable[[], Response]] = {
            "/v2": lambda: _reply(oip.server_metadata(__version__)),
            "/v2/health/live": lambda: _reply({"live": True}),
            "/v2/health/ready": lambda: _readiness({}, self.ready),
            "/metrics": self._exposition,
            "/edgekit/status": lambda: _reply(self._status()),
        }

    def adopt(self, settings: Serve) -> None:
        """Other limits, from the next request on."""
        if settings.max_rate != self._settings.max_rate:
            self._bucket = None if settings.max_rate is None else RequestRate(settings.max_rate)
        self._settings = settings

    @property
    def settings(self) -> Serve:
        """The limits."""
        return self._settings

    @property
    def traffic(self) -> Traffic:
        """What the server counts."""
        return self._metrics.traffic

    @property
    def ready(self) -> bool:
        """Whether a new request is welcome."""
        return not self.traffic.draining

    def answer(self, request: Request) -> Response:
        """Answers any request; every error is an answer too."""
        try:
            return self._answer(request)
        except Exception as error:
            return _error_response(error)

    def group(self, loop: Loop) -> None:
        """From now on requests that one turn of this loop brings may be answered together."""
        self._loop = loop

    def _answer(self, request: Request) -> Response:
        path, name, version, verb = _parsed(request.target)
        if name:
            served = self._models.get(name)
            route = None if served is None else served.route() if version is None else served.version(version)
            if served is None or route is None:
                raise self._unknown(name, version)
            if verb == "/infer":
                _allow(request.method, "POST")
                return self._infer(served, None if version is None else route, request)
            _allow(request.method, "GET", "HEAD")
            if verb:
                return _readiness({"name": name}, self.ready)
            return _reply(oip.model_metadata(route.manifest, served.versions))
        page = self._pages.get(path)
        if page is None and self._obey is not None and (order := commands.PATH.fullmatch(path)):
            if order["name"] not in self._models:
                raise self._unknown(order["name"], None)
            return commands.answer(request, order["name"], order["command"], self._obey)
        if page is None:
            models = "|".join(self._models)
            raise _Status(404, f"there is nothing at {path[:100]}; models are at /v2/models/{models}")
        _allow(request.method, "GET", "HEAD")
        return page()

    def _unknown(self, name: str, version: str | None) -> _Status:
        asked = name + (f" {version}" if version else "")
        models = list(self._models.items())
        here = [f"{known} {number}" for known, served in models for number in served.versions]
        return _Status(
            404,
            f"there is no model '{asked[:64]}' here; ask for {'' if len(here) == 1 else 'one of '}{', '.join(here)}",
        )

    def _infer(self, served: Served, route: Route | None, request: Request) -> Response:
        """Answers rows.

        Args:
            served: The model.
            route: Who answers where the client asks for a version; else the request's key decides.
            request: The request.
        """
        try:
            self._admit(request)
            asked, tensors = decoding.decode_request(
                request.body, request.headers.get(binary.HEADER), limit=self._settings.max_request_bytes
            )
            due = deadline_of(request, asked.parameters, self._settings.deadline_s)
            if due is not None:
                due.check("the request waited")
            route = route or served.route(_key(asked, request.body))
            groups = self._groups_of(request) if route.groups else None
            row = None if groups is not None else decoding.row_of(asked, tensors, route.engine)
            if row is not None and (held := route.hold(row)) is not None:
                return self._held(route, asked, row, held, request, due)
            batch = decoding.batch_of(asked, tensors, route.engine, max_rows=self._settings.max_rows)
        except Exception as error:
            self._count(route or served.route(), error)
            raise
        if groups is not None:
            return self._later(groups, route, asked, batch, request, due)
        return self._answered(route, asked, batch, None, request, due)

    def _groups_of(self, request: Request) -> Groups | None:
        """Where a request waits for those that may have come with it; None where it is answered by itself."""
        if self._groups is None and self._loop is not None:
            from edgekit_runtime.serving.grouping import Groups  # which a start does without

            self._groups = Groups(self._loop)
        return self._groups if self._groups is not None and self._groups.takes(request) else None

    def _later(
        self,
        groups: Groups,
        route: Route,
        asked: decoding.InferRequest,
        batch: Batch,
        request: Request,
        due: Deadline | None,
    ) -> Response:
        """The response to rows that are answered together with those of others."""
        future: Future[Response] = Future()

        def done(said: Answers | None) -> None:
            try:
                response = self._answered(route, asked, batch, said, request, due)
            except Exception as error:
                response = _error_response(error)
            future.set_result(response)

        groups.add(route, batch, done)
        return Later(200, b"", future=future)

    def _answered(
        self,
        route: Route,
        asked: decoding.InferRequest,
        batch: Batch,
        said: Answers | None,
        request: Request,
        due: Deadline | None,
    ) -> Response:
        """The response to rows, of which the model may have said something already."""
        try:
            reply = route.answer(batch) if said is None else route.reply(batch, said)
            body, header_bytes = oip.encode_response(asked, reply.answers, reply.manifest, reply.parameters)
            if due is not None:
                due.check("the answer took")
        except Exception as error:
            self._count(route, error)
            raise
        seconds = time.perf_counter() - request.started
        route.note(batch, reply, 1e6 * seconds, request=asked.id, resent=self._resent.seen(request.body))
        counts = self._metrics.of(reply.manifest.name, reply.manifest.version)
        stood_in = reply.member is not route.first
        counts.answered(seconds, batch.rows, len(reply.doubtful or ()), stood_in=stood_in)
        return _inferred(body, header_bytes)

    def _held(
        self,
        route: Route,
        asked: decoding.InferRequest,
        row: NDArray[np.float64],
        held: Held,
        request: Request,
        due: Deadline | None,
    ) -> Response:
        """The response to a row that was answered where it lies."""
        manifest = route.manifest
        body, header_bytes = oip.encode_row(asked, held[0], manifest, route.marks)
        if due is not None:
            due.check("the answer took")
        seconds = time.perf_counter() - request.started
        route.note_held(row, held, 1e6 * seconds, resent=self._resent.seen(request.body))
        self._metrics.of(manifest.name, manifest.version).answered(seconds, 1, 0, stood_in=False)
        return _inferred(body, header_bytes)

    def _admit(self, request: Request) -> None:
        if self._bucket is not None and (wait_s := self._bucket.take(request.started)):
            seconds = str(math.ceil(wait_s)).encode()
            raise _Status(429, "more requests than this device is to answer", b"retry-after: " + seconds + b"\r\n")
        headers = request.headers
        if headers.get(b"content-type") not in _TYPES or b"content-encoding" in headers:
            _check_type(headers)

    def _count(self, route: Route, error: Exception) -> None:
        """Counts a request that has no answer."""
        counts = self._metrics.of(route.manifest.name, route.manifest.version)
        if isinstance(error, _Status):
            counts.ended(error.status)
        elif isinstance(error, BadInput | FormatError | TooLarge):
            counts.ended(_status_of(error), rejected=True)
            route.observer.count_rejected()
        else:
            counts.ended(504 if isinstance(error, Late) else 500, failed=True)
            route.observer.count_failed()

    def _exposition(self) -> Response:
        uplink = self._uplink()
        shadows = [
            ({"model": name, "version": trial.member.manifest.version}, trial.shadow.counts)
            for name, served in list(self._models.items())
            if (trial := served.lineup.candidate) is not None and trial.shadow is not None
        ]
        body = self._metrics.exposition(
            ready=self.ready,
            telemetry="off" if uplink is None else uplink.state,
            outbox_records=None if uplink is None else uplink.outbox_records,
            bytes_=None if uplink is None else uplink.bytes.since_start,
            shadows=shadows,
        )
        return Response(200, body, metrics.CONTENT_TYPE)


def _error_response(error: Exception) -> Response:
    """The answer to a request that has none."""
    if isinstance(error, _Status):
        return message.error(error.status, error.sentence, error.headers)
    if isinstance(error, BadInput | FormatError | TooLarge):
        return message.error(_status_of(error), _sentence(error))
    if isinstance(error, Late):
        return message.error(504, _sentence(error))
    if isinstance(error, EdgekitError):
        _log.error("%s", _sentence(error))
        return message.error(500, _sentence(error))
    _log.error("a request failed", exc_info=error)
    return message.error(500, "the runtime failed on this request; its log says where")


@lru_cache(maxsize=256)
def _parsed(target: bytes) -> tuple[str, str, str | None, str]:
    """Path, model, version and verb of a target; the model is empty where the path is another."""
    text = target.decode("latin-1").partition("?")[0]
    if not text.startswith("/"):  # the absolute form, which a server accepts (RFC 9112, section 3.2.2)
        text = "/" + text.partition("://")[2].partition("/")[2]
    path = unquote(text, errors="replace")
    if len(path) > 1:
        path = path.removesuffix("/")
    match = _MODEL.fullmatch(path)
    return (path, match["name"], match["version"], match["verb"] or "") if match else (path, "", None, "")


def _key(asked: decoding.InferRequest, body: bytes) -> bytes:
    """What the request is about, as the client says; else its bytes."""
    key = asked.parameters.get(KEY)
    return body if key is None else str(key).encode()


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise _Status(415, "this server takes requests without a content encoding")
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind not in _TYPES:
        shown = kind[:64].decode("latin-1")
        raise _Status(415, f"a request is application/json or, with tensors, application/octet-stream; not {shown}")


def _allow(method: str, *methods: str) -> None:
    if method not in methods:
        allowed = ", ".join(methods)
        raise _Status(405, f"use {allowed} here", f"allow: {allowed}\r\n".encode())


def _readiness(about: Mapping[str, str], ready: bool) -> Response:
    return Response(200 if ready else 503, msgspec.json.encode({**about, "ready": ready}))


def _inferred(body: bytes, header_bytes: int | None) -> Response:
    if header_bytes is None:
        return Response(200, body)
    line = b"inference-header-content-length: %d\r\n" % header_bytes
    return Response(200, body, b"application/octet-stream", line)


def _reply(value: object) -> Response:
    return Response(200, msgspec.json.encode(value))


def _status_of(refused: BadInput | FormatError | TooLarge) -> int:
    return 413 if isinstance(refused, TooLarge | decoding.TooManyRows) else 400


def _sentence(error: EdgekitError) -> str:
    return f"{error.sentence}; {error.next_step}"
