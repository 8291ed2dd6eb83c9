"""This machine's cores, each busy with sequences of its own.

A tile's metrics are some hundred operations on a few megabytes. Spread over the cores one operation at a time, every
one of them ends with all cores waiting for the slowest: no gain on an idle machine, and ten times the time where
something else keeps a core busy. So a core gets sequences, and runs their operations alone.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A thread for each of torch's, for a `with` statement. Results do not depend on their number."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.count > 1:
            threads = torch.get_num_threads()
            self._pool = ThreadPoolExecutor(self.count, "headprobe", initializer=torch.set_num_threads, initargs=(1,))
            list(self._pool.map(_started, range(self.count)))
            torch.set_num_threads(threads)  # a worker's setting also became the default of threads to come
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`function` of every item, in order; a single item is not worth handing over."""
        work = list(items)
        if self._pool is None or len(work) == 1:
            return [function(item) for item in work]
        gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

        def run(item: Item) -> Result:
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):  # which belong to the thread
                return function(item)

        return list(self._pool.map(run, work))


def _started(_: int) -> None:
    """Nothing: it makes the pool start a thread."""
