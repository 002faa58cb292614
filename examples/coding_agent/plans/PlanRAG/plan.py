"""Reads the person's answer and decides what to look up."""

from __future__ import annotations

from agent import asks, corpus

from tickwork import Next, PlanResult


def plan(plan_input):
    job = asks.understand(plan_input.result)
    query = corpus.query_for(f"{job['name']} {job['purpose']}")
    return PlanResult(next=[Next("TaskCallRAG", input={**job, "query": query})], reason=f"look up: {query}")
