"""The short form of benchmarks/malformed.py."""

from __future__ import annotations

import asyncio
import threading

from tests.brokers import wait_until
from tests.malformed import assault, attacks
from tests.serving import INFER, Reply, request, running


def test_whatever_strangers_send_has_its_status_and_good_clients_their_answers() -> None:
    with running(request_timeout_s=1.0, max_request_bytes=65_536) as server:
        whole, found, over = server.ask(request(body=INFER)), list[Reply](), threading.Event()

        def good() -> None:
            with server.connect() as client:
                while not over.is_set():
                    client.send(request(body=INFER))
                    found.append(client.reply())

        thread = threading.Thread(target=good)
        thread.start()
        try:
            wrong = asyncio.run(assault(server.port, attacks(400, seed=4, slow_share=0.02), clients=16))
        finally:
            over.set()
            thread.join()
        assert wrong == []
        assert len(found) > 10
        assert all(reply == whole for reply in found)
        wait_until(lambda: server.app.traffic.open == 0, "the end of all connections")
        assert server.app.traffic.busy == 0
        assert 500 not in server.app.traffic.responses
