"""Graphs in Python: what the builder makes of them, and where it says a mistake is."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tickwork import (
    Context,
    Graph,
    Plan,
    RetryPolicy,
    Task,
    TimeLimits,
    child,
    human,
    plan,
    sleep,
    task,
    wait_for_signal,
)
from tickwork.errors import GraphInvalid
from tickwork.model.graph import END, START, Join
from tickwork.sdk.values import PlanInput, TaskInput


@task(retry=RetryPolicy(max_attempts=5), limits=TimeLimits(start_to_close=30), isolation="subprocess", memory_mb=256)
async def fetch(url: str, ctx: Context) -> str:
    """Fetches."""
    return url


@task
def work(value: Any) -> Any:
    return value


@plan(name="choose", title="Choose one", config={"k": 1})
def decide(plan_input: PlanInput) -> str:
    return "fetch" if plan_input.result else END


class Review(Plan):
    limits = TimeLimits(start_to_close=5)

    def run(self, value: Any) -> None:
        return None


class Write(Task):
    name = "write"
    retry = RetryPolicy(max_attempts=1)

    async def run(self, value: Any, ctx: Context) -> Any:
        return value


def here() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def complete() -> Graph:
    g = Graph("sample", "1.2.3", description="All of it.")
    g.start(fetch).then(fetch, decide).parallel(decide, work, Write, label="both")
    g.join(work, Review, "quorum", 2).edge(Write, "Review", join="settled")
    g.then(Review, fetch).final(Review)
    return g


def test_a_graph_says_what_was_written() -> None:
    graph = complete().build()
    assert (graph.label, graph.description) == ("sample@1.2.3", "All of it.")
    assert [(n.name, n.kind) for n in graph.nodes] == [
        ("fetch", "task"),
        ("choose", "plan"),
        ("work", "task"),
        ("write", "task"),
        ("Review", "plan"),
    ]
    node = graph.node["fetch"]
    assert (node.retry.max_attempts, node.limits.start_to_close) == (5, 30)
    assert (node.isolation, node.memory_mb) == ("subprocess", 256)
    assert node.run.endswith("test_builder:fetch") or node.run == "test_builder.py:fetch"
    assert graph.node["Review"].limits.start_to_close == 5
    assert graph.node["write"].retry.max_attempts == 1
    assert (graph.node["choose"].title, graph.node["choose"].config) == ("Choose one", {"k": 1})
    assert [(e.source, e.target, e.kind) for e in graph.edges] == [
        (START, "fetch", "NORMAL"),
        ("fetch", "choose", "NORMAL"),
        ("choose", "work", "PARALLEL"),
        ("choose", "write", "PARALLEL"),
        ("work", "Review", "JOIN"),
        ("write", "Review", "JOIN"),
        ("Review", "fetch", "NORMAL"),
        ("Review", END, "FINAL"),
    ]
    assert [e.join for e in graph.edges[4:6]] == [Join(mode="quorum", count=2), Join(mode="settled")]
    assert graph.edges[2].label == "both"
    assert complete().build().digest == graph.digest


def test_binding_brings_the_implementations_along() -> None:
    bound = complete().bind()
    assert set(bound.implementations) == {"fetch", "choose", "work", "write", "Review"}
    assert bound.implementations["fetch"].is_async
    assert bound.implementations["write"].is_async
    assert not bound.implementations["Review"].is_async


def test_a_decorated_function_is_still_a_function() -> None:
    assert work(5) == 5
    assert decide(PlanInput(executions=[])) == END
    assert (fetch.__doc__, fetch.name, repr(fetch)) == ("Fetches.", "fetch", "<task fetch>")


def test_tasks_that_wait() -> None:
    ask = human("ask", prompt="ok?", answer_schema={"type": "boolean"}, deadline=60, default=False, who=["a"])
    g = Graph("waits", "1.0.0").start(ask).final(ask)
    paid = wait_for_signal("paid", name="payment", deadline=5)
    nap, sub = sleep("nap", seconds=60), child("sub", graph="other", version="1.0.0")
    for each in (paid, nap, sub):
        g.start(each).final(each)
    graph = g.build()
    assert graph.node["ask"].human is not None
    assert graph.node["ask"].human.who == ("a",)
    assert graph.node["ask"].human.default is False
    assert graph.node["payment"].signal is not None
    assert graph.node["payment"].signal.name == "paid"
    assert graph.node["nap"].timer is not None
    assert graph.node["sub"].child is not None
    assert graph.node["sub"].child.name == "other"
    assert g.bind().implementations == {}


def test_every_problem_is_named_at_its_line() -> None:
    top = here() + 1
    g = Graph("bad name", "1")
    g.start(work)
    g.edge(work, "nowhere")
    g.edge(work, END, when="result >")
    with pytest.raises(GraphInvalid) as caught:
        g.build()
    found = {(p.code, p.location.line) for p in caught.value.problems}
    assert {("bad_name", top), ("bad_version", top), ("unknown_node", top + 2), ("bad_condition", top + 3)} <= found
    assert {p.location.file for p in caught.value.problems} == {__file__}
    assert f"{__file__}:{top + 2}" in str(caught.value)
    assert top + 1 not in {line for _, line in found}


def plain() -> None: ...


class Needs(Task):
    def __init__(self, key: str) -> None:
        self.key = key

    def run(self) -> str:
        return self.key


class Empty(Task):
    pass


@task
def two(a: int, b: int) -> int:
    return a + b


@task
def yields() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("node", "code", "message"),
    [
        (plain, "not_a_node", "`plain` is neither a Task nor a Plan"),
        (5, "not_a_node", "`int` is neither a Task nor a Plan"),
        (Needs, "not_a_node", "Needs() failed: TypeError"),
        (Empty, "no_implementation", "the class of `Empty` has no `run`"),
        (two, "bad_signature", "it needs a parameter `b` that nothing is given for"),
        (yields, "bad_signature", "it is a generator"),
        (task(name="x", isolation="subprocess")(lambda: 1), "not_loadable", "defined inside another function, or a la"),
        (task(name="start")(plain), "reserved_name", "no node can be called `start`"),
        (task(name="a b")(plain), "bad_name", "`a b` is not a name for a Task"),
        (task(name="x", config=5)(plain), "bad_type", "config"),  # type: ignore[call-overload]  # a mistake on purpose
        (task(name="x", memory_mb=5)(plain), "memory_without_subprocess", "only a subprocess can keep"),
    ],
)
def test_a_node_that_is_none_is_a_problem(node: Any, code: str, message: str) -> None:
    g = Graph("g", "1.0.0")
    line = here() + 1
    g.start(node).final(node)
    with pytest.raises(GraphInvalid) as caught:
        g.build()
    assert len(caught.value.problems) == 1 or code == "reserved_name"  # which makes its edges wrong too
    (problem,) = [p for p in caught.value.problems if p.code == code]
    assert message in problem.message
    if code != "bad_type":
        assert (problem.location.file, problem.location.line) == (__file__, line)


def test_a_wrong_word_hides_no_other_problem() -> None:
    top = here() + 1
    g = Graph("bad name", "1.0.0").start(work)
    g.then(work, decide)
    g.edge(decide, Write, "PARALEL")  # type: ignore[arg-type]  # a mistake on purpose
    g.join(Write, Review, mode="quorm", count=2)  # type: ignore[arg-type]  # a mistake on purpose
    g.final(fetch)
    with pytest.raises(GraphInvalid) as caught:
        g.build()
    found = [(p.location.line - top, p.message, p.hint) for p in caught.value.problems if p.code == "bad_type"]
    assert found == [
        (2, '`kind` of `choose -> write` cannot be "PARALEL"', "did you mean `PARALLEL`?"),
        (3, '`join.mode` of `write -> Review` cannot be "quorm"', "did you mean `quorum`?"),
    ]
    codes = {p.code for p in caught.value.problems}
    assert codes == {"bad_type", "bad_name", "unreachable", "cannot_finish", "plan_without_task"}
    assert "Literal" not in str(caught.value)
    assert "Invalid enum" not in str(caught.value)


def test_two_nodes_of_one_name_and_a_bad_join_are_problems() -> None:
    g = Graph("g", "1.0.0").start(work).final(work)
    other = task(name="work")(lambda: 1)
    g.start(other).edge(other, END, join="most")  # type: ignore[arg-type]  # a mistake on purpose
    with pytest.raises(GraphInvalid) as caught:
        g.build()
    assert {"duplicate_node", "bad_join"} <= {p.code for p in caught.value.problems}


def test_objects_with_their_own_settings_are_nodes() -> None:
    one, other = Needs("k"), Needs("l")
    one.name, other.name = "one", "other"
    bound = Graph("g", "1.0.0").start(one, other).final(one, other).bind()
    assert [n.name for n in bound.graph.nodes] == ["one", "other"]
    context = TaskInput(None).context
    assert bound.implementations["other"].call(TaskInput(None), context) == "l"
    assert "settings of its own" in bound.implementations["one"].unloadable


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: task(retries=3)(plain),  # type: ignore[call-overload]  # a mistake on purpose
        lambda: task(work),
        lambda: task(Write),
        lambda: plan(work),
        lambda: task(5),  # type: ignore[call-overload]  # a mistake on purpose
    ],
)
def test_a_decorator_used_wrongly_says_so_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"setting|already|decorates a function"):
        wrong()
