"""Effect classes and reconcile hooks as authors write them, and every way in which code and graph may disagree."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tickwork import Context, Graph, Plan, RetryableError, Task, plan, sleep, task
from tickwork.errors import GraphInvalid
from tickwork.model.graph import Limits
from tickwork.model.problems import Problem
from tickwork.sdk.implementation import HookFault, Implementation
from tickwork.sdk.loading import BoundGraph, load_graph
from tickwork.sdk.values import TaskInput


class Order(BaseModel):
    amount: int


def found(task_input: TaskInput, ctx: Context) -> list[Any]:
    return [task_input.value, ctx.node]


@task(effect="at_most_once", reconcile=found)
def charge(value: Any) -> Any:
    return value


class Charge(Task):
    effect = "at_most_once"

    async def run(self, value: Any, ctx: Context) -> Any:
        return value

    async def reconcile(self, task_input: TaskInput) -> Any:
        return [self.name, task_input.value]


def graph_of(node: Any, **settings: Any) -> Graph:
    return Graph("pay", "1.0.0", **settings).start(node).final(node)


def reconciled(bound: BoundGraph, node: str, value: Any) -> Any:
    """What the hook of a node says, called as the executor calls it."""
    implementation = bound.implementations[node]
    given = TaskInput(value, node=node)
    ctx = given.context
    assert implementation.reconcile is not None
    said = implementation.reconcile(implementation.input_for(given._message, ctx), ctx)
    assert implementation.reconcile_is_async == inspect.isawaitable(said)
    return asyncio.run(_waited(said)) if implementation.reconcile_is_async else said


async def _waited(said: Any) -> Any:
    return await said


def problems(graph: Graph) -> list[Problem]:
    with pytest.raises(GraphInvalid) as caught:
        graph.bind()
    return list(caught.value.problems)


def test_a_decorated_task_has_its_effect_and_its_hook() -> None:
    bound = graph_of(charge).bind()
    assert bound.graph.node["charge"].effect == "at_most_once"
    assert reconciled(bound, "charge", 5) == [5, "charge"]
    assert charge(7) == 7


def test_a_hook_can_be_decorated_by_its_task_and_stays_a_function() -> None:
    @task(effect="at_most_once")
    def pay(order: Order) -> int:
        return order.amount

    @pay.reconcile
    async def look_up(order: Order, ctx: Context) -> Any:
        return [order.amount, ctx.attempt]

    assert reconciled(graph_of(pay).bind(), "pay", {"amount": 12}) == [12, 1]
    assert asyncio.run(_waited(look_up(Order(amount=1), TaskInput().context))) == [1, 1]


def test_a_class_has_its_effect_and_its_hook() -> None:
    bound = graph_of(Charge).bind()
    assert bound.graph.node["Charge"].effect == "at_most_once"
    assert reconciled(bound, "Charge", 3) == ["", 3]


def test_a_task_without_a_hook_has_none() -> None:
    @task(effect="at_most_once")
    def pay(value: Any) -> Any:
        return value

    implementation = graph_of(pay).bind().implementations["pay"]
    assert (implementation.reconcile, implementation.reconcile_is_async) == (None, False)


def test_what_a_hook_raises_is_the_executors_business() -> None:
    def lost(value: Any) -> Any:
        raise RetryableError("it never arrived")

    implementation = Implementation("n", "task", lambda value: value, reconcile=lost)
    assert implementation.reconcile is not None
    with pytest.raises(RetryableError):
        implementation.reconcile(TaskInput(1), TaskInput(1).context)


def test_limits_are_part_of_the_graph() -> None:
    assert graph_of(charge, limits=Limits(visits=7)).build().limits == Limits(visits=7)
    assert graph_of(charge).build().limits == Limits()


def test_a_hook_without_a_call_that_could_be_lost_is_a_problem_where_it_stands() -> None:
    @task(reconcile=found)
    def pay(value: Any) -> Any:
        return value

    (problem,) = problems(graph_of(pay))
    assert problem.code == "needless_hook"
    assert problem.message == "`pay` has a reconcile hook, but it is idempotent: a lost call of it is simply made again"
    assert "at_most_once" in problem.hint
    assert (problem.location.file, problem.location.line) == (__file__, found.__code__.co_firstlineno)


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (lambda a, b, c: None, "it needs a parameter `b` that nothing is given for"),
        (5, "it is an object of type int; write a function `def reconcile(task_input)`"),
        (Order, "it is the class Order; write a function"),
    ],
)
def test_a_hook_that_cannot_be_called_is_a_problem_at_load(hook: Any, message: str) -> None:
    @task(effect="at_most_once", reconcile=hook)
    def pay(value: Any) -> Any:
        return value

    (problem,) = problems(graph_of(pay))
    assert problem.code == "bad_signature"
    assert problem.message.startswith(f"the reconcile hook of `pay` cannot be called: {message}")
    assert problem.location.line
    with pytest.raises(HookFault):
        Implementation("pay", "task", lambda value: value, reconcile=hook)


def test_a_generator_is_no_hook() -> None:
    class Pay(Charge):
        def reconcile(self, task_input: TaskInput) -> Any:
            yield task_input

    (problem,) = problems(graph_of(Pay))
    assert "the reconcile hook of `Pay` cannot be called: it is a generator" in problem.message
    assert problem.location.line == Pay.reconcile.__code__.co_firstlineno


def test_a_plan_takes_neither_effect_nor_hook() -> None:
    with pytest.raises(TypeError, match="@plan has no setting `effect`"):
        plan(effect="pure")(lambda value: value)  # type: ignore[call-overload]  # a mistake on purpose

    class Choose(Plan):
        effect = "pure"

        def run(self, value: Any) -> Any:
            return "charge"

    found = problems(Graph("pay", "1.0.0").start(Choose).then(Choose, charge).final(charge))
    assert [p.code for p in found] == ["effect_without_code"]


def test_a_misspelt_effect_is_told_with_the_word_that_was_meant() -> None:
    pay = task(effect="at_most_onec")(lambda value: value)  # type: ignore[call-overload]  # a mistake on purpose
    pay.name = "pay"
    (problem,) = problems(graph_of(pay))
    assert (problem.code, problem.hint) == ("bad_type", "did you mean `at_most_once`?")


def test_wrong_limits_are_told() -> None:
    wrong: Any = {"records": 5}
    assert [p.message for p in problems(graph_of(charge, limits=wrong))] == [
        "`limits` of the graph has to be a Limits, not an object of type dict"
    ]
    many: Any = "many"
    assert [p.message for p in problems(graph_of(charge, limits=Limits(depth=many)))] == [
        '`limits.depth` of the graph has to be a whole number, not "many"'
    ]
    assert [p.code for p in problems(graph_of(charge, limits=Limits(records=0)))] == ["bad_number"]


def test_a_sleep_stays_as_it_was() -> None:
    assert graph_of(sleep("nap", seconds=1)).build().nodes[0].effect == "idempotent"


CODE = """
from tickwork import task

