"""The code of approval.yaml. The answer of the person comes to `by_answer` like any other Task's result."""

from __future__ import annotations

from tickwork import Next, PlanResult, TerminalError

ALONE = 50  # EUR that are paid without asking


def check_order(refund):
    if refund["amount"] <= 0:
        raise TerminalError(f"a refund of {refund['amount']} EUR is none")
    return refund


def by_amount(refund):
    if refund["amount"] <= ALONE:
        return PlanResult(next=[Next("pay", input={"by": "rule"})], reason=f"at most {ALONE} EUR")
    return PlanResult(next="ask_manager", reason=f"more than {ALONE} EUR")


def by_answer(answer):
    chosen = {"pay": "pay", "decline": "decline"}[answer["decision"]]
    return PlanResult(next=[Next(chosen, input={"by": "manager", **answer})], reason=answer.get("comment", ""))


def pay(decision, ctx):
    # A payment service that is given this key pays once, however often the attempt is repeated.
    refund = ctx.lifetime.input
    return {"paid": refund["amount"], "to": refund["customer"], "by": decision["by"], "key": ctx.idempotency_key}


def decline(decision, ctx):
    return {"paid": 0, "to": ctx.lifetime.input["customer"], "comment": decision.get("comment", "")}
