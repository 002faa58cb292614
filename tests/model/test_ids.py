"""Ids: the same cause is the same id, another cause another one, and paths can be taken apart again."""

from __future__ import annotations

import re
import uuid
from typing import TypeAlias

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tickwork.model.ids import (
    NAME,
    ROOT_BRANCH,
    TENANT,
    branch_path,
    child_lifetime_id,
    exec_id,
    group_path,
    in_group,
    parent_group,
    traceparent,
    uuid7,
)

names = st.from_regex(NAME, fullmatch=True)
counts = st.integers(0, 100_000)
MAX_MS = 2**48 - 1
bits = st.integers(0, 2**74 - 1)


@st.composite
def branches(draw: st.DrawFn) -> str:
    branch = ROOT_BRANCH
    for node, iteration, index in draw(st.lists(st.tuples(names, counts, counts), max_size=4)):
        branch = branch_path(group_path(branch, node, iteration), index)
    return branch


Cause: TypeAlias = tuple[str, str, str, int, int]
# Short texts from a small alphabet: joining them in the wrong way would make two causes look alike.
causes = st.tuples(st.text("a1:/.", max_size=3), branches(), names, counts, st.integers(1, 20))


@given(causes)
def test_the_same_cause_is_the_same_id(cause: Cause) -> None:
    assert exec_id(*cause) == exec_id(*cause)


@given(causes, causes)
def test_another_cause_is_another_id(
    one: tuple[str, str, str, int, int], other: tuple[str, str, str, int, int]
) -> None:
    assume(one != other)
    assert exec_id(*one) != exec_id(*other)


def test_every_part_of_the_cause_counts() -> None:
    cause = ("lifetime", "split:0.1", "work", 1, 1)
    others = [
        ("lifetime2", *cause[1:]),
        ("lifetime", "split:0.2", *cause[2:]),
        (*cause[:2], "word", 1, 1),
        (*cause[:3], 2, 1),
        (*cause[:4], 2),
        # The digits are the same, the parts are not.
        ("lifetime", "split:0.1", "work", 11, 1),
        ("lifetime", "split:0.1", "work", 1, 11),
    ]
    assert len({exec_id(*other) for other in [cause, *others]}) == len(others) + 1


def test_ids_do_not_change_between_versions() -> None:
    """Golden: a new version must meet its own old ids, or every duplicate from before an upgrade counts twice."""
    assert exec_id("019ab000-0000-7000-8000-000000000001", "split:0.3", "work", 2, 1) == "6fd1d5bc26cb0bca4101a7c7"
    assert group_path("split:0.3", "review", 1) == "split:0.3/review:1"


@given(causes)
def test_an_exec_id_is_safe_anywhere(cause: Cause) -> None:
    assert re.fullmatch(r"[0-9a-f]{24}", exec_id(*cause))


@given(branches(), names, counts, counts)
def test_a_path_can_be_taken_apart(branch: str, node: str, iteration: int, index: int) -> None:
    group = group_path(branch, node, iteration)
    path = branch_path(group, index)
    assert parent_group(path) == (group, index)
    assert in_group(path, group)
    assert in_group(branch_path(group_path(path, node, iteration), index), group), "at any depth"
    assert not in_group(branch, group)


@given(branches(), names, counts, counts, counts)
def test_what_is_in_one_group_is_in_no_other(branch: str, node: str, one: int, other: int, index: int) -> None:
    assume(one != other)
    assert not in_group(branch_path(group_path(branch, node, one), index), group_path(branch, node, other))


def test_group_1_does_not_contain_what_is_in_group_10() -> None:
    assert not in_group("split:10.0", "split:1")
    assert not in_group("split:0.1/split:0.0", "split:0.10/split:0")


def test_the_root_belongs_to_no_group() -> None:
    with pytest.raises(ValueError, match="no fan-out group"):
        parent_group(ROOT_BRANCH)


@given(st.integers(0, MAX_MS), bits)
def test_a_uuid7_has_its_version_variant_and_time(milliseconds: int, random: int) -> None:
    made = uuid.UUID(uuid7(milliseconds, random))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == milliseconds
    assert (made.int >> 64 & 0xFFF) == random >> 62
    assert made.int & (2**62 - 1) == random & (2**62 - 1)
    assert str(made) == uuid7(milliseconds, random)


@given(st.integers(0, MAX_MS), st.integers(0, MAX_MS), bits, bits)
def test_uuid7s_sort_by_time(one: int, other: int, bits_one: int, bits_other: int) -> None:
    assume(one != other)
    assert (uuid7(one, bits_one) < uuid7(other, bits_other)) == (one < other)


@given(names, names, st.integers(0, MAX_MS * 1000))
def test_a_child_has_one_id_for_each_cause(parent: str, other: str, now: int) -> None:
    child = child_lifetime_id(parent, now)
    assert child == child_lifetime_id(parent, now)
    assert uuid.UUID(child).version == 7
    assert (child == child_lifetime_id(other, now)) == (parent == other)


@given(names)
def test_a_traceparent_is_w3c(execution: str) -> None:
    lifetime = uuid7(1_795_331_400_000, 5)
    text = traceparent(lifetime, execution)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", text)
    assert text[3:35] == lifetime.replace("-", "")


@pytest.mark.parametrize("name", ["a", "A-1_b", "x" * 128])
def test_names_that_are_allowed(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "1a", "_a", "a b", "a.b", "a/b", "x" * 129, "ä", "a\n"])
def test_names_that_are_not(name: str) -> None:
    assert not NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("tenant", "fine"), [("acme-1", True), ("1", True), ("..", False), ("a/b", False), ("", False)]
)
def test_a_tenant_can_be_part_of_a_path(tenant: str, fine: bool) -> None:
    assert bool(TENANT.fullmatch(tenant)) is fine
