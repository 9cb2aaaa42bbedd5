"""`POST /edgekit/models/NAME/COMMAND`: what a person commands of a model, on the Unix socket alone.

Whoever may open the socket may command; the port has no authentication, so it takes no commands. A staged bundle must
be signed by a trusted key all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from edgekit_contracts.errors import EdgekitError, EnvironmentFault, FormatError, TooLarge, UsageError
from edgekit_runtime.models import COMMANDS, Command
from edgekit_runtime.serving import message
from edgekit_runtime.serving.message import Later, Request, Response

PATH: Final = re.compile(r"/edgekit/models/(?P<name>[^/]+)/(?P<command>[^/]+)")

Obey = Callable[[str, Command, bytes], Future[dict[str, Any]]]
"""Model, command and body -> what there is then."""


def answer(request: Request, name: str, command: str, obey: Obey) -> Response:
    """The answer to a command: it comes when the command is carried out."""
    if command not in COMMANDS:
        return message.error(404, f"there is no command '{command[:32]}'; there are {', '.join(sorted(COMMANDS))}")
    if request.method != "POST":
        return message.error(405, "use POST here", b"allow: POST\r\n")
    if not request.local:
        return message.error(403, "commands are taken on the Unix socket alone (serve.socket in device.toml)")
    done: Future[Response] = Future()
    obeyed = obey(name, command, request.body)
    obeyed.add_done_callback(lambda ended: done.set_result(_response(ended)))
    return Later(202, b"", future=done)


def _response(ended: Future[dict[str, Any]]) -> Response:
    error = ended.exception()
    if error is None:
        return Response(200, msgspec.json.encode(ended.result()))
    if not isinstance(error, EdgekitError):
        return message.error(500, f"the runtime failed on this command: {type(error).__name__}: {error}")
    statuses: list[tuple[type[EdgekitError], int]] = [
        (TooLarge, 413),
        (FormatError, 400),
        (UsageError, 400),
        (EnvironmentFault, 503),
    ]
    status = next((status for kind, status in statuses if isinstance(error, kind)), 409)
    return message.error(status, f"{error.sentence}; {error.next_step}")
