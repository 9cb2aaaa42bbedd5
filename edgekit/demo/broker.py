"""An MQTT broker inside this process, for the demo: amqtt speaks MQTT 3.1.1 and forgets everything when it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit_contracts.errors import EnvironmentFault


@contextmanager
def embedded_broker() -> Iterator[str]:
    """Runs a broker on a free loopback port and gives its address, `mqtt://127.0.0.1:PORT`."""
    from amqtt.broker import Broker

    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()
    faults: list[Exception] = []

    async def serve() -> None:
        broker = Broker(settings)
        try:
            await broker.start()
        except Exception as fault:
            faults.append(fault)
            return
        finally:
            started.set()
        await stop.wait()
        await broker.shutdown()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="demo-broker", daemon=True)
    thread.start()
    started.wait()
    if faults:
        raise EnvironmentFault(f"the embedded broker does not start: {faults[0]}", "run 'edgekit demo' again")
    try:
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
