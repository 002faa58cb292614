"""What each reader makes of its format beyond the round trip: rules of drawings, durations, places, directories."""

# ruff: noqa: E501, ISC004 - a row of a table stands on one line, whatever its message says

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.graphs import read, said
from tickwork.errors import GraphInvalid
from tickwork.formats import drawing, load, read_graph
from tickwork.model.graph import AgentGraph, Child, Edge, Join, RetryPolicy, Signal, Timer


def understood(text: str, fmt: str) -> AgentGraph:
    result = read(text, fmt)
    assert result.problems == []
    assert result.graph is not None
    return result.graph


def edges(graph: AgentGraph) -> dict[str, Edge]:
    return {str(edge): edge for edge in graph.edges}


# -- YAML


def test_durations_and_short_forms() -> None:
    graph = understood(
        """\
tasks:
  fetch: {run: a.py:f, retry: {initial_interval: 250ms, max_interval: 1h30m}, limits: {start_to_close: 5m, grace: 1}}
  rest: {timer: 2d}
  paid: {signal: payment}
  sub: {child: other}
  last: {child: {name: other, version: 1.2.3}}
plans: {p: {run: a.py:p}}
edges: [start -> fetch -> p, p -> rest, p -> paid, p -> sub, p -> last -> end, rest -> end, paid -> end, sub -> end]
""",
        "yaml",
    )
    fetch = graph.node["fetch"]
    assert fetch.retry == RetryPolicy(initial_interval=0.25, max_interval=5400.0)
    assert (fetch.limits.start_to_close, fetch.limits.grace) == (300.0, 1.0)
    assert graph.node["rest"].timer == Timer(seconds=172_800.0)
    assert graph.node["paid"].signal == Signal(name="payment")
    assert graph.node["sub"].child == Child(name="other")
    assert graph.node["last"].child == Child(name="other", version="1.2.3")


def test_a_default_that_is_spelt_out_changes_no_digest() -> None:
    short = understood("name: g\ntasks: {a: }\nedges: [start -> a -> end]\n", "yaml")
    long = understood(
        "name: g\nversion: 0.1.0\ndescription: ''\n"
        "tasks: {a: {title: '', retry: {max_attempts: 3, backoff: 2, jitter: 0.2}, limits: {grace: 5s}, isolation: inline}}\n"
        "edges: [{from: start, to: a, kind: NORMAL, label: ''}, {from: a, to: end, kind: FINAL}]\n",
        "yaml",
    )
    assert short.digest == long.digest


def test_join_options() -> None:
    graph = understood(
        "tasks: {a: , b: }\nplans: {p: , q: }\n"
        "edges: [start -> a -> p, {from: p, to: b, kind: PARALLEL}, {from: b, to: q, join: {quorum: 2}}, q -> a,\n"
        "  {from: b, to: end, condition: 'true'}]\n",
        "yaml",
    )
    assert edges(graph)["b->q"].join == Join(mode="quorum", count=2)
    assert edges(graph)["b->q"].kind == "JOIN"


def test_yaml_words_keep_their_letters() -> None:
    graph = understood(
        "name: on\ntasks: {yes: {title: no, config: {1: 0x10, off: true}}}\nedges: [start -> yes -> end]\n", "yaml"
    )
    assert (graph.name, graph.node["yes"].title) == ("on", "no")
    assert graph.node["yes"].config == {"1": 16, "off": True}


@pytest.mark.parametrize("name", ["my graph.yaml", "9.yaml", "é.yaml"])
def test_a_graph_without_a_name_has_its_files(name: str) -> None:
    graph = read("tasks: {a: }\nedges: [start -> a -> end]\n", "yaml", name).graph
    assert graph is not None
    assert graph.name == {"my graph.yaml": "my_graph", "9.yaml": "graph_9", "é.yaml": "graph"}[name]


# -- drawings

