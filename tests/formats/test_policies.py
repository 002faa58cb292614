"""Policy documents: what is read, where faults stand, how one line becomes a policy, and that writing keeps it all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.formats.graphs import JSON, NAMES, TEXT, part
from tickwork.errors import MissingExtra, NotFound, PolicyInvalid, StorageError
from tickwork.formats.letters import Letters
from tickwork.formats.policies import find_policies, load_policies, read_policies, write_policies
from tickwork.formats.policy_conditions import condition, name_of
from tickwork.formats.policy_fields import DOCUMENT_KEYS, POLICY, policy_schema
from tickwork.formats.yaml import read_yaml
from tickwork.model.graph import NodeKind
from tickwork.model.policy import Action, Calendar, Match, Policy, PolicyDocument, Scope, Window, digest_of, effective
from tickwork.model.problems import Location
from tickwork.model.words import CONTROL

SCHEMA = jsonschema.Draft202012Validator(policy_schema())
GOOD: dict[str, Any] = {"name": "p", "when": "count() > 1", "action": "warn"}
SEED = "version: 1\npolicies:\n  - sum(tokens_used) > 10 000 -> abort_lifetime\n"
SPEC = """\
version: 1
policies:
  - name: token-budget
    scope: lifetime            # execution | lifetime | tenant
    when: sum(tokens_used) > 10000
    action: abort_lifetime     # reject_execution | pause_lifetime | abort_lifetime
  - name: daily-spend
    scope: tenant
    window: 24h
    when: sum(cost_usd) > 50
    action: pause_lifetime
  - name: no-shell
    scope: execution
    match: {kind: task, name: [run_*, shell]}
    when: result.command.contains('rm -rf')
    action: reject_execution
  - name: loop-cap
    scope: lifetime
    when: iterations('refine') > 8
    action: abort_lifetime
