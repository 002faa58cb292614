"""Every row of the list of problems: its message, its hint and its place."""

# ruff: noqa: E501 - a row of a table stands on one line, whatever its message says

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.formats.graphs import read, said
from tickwork.model.answer_schema import schema_faults
from tickwork.model.condition import ConditionError, compile_condition
from tickwork.model.graph import AgentGraph, Child, Edge, Human, Join, Node, RetryPolicy, Signal, TimeLimits, Timer
from tickwork.model.patterns import pattern_fault
from tickwork.model.problems import Location
from tickwork.model.validation import SourceMap, nearest, shown, validate

GOOD = """\
name: good
version: 1.0.0
tasks:
  fetch: tasks.py:fetch
  store:
plans:
  judge:
edges:
  - start -> fetch -> judge
  - judge -> fetch
  - judge -> store
  - store -> end
"""


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def edge(text: str) -> str:
    return GOOD + f"  - {text}\n"


ROWS = [
    (changed("good", "9lives"), "1:7 bad_name `9lives` is not a name for a graph",
     "a name has letters, digits, `_` and `-`, a letter first, at most 128 characters"),
    (changed("1.0.0", "1.0"), "2:10 bad_version `1.0` is not a semantic version",
     "write a semantic version, three numbers: 1.0.0, 0.2.1-beta"),
    (changed("  judge:\n", "  judge:\n  no name:\n") + "  - {from: store, to: no name, condition: 'true'}\n  - {from: no name, to: fetch}\n",
     "8:3 bad_name `no name` is not a name for a Plan",
     "a name has letters, digits, `_` and `-`, a letter first, at most 128 characters"),
    (changed("  store:\n", "  store:\n  end:\n"), "6:3 reserved_name no node can be called `end`",
     "it is the mark of the entry and of the end; give the node another name"),
    (changed("  judge:\n", "  judge:\n  store:\n"), "8:3 duplicate_node there are two nodes called `store` (the first one stands at g.txt:5:3)",
     "rename one of them, or take one out"),
    (changed("judge -> store", "judge -> stroe"), "11:5 unknown_node `judge -> stroe` leads to `stroe`, which is not a node of the graph",
     "did you mean `store`?"),
    (edge("{from: start, to: qqq}"), "13:23 unknown_node `start -> qqq` leads to `qqq`, which is not a node of the graph",
     "add the node, or correct the name"),
    (edge("{from: fetch, to: store, condition: 'true'}"), "13:5 not_alternating `fetch -> store` leads from a Task to a Task; edges alternate between Tasks and Plans",
     "put a Plan between them"),
    (changed("  judge:\n", "  judge:\n  other:\n") + "  - judge -> other -> fetch\n", "14:5 not_alternating `judge -> other` leads from a Plan to a Plan; edges alternate between Tasks and Plans",
     "put a Task between them"),
    (edge("judge -> fetch"), "13:5 duplicate_edge the edge `judge -> fetch` is there twice", "take one out, or give each its own condition"),
    (changed("start -> fetch -> judge", "fetch -> judge"), "1:1 no_entry the graph has no entry: no edge leaves `start`", "mark the first node: start -> fetch"),
    (changed("  - store -> end\n", "  - store -> judge\n"), "1:1 no_final the graph never ends: no FINAL edge leads to `end`", "let the last node lead to `end`"),
    (changed("  store:\n", "  store:\n  lost:\n") + "  - lost -> judge\n", "6:3 unreachable `lost` is never reached from start", "add an edge to `lost`, or take it out"),
    (changed("  store:\n", "  store:\n  trap:\n") + "  - judge -> trap\n", "6:3 cannot_finish no FINAL edge can be reached from `trap`",
     "add an edge from `trap` towards a node that leads to `end`"),
    (changed("  - store -> end\n", "  - {from: store, to: judge, join: all}\n  - {from: store, to: end, condition: 'true'}\n"),
     "12:5 join_without_parallel `store -> judge` is a JOIN, but no PARALLEL edge leads to it: there is nothing to join",
     "make the edges that open the branches PARALLEL, or make this edge NORMAL"),
    (edge("{from: store, to: judge, kind: PARALLEL, condition: 'true'}"), "13:36 parallel_from_task `store -> judge` is PARALLEL, but only a Plan can start several branches",
     "put a Plan between them, and let it choose what runs in parallel"),
    (edge("store -> judge"), "13:5 ambiguous_edges Task `store` has several edges without a condition, to `end` and `judge`",
     "give all but one a condition; a Plan can start several branches at once"),
    (changed("judge -> store", "{from: judge, to: store, condition: 'true'}"), "11:41 condition_on_plan_edge `judge -> store` has a condition, but it leaves a Plan, and a Plan chooses by itself",
     "decide in the Plan's code"),
    (changed("  - store -> end\n", "  - {from: store, to: end, condition: resul > 1}\n"),
     "12:39 bad_condition the condition of `store -> end` does not compile: unknown name `resul`; a condition knows result, route, telemetry, header, lifetime",
     'a condition is a CEL expression, as in: result.score > 0.5, route == "accept"'),
    (changed("  - store -> end\n", "  - from: store\n    to: end\n    condition: |\n      result.x &&\n        rout\n"),
     "16:9 bad_condition the condition of `store -> end` does not compile: unknown name `rout`; a condition knows result, route, telemetry, header, lifetime", None),
    (changed("  judge:\n", "  judge:\n  idle:\n") + "  - {from: store, to: idle, condition: 'true'}\n  - idle -> end\n",
     "8:3 plan_without_task Plan `idle` has no Task to choose", "add an edge from `idle` to a Task; a graph that only ends here needs no Plan"),
    (edge("{from: judge, to: fetch, kind: JOIN, join: {quorum: 0}}").replace("  - judge -> fetch\n", ""),
     "12:48 bad_quorum the quorum of `judge -> fetch` is 0; at least one branch has to arrive", "write how many branches are enough: quorum: 2"),
    (changed("judge -> store", "{from: judge, to: store, kind: PARALLEL, join: any}"), "11:52 bad_join `judge -> store` has a join option, but its kind is PARALLEL", "write kind JOIN, or leave join out"),
    (changed("store -> end", "{from: store, to: end, kind: NORMAL}"), "12:34 bad_final `store -> end` is NORMAL, but an edge is FINAL exactly when it leads to `end`", "write kind FINAL"),
    (changed("judge -> store", "{from: judge, to: store, kind: FINAL}"), "11:36 bad_final `judge -> store` is FINAL, but an edge is FINAL exactly when it leads to `end`", "let it lead to `end`, or choose another kind"),
    (edge("{from: start, to: store, kind: PARALLEL}"), "13:36 bad_entry `start -> store` marks an entry: it is NORMAL and has no condition", "several entries start in parallel by themselves"),
    (edge("start -> end"), "13:5 bad_direction `start -> end` would end the graph before anything ran", "put a Task between them"),
    (edge("end -> fetch"), "13:5 bad_direction the edge `end -> fetch` leaves the end", "edges lead from `start` to the first nodes, and from the last nodes to `end`"),
    (edge("judge -> start"), "13:5 bad_direction `judge -> start` goes back to start", None),
    (changed("  store:\n", "  store: {run: a.py:f, timer: 5s}\n"), "5:31 several_works Task `store` declares `run` and `timer`, but a Task does one thing", "keep one of them, and give the others a Task each"),
    (changed("  judge:\n", "  judge: {human: Really?}\n"), "7:18 plan_cannot_wait Plan `judge` declares `human`, which only a Task can do", "make `judge` a Task, or let a Task before it do that"),
    (changed("  store:\n", "  store: {human: {prompt: ok?, answer_schema: {type: strin}}}\n"), "5:54 bad_answer_schema the answer_schema of `store` cannot be used: 'strin' is not valid under any of the given schemas", "see JSON Schema, draft 2020-12"),
    (changed("  store:\n", "  store: {human: {prompt: ok?, answer_schema: {type: string}, default: 1}}\n"), "5:72 bad_default the default answer of `store` breaks its own answer_schema: 1 is not of type 'string'", "change the default, or the schema"),
    (changed("  store:\n", "  store: {retry: {max_attempts: 0}}\n"), "5:33 bad_number retry.max_attempts of `store` is 0; it has to be at least 1", "correct the number, or leave it out"),
    (changed("  store:\n", "  store: {retry: {jitter: 2}}\n"), "5:27 bad_number retry.jitter of `store` is 2; it has to be at least 0 and at most 1", None),
    (changed("  store:\n", "  store: {limits: {start_to_close: -1}}\n"), "5:36 bad_number limits.start_to_close of `store` is -1; it has to be more than 0 and at most 100 years (in seconds)", None),
    (changed("  store:\n", "  store: {timer: 999999999999d}\n"), "5:18 bad_number timer.seconds of `store` is 8.64e+16; it has to be at least 0 and at most 100 years (in seconds)", None),
    (changed("  judge:\n", "  judge: {effect: pure}\n"), "7:19 effect_without_code Plan `judge` declares the effect pure, but a Plan only decides",
     "leave `effect` out, and let a Task after it do what must not happen twice"),
    (changed("  store:\n", "  store: {timer: 1s, effect: at_most_once}\n"),
     "5:30 effect_without_code Task `store` declares the effect at_most_once, but a Task with `timer` runs no code, so there is nothing that could happen twice",
     "leave `effect` out, or declare it for the Task whose code has the effect"),
    (changed("  store:\n", "  store: {child: other, effect: at_most_once}\n"),
     "5:33 effect_without_code Task `store` declares the effect at_most_once, but it runs another graph",
     "leave `effect` out, and declare it for the Tasks of that graph"),
    (changed("tasks:\n", "limits: {depth: 101}\ntasks:\n"), "3:17 bad_number limits.depth of the graph is 101; it has to be at least 1 and at most 100", "correct the number, or leave it out"),
    (changed("tasks:\n", "limits:\n  visits: 0\ntasks:\n"), "4:11 bad_number limits.visits of the graph is 0; it has to be at least 1 and at most 10000000", None),
    (changed("  store:\n", "  store: {memory_mb: 64}\n"), "5:22 memory_without_subprocess Task `store` has a memory limit, which only a subprocess can keep", "add `isolation: subprocess`, or leave memory_mb out"),
    (changed("  store:\n", '  store: {title: "\\a"}\n'), "5:18 control_character the title of `store` has the character U+0007, which cannot be shown", "take it out; line breaks and tabs are fine"),
    (changed("  store:\n", "  store: {child: {name: sub, version: new}}\n"), "5:39 bad_version `new` is not a semantic version", "write three numbers, 1.0.0, or leave the version out to take the newest"),
    (changed("  store:\n", "  store: {signal: pay me}\n"), "5:19 bad_name `pay me` is not a name for a signal", None),
    # What the schema of the file finds.
    (changed("tasks:", "taks:"), "3:1 unknown_key a graph has no key `taks`", "did you mean `tasks`?"),
    (changed("  store:\n", "  store: {retyr: {}}\n"), "5:11 unknown_key a node has no key `retyr`", "did you mean `retry`?"),
    (changed("  store:\n", "  store: {retry: {attempts: 2}}\n"), "5:19 unknown_key retry has no key `attempts`", "did you mean `max_attempts`?"),
    (edge("{from: store, to: judge, when: 'true'}"), "13:30 unknown_key an edge has no key `when`", "did you mean `condition`?"),
    (edge("{from: store}"), "13:5 missing_key an edge needs the key `to`", "add `to`: a node, or `end`"),
    (edge("store judge"), "13:5 bad_edge `store judge` is not an edge", "write `a -> b`; for options write {from: a, to: b, label: ...}"),
    (edge("{from: store, to: judge, kind: PARALEL}"), "13:36 unknown_word `kind` cannot be `PARALEL`", "did you mean `PARALLEL`?"),
    (edge("{from: store, to: judge, join: {qorum: 2}}"), "13:37 unknown_key join has no key `qorum`", "did you mean `quorum`?"),
    (changed("  store:\n", "  store: {human: {deadline: 5s}}\n"), "5:18 missing_key human needs the key `prompt`", "add `prompt`: what is asked; {input} and {field} are replaced"),
    (changed("  store:\n", "  store: {retry: {max_attempts: many}}\n"), '5:33 wrong_type `max_attempts` has to be a whole number, not the text "many"', ""),
    (changed("  store:\n", "  store: {limits: {heartbeat: soon}}\n"), '5:31 wrong_type `heartbeat` has to be a duration: seconds, or 30s, 5m, 2h, 1d, not the text "soon"', ""),
    (changed("  store:\n", "  store: {limits: }\n"), "5:18 wrong_type `limits` has to be a map, not nothing", "give it a value, or take the key out"),
    (changed("name: good", "name: 7"), "1:7 wrong_type `name` has to be a text, not the number 7", "put it in quotes"),
    ("tickwork: 2\n" + GOOD, "1:11 format_version this is version 2 of the graph format, and only 1 is known", "write `tickwork: 1`, or use a newer Tickwork"),
    ("[1]", "1:1 wrong_type `the file` has to be a map with the keys tasks, plans and edges, not the list [1]", ""),
]  # fmt: skip


