"""The ASGI application: which path means what, and which error is which status.

Inference runs on the event loop: a call takes microseconds, and a thread's hand-over costs more than most models.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.errors import BadInput, EdgekitError, FormatError, TooLarge
from edgekit_runtime import __version__
from edgekit_runtime.resent import Resent
from edgekit_runtime.served import Route, Served
from edgekit_runtime.serving import binary, oip

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MODEL: Final = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?")

_log = logging.getLogger("edgekit.serving")


class _Status(Exception):
    """Ends a request with a status and a sentence."""

    def __init__(self, status: int, sentence: str, allow: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.allow = status, sentence, allow


class App:
    """Open Inference Protocol v2, plus `GET /edgekit/status`.

    Args:
        models: Name -> the model.
        status: What `/edgekit/status` shows.
    """

    def __init__(self, models: Mapping[str, Served], status: Callable[[], dict[str, Any]]) -> None:
        self._models, self._status = models, status
        self._resent = Resent()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI 3, `http` scope."""
        started = time.perf_counter()
        status, body, headers = 200, b"", [(b"content-type", b"application/json")]
        try:
            answer = await self._answer(scope, receive, started)
            body = answer.body
            if answer.header_bytes is not None:
                headers = [
                    (b"content-type", b"application/octet-stream"),
                    (binary.HEADER, str(answer.header_bytes).encode()),
                ]
        except _Status as ended:
            status, body = ended.status, _error(ended.sentence)
            if ended.allow:
                headers.append((b"allow", ended.allow.encode()))
        except (BadInput, FormatError, TooLarge) as refused:
            status, body = 413 if isinstance(refused, TooLarge) else 400, _error(_sentence(refused))
        except EdgekitError as failed:
            _log.error("%s", _sentence(failed))
            status, body = 500, _error(_sentence(failed))
        except Exception:
            _log.exception("a request failed")
            status, body = 500, _error("the runtime failed on this request; its log says where")
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, started: float) -> oip.Response:
        path, method = scope["path"], scope["method"]
        match = _MODEL.fullmatch(path)
        if match is not None:
            route = self._route(match["name"], match["version"])
            if match["verb"] == "/infer":
                _allow(method, "POST")
                return await self._infer(route, dict(scope["headers"]), receive, started)
            _allow(method, "GET")
            if match["verb"]:
                return _reply({"name": match["name"], "ready": True})
            return _reply(oip.model_metadata(route.manifest))
        replies: dict[str, Callable[[], object]] = {
            "/v2": lambda: oip.server_metadata(__version__),
            "/v2/health/live": lambda: {"live": True},
            "/v2/health/ready": lambda: {"ready": True},
            "/edgekit/status": self._status,
        }
        if path not in replies:
            raise _Status(404, f"there is nothing at {path[:100]}; models are at /v2/models/{'|'.join(self._models)}")
        _allow(method, "GET")
        return _reply(replies[path]())

    def _route(self, name: str, version: str | None) -> Route:
        route = self._models[name].route() if name in self._models else None
        if route is None or version not in {None, route.manifest.version}:
            asked = name + (f" {version}" if version else "")
            here = ", ".join(served.route().manifest.title for served in self._models.values())
            raise _Status(404, f"there is no model '{asked[:64]}' here; {here} is")
        return route

    async def _infer(
        self, route: Route, headers: Mapping[bytes, bytes], receive: Receive, started: float
    ) -> oip.Response:
        try:
            body = await _body(headers, receive)
            request, tensors = oip.decode_request(body, headers.get(binary.HEADER))
            batch = oip.batch_of(request, tensors, route.engine)
            reply = route.answer(batch)
            response = oip.encode_response(request, reply.answers, reply.manifest, reply.parameters)
        except (BadInput, FormatError, TooLarge):
            route.observer.count_rejected()
            raise
        except _Status:
            raise
        except Exception:
            route.observer.count_failed()
            raise
        latency_us = 1e6 * (time.perf_counter() - started)
        route.note(batch, reply, latency_us, request=request.id, resent=self._resent.seen(body))
        return response


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise _Status(415, "this server takes requests without a content encoding")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limits.REQUEST_MAX_BYTES:
        raise TooLarge("request", int(declared), limits.REQUEST_MAX_BYTES)
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Status(400, "the client went away before its request was whole")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.REQUEST_MAX_BYTES:
            raise TooLarge("request", size, limits.REQUEST_MAX_BYTES)
        if not message.get("more_body"):
            return b"".join(parts)


def _allow(method: str, only: str) -> None:
    if method != only:
        raise _Status(405, f"use {only} here", allow=only)


def _reply(value: object) -> oip.Response:
    return oip.Response(msgspec.json.encode(value))


def _error(sentence: str) -> bytes:
    # The protocol's error object.
    return msgspec.json.encode({"error": sentence})


def _sentence(error: EdgekitError) -> str:
    return f"{error.sentence}; {error.next_step}"
