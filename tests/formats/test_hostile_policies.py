"""Policies from anybody: whatever stands in a document, it is refused soon, whole and with its place, or it is fine."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.formats.test_hostile import WORDS
from tests.formats.test_policies import SEED, SPEC, hint, one, said
from tickwork.errors import PolicyInvalid
from tickwork.formats.policies import read_policies
from tickwork.model.policy import MAX_POLICIES

QUICK = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
PARTS = st.one_of(
    WORDS,
    st.sampled_from(["version: 1\n", "policies:\n", "  - ", "name: p\n", "    when: ", "sum(", ")", " > ", "10 000"]),
    st.sampled_from(["    action: warn\n", " -> ", "warn", "window: ", "match: ", "{", "labels", "\u0430", "\u200b"]),
)  # fmt: skip


def survives(text: str, file: str) -> None:
    try:
        document = read_policies(text, file)
    except PolicyInvalid as error:
        problems = error.problems
    else:
        assert document.policies
        return
    assert problems
    assert all(str(problem) and problem.code for problem in problems)


@pytest.mark.parametrize("file", ["p.yaml", "p.json"])
@given(text=st.one_of(st.text(max_size=200), st.lists(PARTS, max_size=30).map("".join)))
@QUICK
@example("\ud800")
@example("\x00")
def test_any_text_is_read_or_refused(file: str, text: str) -> None:
    survives(text, file)


@given(cut=st.floats(0, 1), put=st.one_of(st.just(""), PARTS, st.text(max_size=3)), take=st.integers(0, 9))
@QUICK
def test_a_damaged_document_is_read_or_refused(cut: float, put: str, take: int) -> None:
    at = int(cut * len(SPEC))
    survives(SPEC[:at] + put + SPEC[at + take :], "p.yaml")


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "1:4 yaml_anchor the anchor `&a` is not allowed here"),
        ("version: 1\npolicies: [*x]\n", "2:12 yaml_alias the alias `*x` is not allowed here"),
        ("version: 1\npolicies: !!python/object/apply:os.system [ls]\n", "2:11 yaml_tag the tag"),
        (one(shadow="!!bool true"), "6:13 yaml_tag the tag"),
        (one(**{"<<": "{shadow: true}"}), "6:5 yaml_merge_key the merge key `<<` is not allowed here"),
        ("version: 1\npolicies: " + "[" * 40 + "]" * 40, "2:42 too_deep values are nested more than 32 deep"),
        (f"version: {'9' * 100_000}\n", "1:10 number_too_large the number 9999"),
        ("version: .nan\n", "1:10 bad_number `.nan` is not a finite number"),
        ("version: 1e999\n", "1:10 number_too_large"),
        (one(shadow="true\n    shadow: false"), "7:5 duplicate_key the key `shadow` is given twice"),
        (SEED + "policies: []\n", "4:1 duplicate_key the key `policies` is given twice"),
        (SEED + "---\n" + SEED, "4:1 syntax a second YAML document begins here"),
        (one(description='"a\\ab"'), "6:18 control_character `description` has the character U+0007"),
        (one(when='"count() > 1 \\0"'), "4:11 control_character `when` has the character U+0000"),
        (one(match='{name: "a\\e"}'), "6:19 control_character `name` has the character U+001B"),
        (one(match='{labels: {"a\\e": b}}'), "6:22 control_character `label` has the character U+001B"),
        (one(description="a\x07"), "6:19 control_character the character U+0007 does not belong in a text"),
        ("#" * (1024 * 1024 + 1), "0:0 too_large the file is larger than 1024 KiB"),
    ],
    ids=range(18),
)  # fmt: skip
def test_what_is_more_than_plain_data_is_refused(text: str, expected: str) -> None:
    assert said(text)[0].startswith(expected)


def test_ten_thousand_policies_are_one_problem_and_take_no_time() -> None:
    text = "version: 1\npolicies:\n" + "  - sum(tokens_used) > 10 000 -> warn\n" * 10_000
    begun = time.process_time()
    problems = said(text)
    assert time.process_time() - begun < 15
    assert problems == [f"{MAX_POLICIES + 3}:5 too_many the document has 10000 policies; at most 200 are allowed"]
    text = "version: 1\npolicies:\n" + "  - {name: a, when: count() > 1, action: warn}\n" * 10_000
    assert [line.split(" ")[1] for line in said(text)] == ["too_large"]
    assert hint(text).startswith("a document holds at most 200 policies")


def test_as_many_policies_as_are_allowed_are_fine() -> None:
    text = "version: 1\npolicies:\n" + "".join(
        f"  - sum(tokens_used) > {n} 000 -> warn\n" for n in range(1, MAX_POLICIES + 1)
    )
    document = read_policies(text)
    assert len({policy.name for policy in document.policies}) == MAX_POLICIES


CYRILLIC = {"\u0430ction": "warn"}


@pytest.mark.parametrize(
    ("text", "place", "letter"),
    [
        (SEED.replace("version", "versi\u043en"), "1:1 unknown_key", "U+043E CYRILLIC SMALL LETTER O"),
        (one(action=None, **CYRILLIC), "5:5 unknown_key", "U+0430 CYRILLIC SMALL LETTER A"),
        (one(name="token\u2010budget"), "3:11 bad_name", "U+2010 HYPHEN"),
        (one(name="p\u200b"), "3:11 bad_name", "U+200B ZERO WIDTH SPACE"),
        ("tenant: \u0430cme\n" + SEED, "1:9 bad_name", "U+0430 CYRILLIC SMALL LETTER A"),
        (one(action="w\u0430rn"), "5:13 unknown_word", "U+0430 CYRILLIC SMALL LETTER A"),
        (one(match="{name: [shell, sh\u0435ll]}"), "6:27 bad_pattern", "U+0435 CYRILLIC SMALL LETTER IE"),
        (one(match="{n\u0430me: shell}"), "6:13 unknown_key", "U+0430 CYRILLIC SMALL LETTER A"),
        (one(when="sum(t\u043ekens_used) > 10"), "bad_condition", "U+043E CYRILLIC SMALL LETTER O"),
        (one(when="count() \uff1e 10"), "bad_condition", "U+FF1E FULLWIDTH GREATER-THAN SIGN"),
    ],
)
def test_letters_that_only_look_right_are_named(text: str, place: str, letter: str) -> None:
    assert place in said(text)[0]
    assert letter in hint(text)


def test_other_alphabets_are_fine_where_any_text_is() -> None:
    text = one(description="бюджет", match="{model: 通义*, labels: {команда: 研究}}")
    assert read_policies(text).policies[0].match.labels == {"команда": "研究"}


@pytest.mark.parametrize(
    "scalar",
    ["'" + "1 000 " * 600 + "'", "'" + "1" * 4000 + "'", '"' + "\\\\" * 2000 + '"', "'" + "(" * 4000 + "'",
     "'" + "!" * 4000 + "true'", "'" + "'' " * 1300 + "'", "'" + "[" * 2000 + "'", "'" + "-" * 4000 + "1'"],
    ids=range(8),
)  # fmt: skip
def test_conditions_that_are_meant_to_explode_are_refused_at_once(scalar: str) -> None:
    begun = time.process_time()
    assert "bad_condition" in said(one(when=scalar))[0]
    assert time.process_time() - begun < 5