def test_the_good_graph_is_good() -> None:
    assert read(GOOD, "yaml").problems == []


@pytest.mark.parametrize(("text", "expected", "hint"), [pytest.param(*row, id=row[1].split()[1]) for row in ROWS])
def test_each_problem_has_its_message_and_place(text: str, expected: str, hint: str | None) -> None:
    assert expected in said(text)
    if hint is not None:
        code, message = expected.split(" ", 2)[1:]
        assert [p.hint for p in read(text, "yaml").problems if (p.code, p.message) == (code, message)] == [hint]


def test_a_misspelt_name_is_one_problem_and_not_a_train_of_them() -> None:
    assert [p.code for p in read(changed("judge -> store", "judge -> stroe"), "yaml").problems] == ["unknown_node"]


def test_all_problems_come_at_once_in_the_order_of_their_places() -> None:
    text = changed("good", "9b").replace("store:", "store: {retyr: 1, retry: {jitter: 9}}") + "  - judge -> nowhere\n"
    assert [(p.location.line, p.code) for p in read(text, "yaml").problems] == [
        (1, "bad_name"), (5, "unknown_key"), (5, "bad_number"), (13, "unknown_node"),
    ]  # fmt: skip


def test_an_edge_that_was_lost_makes_no_node_unreachable() -> None:
    text = changed("judge -> store", "judge > store")
    assert [p.code for p in read(text, "yaml").problems] == ["bad_edge"]


