"""Guardrails: the policies that are in force for a lifetime, compiled, kept count of, and judged. Pure.

    rules      a PolicySet, compiled once
    counters   what a lifetime's executions used so far, added up as the rules need it
    judging    verdicts over a record, over a dispatch, over a tenant's totals
    whatif     the same over recorded lifetimes, under other policies; `past` what was really stopped then, `books` the
               tenant's totals as they would have been

What follows from a verdict is the fold's business; which set is in force, `orchestrator.policies` knows.
"""
