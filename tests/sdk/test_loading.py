"""From a word on the command line to a graph that can run, and every way in which that fails."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tickwork.errors import GraphInvalid, NotFound
from tickwork.model.problems import Problem
from tickwork.sdk.loading import BoundGraph, load_graph

CODE = """
from tickwork import Graph, task

@task
async def hello(name: str) -> str:
    return f"hello {name}"

g = Graph("hello", "1.0.0").start(hello).final(hello)
"""

YAML = """
name: sample
version: 1.0.0
tasks:
  work:
    run: {work}
edges:
  - start -> work
  - work -> end
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + (".yaml" if name.startswith("graph") else ".py"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def problems(spec: Any) -> list[Problem]:
    with pytest.raises(GraphInvalid) as caught:
        load_graph(str(spec))
    return list(caught.value.problems)


def called(bound: BoundGraph, node: str, value: Any) -> Any:
    from tickwork.sdk.values import PlanInput, TaskInput

    implementation = bound.implementations[node]
    given = (TaskInput if implementation.kind == "task" else PlanInput)(value)
    return implementation.call(given, given.context)


def test_a_python_graph_is_the_same_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path, hello_sample=CODE + "\nif __name__ == '__main__':\n    print(g.bind().graph.digest, g.bind().source)"
    )
    file = tmp_path / "hello_sample.py"
    bound = load_graph(str(file))
    assert bound.source == f"{file}:g"
    assert bound.graph.node["hello"].run == "hello_sample.py:hello"
    assert load_graph(f"{file}:g").graph.digest == bound.graph.digest
    assert load_graph(bound.source).graph.digest == bound.graph.digest
    monkeypatch.chdir(tmp_path)
    module = load_graph("hello_sample:g")
    assert (module.graph.digest, module.source) == (bound.graph.digest, "hello_sample:g")
    ran = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [bound.graph.digest, f"{file}:g"]


def test_a_function_may_make_the_graph(tmp_path: Path) -> None:
    write(tmp_path, made=CODE + "\ndef make():\n    return g\n")
    assert load_graph(f"{tmp_path}/made.py:make").graph.name == "hello"


@pytest.mark.parametrize("tasks", ["tasks.py:work", "tasks_in_module:work"])
def test_a_graph_file_finds_its_code_beside_it(tmp_path: Path, tasks: str) -> None:
    module = "import sibling\n\ndef work(value):\n    return sibling.FACTOR * value\n"
    write(tmp_path, graph=YAML.format(work=tasks), tasks=module, tasks_in_module=module, sibling="FACTOR = 2")
    bound = load_graph(str(tmp_path / "graph.yaml"))
    assert called(bound, "work", 21) == 42
    assert (bound.base, bound.source) == (tmp_path, str(tmp_path / "graph.yaml"))
    sys.modules.pop("sibling")
    sys.modules.pop("tasks_in_module", None)


def test_a_changed_file_is_loaded_again(tmp_path: Path) -> None:
    write(tmp_path, graph=YAML.format(work="tasks.py:work"), tasks="def work(): return 1")
    assert called(load_graph(str(tmp_path / "graph.yaml")), "work", None) == 1
    write(tmp_path, tasks="def work(): return 'two'")
    assert called(load_graph(str(tmp_path / "graph.yaml")), "work", None) == "two"


def test_a_directory_loads_with_its_plans_and_tasks(tmp_path: Path) -> None:
    (tmp_path / "agent_graph.dot").write_text(
        "digraph g { start -> work; work -> choose; choose -> work; choose -> end;"
        ' work [type="task"]; choose [type="plan"]; }'
    )
    write(
        tmp_path,
        tasks__work__task="def task(task_input): return task_input.value + 1",
        plans__choose__plan="def plan(plan_input): return 'end'",
    )
    bound = load_graph(str(tmp_path))
    assert called(bound, "work", 1) == 2
    assert called(bound, "choose", None) == "end"


