"""A step that works ahead of the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Final, TypeVar

Item = TypeVar("Item")

DEPTH: Final = 3
"""Items that wait between two steps."""


def ahead(items: Generator[Item, None, None], depth: int = DEPTH) -> Generator[Item, None, None]:
    """The same items, made in a thread of their own while the former ones are used.

    Order and exceptions are those of `items`. Closing it, or an exception in whoever uses it, ends the thread.
    """
    end: Any = object()
    with closing(items):
        pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        try:
            waiting: deque[Future[Item]] = deque(pool.submit(next, items, end) for _ in range(depth))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
