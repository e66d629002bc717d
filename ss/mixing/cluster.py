"""Rendering on many machines by Dask: a scheduler hands out rows, and gives those of a worker that is lost to another.

`dask scheduler` on one machine, `dask worker tcp://it:8786` on as many as there are; all see the corpus and the output folder under
the same paths. What is written is whole or absent, so a row that is made twice does no harm.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

ROWS_AT_ONCE = 32  # that a worker is given
LOST = 3  # workers that may be lost over the same rows


def on_cluster(one: Callable[[Any], Any], rows: Sequence[Any], address: str) -> Iterator[Any]:
    """What `one` gives for the rows, as they are done. Raises ValueError where Dask or the scheduler is not there."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ValueError("cluster: rendering on several machines needs Dask: pip install 'ss[cluster]'") from error
    try:
        client = Client(address)
    except OSError as error:
        raise ValueError(f"cluster: expected a Dask scheduler at {address}, but: {error}") from error
    with client:
        batches = [rows[begin : begin + ROWS_AT_ONCE] for begin in range(0, len(rows), ROWS_AT_ONCE)]
        for done in as_completed(client.map(partial(several, one), batches, pure=False, retries=LOST)):
            yield from done.result()


def several(one: Callable[[Any], Any], rows: Sequence[Any]) -> list[Any]:
    """Of a batch of rows."""
    return [one(row) for row in rows]
