"""How fast tenants may go: so many executions a second of each may begin, in all executors of a group together.

What is above a tenant's rate stays on the bus, in order, and costs others nothing there: no claim, no record, no user
code. Each executor has the part of the rate that it has of the tenant's partitions, so the whole is kept without a word
between them, and follows when partitions move. A tenant that was below its rate may have a second's worth at once.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tickwork.errors import UsageError
from tickwork.model.ids import TENANT
from tickwork.model.messages import tenant_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from tickwork.ports import Clock, Subscription

log = logging.getLogger(__name__)

BURST: Final = 1.0
"""Seconds of its rate that a tenant may have at once."""

LOOK: Final = 0.02
"""Seconds between two looks whether a tenant may go on, at least: what may begin meanwhile begins together."""

TELL: Final = 600.0
"""Seconds between two words in the log about one tenant, at least."""


class TenantRates(msgspec.Struct, frozen=True):
    """Executions a second: of each tenant (`rate`; None: as many as it can), and of those with a rate of their own."""

    rate: float | None = None
    own: Mapping[str, float] = {}

    @classmethod
    def parse(cls, text: str) -> TenantRates:
        """`50`, `50,acme=500` or `acme=500`. Raises UsageError."""
        rate: float | None = None
        own: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            tenant, named, number = part.rpartition("=")
            tenant = tenant.strip()
            if named and not TENANT.fullmatch(tenant):
                raise UsageError(f"--tenant-rate {text}: `{tenant}` cannot be the name of a tenant")
            if tenant in own or (not named and rate is not None):
                raise UsageError(f"--tenant-rate {text}: the rate of {tenant or 'each tenant'} is given twice")
            value = _positive(number)
            if value is None:
                raise UsageError(
                    f"--tenant-rate {text}: `{number.strip()}` is no number above 0; write executions a second, "
                    "for each tenant (50), for one (acme=500), or both with a comma between them"
                )
            if named:
                own[tenant] = value
            else:
                rate = value
        return cls(rate, own)

    def of(self, tenant_id: str) -> float | None:
        """A tenant's rate; None: it has none."""
        return self.own.get(tenant_id, self.rate)

    def __bool__(self) -> bool:
        return self.rate is not None or bool(self.own)


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


class _Bucket:
    """What one tenant may begin here: `tokens` at the time `at`, and `part` more each second."""

    __slots__ = ("at", "part", "tokens", "told")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens, self.at, self.part = tokens, at, 0.0
        self.told = -math.inf


class Pace:
    """A bucket of tokens for each tenant that has a rate. `later` runs what is to be done beside everything else."""

    def __init__(self, rates: TenantRates, clock: Clock, later: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._rates, self._clock, self._later = rates, clock, later
        self._buckets: dict[str, _Bucket] = {}
        self._looking = False
        """Whether a look at those that are held back is coming."""
        self.held_back: set[str] = set()
        """Tenants of whom something was refused at the last look, or since."""
        self.waits = 0
        """How often it waited until somebody who was held back might go on."""

    def gate(self, subscription: Subscription) -> Callable[[str], bool] | None:
        """What says of each message of this subscription whether it may come; None: nobody has a rate."""
        if not self._rates:
            return None

        def admit(topic_name: str) -> bool:
            tenant_id = tenant_of(topic_name)
            rate = self._rates.of(tenant_id)
            if rate is None or self._take(tenant_id, rate, lambda: subscription.share(topic_name)):
                return True
            if not self._looking:
                self._looking = True
                self._later(self._look_again(subscription))
            return False

        return admit

    def give_back(self, tenant_id: str) -> None:
        """What came of this tenant does not begin: a duplicate, or it is somebody else's."""
        bucket = self._buckets.get(tenant_id)
        if bucket is not None:
            bucket.tokens += 1.0

    def _take(self, tenant_id: str, rate: float, share: Callable[[], float]) -> bool:
        now = self._clock.monotonic()
        bucket = self._buckets.get(tenant_id)
        # Counting partitions costs more than all else here, and a batch is asked about message by message.
        if bucket is None or bucket.tokens < 1.0 or now - bucket.at >= LOOK:
            part = rate * share()
            most = max(1.0, part * BURST)
            if bucket is None:
                bucket = self._buckets[tenant_id] = _Bucket(most, now)
            bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * part)
            bucket.at, bucket.part = now, part
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return True
        self.held_back.add(tenant_id)
        if now - bucket.told >= TELL:
            bucket.told = now
            log.warning(
                "tenant %s has more to do than its %g executions a second (--tenant-rate): what is above it waits",
                tenant_id,
                rate,
            )
        return False

    async def _look_again(self, subscription: Subscription) -> None:
        """Waits until one of those that are held back may go on."""
        buckets = [self._buckets[tenant_id] for tenant_id in self.held_back]
        first = min(((1.0 - bucket.tokens) / bucket.part for bucket in buckets if bucket.part), default=BURST)
        await self._clock.sleep(min(max(LOOK, first), BURST))
        self._looking = False
        self.waits += 1
        self.held_back.clear()
        subscription.look_again()
