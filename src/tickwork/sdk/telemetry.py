"""What an attempt uses, added up as it happens: tokens, money, the model, and whatever the author counts besides.

Each call of a model is a part of the totals. A part may be replaced while the call still goes on, as with a stream that
tells more and more; the totals are right at every moment, because an attempt may be killed at any.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from tickwork.model.records import Telemetry
from tickwork.model.spending import MAX_CUSTOM
from tickwork.sdk.prices import NANO
from tickwork.sdk.usage import Used

if TYPE_CHECKING:
    from tickwork.sdk.capture import Meter
    from tickwork.sdk.context import Channel

MAX_COUNT = 2**53
"""Greatest number of tokens or billionths of a dollar that one attempt may report: sums stay exact in any language."""

REMEMBERED = 32
"""Responses that are known again when they are captured a second time."""

R = TypeVar("R")


class Call:
    """One call of a model: what it has added to the totals so far."""

    __slots__ = ("part",)

    def __init__(self) -> None:
        self.part = Telemetry()


class TelemetryRecorder:
    """What an attempt used. Calls add up, and so do numbers that the author counts; `model` and other custom values are
    those of the last call that gave them. Any thread may record.

    `at` (us since 1970) is the moment whose prices hold.
    """

    def __init__(self, channel: Channel, logger: logging.LoggerAdapter[logging.Logger], at: int = 0) -> None:
        self._channel, self.logger, self._at = channel, logger, at
        self._prices = channel.price_book()
        self._lock = Lock()
        self._unpriced = 0
        self._sources: dict[str, None] = {}
        self._open: list[Meter] = []
        self._captured: deque[Any] = deque(maxlen=REMEMBERED)
        self.totals = Telemetry()

    def record(
        self,
        *,
        tokens_in: int = 0,
        tokens_out: int = 0,
        tokens_used: int | None = None,
        cost_usd: Decimal | str | float | None = None,
        model: str | None = None,
        **custom: Any,
    ) -> None:
        """Adds what one call used. `tokens_used` is the sum of in and out unless it is given.

        `cost_usd` is kept exactly to a billionth of a dollar. Without it the cost is computed from the model and its
        tokens; a model without a price, or none named, makes the attempt `unpriced`: its cost is not zero but unknown.

        Custom numbers are counters: those of several calls are added up. They have to be between 0 and 10^12; other
        custom values (texts, true and false, lists, objects) are those of the last call.

        Raises ValueError for a negative or absurd number and EncodingError for a custom value that JSON cannot say.
        """
        into, out = _count("tokens_in", tokens_in), _count("tokens_out", tokens_out)
        total = into + out if tokens_used is None else _count("tokens_used", tokens_used)
        values = {key: _custom(key, value) for key, value in custom.items()}
        if cost_usd is not None:
            part = Telemetry(into, out, total, _nano_usd(cost_usd), model)
        elif into or out or total:
            part = self._priced(model, Used(tokens_in=into, tokens_out=out, tokens_used=total))
        else:
            part = Telemetry(into, out, total, 0, model)
        self._replace(Telemetry(), part, values)

    def capture(self, response: R, *, provider: str | None = None) -> R:
        """Records what a model's response says: model, tokens, cost. Returns the response.

        Takes the responses of OpenAI and Anthropic and whatever has their shape, as objects or dicts, and their
        streams: `for chunk in ctx.telemetry.capture(stream)`, `async for` as well. `provider` says who sells the model
        when its name does not (`groq`, `openrouter`, ...).

        The same response counts once. Raises ValueError for something that has no usage.
        """
        from tickwork.sdk.capture import captured

        return captured(self, response, provider=provider or "")

    def watch(self, client: R) -> R:
        """The client of a model, sync or async: what its calls return is captured. It can be used as before.

        Seen are `chat.completions`, `responses`, `messages` and `embeddings` with their `create`, `parse` and `stream`.
        """
        from tickwork.sdk.capture import watched

        return watched(self, client)

    def note(
        self, call: Call, model: str | None, used: Used | None, *, whole: bool = True, provider: str = "", url: str = ""
    ) -> None:
        """Takes `used` as what this call used so far, in place of what was said before. None: nobody knows.

        With `whole=False` more is to come: until it does, the cost is less than the truth. Raises ValueError for an
        absurd number.
        """
        if used is None:
            part = Telemetry(model=model, unpriced=not self._prices.free(model))
        else:
            part = self._priced(model, used, provider, url)
            if not whole and not self._prices.free(model):
                part.unpriced = True
        self._replace(call.part, part, {})
        call.part = part

    def knows(self, response: Any) -> bool:
        """Whether this very response was captured before: by a watched client, say, and then by its user."""
        with self._lock:
            return any(one is response for one in self._captured)

    def remember(self, response: Any) -> None:
        """The response is captured."""
        with self._lock:
            self._captured.append(response)

    def opened(self, meter: Meter) -> None:
        """A stream has begun."""
        with self._lock:
            self._open.append(meter)

    def closed(self, meter: Meter) -> None:
        """It has ended."""
        with self._lock:
            if meter in self._open:
                self._open.remove(meter)

    def settle(self) -> None:
        """User code has returned: streams that it has left behind are over."""
        for meter in list(self._open):
            meter.end()

    def _priced(self, model: str | None, used: Used, provider: str = "", url: str = "") -> Telemetry:
        counts = (
            _count("tokens_in", used.tokens_in),
            _count("tokens_out", used.tokens_out),
            _count("tokens_used", used.tokens_used),
        )
        split = bool(used.tokens_in or used.tokens_out) or not used.tokens_used
        cost = None
        if split or self._prices.free(model):  # what is neither in nor out has no price
            cost = self._prices.cost(model, used, self._at, provider=provider, url=url)
        if cost is None:
            self._prices.warn(model, self.logger.warning, split=split)
            return Telemetry(*counts, 0, model, None, None, True)
        return Telemetry(*counts, _count("cost_usd (in billionths)", cost.nano_usd), model, None, cost.prices)

    def _replace(self, old: Telemetry, new: Telemetry, custom: dict[str, Any]) -> None:
        with self._lock:
            now = self.totals
            counts = (
                _count("tokens_in", now.tokens_in - old.tokens_in + new.tokens_in),
                _count("tokens_out", now.tokens_out - old.tokens_out + new.tokens_out),
                _count("tokens_used", now.tokens_used - old.tokens_used + new.tokens_used),
                _count("cost_usd (in billionths)", now.cost_nano_usd - old.cost_nano_usd + new.cost_nano_usd),
            )
            values = _added(now.custom or {}, custom)
            self._unpriced += new.unpriced - old.unpriced
            if new.prices is not None:
                self._sources[new.prices] = None
            model = new.model if new.model is not None else now.model
            prices = ", ".join(self._sources) or None
            self.totals = Telemetry(*counts, model, values or None, prices, self._unpriced > 0)
            self._channel.recorded(self.totals)


def _custom(key: str, value: Any) -> Any:
    """A custom value as it is kept: a number that counts, or what JSON says of anything else."""
    from tickwork.sdk.encoding import json_value

    if not isinstance(value, float | Decimal):
        value = json_value(value, f"telemetry `{key}`")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    if not math.isfinite(value) or not 0 <= value <= MAX_CUSTOM:
        raise ValueError(
            f"telemetry: {key} is {value!s:.40}; a custom number is a counter, which has to be between 0 and "
            f"{MAX_CUSTOM:,}. Record it as a text if it is not to be counted"
        )
    return value if isinstance(value, int) else float(value)


def _added(now: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    if not more:
        return now
    values = {**now, **more}
    for key, value in more.items():
        before = now.get(key, "")
        if _is_number(before) and _is_number(value):
            values[key] = _sum(key, before, value)
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sum(key: str, one: float, other: float) -> float:
    """The sum as people write numbers: 0.1 and 0.2 are 0.3."""
    whole = isinstance(one, int) and isinstance(other, int)
    total = one + other if whole else float(Decimal(str(one)) + Decimal(str(other)))
    if total > MAX_CUSTOM:
        raise ValueError(f"telemetry: {key} adds up to {total}; a counter may reach {MAX_CUSTOM:,} in one attempt")
    return total


def _count(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"telemetry: {what} is {value!r}; give a whole number")
    if not 0 <= value <= MAX_COUNT:
        raise ValueError(f"telemetry: {what} is {value}; it has to be between 0 and {MAX_COUNT}")
    return value


def _nano_usd(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Decimal | str | float | int):
        raise TypeError(f"telemetry: cost_usd is {value!r}; give a Decimal, a decimal string or a number")
    try:
        # A float is taken as it is written: 0.1 means a tenth of a dollar, not its nearest binary fraction.
        exact = value if isinstance(value, Decimal) else Decimal(str(value))
        nano = (exact * NANO).quantize(Decimal(1), ROUND_HALF_EVEN)
    except InvalidOperation:
        raise ValueError(f"telemetry: cost_usd is {value!r}, which is not an amount of money") from None
    return _count("cost_usd (in billionths)", int(nano)) if nano.is_finite() else _not_money(value)


def _not_money(value: Any) -> int:
    raise ValueError(f"telemetry: cost_usd is {value!r}, which is not an amount of money")
