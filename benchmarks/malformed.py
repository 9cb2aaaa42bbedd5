"""Ten thousand malformed requests against a running service, and good clients beside them.

    .venv/bin/python benchmarks/malformed.py            # make malformed
    .venv/bin/python benchmarks/malformed.py --requests 2000 --seed 7

Bad JSON, wrong shapes and types, huge, slow, half-closed and broken-off requests, attempts at smuggling
(tests/malformed.py), 16 at a time. Prints what was answered wrongly, whether the service is alive, its memory and files
after the first and the second half, and the latencies of a good client (load.c, 50 requests a second, seconds at a
time; the medians of its runs): alone, while another service on the same cores is attacked, and beside the attack. What
the last has over the one before it is the harm; the rest is that attackers need a processor too. Another good client
compares every answer. Needs cc.
Ends by itself; exit code 1 where an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Final

from tests import bundles
from tests.malformed import Attack, assault, attacks
from tests.service import Service
from tests.serving import INFER, request

CLIENTS: Final = 16
ALONE: Final = 3
"""Runs of the good client before the attack."""
RUN_S: Final = 2.0
RATE: Final = 50
SETTINGS: Final = "request_timeout_s = 1.0\nmax_request_bytes = 65536\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="malformed requests against a running service")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        services = []
        try:
            for home in (folder / "own", folder / "neighbour"):
                home.mkdir()
                services.append(service := Service(home, bundles.make(home)))
                service.config.write_text(service.config.read_text().replace("[serve]\n", f"[serve]\n{SETTINGS}"))
                service.start()
            service, neighbour = services
            (folder / "request").write_bytes(request("/v2/models/tiny/infer", INFER))
            subprocess.run(["cc", "-O2", "-o", folder / "load", Path(__file__).with_name("load.c")], check=True)
            load = [
                str(folder / "load"),
                f"127.0.0.1:{service.port}",
                "1",
                str(RUN_S),
                str(RATE),
                str(folder / "request"),
            ]
            return asyncio.run(run(service, neighbour, options.requests, options.seed, load))
        finally:
            for service in services:
                service.close()


async def run(service: Service, neighbour: Service, count: int, seed: int, load: list[str]) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    whole = await answered(reader, writer)
    alone = [await latencies(load) for _ in range(ALONE)]
    planned = list(attacks(count, seed=seed, slow_share=0.01))
    wrong: list[str] = []
    elsewhere, beside, footprints = [], [], []
    attack = asyncio.create_task(assault(neighbour.port, iter(planned[: count // 2]), CLIENTS))
    while not attack.done():
        elsewhere.append(await latencies(load))
    wrong += await attack
    began = time.monotonic()
    for half in (planned[: count // 2], planned[count // 2 :]):
        attack = asyncio.create_task(assault(service.port, iter(half), CLIENTS))
        while not attack.done():
            beside.append(await latencies(load))
            if (found := await answered(reader, writer)) != whole:
                raise SystemExit(f"a good client was answered {found[:300]!r}")
        wrong += await attack
        footprints.append(footprint(service))
    print(f"{count:,} malformed requests in {time.monotonic() - began:.0f} s, seed {seed}:")
    for kind, number in sorted(kinds(planned).items()):
        print(f"  {number:>6,} {kind}")
    print(f"answered wrongly: {len(wrong)}")
    for words in islice(wrong, 10):
        print(f"  {words}")
    alive = service.process is not None and service.process.poll() is None
    print(f"the service {'runs' if alive else 'ENDED'}; 'Traceback' in its log: {service.log.count('Traceback')}")
    (memory, files), (later, files_later) = footprints
    print(f"memory after the first half {memory / 1e6:.1f} MB, after all {later / 1e6:.1f} MB")
    print(f"open files after the first half {files}, after all {files_later}")
    told = {"alone": alone, "while a neighbour is attacked": elsewhere, "beside the attack": beside}
    for words, runs in told.items():
        p50, p99 = (statistics.median(one[name] / 1000 for one in runs) for name in ("p50_us", "p99_us"))
        errors = sum(one["errors"] for one in runs)
        print(f"good client {words}: {errors:.0f} errors, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return int(bool(wrong) or not alive)


async def latencies(load: list[str]) -> dict[str, float]:
    """What the load generator says of one run."""
    process = await asyncio.create_subprocess_exec(*load, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    values: dict[str, float] = json.loads(told)
    return values


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(request("/v2/models/tiny/infer", INFER))
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(size)


def kinds(planned: list[Attack]) -> dict[str, int]:
    names = [attack.kind for attack in planned]
    return {name: names.count(name) for name in set(names)}


def footprint(service: Service) -> tuple[int, int]:
    """Resident bytes and open files of the service."""
    assert service.process is not None
    home = Path(f"/proc/{service.process.pid}")
    pages = int((home / "statm").read_text().split()[1])
    return pages * 4096, len(list((home / "fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main())