RULES = [
    ("p -->|x| a\n p -->|x| b\n p -->|y| c", {"p->a": "PARALLEL", "p->b": "PARALLEL", "p->c": "NORMAL"}),
    ("p --> a\n p --> b", {"p->a": "NORMAL", "p->b": "NORMAL"}),
    ("p ==> a\n p == x ==> b", {"p->a": "PARALLEL", "p->b": "PARALLEL"}),
    ("p ==> a & b\n p -.-> c\n p -. x .-> d", {"p->a": "PARALLEL", "p->b": "PARALLEL", "p->c": "NORMAL", "p->d": "NORMAL"}),
    ("a -->|JOIN| p", {"a->p": "JOIN"}),
    ("a -- JOIN quorum 2: all in --> p", {"a->p": "JOIN"}),
    ("a -->|JOINED| p", {"a->p": "NORMAL"}),
    ("a --> End", {"a->end": "FINAL"}),
    ("a -->|JOIN| End", {"a->end": "FINAL"}),
]  # fmt: skip
NODES = "s((Start)) --> a[Task: a]\n b[b]; c[c]; d[d]; p{{Plan: p}}; q{q}; End(((End)))\n"


@pytest.mark.parametrize(("lines", "kinds"), RULES)
def test_the_kinds_that_a_flowchart_implies(lines: str, kinds: dict[str, str]) -> None:
    graph = read(f"flowchart LR\n{NODES}{lines}\n", "mermaid").graph
    assert graph is not None
    assert {name: edge.kind for name, edge in edges(graph).items() if edge.source != "start"} == kinds


@pytest.mark.parametrize(
    ("label", "join", "rest"),
    [
        ("JOIN", Join(), ""), ("JOIN all", Join(), ""), ("JOIN settled: x", Join(mode="settled"), "x"),
        ("JOIN any", Join(mode="any"), ""), ("JOIN quorum 2", Join(mode="quorum", count=2), ""),
        ("JOIN quorum: 3: the votes", Join(mode="quorum", count=3), "the votes"), ("JOIN: results", Join(), "results"),
        ("JOIN all: quorm", Join(), "quorm"), ("JOIN : two", Join(), "two"),
    ],
)  # fmt: skip
def test_the_label_of_a_join(label: str, join: Join, rest: str) -> None:
    for fmt, text in {
        "mermaid": f"graph TD\n{NODES} a -->|{label}| p\n",
        "dot": f'digraph {{ a [type=task] p [type=plan] a -> p [label="{label}"] }}',
    }.items():
        graph = read(text, fmt).graph
        assert graph is not None
        assert (edges(graph)["a->p"].join, edges(graph)["a->p"].label) == (join, rest)
        assert "bad_join" not in {problem.code for problem in read(text, fmt).problems}


@pytest.mark.parametrize(
    ("label", "message", "hint"),
    [
        ("JOIN quorm 2", "`a -> p` cannot JOIN `quorm`", "did you mean `quorum`?"),
        ("JOIN quorum two", "the quorum of `a -> p` has no number", "write how many are enough: JOIN quorum 2"),
        ("JOIN quorum", "the quorum of `a -> p` has no number", "write how many are enough: JOIN quorum 2"),
        ("JOIN zzz", "`a -> p` cannot JOIN `zzz`", "it is one of all, settled, any, quorum. A text for people stands"),
    ],
)  # fmt: skip
def test_a_word_after_join_that_is_no_way_to_join_is_a_problem(label: str, message: str, hint: str) -> None:
    for fmt, text in {
        "mermaid": f"graph TD\n{NODES} a -->|{label}| p\n",
        "dot": f'digraph {{ a [type=task] p [type=plan] a -> p [label="{label}"] }}',
    }.items():
        (problem,) = [problem for problem in read(text, fmt).problems if problem.code == "bad_join"]
        assert problem.message == message
        assert problem.hint.startswith(hint)
        assert problem.location.line == {"mermaid": 4, "dot": 1}[fmt]
    said_so = f'digraph {{ a [type=task] p [type=plan] a -> p [label="{label}", kind=NORMAL] }}'
    assert "bad_join" not in {problem.code for problem in read(said_so, "dot").problems}