def test_a_conditional_edge_after_the_default_is_fine() -> None:
    assert read(edge("{from: store, to: judge, condition: 'result == 1'}"), "yaml").problems == []


def test_several_entries_are_branches_that_can_be_joined() -> None:
    text = """\
name: g
tasks: {a: , b: , c: }
plans: {p: }
edges: [start -> a, start -> b, {from: a, to: p, join: all}, {from: b, to: p, join: all}, p -> c, c -> end]
"""
    assert read(text, "yaml").problems == []


def built(**node: Any) -> AgentGraph:
    edges = (Edge(source="start", target="a"), Edge(source="a", target="end", kind="FINAL"))
    return AgentGraph(name="g", version="1.0.0", nodes=(Node(name="a", kind="task", **node),), edges=edges)


@pytest.mark.parametrize(
    ("graph", "code", "message"),
    [
        (built(retry=RetryPolicy(backoff=math.nan)), "bad_number", "retry.backoff of `a` is nan; it has to be at least 1 and"),
        (built(limits=TimeLimits(grace=math.inf)), "bad_number", "limits.grace of `a` is inf; it has to be at least 0 and"),
        (built(timer=Timer(seconds=-1)), "bad_number", "timer.seconds of `a` is -1; it has to be at least 0"),
        (built(config={"a": {1}}), "not_json", "config of `a` cannot be written as JSON: Object of type set"),
        (built(config={"a": math.nan}), "not_json", "config of `a` cannot be written as JSON: Out of range float"),
        (built(config={"a": 2**70}), "not_json", "config of `a` cannot be written as JSON: "),
        (built(config={"a": "\ud800"}), "not_json", "config of `a` cannot be written as JSON: 'utf-8' codec"),
        (built(signal=Signal(name="s", default=math.inf)), "not_json", "signal.default of `a` cannot be written"),
        (built(retry=RetryPolicy(max_attempts="3")), "bad_type", '`retry.max_attempts` of `a` has to be a whole number, not "3"'),  # type: ignore[arg-type]  # the mistake that is shown
        (built(title="\ud800"), "control_character", "the title of `a` has the character U+D800, which cannot be shown"),
        (built(child=Child(name="g"), human=Human(prompt="p")), "several_works", "Task `a` declares `human` and `child`"),
    ],
)  # fmt: skip
def test_what_only_python_code_can_get_wrong(graph: AgentGraph, code: str, message: str) -> None:
    problems = validate(graph)
    assert [p.code for p in problems] == [code]
    assert problems[0].message.startswith(message)