def test_a_directory_may_hold_one_python_graph_alone(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    write(folder, hello_alone=CODE, notes="x = 1")
    bound = load_graph(str(folder))
    assert (bound.graph.name, bound.source) == ("hello", f"{folder}/hello_alone.py:g")
    write(folder, second=CODE)
    (problem,) = problems(folder)
    assert problem.hint.endswith(f"; or name the file: {folder}/hello_alone.py or {folder}/second.py")
    (folder / "graph.dot").write_text(
        'digraph d { start -> end_it -> end; end_it [type=task, run="notes.py:missing"] }'
    )
    assert [p.code for p in problems(folder)] == ["missing_attribute"]


def test_a_directory_names_the_missing_file_once(tmp_path: Path) -> None:
    (tmp_path / "graph.dot").write_text("digraph g { start -> work -> end; work [type=task] }")
    for folder in ("", "tasks"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (problem,) = problems(tmp_path)
        assert problem.message == "Task `work` has no implementation: there is no file tasks/work/task.py"


@pytest.mark.parametrize(
    ("work", "code", "message", "place"),
    [
        ("missing.py:work", "missing_file", "there is no file", "graph.yaml"),
        ("tasks.py:wrk", "missing_attribute", "`tasks.py` has no `wrk`", "graph.yaml"),
        ("no_such_module_x:work", "missing_module", "there is no module `no_such_module_x`", "graph.yaml"),
        ("tasks.py:decide", "wrong_kind", "is a Plan, but `work` is a Task", "graph.yaml"),
        ("tasks.py:number", "wrong_kind", "is int, which cannot be called as a Task", "graph.yaml"),
        ("tasks.py:two", "bad_signature", "`b` that nothing is given for", "graph.yaml"),
        ("tasks.py:Broken", "import_failed", "Broken() failed: ValueError: no", "graph.yaml"),
        ("raises.py:work", "import_failed", "raises.py could not be loaded: ZeroDivisionError", "raises.py:3"),
        ("deeper.py:work", "import_failed", "deeper.py could not be loaded: ZeroDivisionError", "raises.py:3"),
        ("leaves.py:work", "import_failed", "SystemExit: bye", "leaves.py:2"),
        ("syntax.py:work", "import_failed", "syntax.py: ", "syntax.py:2"),
        ("lacks.py:work", "import_failed", "lacks.py imports `no_such_thing_y`, which is not installed", "lacks.py:1"),
    ],
)
def test_what_cannot_be_loaded_is_a_problem_with_its_place(
    tmp_path: Path, work: str, code: str, message: str, place: str
) -> None:
    write(
        tmp_path,
        graph=YAML.format(work=work),
        tasks="""
            from tickwork import Task, plan
            number = 5
            @plan
            def decide(): return None
            def two(a, b): return a
            def work(): return 1
            class Broken(Task):
                def __init__(self): raise ValueError("no")
                def run(self): return 1
            """,
        raises="x = 1\n\ny = x / 0\n",
        deeper="import raises",
        leaves="import sys\nsys.exit('bye')",
        syntax="x = 1\ndef work(:\n",
        lacks="import no_such_thing_y",
    )
    (problem,) = problems(tmp_path / "graph.yaml")
    assert problem.code == code
    assert message in problem.message
    assert str(problem.location).startswith(str(tmp_path / place))
    if work == "tasks.py:wrk":
        assert problem.hint == "did you mean `work`?"
    assert "Traceback" not in str(problem)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = """
        name: sample
        version: 1.0.0
        tasks:
          a: {run: "gone.py:a"}
          b: {}
          c: {run: "raises.py:c"}
        edges: [start -> a, start -> b, start -> c, a -> end, b -> end, c -> nowhere]
        """
    write(tmp_path, graph=text, raises="1 / 0")
    codes = {p.code for p in problems(tmp_path / "graph.yaml")}
    assert {"missing_file", "no_implementation", "import_failed", "unknown_node"} <= codes


@pytest.mark.parametrize(
    ("code", "spec", "problem"),
    [
        ("x = 1", "", "has no graph at its top"),
        (CODE + "other = Graph('o', '1.0.0').start(hello).final(hello)\ng1 = g\ndel g", "", "has several graphs: "),
        (CODE, ":missing", "has no `missing`"),
        (CODE, ":hello", "`hello` is FunctionTask, not a graph"),
        (CODE + "def bad(): raise ValueError('x')", ":bad", "bad() failed: ValueError: x"),
        ("raise KeyError('k')", "", "could not be loaded: KeyError: 'k'"),
        ("from tickwork import Graph\ng = Graph('g', '1.0.0')", "", "the graph has no nodes"),
    ],
)
def test_a_python_file_without_a_graph_says_so(tmp_path: Path, code: str, spec: str, problem: str) -> None:
    write(tmp_path, source=code)
    assert problem in problems(f"{tmp_path}/source.py{spec}")[0].message


@pytest.mark.parametrize("spec", ["nowhere.py", "nowhere.yaml", "nowhere", "nowhere.py:g"])
def test_nothing_is_not_found(spec: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no"):
        load_graph(str(tmp_path / spec))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import tickwork\n"
        "print(*[m for m in ('pydantic', 'msgspec', 'asyncio', 'typing') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_everything_public_can_be_had_from_the_package() -> None:
    import tickwork

    for name in tickwork.__all__:
        assert getattr(tickwork, name) is not None
        assert name in dir(tickwork)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tickwork.nothing