def test_labelled_alternatives_of_a_task_are_conditions() -> None:
    text = f'graph TD\n{NODES} a -->|"say #quot;yes#quot;"| p\n a -- no --> q\n a --> End\n b -- only --> q\n'
    graph = read(text, "mermaid").graph
    assert graph is not None
    assert {name: e.condition for name, e in edges(graph).items() if e.label or e.kind == "FINAL"} == {
        "a->p": 'route == "say \\"yes\\""', "a->q": 'route == "no"', "a->end": "", "b->q": "",
    }  # fmt: skip


def test_dot_says_the_same_with_attributes() -> None:
    graph = understood(
        """\
// a comment
strict digraph "my-graph" {
  # another
  graph [version="2.0.0", rankdir=LR]; description="what it " + "is for"
  node [type=task, shape=box]
  subgraph cluster_x { label="only drawn"; a; b /* and */ c }
  "p-1" [type="plan", label="Decide\\nwell"]
  start -> a -> "p-1" [color=red]
  "p-1" -> {b c} [kind=PARALLEL, label=go]
  b -> "p-1" [join=quorum, quorum=2]
  b -> end [condition="result.ok == \\"yes\\""]
  c -> end:n
  b [retry="{\\"max_attempts\\": 5}", memory_mb=64, isolation=subprocess, run="a.py:b"]
}
""",
        "dot",
    )
    assert (graph.name, graph.version, graph.description) == ("my-graph", "2.0.0", "what it is for")
    assert graph.node["b"].retry.max_attempts == 5
    assert (graph.node["b"].memory_mb, graph.node["b"].run) == (64, "a.py:b")
    assert graph.node["p-1"].title == "Decide\nwell"
    assert {n: e.kind for n, e in edges(graph).items()} == {
        "start->a": "NORMAL", "a->p-1": "NORMAL", "p-1->b": "PARALLEL", "p-1->c": "PARALLEL", "b->p-1": "JOIN",
        "b->end": "FINAL", "c->end": "FINAL",
    }  # fmt: skip
    assert edges(graph)["b->p-1"].join == Join(mode="quorum", count=2)
    assert edges(graph)["b->end"].condition == 'result.ok == "yes"'


DOT = "digraph {{ start -> a -> p -> a -> end\n  a [type=task{a}]; p [type=plan{p}]\n  {more} }}"


@pytest.mark.parametrize(
    ("a", "p", "more", "expected"),
    [
        (", lable=x", "", "", "2:17 unknown_key node `a` has no key `lable`"),
        (
            "",
            ', retry="5x"',
            "",
            "2:38 syntax the attribute retry holds no JSON: something follows the end of the JSON value",
        ),
        ("", "", 'a -> p [kind="PARALEL"]', "3:16 unknown_word `kind` cannot be `PARALEL`"),
        ("", "", 'p -> a [join="al"]', "3:16 unknown_word `join` cannot be `al`"),
        ("", "", "p -> a [quorum=x]", "3:18 wrong_type `quorum` has to be a whole number, not `x`"),
        ("", "", "a -> b [cond=1]", "3:11 unknown_key an edge has no key `cond`"),
        ("", "", "b [label=x]", "3:3 missing_key node `b` does not say whether it is a Task or a Plan"),
        ("", "", "b [type=tsk]", "3:11 unknown_word the type of `b` cannot be `tsk`"),
        ("", "", "a [type=plan]", "3:3 duplicate_node there are two nodes called `a`, one of type task"),
        ("", "", "p -> b", "3:3 unknown_node `p -> b` leads to `b`, which is not a node of the graph"),
    ],
)
def test_problems_of_dot_have_their_place(a: str, p: str, more: str, expected: str) -> None:
    found = said(DOT.format(a=a, p=p, more=more), "dot")
    assert expected in found


