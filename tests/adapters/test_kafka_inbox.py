"""What waits for a receiver on the Kafka bus: turns between topics, and a share of the room for each."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import Message

from tickwork.adapters.bus.kafka import turns
from tickwork.adapters.bus.kafka.inbox import Inbox
from tickwork.adapters.bus.kafka.progress import Progress
from tickwork.clock import SystemClock
from tickwork.ports import Delivery

ROOM = 2048
ALONE = ROOM // 2
"""The share of a topic that is alone."""


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MESSAGES", ROOM)


def inbox(*topics: str, partitions: int = 1) -> Inbox:
    made = Inbox("", lambda: None, SystemClock(), 1e9)
    made.adopt([Progress(topic, number, 0) for topic in topics for number in range(partitions)])
    return made


def fetched(topic: str, first: int, count: int, partition: int = 0, value: bytes = b"") -> list[Message]:
    return [
        Message(topic=topic, partition=partition, offset=offset, key=b"k", value=value or b"%d" % offset)
        for offset in range(first, first + count)
    ]


def of(topic: str, deliveries: list[Delivery]) -> list[int]:
    return [int(d.message.value) for d in deliveries if d.topic == topic]


def everything(box: Inbox, most: int = 64) -> list[Delivery]:
    found: list[Delivery] = []
    while got := box.take(most):
        found += got
    return found


def test_topics_take_turns_and_each_stays_in_order() -> None:
    box = inbox("a", "b", "c")
    box.put(fetched("a", 0, 1000))
    box.put(fetched("b", 0, 300))
    box.put(fetched("c", 0, 200))
    first = box.take(660)
    assert of("c", first) == list(range(200))
    assert of("a", first) == list(range(230)), "what one does not need the others have, in equal parts"
    assert of("b", first) == list(range(230))
    rest = everything(box)
    assert of("a", rest) == list(range(230, 1000))
    assert of("b", rest) == list(range(230, 300))
    assert box.take(10) == []


def test_who_has_few_does_not_wait_until_many_are_handled_with_them() -> None:
    box = inbox("a", "b", "c")
    box.put(fetched("a", 0, 1000))
    box.put(fetched("b", 0, 300))
    box.put(fetched("c", 0, 2))
    first = box.take(1000)
    assert of("c", first) == [0, 1]
    assert of("a", first) == of("b", first) == list(range(turns.SHORT))
    assert len(box.take(1000)) == 1000, "nobody has few any more"


def test_more_topics_than_a_take_may_have_all_get_their_turn() -> None:
    topics = [f"t{n}" for n in range(7)]
    box = inbox(*topics)
    for topic in topics:
        box.put(fetched(topic, 0, 10))
    turn = [d.topic for _ in range(7) for d in box.take(3)]
    assert turn == topics * 3


def test_one_topic_alone_is_handed_out_as_it_came() -> None:
    box = inbox("a", partitions=2)
    box.put(m for n in range(50) for m in (*fetched("a", n, 1, 0), *fetched("a", n, 1, 1)))
    assert [int(d.message.value) for d in box.take(30) + box.take(100)] == [n // 2 for n in range(100)]


def test_a_topic_alone_has_half_the_room_and_is_fetched_again_once_half_of_that_is_gone() -> None:
    box = inbox("a", "b")
    box.put(fetched("a", 0, ALONE))
    assert box.crowded == frozenset()
    box.put(fetched("a", ALONE, 1))
    assert box.crowded == {"a"}
    box.put(fetched("a", ALONE + 1, 99))
    box.take(100 + ALONE // 2 - 1)
    assert box.crowded == {"a"}, "not for each message that goes"
    box.take(1)
    assert box.crowded == frozenset()


def test_a_flood_leaves_room_for_others() -> None:
    box = inbox("flood", "torrent", "quiet")
    for _ in range(3):
        box.put(fetched("flood", 0, 500))
    box.put(fetched("quiet", 0, 5))
    assert box.crowded == {"flood"}
    box.put(fetched("torrent", 0, 500))
    assert box.crowded == {"flood", "torrent"}, "half of the 548 that the flood has left is less than it brought"
    box.put(fetched("quiet", 5, 5))
    assert of("quiet", box.take(30)) == list(range(10))
    everything(box)
    assert box.crowded == frozenset()


def test_bytes_count_like_messages() -> None:
    box = inbox("a", "b")
    large = b"x" * (turns.BYTES // 8)
    box.put(fetched("a", 0, 4, value=large))
    assert box.crowded == frozenset()
    box.put(fetched("a", 4, 1, value=large))
    assert box.crowded == {"a"}
    box.take(2)
    assert box.crowded == {"a"}
    box.take(1)
    assert box.crowded == frozenset()
    box.put(fetched("b", 0, 1, value=b"x" * turns.BYTES))
    assert box.crowded == {"b"}, "one message above everything: nothing more of that topic until it is gone"
    everything(box)
    assert box.crowded == frozenset()


def test_there_is_an_end_of_the_room_for_all() -> None:
    topics = [f"t{n}" for n in range(turns.HARD * ROOM // 100)]
    box = inbox(*topics, "idle")
    for topic in topics:
        box.put(fetched(topic, 0, 100))
    assert "idle" not in box.crowded
    box.put(fetched(topics[0], 100, 100))
    assert "idle" in box.crowded
    box.take(ROOM)
    assert "idle" in box.crowded
    box.take(200)
    assert "idle" not in box.crowded
    everything(box)
    assert box.crowded == frozenset()


@pytest.mark.parametrize("left", [0, 300])
def test_a_crowded_topic_whose_partitions_go_is_not_crowded_any_more(left: int) -> None:
    box = inbox("a", "b", partitions=2)
    box.put(fetched("a", 0, 1500, partition=0))
    box.put(fetched("a", 0, left, partition=1))
    box.put(fetched("b", 0, 3))
    assert box.crowded == {"a"}
    box.drop(box.give_up([("a", 0)], 0.0))
    assert box.crowded == frozenset()
    rest = everything(box)
    assert (of("a", rest), of("b", rest)) == (list(range(left)), [0, 1, 2])


def test_whoever_waits_for_room_goes_on_when_there_is_some() -> None:
    box = inbox("a", "b")
    box.put(fetched("a", 0, 1500))
    gone_on = threading.Thread(target=box.wait_for_room, args=(60.0,), daemon=True)
    gone_on.start()
    box.take(10)
    assert gone_on.is_alive()
    box.take(1490)
    gone_on.join(5)
    assert not gone_on.is_alive()


def test_closing_ends_the_wait_and_leaves_nothing() -> None:
    box = inbox("a")
    box.put(fetched("a", 0, 1500))
    waiting = threading.Thread(target=box.wait_for_room, args=(60.0,), daemon=True)
    waiting.start()
    box.close()
    waiting.join(5)
    assert not waiting.is_alive()
    box.put(fetched("a", 1500, 1500))
    assert box.take(10) == []
    assert box.crowded == frozenset()


def test_a_topic_that_is_not_admitted_stays_and_has_its_next_turn_after_the_others() -> None:
    box = inbox("a", "b")
    box.put(fetched("a", 0, 500))
    box.put(fetched("b", 0, 500))
    left = {"a": 3, "b": 10_000}

    def admit(topic: str) -> bool:
        left[topic] -= 1
        return left[topic] >= 0

    got = box.take(200, admit)
    assert of("a", got) == [0, 1, 2]
    assert of("b", got) == list(range(197)), "what one may not have the others have"
    assert of("a", box.take(200, admit)) == []
    left["a"] = 10_000
    rest = []
    while more := box.take(64, admit):
        rest += more
    assert of("a", rest) == list(range(3, 500)), "nothing is lost or overtaken"


def test_a_flood_that_is_not_admitted_is_crowded_and_leaves_room_for_others() -> None:
    box = inbox("a", "b")
    box.put(fetched("a", 0, ALONE + 1))
    assert box.take(100, lambda topic: topic != "a") == []
    assert box.crowded == {"a"}
    box.put(fetched("b", 0, 5))
    assert of("b", box.take(100, lambda topic: topic != "a")) == list(range(5))
    assert box.crowded == {"a"}, "it is held back, and no more is fetched of it"
    assert of("a", everything(box)) == list(range(ALONE + 1))
    assert not box.crowded
