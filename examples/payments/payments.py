"""Pays an invoice at a bank that cannot tell a repeated order from a second one: the transfer is made at most once."""

from __future__ import annotations

import bank

from tickwork import Graph, RetryableError, TerminalError, plan, task


@task(effect="pure")
def check(invoice):
    if invoice["amount"] <= 0:
        raise TerminalError(f"an invoice over {invoice['amount']} EUR is none")
    return invoice


@plan
def approve(invoice):
    return "pay" if invoice["amount"] <= 1000 else "refuse"


@task(effect="at_most_once")
def pay(invoice, ctx):
    return bank.transfer(ctx.idempotency_key, invoice["to"], invoice["amount"])


@pay.reconcile
def look_up(invoice, ctx):
    """Called with the same input when a call of `pay` was lost: what became of it? The bank's books know."""
    match bank.find(ctx.idempotency_key):
        case [booked]:
            return booked  # it was made, and this is its result
        case []:
            raise RetryableError("the bank has no such transfer")  # it was not made: pay now
        case several:  # neither: a person has to look at it
            raise ValueError(f"{len(several)} transfers over {invoice['amount']} EUR have one reference")


@task
def refuse(invoice):
    return {"refused": invoice["amount"]}


graph = Graph("payments", "1.0.0").start(check).then(check, approve).then(approve, pay, refuse).final(pay, refuse)