def test_a_condition_in_dot_is_shown_where_it_is_wrong() -> None:
    text = 'digraph { start -> a\n a [type=task]\n a -> end [condition="true && wrong"] }'
    assert said(text, "dot") == [
        "3:31 bad_condition the condition of `a -> end` does not compile: unknown name `wrong`; a condition knows "
        "result, route, telemetry, header, lifetime"
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a --> b", "4:2 unknown_node `a -> b` leads to `b`, which is not a node of the graph"),
        (
            "a[Task: other]",
            "4:2 duplicate_node there are two nodes called `a`, described as `Task: a` and as `Task: other`",
        ),
        (
            '%% tickwork: {"node": "b", "run": "x:y"}',
            "4:15 unknown_node the comment speaks of `b`, which is not drawn as a node",
        ),
        (
            '%% tickwork: {"edge": "a -> b"}',
            "4:15 unknown_edge the comment speaks of an edge `a -> b`, which is not drawn (so often)",
        ),
        ('%% tickwork: {"nam": "b"}', "4:15 unknown_key a tickwork comment has no key `nam`"),
        ('%% tickwork: {"node": "a", "runn": "x:y"}', "4:15 unknown_key a node has no key `runn`"),
        ('%% tickwork: {"edge": "a -> end", "kind": "FINL"}', "4:15 unknown_word `kind` cannot be `FINL`"),
        (
            "a ==> p{{Plan: p}}",
            "4:2 parallel_from_task `a -> p` is PARALLEL, but only a Plan can start several branches",
        ),
    ],
)
def test_problems_of_mermaid_have_their_place(line: str, expected: str) -> None:
    assert expected in said(f"graph TD\n Start((Start)) --> a[Task: a]\n a --> End((End))\n {line}\n", "mermaid")


def test_what_is_only_for_the_eye_is_skipped() -> None:
    text = """\
---
title: A title
---
%% a comment
%%{init: {"theme": "dark"}}%%
flowchart LR; Start((Start)) --> style[Task: style]:::wide --> p{{"Plan: say #quot;hi#quot;<br/>now"}}
  subgraph one [A group]
    direction TB
    p --> b(["Task: b"]) --> End((End)) %% at the end
  end
  style --> p2{Plan: two} --> b; classDef wide fill:#f9f
  style style fill:#bbf,stroke-width:2px
  class b,p wide
  click b "https://example.invalid" _blank
  linkStyle 0 stroke:#ff3
  %% tickwork: {"edge": "style -> p2", "condition": "result == 1"}
"""
    graph = understood(text, "mermaid")
    assert sorted(graph.node) == ["b", "p", "p2", "style"]
    assert graph.node["p"].title == 'say "hi" now'
    assert edges(graph)["style->p2"].condition == "result == 1"


# -- directories


