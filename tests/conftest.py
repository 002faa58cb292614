"""What holds for every test: `async def` tests run on a loop of their own, and no test sees the developer's Tickwork.

A test that takes more than a few seconds carries `@pytest.mark.slow`, and its own `@pytest.mark.timeout(...)` when it
needs more than the minute that pyproject.toml gives each test.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import hypothesis
import pytest

# A property has no deadline: two cores are shared with other tests. In CI the examples are always the same, so that a
# red run is red again when somebody looks at it.
hypothesis.settings.register_profile("tickwork", deadline=None, derandomize="CI" in os.environ, print_blob=True)
hypothesis.settings.load_profile("tickwork")

# A shell that starts the tests in the background has them ignore SIGINT, and what they start would inherit that; the
# tests of Ctrl-C need it as a terminal gives it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def body() -> None:
            await test(*args, **kwargs)

        asyncio.run(body())

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Make an `async def` test callable; pytest itself then calls it. A hypothesis test gets a loop per example."""
    property_test = getattr(pyfuncitem.obj, "hypothesis", None)
    if property_test is not None:
        if inspect.iscoroutinefunction(property_test.inner_test):
            property_test.inner_test = _on_a_loop(property_test.inner_test)
    elif inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _on_a_loop(pyfuncitem.obj)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the developer's TICKWORK_* settings, and keep the default home out of the repository."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("TICKWORK_") and not n.startswith("TICKWORK_SIM_")]:
            patch.delenv(name)
        patch.setenv("TICKWORK_HOME", str(tmp_path_factory.mktemp("home")))
        yield