def test_an_empty_graph_says_so() -> None:
    problems = validate(AgentGraph(name="g", version="1.0.0", nodes=(), edges=()))
    assert [p.code for p in problems] == ["no_nodes"]


def test_too_many_nodes_are_refused() -> None:
    nodes = tuple(Node(name=f"n{i}", kind="task") for i in range(10_001))
    problems = validate(AgentGraph(name="g", version="1.0.0", nodes=nodes, edges=()))
    assert "the graph has 10001 nodes; at most 10000 are allowed" in [p.message for p in problems]


def test_a_join_count_without_a_quorum_is_refused() -> None:
    graph = built()
    more = Edge(source="start", target="a", kind="JOIN", join=Join(mode="any", count=2))
    problems = validate(AgentGraph(name="g", version="1.0.0", nodes=graph.nodes, edges=(*graph.edges, more)))
    assert "`start -> a` joins any and has a count of 2, which only a quorum has" in [p.message for p in problems]


def test_a_schema_that_cannot_be_tried_is_a_problem_and_no_exception() -> None:
    for schema in ({"pattern": "("}, {"$ref": 1}, {"properties": []}, {"type": "string", "pattern": "a{99999999999}"}):
        assert [p.code for p in validate(built(human=Human(prompt="p", answer_schema=schema)))] == ["bad_answer_schema"]


