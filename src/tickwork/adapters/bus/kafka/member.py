"""The thread of one subscription: it owns a consumer, and polls it for as long as the subscription lives.

A group that the brokers do not know yet is founded before anybody joins it: its place on every topic is committed, and
beside it a place on the announcements' topic, which says that the group exists. Brokers take such a commit only while
a group has no members, so of several founders the last one before the first to join decides, and all agree. After
that, a topic on which the group has no place is one that came later, and is read from its beginning. So nothing that
is published after a subscription stands can be missed, whoever is there to read it. A group that is to have what was
published before as well is founded without a place on any topic.

When a partition goes to another member, what is in hand has `handover` seconds to be acknowledged. When the receiver is
slow, partitions are paused and polling goes on, so slow work never looks like a dead member. Only those are paused
whose topic is crowded in the inbox: what others send does not wait for it. The client has one queue for all that it
fetched, and pausing takes out of it what came of these partitions, so nothing stands behind that either.

A process that stood still for about a session does not know whether its partitions went to others meanwhile, and its
client reads on as if they had not. It asks by committing where it stands, which brokers take from a member alone; until
they have, nothing is handed out, and when they refuse, all that was fetched is thrown away.

A member has a place in its group, by a name of its own (Kafka calls that a static member). When brokers were away for
longer than its session it joins as somebody new, and takes its place at once. What it had sent before may come after
that: brokers take it for a stranger's then, and let only a new client in (`_begin_anew`).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_STORED,
    Consumer,
    KafkaException,
    TopicPartition,
)

from tickwork.adapters.bus.kafka.failures import EXPELLED, GONE, HAS_MEMBERS, HOPELESS, cause, is_fatal
from tickwork.adapters.bus.kafka.names import NEWS
from tickwork.adapters.bus.kafka.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from confluent_kafka import KafkaError, Message

    from tickwork.adapters.bus.kafka.address import Address
    from tickwork.adapters.bus.kafka.directory import Directory
    from tickwork.adapters.bus.kafka.inbox import Inbox
    from tickwork.ports import Clock

log = logging.getLogger(__name__)

POLL: Final = 0.05
"""Seconds that a poll waits for a message: how soon the thread notices what the loop wants of it."""
SOON: Final = 0.01
"""The same while a topic is kept back: how soon it is noticed that there is room again."""
FETCH: Final = 500
"""Messages taken from the client at once."""
COMMIT: Final = 0.1
"""Seconds between two commits: what a crash may have delivered again although it was acknowledged."""
PAUSE: Final = 0.02
"""Seconds that a topic is crowded before its partitions are paused, with nothing fetched meanwhile: pausing throws away
what the client has fetched, and a receiver that is about to take more needs that at once."""
LAG: Final = 1.0
"""Seconds between two looks at how much is left to read."""
ANSWER: Final = 5.0
"""Seconds in which a broker answers."""
TRIES: Final = 20
"""How often founding a group is tried while brokers say that they are not ready for it."""


class Member:
    """Runs in a thread of its own. `group` empty: it reads every partition from now on and commits nothing.

    `from_beginning`: where a group that it founds stands.
    """

    def __init__(
        self,
        address: Address,
        directory: Directory,
        patterns: Sequence[str],
        group: str,
        place: str,
        clock: Clock,
        inbox: Inbox,
        *,
        from_beginning: bool,
    ) -> None:
        self._from_beginning = from_beginning
        self._address, self._directory, self._patterns, self._clock = address, directory, patterns, clock
        self._inbox, self._group, self._place = inbox, group, place
        self._news = address.prefix + NEWS
        self._topics: dict[str, int] = {}
        self._assigned = False
        self._kept_back: frozenset[str] = frozenset()
        """Topics whose partitions are paused."""
        self._crowded_since: float | None = None
        self._committed_at = self._looked_at = 0.0
        self.renew = False
        """Set when there are new topics."""
        self.closing = False
        self._consumer = self._client()

    def _client(self) -> Consumer:
        settings: dict[str, Any] = {"on_commit": self._was_committed, "error_cb": self._note}
        group = self._address.prefix + (self._group or "watchers")
        return Consumer(self._address.consumer(group, self._place) | settings)

    def run(self, opened: Callable[[], None]) -> None:
        """Lives until `closing`. Raises KafkaException when there is no use in going on."""
        try:
            self._topics = self._directory.matching(self._patterns)
            if self._group:
                self._join()
            else:
                self._surely(lambda: self._watch(self._topics, self._directory.ends(self._topics)))
            opened()
            while not self.closing:
                self._turn()
        finally:
            self.closing = True
            self._leave()

    def _leave(self) -> None:
        """Commits where everything stands, and leaves. In the middle of a rebalance that has to wait for its end."""
        for _ in range(TRIES if self._group else 0):
            failed = self._commit_last(list(self._inbox.parts.values()))
            if failed is None or failed.code() not in HAS_MEMBERS:
                break
            self._consumer.consume(1, POLL)  # what comes is not ours any more; the callbacks are what it is for
        if self._group:
            with suppress(KafkaException):  # a client that may not go on may not leave either
                self._unsubscribe()
        self._consumer.close()

    def _unsubscribe(self) -> None:
        """Gives everything back before closing. Closing alone is not enough: the client then tells nobody that a member
        without partitions has gone, so that its group waits for it until its session is over; and a callback that
        comes in the middle of closing waits for an answer that never comes, with the whole process (librdkafka 4884).
        """
        self._consumer.unsubscribe()
        until = self._clock.monotonic() + ANSWER
        while self._consumer.consume(1, POLL) or self._consumer.assignment():
            if self._clock.monotonic() > until:
                log.warning("a member of %s could not give back its partitions; they are taken from it", self._group)
                return
        self._consumer.consume(1, POLL)

    def _begin_anew(self) -> None:
        """Goes on with a new client, in the same place."""
        log.info("a member of %s begins anew: the brokers took it for two", self._group)
        self._inbox.drop(self._inbox.give_up(list(self._inbox.parts), 0.0))
        self._consumer.close()  # it has nothing to give back: whoever is shut out has lost all
        self._consumer = self._client()
        self._kept_back = frozenset()
        self._subscribe()

    # Finding its place

    def _surely(self, what: Callable[[], None]) -> None:
        """Brokers need a moment for a topic or a group that is new to them: they are asked again."""
        for attempt in range(1, TRIES + 1):
            try:
                what()
            except KafkaException as error:
                if attempt == TRIES or cause(error).code() in HOPELESS or self.closing:
                    raise
                log.debug("%s finds its place a little later: %s", self._group or "a watcher", error)
                self._inbox.wait_for_close(POLL * attempt)
            else:
                return

    def _join(self) -> None:
        self._surely(self._found)
        self._subscribe()
        until = self._clock.monotonic() + 2 * self._address.options.session_timeout
        while not self._assigned and not self.closing:
            self._turn()
            if self._clock.monotonic() > until:
                log.warning("a member of %s waits for its share; another one does not answer", self._group)
                return

    def _found(self) -> None:
        """Gives a group that is not known its place on every topic, if it is not the beginning. KafkaException."""
        place = self._consumer.committed([TopicPartition(self._news, 0)], timeout=ANSWER)[0]
        if place.error is not None:
            raise KafkaException(place.error)
        if place.offset >= 0:
            return
        ends = {} if self._from_beginning else self._directory.ends(self._topics)
        offsets = [TopicPartition(*key, offset) for key, offset in ends.items()]
        offsets.append(TopicPartition(self._news, 0, 0))
        failed = self._committed_now(offsets)
        if failed is not None and failed.code() not in HAS_MEMBERS:
            raise KafkaException(failed)

    def _subscribe(self) -> None:
        names = [self._address.prefix + name for name in self._topics]
        self._consumer.subscribe(
            [*names, self._news], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _watch(self, topics: dict[str, int], starts: dict[tuple[str, int], int]) -> None:
        """Reads these from now on; partitions that came later from their beginning."""
        parts = [
            Progress(name, number, starts.get((self._address.prefix + name, number), 0))
            for name, count in topics.items()
            for number in range(count)
            if (name, number) not in self._inbox.parts
        ]
        self._inbox.adopt(parts)
        if parts:
            places = [TopicPartition(self._address.prefix + p.topic, p.partition, p.position) for p in parts]
            self._consumer.incremental_assign(places)
            self._consumer.pause(self._of(places, self._kept_back))

    def _renewed(self) -> None:
        """There may be new topics."""
        self.renew = False
        topics = self._directory.matching(self._patterns)
        before, self._topics = self._topics, topics
        if not self._group:
            self._watch(topics, {})
        elif topics.keys() != before.keys():
            self._subscribe()

    # The client's callbacks, called while it is polled

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        wanted = [p for p in partitions if p.topic != self._news]
        starts: list[TopicPartition] = []
        parts: list[Progress] = []
        for place in self._places(consumer, wanted):
            start = place.offset if place.offset >= 0 or place.offset == OFFSET_STORED else OFFSET_BEGINNING
            starts.append(TopicPartition(place.topic, place.partition, start))
            note = (place.metadata or "") if start >= 0 else ""
            name = place.topic.removeprefix(self._address.prefix)
            parts.append(Progress(name, place.partition, max(start, -1), note))
        self._inbox.adopt(parts)
        news = [TopicPartition(self._news, p.partition, OFFSET_END) for p in partitions if p.topic == self._news]
        consumer.incremental_assign(starts + news)
        # A partition that was ours before may be paused since then, so both are said.
        consumer.resume(starts)
        consumer.pause(news + self._of(starts, self._kept_back))
        self._assigned = True
        log.debug("%s has %d more partitions", self._group, len(parts))

    def _places(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Where the group stands; left to the client (without the notes) when the brokers do not say so in time."""
        if not partitions:
            return []
        try:
            places = consumer.committed(partitions, timeout=ANSWER)
        except KafkaException as error:
            self._directory.trouble.heard(f"where {self._group} stands is not known yet: {cause(error).str()}")
            return [TopicPartition(p.topic, p.partition, OFFSET_STORED) for p in partitions]
        for place in places:
            if place.error is not None:
                place.offset = OFFSET_STORED
        return places

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        options = self._address.options
        patience = 0.0 if self.closing else min(options.handover, options.max_poll_interval / 2)
        going = self._inbox.give_up(self._keys(partitions), patience)
        self._commit_last(going)
        self._inbox.drop(going)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """They are somebody else's already: no waiting, nothing to commit."""
        self._inbox.drop(self._inbox.give_up(self._keys(partitions), 0.0))
        consumer.incremental_unassign(partitions)

    def _was_committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        failed = partitions if error is not None else [p for p in partitions if p.error is not None]
        if failed:
            log.debug("a commit of %s is tried again: %s", self._group, error or failed[0].error)
            self._inbox.not_committed(self._keys(failed))

    def _note(self, error: KafkaError) -> None:
        self._directory.trouble.heard(error.str())

    # The daily round

    def _turn(self) -> None:
        try:
            self._round()
        except KafkaException as error:
            if not self._group or not is_fatal(error):
                raise
            self._begin_anew()

    def _round(self) -> None:
        if self._inbox.come_by():
            self._prove()
        if self.renew:
            self._renewed()
        now = self._clock.monotonic()
        if self._keep_back(now):
            patience = SOON if self._kept_back else POLL
            messages = self._consumer.consume(FETCH, 0) or self._consumer.consume(1, patience)
            if messages:
                self._inbox.put(self._sound(messages))
        if self._group and now - self._committed_at >= COMMIT:
            self._committed_at = now
            self._commit_moved()
        if now - self._looked_at >= LAG:
            self._looked_at = now
            self._look()

    def _prove(self) -> None:
        """Asks whether the partitions are ours still. Without an answer all stays in doubt, and it is asked again."""
        held = list(self._inbox.parts.values())
        # A client that found out by itself has given up its name, and will say so soon.
        expelled = bool(held) and not self._consumer.memberid()
        if held and not expelled:
            standing = self._offsets(self._inbox.standing(held))
            failed = self._committed_now(standing) if standing else None
            expelled = failed is not None and failed.code() in EXPELLED
            if failed is not None and not expelled:
                log.debug("%s does not know yet whether it is a member: %s", self._group, failed)
                self._inbox.not_committed(self._keys(standing))
                return
        if expelled:
            log.info("%s stood still, and its partitions went to others: what was fetched is dropped", self._group)
            self._inbox.drop(self._inbox.give_up([(p.topic, p.partition) for p in held], 0.0))
        self._inbox.trust()

    def _keep_back(self, now: float) -> bool:
        """Pauses the topics that have become crowded, and resumes those that have room again. False: nothing is to be
        fetched yet, for a receiver may be about to take what the first crowded one needs.
        """
        crowded, before = self._inbox.crowded, self._kept_back
        if crowded and not before:
            self._crowded_since = now if self._crowded_since is None else self._crowded_since
            if now - self._crowded_since < PAUSE:
                self._inbox.wait_for_room(PAUSE)
                return False
        self._crowded_since = None
        if crowded != before:
            parts = self._ours()
            self._consumer.pause(self._of(parts, crowded - before))
            self._consumer.resume(self._of(parts, before - crowded))
            self._kept_back = crowded
        return True

    def _sound(self, messages: list[Message]) -> Iterable[Message]:
        for message in messages:
            error = message.error()
            if error is None:
                yield message
            elif error.code() in HOPELESS or error.fatal():
                raise KafkaException(error)
            elif error.code() in GONE:
                log.info("a topic that %s reads is gone: %s", self._group or "a watcher", error)
            else:
                self._directory.trouble.heard(error.str())

    def _commit_moved(self) -> None:
        """Commits what moved, and does not wait. What fails is stirred again, and comes with the next."""
        found = self._offsets(self._inbox.moved())
        if found:
            try:
                self._consumer.commit(offsets=found, asynchronous=True)
            except KafkaException as error:
                log.debug("a commit of %s is tried again: %s", self._group, error)
                self._inbox.not_committed(self._keys(found))

    def _commit_last(self, parts: Iterable[Progress]) -> KafkaError | None:
        """Commits where these stand, whatever was committed before: that may be on its way still. The error, if any."""
        found = self._offsets(self._inbox.standing(parts))
        failed = self._committed_now(found) if found else None
        if failed is not None:
            log.info("a commit of %s failed; what it was for may be delivered again: %s", self._group, failed)
        return failed

    def _offsets(self, standing: list[tuple[Progress, int, str]]) -> list[TopicPartition]:
        prefix = self._address.prefix
        return [TopicPartition(prefix + p.topic, p.partition, low, note) for p, low, note in standing]

    def _committed_now(self, offsets: list[TopicPartition]) -> KafkaError | None:
        try:
            places = self._consumer.commit(offsets=offsets, asynchronous=False) or ()
        except KafkaException as error:
            return cause(error)
        return next((place.error for place in places if place.error is not None), None)

    def _look(self) -> None:
        """Caches how far each partition reaches; the client heard it with the last fetch."""
        prefix = self._address.prefix
        for progress in list(self._inbox.parts.values()):
            try:
                where = TopicPartition(prefix + progress.topic, progress.partition)
                ends = self._consumer.get_watermark_offsets(where, cached=True)
            except KafkaException:
                continue
            if ends is not None:
                progress.end = max(progress.end, ends[1])

    def _ours(self) -> list[TopicPartition]:
        return [p for p in self._consumer.assignment() if p.topic != self._news or not self._group]

    def _of(self, parts: list[TopicPartition], topics: frozenset[str]) -> list[TopicPartition]:
        return [p for p in parts if p.topic.removeprefix(self._address.prefix) in topics]

    def _keys(self, partitions: Iterable[TopicPartition]) -> list[tuple[str, int]]:
        return [(p.topic.removeprefix(self._address.prefix), p.partition) for p in partitions]
