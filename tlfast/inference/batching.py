"""Dynamic batching: images of concurrent requests run through the network together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np

from .onnx_model import BATCH, Network, batch_size

BUDGET_BYTES = 1 << 29
Item = tuple[np.ndarray, "asyncio.Future[np.ndarray]"]  # pixels `[h, w, 3]` and the future of their probabilities `[c]`


class MemoryBudget:
    """A limit of the bytes of images, or of requests, in memory at a time; further ones wait in the order of their arrival. One is always admitted."""

    def __init__(self, limit: int = BUDGET_BYTES) -> None:
        self.limit, self.used = limit, 0
        self.turn, self.freed = asyncio.Lock(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[Callable[[int], None]]:
        """Reserve `size` bytes during the block. Yields a function that reduces the reservation to a number of bytes."""
        async with self.turn:
            while self.used and self.used + size > self.limit:
                self.freed.clear()
                await self.freed.wait()
            self.used += size
        held = size

        def keep(count: int) -> None:
            nonlocal held
            self.used -= held - count
            held = count
            self.freed.set()

        try:
            yield keep
        finally:
            keep(0)


class BatchQueue:
    """A queue of images and one task that runs them: as many per step as arrived during the step before, in batches of one image size."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.items: asyncio.Queue[Item] = asyncio.Queue()

    async def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Map one image, uint8 `[h, w, 3]`, to probabilities `[c]`. Waits until its batch has run."""
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self.items.put_nowait((pixels, future))
        return await future

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the task of the queue during the block."""
        task = asyncio.create_task(self._run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _run(self) -> None:
        while True:
            items = [await self.items.get()]
            while len(items) < BATCH and not self.items.empty():
                items.append(self.items.get_nowait())
            by_shape: dict[tuple[int, ...], list[Item]] = {}
            for item in items:
                by_shape.setdefault(item[0].shape, []).append(item)
            for group in by_shape.values():
                step = batch_size(group[0][0])
                for start in range(0, len(group), step):
                    await self._run_batch(group[start : start + step])

    async def _run_batch(self, items: Sequence[Item]) -> None:
        """Run images of one size and set their futures."""
        batch = [(pixels, future) for pixels, future in items if not future.done()]  # done: the client has disconnected
        if not batch:
            return
        try:
            rows = await asyncio.to_thread(_predict_batch, self.network, [pixels for pixels, _ in batch])
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)


def _predict_batch(network: Network, pixels: Sequence[np.ndarray]) -> np.ndarray:
    return network.probabilities(np.stack(pixels))  # [b, c]