NAMES = {"$defs": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "path", "message"),
    [
        ({"$ref": "http://localhost:1/schema"}, "$ref", "leads out of the schema"),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "properties.a.$ref", "leads out of the schema"),
        ({"items": {"$ref": "#name"}}, "items.$ref", "leads out of the schema"),
        (NAMES | {"allOf": [{"$ref": "#/$defs/nam"}]}, "allOf.0.$ref", "`$ref: #/$defs/nam` leads to nothing"),
        ({"$dynamicRef": "#x"}, "$dynamicRef", "is not understood here"),
        ({"items": {"$id": "http://x/"}}, "items.$id", "an `$id` inside a schema"),
        ({"$ref": "#"}, "$ref", "leads back to itself"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "$defs.a.anyOf.0.$ref", "leads back to itself"),
        (
            {
                "allOf": [{"$ref": "#/$defs/a"}],
                "$defs": {"a": {"if": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}},
            },
            "allOf.0.$ref",
            "leads back to itself",
        ),
        (
            {"$defs": {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)} | {"a40": {}}},
            "$defs.a0",
            "one value would be compared with more than 10000 schemas",
        ),
        (
            {"$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(4000)} | {"a4000": {}}},
            "",
            "too many times",
        ),
        ({"pattern": "("}, "pattern", "is no regular expression"),
        ({"patternProperties": {"[": {}}}, "patternProperties.[", "is no regular expression"),
        ({"patternProperties": {"(a+)+$": {}}}, "patternProperties.(a+)+$", "could run for ever"),
        ({"pattern": "a" * 201}, "pattern", "a pattern has 201 characters; at most 200 are allowed"),
    ],
)
def test_a_schema_that_could_do_harm_is_refused_where_it_says_so(schema: Any, path: str, message: str) -> None:
    (fault,) = schema_faults(schema)
    assert ".".join(fault.path) == path
    assert message in fault.message
    assert fault.hint


