"""Work on many items by several processes of this machine."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import parent_process
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(function: Callable[[Item], Result], items: Sequence[Item], num_workers: int, at_once: int) -> Iterator[Result]:
    """What a picklable function gives for each item, in their order. at_once: items that a process is given.

    Where one process is enough, it is this one. Those that are started end with this one, even if it is killed.
    """
    n = min(num_workers, -(-len(items) // at_once))
    if n <= 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(n, initializer=_end_with_parent)
    try:
        yield from pool.map(function, items, chunksize=at_once)
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone: nobody would take its results."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
