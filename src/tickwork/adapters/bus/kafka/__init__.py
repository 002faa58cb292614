"""The event bus on Apache Kafka. Needs the extra `kafka`."""

from __future__ import annotations

from tickwork.adapters.bus.kafka.bus import KafkaBus

__all__ = ["KafkaBus"]