@pytest.mark.parametrize(
    "schema",
    [
        NAMES | {"properties": {"a": {"$ref": "#/$defs/name"}, "$ref": {"type": "string"}}},
        {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
        {"$id": "https://example.invalid/s", "$ref": "#/$defs/a~1b", "$defs": {"a/b": True}},
        {"enum": [{"$ref": "http://localhost:1/"}], "default": {"pattern": "("}},
    ],
)
def test_a_schema_may_refer_to_itself(schema: Any) -> None:
    assert schema_faults(schema) == []
    assert validate(built(human=Human(prompt="p", answer_schema=schema))) == []


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+", "(a*)*$", "((a+))+", "(?:a|a)+", "(a|ab)*c", "(.*,)*", "([a-z]+)*", "(a{2,})+", "(a+){20}", "(x+x+)+y",
     "(\\w+\\s?)*", "(?P<n>a+)*", "(a+b?)+"],
)  # fmt: skip
def test_patterns_that_can_explode_are_refused(pattern: str) -> None:
    fault = pattern_fault(pattern)
    assert fault is not None
    assert "could run for ever" in fault[0]


@pytest.mark.parametrize(
    "pattern",
    ["^[a-z]+(-[a-z0-9]+)*$", "^(yes|no)$", r"^\d{4}-\d{2}-\d{2}$", r"^[^@]+@[^@]+\.[a-z]{2,}$", r"^(\d{1,3}\.){3}\d{1,3}$",
     r"^\w+(\.\w+)+$", "(abc)+", "[(+]*", r"\(a+\)+", "^([a-z]+,)*$", "", "a{,3}", "[]+]+"],
)  # fmt: skip
def test_patterns_that_end_soon_are_fine(pattern: str) -> None:
    assert pattern_fault(pattern) is None


def test_a_default_is_not_tried_on_patterns() -> None:
    schema = {"pattern": "^a+b$"}
    assert validate(built(human=Human(prompt="p", answer_schema=schema, default="x"))) == []


@pytest.mark.parametrize(
    ("condition", "result", "message"),
    [
        ("result.x > 1", {}, "`result` has no field `x`; `has(result.x)` asks whether it is there"),
        ('result.a["b"] > 1', {"a": {}}, "`result.a` has no field `b`; `has(result.a.b)` asks whether it is there"),
        ("result.exists(k, result[k].y == 1)", {"a": {}}, "a map has no field `y`"),
        ("result > 1", "a", "`>` cannot compare string with int"),
        ("result > 1", None, "`>` cannot compare null with int"),
        ("result + 1 == 2", "a", "`+` cannot be used on string and int"),
        ("size(result) > 1", 3, "`size` cannot take int"),
        ('result.x.startsWith("a")', {"x": 2}, "`startsWith` cannot take int and string"),
        ("result && true", 3, "`&&` takes only true and false"),
        ("!result", 3, "`!` takes only true and false"),
        ("result ? true : false", 3, "what stands before `?` is not true or false"),
        ("1 in result", 3, "`in` looks into a list or a map only"),
        ("result.exists(x, x > 1)", 3, "all, exists, map and filter go through a list or a map only"),
        ("result[0] == 1", [], "there is no item 0 in a list of 0 (the first one is 0)"),
        ("result[0] == 1", 3, "`[..]` looks into a list or a map only, not int"),
        ("result.x == 1", "text", "a field is asked of a value that has no fields"),
        ("result / 0 == 1", 3, "divide by zero"),
        ("result.contains('b')", "a\0b", "a text has a NUL in it"),
    ],
)
def test_a_condition_that_fails_says_so_in_its_own_words(condition: str, result: Any, message: str) -> None:
    values = {"result": result, "telemetry": {}, "header": {}, "lifetime": {}}
    with pytest.raises(ConditionError) as caught:
        compile_condition(condition).holds(values)
    assert str(caught.value).startswith(f"condition `{condition}` failed: {message}")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("route > 1", "`>` cannot compare string with int"),
        ("route && true", "`&&` takes only true and false, not string and bool"),
        ("result.x +", "Syntax error: the expression breaks off here"),
        ("1", "the condition is int, not true or false"),
    ],
)
def test_a_condition_that_does_not_compile_says_so_in_its_own_words(condition: str, message: str) -> None:
    with pytest.raises(ConditionError) as caught:
        compile_condition(condition)
    assert str(caught.value) == message