"""


def said(text: str, file: str = "") -> list[str]:
    """Each problem as `line:column code message`."""
    with pytest.raises(PolicyInvalid) as caught:
        read_policies(text, file)
    return [f"{p.location.line}:{p.location.column} {p.code} {p.message}" for p in caught.value.problems]


def hint(text: str) -> str:
    """The hint of the only problem."""
    with pytest.raises(PolicyInvalid) as caught:
        read_policies(text)
    (problem,) = caught.value.problems
    return problem.hint


def one(**keys: Any) -> str:
    """A document with one policy: a good one, with these keys on lines of their own below (None: taken out)."""
    policy = {**GOOD, **keys}
    lines = [f"{key}: {value}" for key, value in policy.items() if value is not None]
    return "version: 1\npolicies:\n  - " + "\n    ".join(lines) + "\n"


def in_zone(zone: str) -> str:
    """A document with one policy for the days of a time zone."""
    return one(scope="tenant", window="{calendar: day, time_zone: " + zone + "}")


def only(text: str) -> Policy:
    (policy,) = read_policies(text).policies
    return policy


def test_the_policies_of_the_specification_are_read() -> None:
    document = read_policies(SPEC, "guardrails.yaml")
    assert document == PolicyDocument(
        policies=(
            Policy(name="token-budget", when="sum(tokens_used) > 10000", action="abort_lifetime"),
            Policy(
                name="daily-spend", scope="tenant", window=Window(seconds=86_400), when="sum(cost_usd) > 50",
                action="pause_lifetime",
            ),
            Policy(
                name="no-shell", scope="execution", match=Match(kind="task", name=("run_*", "shell")),
                when="result.command.contains('rm -rf')", action="reject_execution",
            ),
            Policy(name="loop-cap", when="iterations('refine') > 8", action="abort_lifetime"),
        )
    )  # fmt: skip
    assert document.layer == "installation"
    SCHEMA.validate(as_json(SPEC))


@pytest.mark.parametrize("space", ["", " ", "\u00a0", "\u2009", "\u202f", "\u2007"])
def test_the_seeds_policy_is_one_line(space: str) -> None:
    text = SEED.replace("10 000", f"10{space}000")
    policy = only(text)
    assert (policy.name, policy.scope, policy.action) == ("sum-tokens-used", "lifetime", "abort_lifetime")
    assert policy.when == "sum(tokens_used) > 10000"
    assert digest_of(read_policies(text)) == digest_of(read_policies(SEED))
    long = one(name="sum-tokens-used", when="sum(tokens_used) > 10000", action="abort_lifetime", scope="lifetime")
    assert digest_of(read_policies(long)) == digest_of(read_policies(SEED)), "a default that is spelt out says nothing"
    SCHEMA.validate(as_json(text))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("x > 10 000", "x > 10000"),
        ("x > 1 234 567.5 && y < 2 000", "x > 1234567.5 && y < 2000"),
        ("f(1 000)", "f(1000)"),
        ("x > 1 00", "x > 1 00"),
        ("x > 1000 000", "x > 1000 000"),
        ("x > 1 0000", "x > 1 0000"),
        ("x > 1 000 00", "x > 1 000 00"),
        ("x > 1  000", "x > 1  000"),
        ("x1 000", "x1 000"),
        ("0.5 000", "0.5 000"),
        ("x == '10 000' || x > 10 000", "x == '10 000' || x > 10000"),
        ('x == "a\\" 10 000" || 1 000 > 2', 'x == "a\\" 10 000" || 1000 > 2'),
        ("x == r'\\' || 1 000 > 2", "x == r'\\' || 1000 > 2"),
        ("x == '''it's 1 000''' || 1 000 > 2", "x == '''it's 1 000''' || 1000 > 2"),
        ("1 000 > 2 // not 1 000", "1000 > 2 // not 1 000"),
        ("x == '1 000", "x == '1 000"),
        ("  x > 1 000\n", "x > 1000"),
        ("\u0661 \u0662\u0663\u0664", "\u0661 \u0662\u0663\u0664"),
    ],
)
def test_groups_of_digits_are_joined_outside_of_strings(written: str, read: str) -> None:
    found = condition(written, 0, len(written), "cel")
    assert found.text == read
    assert [written[origin] for origin in found.origins[:-1]] == list(read)


def test_rego_has_strings_and_comments_of_its_own() -> None:
    text = 'x == "1 000" # 1 000\ny == `1 000`; 1 000 > 2'
    assert condition(text, 0, len(text), "rego").text == 'x == "1 000" # 1 000\ny == `1 000`; 1000 > 2'


@pytest.mark.parametrize(
    ("text", "taken", "name"),
    [
        ("sum(tokens_used) > 10000", [], "sum-tokens-used"),
        ("sum(tokens_used) > 10000", ["sum-tokens-used"], "sum-tokens-used-2"),
        ("sum(tokens_used) > 10000", ["sum-tokens-used", "sum-tokens-used-2"], "sum-tokens-used-3"),
        ("iterations('refine') >= 8 && count() > 5", [], "iterations-refine"),
        ("result.command.contains('rm -rf')", [], "result-command-contains-rm-rf"),
        ("10000 < sum(tokens_used)", [], "sum-tokens-used"),
        ("!has(result.x)", [], "has-result-x"),
        ("1 < 2", [], "policy"),
        ("a" * 200, [], "a" * 60),
    ],
)
def test_a_short_policy_gets_a_name_from_its_condition(text: str, taken: list[str], name: str) -> None:
    assert name_of(text, taken) == name


def test_short_policies_of_one_name_are_told_apart() -> None:
    text = (
        "version: 1\npolicies:\n  - count() > 1 -> warn\n  - count() > 2 -> pause_lifetime\n"
        "  - {name: count, when: count() > 3, action: abort_lifetime}\n"
    )
    assert [policy.name for policy in read_policies(text).policies] == ["count-2", "count-3", "count"]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("24h", Window(seconds=86_400)), ("30m", Window(seconds=1800)), ("7d", Window(seconds=604_800)),
        ("1h30m", Window(seconds=5400)), ("day", Window(calendar="day")), ("hour", Window(calendar="hour")),
        ("{calendar: day, time_zone: Europe/Berlin}", Window(calendar="day", time_zone="Europe/Berlin")),
        ("{calendar: month, time_zone: UTC}", Window(calendar="month")),
    ],
)  # fmt: skip
def test_windows(window: str, expected: Window) -> None:
    text = one(scope="tenant", window=window)
    document = read_policies(text)
    assert document.policies[0].window == expected
    assert digest_of(read_policies(write_policies(document))) == digest_of(document)
    SCHEMA.validate(as_json(text))


def test_layers_come_from_tenant_and_graph() -> None:
    documents = [read_policies(f"{head}{SEED}") for head in ("", "tenant: acme\n", "graph: review\n")]
    assert [document.layer for document in documents] == ["installation", "tenant", "graph"]
    found = effective(tuple(documents), "acme", "review").policies
    assert [layered.label for layered in found] == [
        "installation/sum-tokens-used", "tenant/sum-tokens-used", "graph/sum-tokens-used",
    ]  # fmt: skip
    assert len(effective(tuple(documents), "other", "review").policies) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1 missing_key a policy document needs the key `version`", "1:1 missing_key a policy document needs"]),
        ("- a\n", ['1:1 wrong_type `the file` has to be a map with the keys version and policies, not the list ["a"]']),
        ("version: 1\npolicies: []\n", ["2:11 no_policies the list of policies is empty: nothing would be guarded"]),
        ("version: 1\npolicies: {}\n", ["2:11 wrong_type `policies` has to be a list, not the map {}"]),
        ("version: 1\npolicies: [5]\n", ["2:12 wrong_type `policies` has to be a list of maps, or of texts"]),
        (SEED.replace("1", "2", 1), ["1:10 format_version this is version 2 of the policy format"]),
        (SEED.replace("1", "true", 1), ["1:10 format_version this is version True of the policy format"]),
        (SEED.replace("1", "'1'", 1), ["1:10 format_version this is version 1 of the policy format"]),
        (SEED.replace("policies", "polices"), ["2:1 unknown_key a policy document has no key `polices`"]),
        ("tenant: a b\n" + SEED, ["1:9 bad_name `a b` is not a name for a tenant"]),
        ("graph: 1\n" + SEED, ["1:8 wrong_type `graph` has to be a text, not the number 1"]),
        ("graph: 9lives\n" + SEED, ["1:8 bad_name `9lives` is not a name for a graph"]),
        (SEED.replace("->", "=>"), ["3:5 bad_policy `sum(tokens_used) > 10 000 => abort_lifetime` is not a policy"]),
        (SEED.replace("abort_lifetime", "abort"), ["3:34 unknown_word `action` cannot be `abort`"]),
        (SEED.replace("abort_lifetime", ""), ["3:33 unknown_word `action` cannot be ``"]),
        (one(name="9a"), ["3:11 bad_name `9a` is not a name for a policy"]),
        (one(name=None), ["3:5 missing_key a policy needs the key `name`"]),
        (one(when=None), ["3:5 missing_key a policy needs the key `when`"]),
        (one(action=None), ["3:5 missing_key a policy needs the key `action`"]),
        (one(action="abort_lifetme"), ["5:13 unknown_word `action` cannot be `abort_lifetme`"]),
        (one(scope="lifetimes"), ["6:12 unknown_word `scope` cannot be `lifetimes`"]),
        (one(engine="lua"), ["6:13 unknown_word `engine` cannot be `lua`"]),
        (one(shadow="'yes'"), ['6:13 wrong_type `shadow` has to be true or false, not the text "yes"']),
        (one(widow="24h", scope="tenant"), ["6:5 unknown_key a policy has no key `widow`"]),
        (one(match="{kind: taks}"), ["6:19 unknown_word `kind` cannot be `taks`"]),
        (one(match="{nam: a}"), ["6:13 unknown_key match has no key `nam`"]),
        (one(match="{name: []}"), ["6:19 bad_pattern `name` has no pattern: it would match nothing"]),
        (one(match="{name: [a, 5]}"), ["6:23 wrong_type `name` has to be a text or a list of texts, not the number 5"]),
        (one(match='{model: ""}'), ["6:20 bad_pattern `model` has an empty pattern, which matches nothing"]),
        (one(match="{labels: {}}"), ["6:21 bad_pattern `labels` has 0 entries; it has to have 1 to 100"]),
        (one(match="{labels: {a: 5}}"), ["6:25 wrong_type `a` has to be a text, not the number 5"]),
        (one(match="{name: " + "a" * 257 + "}"), ["6:19 too_long `name` has 257 characters; at most 256 are allowed"]),
        (one(match="{name: [" + "a," * 101 + "]}"), ["6:19 too_many `name` has 101 patterns; at most 100 are allowed"]),
        (one(window="24h"), ["6:13 window_without_tenant a policy of the scope lifetime has no window"]),
        (one(scope="tenant", window="24"), ["7:13 wrong_type `window` has to be a span of time with its unit"]),
        (one(scope="tenant", window="dya"), ["7:13 bad_window `window` cannot be `dya`"]),
        (one(scope="tenant", window="30s"), ["7:13 bad_window `window` cannot be `30s`"]),
        (one(scope="tenant", window="0m"), ["7:13 bad_window `window` is 0m; it has to be at least 1m"]),
        (one(scope="tenant", window="400d"), ["7:13 bad_window `window` is 400d; it has to be at least 1m"]),
        (one(scope="tenant", window="{time_zone: UTC}"), ["7:13 missing_key window needs the key `calendar`"]),
        (in_zone("Europe/Berln"), ["7:40 unknown_time_zone there is no time zone `Europe/Berln`"]),
        (in_zone("../../etc/passwd"), ["7:40 unknown_time_zone there is no time zone `../../etc/passwd`"]),
        (one(description="a" * 5000), ["6:18 too_long `description` has 5000 characters; at most 4096 are allowed"]),
        (one(when="''"), ["4:12 bad_condition the condition does not compile: the condition is empty"]),
        (one(when="a" * 5000), ["4:11 too_long `when` has 5000 characters; at most 4096 are allowed"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)  # fmt: skip
def test_every_fault_has_its_place(text: str, expected: list[str]) -> None:
    assert [line[: len(begin)] for line, begin in zip(said(text), expected, strict=True)] == expected


def test_all_problems_come_at_once_in_the_order_of_their_places() -> None:
    text = (
        SPEC.replace("lifetime  ", "lifetim  ")
        .replace("tokens_used", "tokens_usd")
        .replace("24h", "1s")
        .replace("kind", "kin")
    )
    text = text.replace("loop-cap", "no-shell").replace("version: 1", "version: 9")
    assert [line.split(" ", 2)[:2] for line in said(text)] == [
        ["1:10", "format_version"], ["4:12", "unknown_word"], ["6:13", "unknown_word"], ["9:13", "bad_window"],
        ["14:13", "unknown_key"], ["17:11", "duplicate_name"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scalar", "place"),
    [
        ("count() > 1 && nope", "4:26"),
        ("'count() > 1 && nope'", "4:27"),
        ('"count() > 1 && nope"', "4:27"),
        ('"count() \\u003e 1 && nope"', "4:32"),
        ("'result == ''a'' && nope'", "4:31"),
        ("count() > 10 000 && nope", "4:31"),
        ("count() > 1\n      && nope", "5:10"),
        ("|\n      count() > 1 &&\n        nope", "6:9"),
        (">\n      count() > 1 &&\n      nope", "6:7"),
        (">- # folded\n\n      count() > 1 000 &&\n\n      nope", "8:7"),
        ('"count() > 1 &&\n      nope"', "5:7"),
        ('"count() > 1 \\\n      && nope"', "5:10"),
    ],
)
def test_faults_of_conditions_are_pointed_at_in_every_style(scalar: str, place: str) -> None:
    (problem,) = said(one(when=scalar))
    assert problem.startswith(f"{place} bad_condition the condition does not compile: ")
    assert "nope" in problem


def test_faults_of_conditions_are_pointed_at_in_short_policies_and_json() -> None:
    assert said(SEED.replace("tokens_used", "tokens_usd"))[0].startswith("3:9 bad_condition")
    (problem,) = said(SEED.replace("> 10 000", "> 10 000 && nope"))
    assert problem.startswith("3:34 bad_condition")
    text = '{"version": 1, "policies": [\n  {"name": "p", "action": "warn", "when": "'
    text += '\\"\\ud83d\\ude00\\" == \\"a\\" || nope"}]}'
    assert text.index("nope") - text.index("\n") == 73
    assert said(text, "p.json")[0].startswith("2:73 bad_condition")


def test_hints_name_what_was_meant() -> None:
    assert hint(one(when=None, condition="count() > 1")) == "did you mean `when`?"
    assert hint(one(action="abort")) == "did you mean `abort_lifetime`?"
    assert hint(in_zone("europe/berlin")) == "did you mean `Europe/Berlin`?"
    assert hint(one(name="p", window="7d")) == "write `scope: tenant`, or leave `window` out"
    assert "24h" in hint(one(scope="tenant", window="5"))


def test_a_scope_that_cannot_be_read_hides_no_other_problem() -> None:
    text = one(scope="tenat", window="24h", when="sum(nope) > 1", action="wran")
    assert [line.split(" ")[1] for line in said(text)] == ["unknown_word", "unknown_word"]


def test_a_machine_without_time_zones_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwork.formats.policy_fields.time_zones", frozenset)
    assert hint(in_zone("Europe/Berlin")) == "pip install tzdata, or use UTC"
    assert only(in_zone("UTC")).window == Window(calendar="day")


def test_an_engine_that_is_not_installed_is_a_problem_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_without(engine: str, text: str, scope: str) -> None:
        raise MissingExtra("Rego needs a package that is not installed: pip install 'tickwork[rego]'")

    monkeypatch.setattr("tickwork.formats.policies.compile_expression", compile_without)
    (problem,) = said(one(engine="rego"))
    assert problem == "6:13 missing_extra Rego needs a package that is not installed: pip install 'tickwork[rego]'"


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(SPEC)
    (tmp_path / "a.json").write_text(json.dumps(as_json("tenant: acme\n" + SEED)))
    (tmp_path / ".swap.yaml").write_text("broken: [")
    (tmp_path / "notes.txt").write_text("not a policy")
    assert [(path.name, document.layer) for path, document in find_policies(tmp_path)] == [
        ("a.json", "tenant"), ("b.yaml", "installation"),
    ]  # fmt: skip
    assert digest_of(load_policies(tmp_path / "b.yaml")) == digest_of(read_policies(SPEC))
    with pytest.raises(NotFound, match=r"there is no file .*c\.yaml"):
        load_policies(tmp_path / "c.yaml")
    with pytest.raises(StorageError, match="cannot be read"):
        load_policies(tmp_path)
    with pytest.raises(NotFound, match="there is no folder"):
        find_policies(tmp_path / "nowhere")


def test_the_problems_of_all_files_of_a_folder_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(one(action="wran"))
    (tmp_path / "b.yml").write_bytes(b"version: \xff\n")
    for name in ("c.yaml", "d.yaml"):
        (tmp_path / name).write_text(SEED)
    (tmp_path / "e.yaml").write_text("tenant: acme\n" + SEED)
    with pytest.raises(PolicyInvalid) as caught:
        find_policies(tmp_path)
    assert [(Path(p.location.file).name, p.code) for p in caught.value.problems] == [
        ("a.yaml", "unknown_word"), ("b.yml", "not_utf8"), ("d.yaml", "duplicate_name"),
    ]  # fmt: skip
    assert str(caught.value).startswith(f"3 problems in the policies:\n{tmp_path}/a.yaml:5:13: `action` cannot be")


def test_a_graphs_policies_of_all_tenants_and_of_one_share_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("graph: g\ntenant: acme\n" + SEED)
    (tmp_path / "b.yaml").write_text("graph: g\ntenant: other\n" + SEED)
    assert len(find_policies(tmp_path)) == 2
    (tmp_path / "c.yaml").write_text("graph: g\n" + SEED)
    with pytest.raises(PolicyInvalid, match=r"the policy `sum-tokens-used` stands in a\.yaml already"):
        find_policies(tmp_path)


def as_json(text: str) -> Any:
    from tickwork.formats.tree import plain

    return plain(read_yaml(text))


# What the reader refuses because of its structure, the schema refuses too.
REFUSED = [
    {}, {"version": 1}, {"version": 1, "policies": []}, {"version": 2, "policies": ["count() > 1 -> warn"]},
    {"version": True, "policies": ["count() > 1 -> warn"]}, {"version": 1, "policies": ["count() > 1"]},
    {"version": 1, "policies": ["count() > 1 -> wran"]}, {"version": 1, "policies": ["count() > 1 -> warn"] * 201},
    {"version": 1, "tenant": "a b", "policies": ["count() > 1 -> warn"]},
    {"version": 1, "graph": "9a", "policies": ["count() > 1 -> warn"]},
    {"version": 1, "policy": 1, "policies": ["count() > 1 -> warn"]},
]  # fmt: skip
REFUSED_POLICIES: list[dict[str, Any]] = [
    {"name": None}, {"when": None}, {"action": None}, {"name": "9a"}, {"scope": "x"}, {"action": "x"}, {"engine": "x"},
    {"shadow": 1}, {"window": "24h"}, {"scope": "tenant", "window": "30s"}, {"scope": "tenant", "window": 24},
    {"scope": "tenant", "window": {"time_zone": "UTC"}}, {"scope": "tenant", "window": {"calendar": "dya"}},
    {"match": {"nam": "a"}}, {"match": {"name": []}}, {"match": {"name": ""}}, {"match": {"name": [5]}},
    {"match": {"name": "\u0430"}}, {"match": {"labels": {}}}, {"match": {"labels": {"a": 5}}}, {"match": []},
    {"description": 5}, {"description": "a" * 5000}, {"when": "a" * 5000}, {"when": ""}, {"more": 1},
]  # fmt: skip


@pytest.mark.parametrize(
    "tree",
    [
        *REFUSED,
        *(
            {"version": 1, "policies": [{key: value for key, value in (GOOD | keys).items() if value is not None}]}
            for keys in REFUSED_POLICIES
        ),
    ],
    ids=lambda tree: json.dumps(tree)[:70],
)  # fmt: skip
def test_reader_and_schema_refuse_the_same(tree: dict[str, Any]) -> None:
    assert list(SCHEMA.iter_errors(tree))
    with pytest.raises(PolicyInvalid):
        read_policies(json.dumps(tree), "p.json")


def test_the_json_schema_is_one_and_describes_every_field() -> None:
    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(DOCUMENT_KEYS)
    assert all(known["description"] for known in schema["properties"].values())
    fields = schema["$defs"]["policy"]["properties"]
    assert set(fields) == set(Policy.__struct_fields__) == set(POLICY.table())
    assert all(known["description"] for known in fields.values())
    assert set(fields["match"]["properties"]) == set(Match.__struct_fields__)


PATTERNS = st.lists(st.from_regex(r"[A-Za-z*?_-]{1,6}", fullmatch=True), min_size=1, max_size=3).map(tuple)
SHOWN = TEXT.filter(lambda text: not CONTROL.search(text))
LABELS = st.dictionaries(SHOWN.filter(bool), SHOWN, min_size=1, max_size=3)
WINDOWS = st.one_of(
    st.integers(1, 500_000).map(lambda minutes: Window(seconds=60 * minutes)),
    part(
        Window, calendar=st.sampled_from(get_args(Calendar)), time_zone=st.sampled_from(["Europe/Berlin", "UTC"])
    ).filter(lambda window: window.calendar is not None),
)  # fmt: skip
MATCHES = part(
    Match, kind=st.sampled_from(get_args(NodeKind)), name=PATTERNS, graph=PATTERNS, labels=LABELS, model=PATTERNS
)


@st.composite
def policies(draw: st.DrawFn, name: str) -> Policy:
    scope = draw(st.sampled_from(get_args(Scope)))
    limit = draw(st.integers(0, 10**9))
    text = draw(SHOWN).encode("unicode_escape").decode().replace('"', "'").replace("\\", "/")
    whens = [f"count() > {limit}", f"sum(tokens_used) > {limit} ||\n  sum(cost_usd) > 1.5"]
    if scope == "execution":
        whens.append(f'"{text}" == result || count() > {limit}')
    lean: dict[str, Any] = {"scope": scope} if scope != "lifetime" else {}
    if scope == "tenant" and draw(st.booleans()):
        lean["window"] = draw(WINDOWS)
    lean |= {"match": match} if (match := draw(MATCHES)) != Match() else {}
    lean |= {"shadow": True} if draw(st.booleans()) else {}
    lean |= {"description": about} if (about := draw(SHOWN)) else {}
    return Policy(name=name, when=draw(st.sampled_from(whens)), action=draw(st.sampled_from(get_args(Action))), **lean)


@st.composite
def documents(draw: st.DrawFn) -> PolicyDocument:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    owner: dict[str, Any] = {key: draw(NAMES) for key in ("tenant", "graph") if draw(st.booleans())}
    return PolicyDocument(policies=tuple([draw(policies(name)) for name in names]), **owner)


@given(document=documents())
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_a_round_trip_keeps_the_digest(document: PolicyDocument) -> None:
    text = write_policies(document)
    back = read_policies(text)
    assert back == document, text
    assert digest_of(back) == digest_of(document), text
    assert write_policies(back) == text
    SCHEMA.validate(as_json(text))
    assert digest_of(read_policies(json.dumps(as_json(text)), "p.json")) == digest_of(document)


@given(value=JSON.map(lambda value: value if isinstance(value, str) else json.dumps(value)), index=st.integers(0, 30))
@settings(max_examples=200)
def test_letters_are_found_however_json_wrote_them(value: str, index: int) -> None:
    letters = [sign for sign in value if not sign.isspace()]
    if index >= len(letters) or not all("\u0020" <= sign <= "\uffff" for sign in value):
        return
    at = [i for i, sign in enumerate(value) if not sign.isspace()][index]
    plain = json.dumps(value, ensure_ascii=False)
    escaped = json.dumps(value)
    for text in (plain, escaped):
        place = Letters(text, "").place(Location("", 1, 1), value, at)
        assert json.loads(f'"{text[place.column - 1 : -1]}"') == value[at:]
