"""Files from anybody: whatever stands in them, reading ends soon and with problems instead of exceptions."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.formats.graphs import graphs, read, said
from tickwork.errors import NotFound, StorageError, UsageError
from tickwork.formats import FORMATS, read_graph, write_graph
from tickwork.model.graph import AgentGraph

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

WORDS = st.sampled_from(
    [
        "a", "b", "start", "end", "Start((Start))", "End((End))", "[Task: x]", "{{Plan: y}}", "((", "-->", "==>", "--",
        "-.->", "|x|", "&", ";", "\n", " ", "  ", "%% tickwork: {", "%% tickwork: ", '{"node": "a", "config": {}}',
        '{"edge": "a --> b"}', "subgraph", "graph TD\n", "flowchart LR\n", "```mermaid\n", "```", "---\n", ":::c",
        "digraph {", "digraph g {", "}", "{", "[", "]", "label=", "type=task", "kind=JOIN", "join=", "quorum=2", '"',
        "->", ",", "\\", "//", "/*", "*/", "#", "node", "edge", "subgraph s {", "+", "<b>", ":", "tasks:", "plans:",
        "edges:", "- ", "tickwork: 1\n", "&x", "*x", "!!str ", "<<: ", "|", ">", "? ", "'", "null", "1e999", "0x1f",
        "1" * 30, "\t", "\r\n", "\ufeff", "%YAML 1.1\n", "...", '{"tasks": {"a": {', '"human": ', "[[", "true", "\\u12",
    ]
)  # fmt: skip


@pytest.mark.parametrize("fmt", FORMATS)
@given(text=st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=30).map("".join)))
@QUICK
@example("\ud800")
@example("\x00")
@example("")
def test_any_text_is_read_without_an_exception(fmt: str, text: str) -> None:
    result = read(text, fmt)
    assert all(str(problem) for problem in result.problems)


@pytest.mark.parametrize("fmt", FORMATS)
@given(
    graph=graphs(), cut=st.floats(0, 1), put=st.one_of(st.just(""), WORDS, st.text(max_size=3)), take=st.integers(0, 9)
)
@QUICK
def test_a_damaged_graph_is_read_without_an_exception(
    fmt: str, graph: AgentGraph, cut: float, put: str, take: int
) -> None:
    text = write_graph(graph, fmt)
    at = int(cut * len(text))
    result = read(text[:at] + put + text[at + take :], fmt)
    assert all(str(problem) for problem in result.problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x [1]\nb: [*x, *x]\n", "1:4 yaml_anchor the anchor `&x` is not allowed here"),
        ("tasks:\n  a: *x\n", "2:6 yaml_alias the alias `*x` is not allowed here"),
        ("tasks: !!python/object:os.system {}\n", "1:8 yaml_tag the tag `tag:yaml.org,2002:python/object:os.system`"),
        ("tasks:\n  <<: {a: 1}\n", "2:3 yaml_merge_key the merge key `<<` is not allowed here"),
        ("tasks:\n\ta: 1\n", "2:1 syntax this is not YAML: found character '\\t'"),
        ("edges: [a -> b\n", "2:1 syntax this is not YAML"),
        ("a: 'b\n", "2:1 syntax this is not YAML"),
        ("name: a\n---\nname: b\n", "2:1 syntax a second YAML document begins here"),
        ("name: a\x07\n", "1:8 control_character the character U+0007 does not belong in a text"),
        ("[" * 33 + "]" * 33, "1:33 too_deep values are nested more than 32 deep"),
        ("name: .nan\n", "1:7 bad_number `.nan` is not a finite number"),
        ("tickwork: 123456789012345678901\n", "1:11 number_too_large the number 123456789012345678901 is too large"),
    ],
)
def test_yaml_that_is_more_than_plain_data_is_refused(text: str, expected: str) -> None:
    assert [line[: len(expected)] for line in said(text)] == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "a', "1:10 syntax this text is not closed, or has a wrong escape"),
        ('{"name": "a",}', "1:14 syntax a key in double quotes is missing here"),
        ('{"edges": [NaN]}', "1:12 syntax `NaN` is no JSON value"),
        ('{"name": "\\ud800"}', "1:10 syntax this text has half of a surrogate pair"),
        ("[" * 100_000, "1:33 too_deep values are nested more than 32 deep"),
        ("[" + "1," * 20_000 + "1]", "1:40000 too_large the file has more than 20000 values"),
    ],
)
def test_json_that_is_none_is_refused(text: str, expected: str) -> None:
    assert said(text, "json") == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('digraph {\n  a [label="x]\n}', "2:12 syntax this text is not closed"),
        ("digraph { /* a", "1:11 syntax this comment is not closed"),
        ("digraph {\n  a [label=<b>]\n}", "2:12 syntax HTML texts are not understood here"),
        ("graph { a -- b }", "1:1 syntax `digraph` is expected here, not `graph`"),
        ("digraph { a -- b }", "1:13 syntax `->` is expected here, not `--`"),
        ("digraph { a -> }", "1:16 syntax a node, an edge or an attribute is expected here, not `}`"),
        ("digraph {" + "{" * 40, "1:42 too_deep braces are nested more than 32 deep"),
        ("digraph { a } x", "1:15 syntax the end of the file is expected here, not `x`"),
        ("digraph {", "1:10 syntax `}` is expected here, not the end of the file"),
        ("digraph { a@b }", "1:12 syntax `@` is not understood here"),
    ],
)
def test_dot_that_breaks_off_is_refused(text: str, expected: str) -> None:
    assert said(text, "dot") == [expected]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a[Task: x --> b", "2:2 syntax `]` that closes the shape is missing on this line"),
        ('a["Task: x] --> b', "2:2 syntax a double quote that closes the text is missing on this line"),
        ("a --> ", "2:7 syntax a node is expected here, not the end of the line"),
        ("a --- b", "2:3 syntax a link is expected here, not `---`"),
        ("a <--> b", "2:3 syntax a link is expected here, not `<-->`"),
        ("a -- text b", "2:3 syntax the head of the link `--` is missing on this line"),
        ("a b", "2:3 syntax a link is expected here, not `b`"),
        ("a((Middle)) --> b", "2:2 syntax the circle `Middle` is neither Start nor End"),
        ("a --> %", "2:7 syntax a node is expected here, not `%`"),
        ("%% tickwork: {x", "2:14 syntax the tickwork comment holds no JSON: a key in double quotes is missing here"),
        ("%% tickwork: [1]", "2:14 syntax the tickwork comment holds no map"),
    ],
)
def test_a_mermaid_line_that_is_no_statement_is_reported_and_the_others_go_on(line: str, expected: str) -> None:
    found = said(f"graph TD\n{line}\nt[Task: t] --> t2((Nowhere))\n", "mermaid")
    assert found[0] == expected
    assert found[1] == "3:18 syntax the circle `Nowhere` is neither Start nor End"


def test_what_is_no_flowchart_is_refused() -> None:
    assert said("sequenceDiagram\n  a->>b: hi\n", "mermaid") == ["1:1 syntax there is no Mermaid flowchart here"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_file_over_one_mebibyte_is_refused(fmt: str) -> None:
    assert said("#" * (1024 * 1024 + 1), fmt) == ["0:0 too_large the file is larger than 1024 KiB"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_line_ends_and_byte_order_marks_change_nothing(fmt: str, tmp_path: Path) -> None:
    graph = read_graph(Path(__file__).parent / "seed.mmd").graph
    assert graph is not None
    text = write_graph(graph, fmt)
    for name, data in {
        "crlf": text.replace("\n", "\r\n"),
        "cr": text.replace("\n", "\r"),
        "bom": "\ufeff" + text,
    }.items():
        path = tmp_path / name
        path.write_bytes(data.encode())
        result = read_graph(path, fmt=fmt)
        assert result.problems == []
        assert result.graph is not None
        assert result.graph.digest == graph.digest


def test_bytes_that_are_no_text_have_a_place(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_bytes(b"name: a\nversion: \xff\n")
    assert [str(p) for p in read_graph(path).problems] == [
        f"{path}:2:10: the file is not UTF-8 text\n    save it as UTF-8"
    ]


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no file .*nowhere.yaml"):
        read_graph(tmp_path / "nowhere.yaml")
    with pytest.raises(StorageError, match="cannot be read: Is a directory"):
        read_graph_of_folder(tmp_path)
    with pytest.raises(UsageError, match="there is no graph format `xml`"):
        read_graph(tmp_path / "g.yaml", fmt="xml")
    (tmp_path / "g.xml").write_text("<graph/>")
    assert [p.code for p in read_graph(tmp_path / "g.xml").problems] == ["unknown_format"]


def read_graph_of_folder(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "agent_graph.yaml").symlink_to(tmp_path / "d")
    from tickwork.formats import content

    content(tmp_path / "d" / "agent_graph.yaml")


def _chain_of_edges(fmt: str) -> Callable[[int], str]:
    arrow = "-->" if fmt == "mermaid" else "->"
    head, tail = ("graph TD\n", "") if fmt == "mermaid" else ("digraph {\n", "}")
    return lambda n: head + "\n".join(f"a{i % 500} {arrow} b{i // 40}" for i in range(n)) + tail


# Each makes a text of a size; reading twice the size must not take four times as long.
GROWING: list[tuple[str, str, Callable[[int], str], int]] = [
    ("mermaid", "edges", _chain_of_edges("mermaid"), 10_000),
    ("dot", "edges", _chain_of_edges("dot"), 10_000),
    ("mermaid", "one line", lambda n: "graph TD\n" + "a" + " --> a" * n, 20_000),
    ("dot", "one line", lambda n: "digraph { a" + " -> a" * n + "}", 20_000),
    ("mermaid", "dashes", lambda n: "graph TD\na -- " + "-" * n, 400_000),
    ("mermaid", "dashes apart", lambda n: "graph TD\na -- " + "- " * n, 200_000),
    ("mermaid", "spaces", lambda n: 'graph TD\na["' + " " * n + 'x"]', 400_000),
    ("mermaid", "brackets", lambda n: "graph TD\na" + "[" * n, 400_000),
    ("mermaid", "breaks", lambda n: "graph TD\na[" + "<br " * n, 100_000),
    ("mermaid", "comments", lambda n: "graph TD\n%% tickwork: " + " " * n + "x", 400_000),
    ("mermaid", "fences", lambda n: "x\n" + "```mermaid\n" * n, 40_000),
    ("mermaid", "faulty lines", lambda n: "graph TD\n" + "a b\n" * n, 20_000),
    ("mermaid", "unknown comments", lambda n: "graph TD\n" + '%% tickwork: {"kay": 1}\n' * n, 10_000),
    ("dot", "quotes", lambda n: 'digraph { a [label="' + '\\"' * n, 200_000),
    ("dot", "plus", lambda n: "digraph { a [label=" + '"a" + ' * n, 50_000),
    ("dot", "unknown keys", lambda n: "digraph { " + "a [lable=1] " * n + "}", 20_000),
    ("json", "one line", lambda n: '{"edges": [' + '"a -> b",' * n + '"a -> b"]}', 9_000),
    ("json", "digits", lambda n: '{"tickwork": ' + "9" * n + "}", 400_000),
    ("json", "escapes", lambda n: '{"name": "' + "\\n" * n + '"}', 200_000),
    ("yaml", "a long text", lambda n: "name: " + "a" * n, 200_000),
    ("yaml", "a flow list", lambda n: "edges: [" + "a -> b, " * n + "]", 2_500),
    ("yaml", "unknown keys", lambda n: "\n".join(f"tsks{i}: 1" for i in range(n)), 2_500),
    ("yaml", "an unknown name", lambda n: json.dumps({"edges": [f"a{i} -> b{i}" for i in range(n)]}), 2_500),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fmt", "make", "size"), [pytest.param(f, m, s, id=f"{f}-{w}") for f, w, m, s in GROWING])
def test_time_grows_with_the_size_and_no_faster(fmt: str, make: Callable[[int], str], size: int) -> None:
    def seconds(n: int) -> float:
        text = make(n)
        best = float("inf")
        for _ in range(3):
            # Without the collector, whose full passes come with what other tests left behind.
            gc.collect()
            gc.disable()
            begun = time.process_time()
            try:
                read(text, fmt)
            finally:
                gc.enable()
            best = min(best, time.process_time() - begun)
        return best

    once, twice = seconds(size), seconds(2 * size)
    assert twice < 3 * once + 0.1, f"{once:.3f} s became {twice:.3f} s"
    assert twice < 30
