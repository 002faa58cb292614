"""When another attempt is made, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.model.graph import RetryPolicy
from tickwork.model.records import Error
from tickwork.orchestrator.retry import next_delay

PLAIN = RetryPolicy(max_attempts=5, initial_interval=1, backoff=2, max_interval=5, jitter=0)


def test_delays_grow_up_to_the_longest() -> None:
    assert [next_delay(PLAIN, n, None, "x") for n in range(1, 6)] == [1, 2, 4, 5, None]


@pytest.mark.parametrize("error", [Error("E", "", retryable=False), Error("KeyError", "", retryable=True)])
def test_some_errors_are_not_tried_again(error: Error) -> None:
    policy = RetryPolicy(max_attempts=5, non_retryable=("KeyError",))
    assert next_delay(policy, 1, error, "x") is None


def test_a_retryable_error_may_ask_for_a_longer_wait() -> None:
    assert next_delay(PLAIN, 1, Error("R", "", details={"retry_after": 30}), "x") == 30
    assert next_delay(PLAIN, 1, Error("R", "", details={"retry_after": -5}), "x") == 1


@given(attempt=st.integers(1, 10_000), exec_id=st.text(max_size=30), jitter=st.floats(0, 1))
def test_jitter_stays_in_its_band_and_belongs_to_the_execution(attempt: int, exec_id: str, jitter: float) -> None:
    policy = RetryPolicy(max_attempts=20_000, initial_interval=1, backoff=3, max_interval=60, jitter=jitter)
    delay = next_delay(policy, attempt, None, exec_id)
    assert delay is not None
    middle = min(3.0 ** min(attempt - 1, 100), 60)
    assert middle * (1 - jitter) - 1e-9 <= delay <= middle * (1 + jitter) + 1e-9
    assert delay == next_delay(policy, attempt, None, exec_id)
