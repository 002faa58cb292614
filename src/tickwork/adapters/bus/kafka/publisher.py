"""Publishing: the event loop hands messages to the client's queue, a thread collects what became of them.

One future a publish, not one a message: the client's callbacks count down in the thread, and all publishes that one
round of them finished are resolved by a single call into the loop. A full queue makes publishers wait, in turn.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from tickwork.adapters.bus.kafka.failures import GONE, cause, refused
from tickwork.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Message

    from tickwork.adapters.bus.kafka.address import Address
    from tickwork.ports import BusMessage
    from tickwork.trouble import Trouble

POLL: Final = 0.2
"""Seconds that the thread waits for callbacks before it looks whether it should end."""

FLUSH: Final = 10.0
"""Seconds that stopping waits for what was published and is not accepted yet."""


class _Publish:
    """One call of publish(), on its way."""

    __slots__ = ("_ends", "_finished", "error", "future", "left")

    def __init__(
        self, count: int, ends: dict[int, int], finished: list[_Publish], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.left = count
        self.error: KafkaError | None = None
        self.future: asyncio.Future[None] = loop.create_future()
        self._ends, self._finished = ends, finished

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """What became of one message (the client calls this, in the thread)."""
        if error is None:
            self._ends[message.partition() or 0] = (message.offset() or 0) + 1
        else:
            self.error = self.error or error
        self.left -= 1
        if not self.left:
            self._finished.append(self)

    def resolve(self) -> None:
        """Tells the one who waits (in the loop)."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(KafkaException(self.error))


class Publisher:
    """The producer of one bus."""

    def __init__(self, address: Address, trouble: Trouble) -> None:
        self._address, self.trouble = address, trouble
        self.lost: Callable[[str], None] = lambda _: None
        """Told of a topic that turned out not to exist any more."""
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._finished: list[_Publish] = []
        self._room: asyncio.Future[None] | None = None
        self._stopping = False
        self.last_error: KafkaError | None = None
        self.ends: dict[str, dict[int, int]] = {}
        """By topic (its name in Kafka) and partition: the offset after the last message that was published here."""
        self.client = Producer(address.producer() | {"error_cb": self._note})
        self._thread = threading.Thread(target=self._poll, name="tickwork-kafka-publish", daemon=True)
        self._thread.start()

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - the client's way to write a code; says less than the one before
            self.last_error = error
        self.trouble.heard(error.str())

    async def publish(self, topic: str, messages: Sequence[BusMessage]) -> None:
        """Returns once the brokers have all of them. StorageError."""
        ends = self.ends.setdefault(topic, {})
        publish = _Publish(len(messages), ends, self._finished, self._loop)
        try:
            async with self._turn:
                for message in messages:
                    await self._enqueue(topic, message, publish.delivered)
            await publish.future
        except KafkaException as error:
            if cause(error).code() in GONE:
                self.ends.pop(topic, None)
                self.lost(topic)
            raise refused(f"publishing to {topic}", self._address.label, error) from None

    async def _enqueue(self, topic: str, message: BusMessage, delivered: Any) -> None:
        if self._stopping:
            raise StorageError("this bus was stopped; nothing more can be published on it")
        headers: Any = message.headers
        while True:
            try:
                self.client.produce(topic, message.value, message.key, on_delivery=delivered, headers=headers)
            except BufferError:
                if self._room is None:
                    self._room = self._loop.create_future()
                await asyncio.shield(self._room)
            else:
                return

    async def stop(self) -> None:
        """Waits for what was published, a while, and ends."""
        if not self._stopping:
            self._stopping = True
            await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        self._thread.join()
        if self.client.flush(FLUSH):
            self.client.purge()
            self.client.flush(1.0)
        self._tell()

    def _poll(self) -> None:
        while not self._stopping:
            if self.client.poll(POLL) or self._finished or self._room is not None:
                self._tell()

    def _tell(self) -> None:
        finished, count = self._finished, len(self._finished)
        done = finished[:count]
        del finished[:count]
        try:
            self._loop.call_soon_threadsafe(self._resolve, done)
        except RuntimeError:  # the loop is closed: nobody waits
            self._stopping = True

    def _resolve(self, done: list[_Publish]) -> None:
        for publish in done:
            publish.resolve()
        if self._room is not None:
            self._room.set_result(None)
            self._room = None