def make(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


GRAPH = """\
digraph {
  start -> "fetch-Docs" -> judge -> ask -> end
  "fetch-Docs" [type="task"]; judge [type="plan"]; ask [type="task"]
}
"""


def test_a_directory_binds_code_and_options(tmp_path: Path) -> None:
    folder = make(tmp_path / "my agent", agent_graph_dot_dot=GRAPH, judge="")
    for path in ("plans/judge/plan.py", "tasks/fetch-Docs/task.py", "tasks/ask/task.py"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("raise SystemExit('reading must not run this')\n")
    (folder / "nodes.yaml").write_text("fetch-Docs: {retry: {max_attempts: 5}}\nask: {human: Really?}\n")
    result = read_graph(folder)
    assert result.problems == []
    assert result.graph is not None
    assert result.base == folder
    assert result.graph.name == "my_agent"
    node = result.graph.node
    assert node["fetch-Docs"].run == "tasks/fetch-Docs/task.py:task"
    assert node["fetch-Docs"].retry.max_attempts == 5
    assert node["judge"].run == "plans/judge/plan.py:plan"
    assert node["ask"].run == ""
    assert node["ask"].human is not None
    assert load(folder).digest == result.graph.digest


def test_problems_of_a_directory(tmp_path: Path) -> None:
    folder = make(tmp_path / "agent", agent_graph_dot_dot=GRAPH.replace('"plan"', '"plan", title="T"'))
    for path in ("plans/ask/plan.py", "tasks/fetch-docs/task.py", "tasks/notes/readme.txt"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("")
    (folder / "nodes.yaml").write_text(
        "judge:\n  title: Other\nfetch: {}\nask:\n  retyr: 1\n  retry: {max_attempts: 0}\n"
    )
    for path in ("plans/judge/plan.py", "tasks/fetch-Docs/task.py", "tasks/ask/task.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("")
    found = [
        f"{p.location.file.removeprefix(str(folder) + '/')}:{p.location.line} {p.message} / {p.hint}"
        for p in read_graph(folder).problems
    ]
    assert found == [
        "nodes.yaml:2 title of `judge` is given here and in the graph file / keep one of them; the other stands at "
        f"{folder}/agent_graph.dot:3:57",
        "nodes.yaml:3 `fetch` is not a node of the graph / did you mean `fetch-Docs`?",
        "nodes.yaml:5 a node has no key `retyr` / did you mean `retry`?",
        "nodes.yaml:6 retry.max_attempts of `ask` is 0; it has to be at least 1 / correct the number, or leave it out",
        "plans/ask/plan.py:0 this is the code of a plan, but `ask` is a Task of the graph / move it to "
        "tasks/ask/task.py, or change the graph",
        "tasks/fetch-docs/task.py:0 there is code for `fetch-docs`, which is not a node of the graph / did you mean "
        "`fetch-Docs`?",
    ]


def test_a_directory_has_one_graph_file(tmp_path: Path) -> None:
    assert [p.message for p in read_graph(tmp_path).problems] == ["this directory has no file agent_graph.* or graph.*"]
    make(tmp_path, agent_graph_dot_dot=GRAPH, agent_graph_dot_yaml="")
    assert [p.message for p in read_graph(tmp_path).problems] == [
        "this directory has agent_graph.dot and agent_graph.yaml"
    ]
    make(tmp_path, graph_dot_yml="")
    assert [p.message for p in read_graph(tmp_path).problems] == [
        "this directory has agent_graph.dot, agent_graph.yaml and graph.yml"
    ]
    with pytest.raises(GraphInvalid, match=r"(?s)1 problem in the graph:\n.*keep one of them"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json", ".dot", ".gv", ".mmd", ".mermaid"])
def test_a_directory_may_call_its_graph_file_graph(suffix: str, tmp_path: Path) -> None:
    texts = {
        ".json": '{"tasks": {"a": "t.py:a"}, "edges": ["start -> a -> end"]}',
        ".mmd": "graph TD\nstart --> a[a] --> end\n",
    }
    texts |= {".mermaid": texts[".mmd"], ".dot": "digraph { start -> a -> end; a [type=task] }"}
    text = texts.get(suffix, texts[".dot"] if suffix == ".gv" else texts[".json"])
    folder = make(tmp_path / "my-agent", **{f"graph_dot_{suffix[1:]}": text})
    result = read_graph(folder)
    assert result.problems == []
    assert result.graph is not None
    assert result.graph.label == "my-agent@0.1.0"
    direct = read_graph(folder / f"graph{suffix}").graph
    assert direct is not None
    assert direct.digest == result.graph.digest


def test_a_directory_without_a_graph_file_names_what_might_be_one(tmp_path: Path) -> None:
    make(
        tmp_path,
        review_dot_yaml="edges: [start -> a]\n",
        answers_dot_yaml="a: 1\n",
        made_dot_py="g = Graph('g')\n",
        other_dot_py="",
    )
    (problem,) = read_graph(tmp_path).problems
    assert problem.code == "no_graph_file"
    assert problem.hint.endswith(f"; or name the file: {tmp_path}/review.yaml or {tmp_path}/made.py")


def test_a_directory_says_which_file_a_node_lacks(tmp_path: Path) -> None:
    folder = make(tmp_path / "agent", agent_graph_dot_dot=GRAPH)
    assert read_graph(folder).problems == []  # its code may be bound elsewhere
    (folder / "tasks" / "fetch-Docs").mkdir(parents=True)
    (folder / "nodes.yaml").write_text("ask: {human: Really?}\n")
    assert sorted((p.code, p.message, p.hint, p.location.line) for p in read_graph(folder).problems) == [
        ("no_implementation", "Plan `judge` has no implementation: there is no file plans/judge/plan.py",
         "write `def plan(plan_input)` in plans/judge/plan.py, or give `judge` a `run`", 3),
        ("no_implementation", "Task `fetch-Docs` has no implementation: there is no file tasks/fetch-Docs/task.py",
         "write `def task(task_input)` in tasks/fetch-Docs/task.py, or give `fetch-Docs` a `run`, or say what it waits "
         "for (human, signal, timer, child)", 3),
    ]  # fmt: skip


# -- one slip hides nothing


@pytest.mark.parametrize(
    ("fmt", "text"),
    [
        ("yaml", "name: a\nname: b\ntasks: {x: }\nversion: 1\nedges: [start -> x]\n"),
        ("json", '{"name": "a",\n"name": "b",\n"tasks": {"x": {}},\n"version": "1",\n"edges": ["start -> x"]}'),
    ],
)
def test_a_key_given_twice_hides_no_other_problem(fmt: str, text: str) -> None:
    result = read(text, fmt)
    assert result.graph is not None
    assert result.graph.name == "a"
    line = {p.code: p.location.line for p in result.problems}
    assert line["duplicate_key"] == 2
    assert {"no_final", "duplicate_key"} <= line.keys()


def test_an_edge_with_a_wrong_key_is_taken_as_far_as_it_goes() -> None:
    text = """\
tasks: {a: , b: , lost: }
plans: {p: }
edges:
  - start -> a -> p
  - {from: p, to: b, knd: PARALLEL}
  - {from: b, to: p, join: all, wibble: 1}
  - {from: b, to: p, when: 'result >'}
"""
    assert {(p.location.line, p.code) for p in read(text, "yaml").problems} == {
        (1, "no_final"), (1, "unreachable"), (5, "unknown_key"), (6, "unknown_key"), (7, "unknown_key"), (7, "bad_condition"),
    }  # fmt: skip


def test_a_misspelt_quorum_is_known() -> None:
    text = "tasks: {a: , b: }\nplans: {p: }\nedges: [start -> a, {from: a, to: p, join: quorm}, p -> b -> end]\n"
    (problem,) = read(text, "yaml").problems
    assert (problem.code, problem.hint) == ("unknown_word", "did you mean {quorum: 2}?")


def test_what_may_come_of_a_wrong_word_is_not_reported() -> None:
    text = """\
tasks: {a: , b: , lost: }
plans: {p: , q: }
edges:
  - start -> a -> p
  - {from: p, to: b, kind: PARALEL}
  - {from: b, to: q, join: all}
  - q -> a
  - {from: b, to: end, condition: [1]}
"""
    assert {(p.location.line, p.code) for p in read(text, "yaml").problems} == {
        (1, "unreachable"), (1, "cannot_finish"), (5, "unknown_word"), (8, "wrong_type"),
    }  # fmt: skip


def test_a_text_file_is_read_when_it_holds_a_flowchart(tmp_path: Path) -> None:
    path = tmp_path / "vision.txt"
    path.write_text("A vision.\n\ngraph TD\n  Start((Start)) --> a[Task: a]\n  a --> End((End))\nLoading\n\nMore.\n")
    result = read_graph(path)
    assert result.problems == []
    assert result.graph is not None
    assert result.graph.label == "vision@0.1.0"
    path.write_text("Only prose.\n")
    assert [p.message for p in read_graph(path).problems] == ["there is no Mermaid flowchart here"]


# -- the drawing in a terminal


def test_a_drawing_shows_what_waits_joins_and_is_lost() -> None:
    text = """\
name: g
tasks: {a: {human: ok?}, b: {title: "Do\\nit"}, c: , lost: }
plans: {p: , q: }
edges:
  - start -> a -> p
  - {from: p, to: b, kind: PARALLEL}
  - {from: b, to: q, join: {quorum: 2}, label: votes}
  - {from: b, to: end, condition: "result > 1"}
  - q -> c -> end
"""
    graph = read(text, "yaml").graph
    assert graph is not None
    assert drawing(graph) == (
        "g@0.1.0  4 Tasks, 2 Plans, 7 edges\n\n● start\n│\n[a] (human)\n│\n{p}\n║\n[b] Do it\n"
        "├─ ⋈ quorum 2 · votes ─▶ {q}\n│  │\n│  [c]\n│  │\n│  ◉ end\n└─ if result > 1 ─▶ ◉ end\n\n"
        "never reached:\n  [lost]\n\n[task]   {plan}   ↩ back to   ↑ drawn above   ═▶ PARALLEL   ⋈ JOIN   ◉ end\n"
    )


def test_a_long_chain_is_drawn_without_recursion() -> None:
    names = [f"n{i}" for i in range(4_000)]
    text = "graph TD\nStart((Start)) --> " + " --> ".join(
        f"{n}[Task: t]" if i % 2 == 0 else f"{n}{{{{Plan: p}}}}" for i, n in enumerate([*names, "last"])
    )
    graph = understood(text + " --> End((End))\n", "mermaid")
    assert drawing(graph).count("│") == 4_002


@pytest.mark.parametrize(
    ("fmt", "text", "expected"),
    [
        ("yaml", "tasks: {a: {run: x:y, effect: atmost_once}}\n", ("unknown_word", "did you mean `at_most_once`?")),
        ("yaml", "tasks: {a: {run: x:y, effect: 1}}\n", ("wrong_type", "")),
        ("yaml", "limits: {record: 5}\ntasks: {a: x:y}\n", ("unknown_key", "did you mean `records`?")),
        ("yaml", "limits: {records: many}\ntasks: {a: x:y}\n", ("wrong_type", "")),
        ("yaml", "limits: [5]\ntasks: {a: x:y}\n", ("wrong_type", "")),
        ("json", '{"limits": {"depth": 0}, "tasks": {"a": "x:y"}}', ("bad_number", "correct the number, or leave it out")),
        ("dot", 'digraph g { limits="{\\"depth\\": 0}"; a [type=task] }', ("bad_number", "correct the number, or leave it out")),
        ("dot", 'digraph g { graph [limits="few"]; a [type=task] }', ("syntax", None)),
        ("dot", "digraph g { a [type=task, effect=once] }", ("unknown_word", None)),
        ("mermaid", 'graph TD\n%% tickwork: {"limits": {"records": "5"}}\na[Task: A]\n', ("wrong_type", None)),
        ("mermaid", 'graph TD\na[Task: A]\n%% tickwork: {"node": "a", "effect": "purest"}\n', ("unknown_word", None)),
    ],
)  # fmt: skip
def test_a_wrong_effect_or_limit_is_told(fmt: str, text: str, expected: tuple[str, str | None]) -> None:
    found = [p for p in read(text, fmt).problems if p.code not in ("no_entry", "no_final")]
    assert [p.code for p in found] == [expected[0]]
    assert expected[1] is None or found[0].hint == expected[1]
    assert found[0].location.line
