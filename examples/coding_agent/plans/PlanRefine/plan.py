"""Asks the person when something is missing; else starts both coders, the first time and after a rejection."""

from __future__ import annotations

from agent import asks, steps

from tickwork import Next, PlanResult


async def plan(plan_input):
    came_from = plan_input.executions[0].name
    if came_from == "HumanAcceptReject1":
        rejected = await steps.latest(plan_input.context, "TaskLLMSubmit")
        return PlanResult(next=steps.branches(rejected, plan_input.iteration + 1), reason="rejected: try other code")
    job = plan_input.result
    if question := asks.open_question(job):
        return PlanResult(next=[Next("TaskHITL", input={"question": question})], reason=question)
    return PlanResult(next=steps.branches(job, 0), reason=f"write {job['signature']} in two ways")
