"""A step that works ahead of the next one, and one that works behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Final, ParamSpec, TypeVar

Item = TypeVar("Item")
P = ParamSpec("P")

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


@contextmanager
def behind(call: Callable[P, None]) -> Iterator[Callable[P, None]]:
    """The same call, carried out in a thread of its own while its caller goes on; one at a time, in order.

    An exception of one is raised by the next, or at the end; nothing is under way behind the end.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="behind") as pool:
        under_way: list[Future[None]] = []

        def later(*arguments: P.args, **named: P.kwargs) -> None:
            if under_way:
                under_way.pop().result()
            under_way.append(pool.submit(call, *arguments, **named))

        yield later
        if under_way:
            under_way.pop().result()