def look_up(task_input):
    return task_input.value

@task(effect="at_most_once", reconcile=look_up)
def charge(value):
    return value

def plain(value):
    return value
"""


def file_graph(folder: Path, node: str) -> str:
    (folder / "pay.py").write_text(textwrap.dedent(CODE))
    path = folder / "graph.yaml"
    path.write_text(f"name: pay\ntasks:\n  charge: {node}\nedges: [start -> charge -> end]\n")
    return str(path)


def test_a_graph_file_says_the_effect_and_its_code_brings_the_hook(tmp_path: Path) -> None:
    bound = load_graph(file_graph(tmp_path, "{run: 'pay.py:charge', effect: at_most_once}"))
    assert reconciled(bound, "charge", "x") == "x"
    plain = load_graph(file_graph(tmp_path, "{run: 'pay.py:plain', effect: at_most_once}"))
    assert plain.implementations["charge"].reconcile is None


def test_a_graph_file_that_promises_less_than_its_code_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(GraphInvalid) as caught:
        load_graph(file_graph(tmp_path, "{run: 'pay.py:charge'}"))
    (problem,) = caught.value.problems
    assert (problem.code, problem.location.line) == ("effect_differs", 3)
    assert problem.message == (
        "`pay.py:charge` is declared at_most_once, but the graph says that `charge` is idempotent"
    )
    assert problem.hint == "write `effect: at_most_once` for the node, or take it out of the code"


def directory(folder: Path, effect: str) -> str:
    (folder / "tasks" / "charge").mkdir(parents=True)
    (folder / "graph.yaml").write_text("name: pay\ntasks: {charge: {}}\nedges: [start -> charge -> end]\n")
    (folder / "nodes.yaml").write_text(f"charge: {{effect: {effect}}}\n")
    (folder / "tasks" / "charge" / "task.py").write_text(
        "def task(task_input):\n    return 1\n\n\nasync def reconcile(task_input, ctx):\n    return ctx.node\n"
    )
    return str(folder)


def test_in_a_directory_the_hook_lies_beside_the_task(tmp_path: Path) -> None:
    assert reconciled(load_graph(directory(tmp_path, "at_most_once")), "charge", 1) == "charge"


def test_in_a_directory_too_a_hook_needs_its_effect(tmp_path: Path) -> None:
    with pytest.raises(GraphInvalid) as caught:
        load_graph(directory(tmp_path, "pure"))
    (problem,) = caught.value.problems
    assert (problem.code, Path(problem.location.file).name, problem.location.line) == ("needless_hook", "task.py", 5)


def test_the_idempotency_key_belongs_to_the_visit() -> None:
    def key(**where: Any) -> str:
        return TaskInput(1, **{"node": "charge", **where}).context.idempotency_key

    other = "00000000-0000-7000-8000-000000000001"
    assert len({key(attempt=attempt) for attempt in (1, 2, 7)}) == 1
    assert len({key(), key(iteration=1), key(branch="split:0.1"), key(node="refund"), key(lifetime_id=other)}) == 5