def test_wrong_types_hide_no_other_problem() -> None:
    wrong: Any = AgentGraph(
        name="bad name",
        version=1,  # type: ignore[arg-type]  # the mistake that is shown
        nodes=(
            Node(name="a", kind="task", isolation="subproces", retry=RetryPolicy(jitter="much", max_attempts=0)),  # type: ignore[arg-type]  # the mistake that is shown
            Node(name="p", kind="pln", human="ask?"),  # type: ignore[arg-type]  # the mistake that is shown
            Node(name="lost", kind="task"),
        ),
        edges=(
            Edge(source="start", target="a"),
            Edge(source="a", target="p", kind="JION", join=Join(mode="quorm", count=2)),  # type: ignore[arg-type]  # the mistake that is shown
            Edge(source="p", target="a", kind="PARALEL"),  # type: ignore[arg-type]  # the mistake that is shown
            Edge(source="a", target="end", kind="FINAL", condition="result >"),
        ),
    )
    found = [(p.code, p.message, p.hint) for p in validate(wrong)]
    assert [each for each in found if each[0] == "bad_type"] == [
        ("bad_type", '`retry.jitter` of `a` has to be a number, not "much"', ""),
        ("bad_type", '`isolation` of `a` cannot be "subproces"', "did you mean `subprocess`?"),
        ("bad_type", '`kind` of `p` cannot be "pln"', "did you mean `plan`?"),
        ("bad_type", '`human` of `p` has to be a Human, not "ask?"', "make it with Human(...)"),
        ("bad_type", '`kind` of `a -> p` cannot be "JION"', "did you mean `JOIN`?"),
        ("bad_type", '`join.mode` of `a -> p` cannot be "quorm"', "did you mean `quorum`?"),
        ("bad_type", '`kind` of `p -> a` cannot be "PARALEL"', "did you mean `PARALLEL`?"),
        ("bad_type", "`version` of the graph has to be a text, not `1`", ""),
    ]
    assert {"bad_name", "bad_number", "unreachable", "cannot_finish", "bad_condition"} == {
        code for code, _, _ in found if code != "bad_type"
    }


@pytest.mark.parametrize(
    "graph",
    [
        AgentGraph(name="g", version="1.0.0", nodes=("a",), edges=(Edge(source="start", target="a"),)),  # type: ignore[arg-type]  # the mistake that is shown
        AgentGraph(name="g", version="1.0.0", nodes=built().nodes, edges=(*built().edges, "a -> b")),  # type: ignore[arg-type]  # the mistake that is shown
        AgentGraph(name="g", version="1.0.0", nodes=built().nodes, edges=(*built().edges, Edge(source=5, target="a"))),  # type: ignore[arg-type]  # the mistake that is shown
        AgentGraph(name="g", version="1.0.0", nodes=None, edges=built().edges),  # type: ignore[arg-type]  # the mistake that is shown
        AgentGraph(name="g", version="1.0.0", nodes=(Node(name=None, kind="task"),), edges=built().edges),  # type: ignore[arg-type]  # the mistake that is shown
    ],
)
def test_a_part_that_is_none_is_one_problem(graph: AgentGraph) -> None:
    assert [p.code for p in validate(graph)] == ["bad_type"]


def test_places_are_looked_up_one_level_above_when_they_are_unknown() -> None:
    sources = SourceMap("g.py")
    sources.put("graph", "", Location("g.py", 1))
    sources.put("node", "a", Location("g.py", 5))
    sources.put("edge", 0, Location("g.py", 7))
    assert sources.field("nodes.0.retry.jitter", node="a") == Location("g.py", 5)
    assert sources.field("edges.0.condition") == Location("g.py", 7)
    assert sources.field("edges.1.condition") == Location("g.py", 1)
    assert sources.field("version") == Location("g.py", 1)
    assert sources.inside("edges.0.condition", 1, 4) == Location("g.py", 7)
    sources.put_text("edges.0.condition", Location("g.py", 7, 20), 3)
    assert sources.inside("edges.0.condition", 1, 4) == Location("g.py", 7, 23)
    assert sources.inside("edges.0.condition", 3, 4) == Location("g.py", 9, 6)
    assert SourceMap("x").field("name") == Location("x")


def test_words_of_others_are_shown_without_harm() -> None:
    assert shown("a\x1b[31m\n") == "a\\u001b[31m\\n"
    assert len(shown("a" * 500)) == 80
    assert nearest("Fetch", ["fetch", "store"]) == "fetch"
    assert nearest("a" * 1000, ["a" * 1000]) == ""
