"""The steps of the coding agent. Both coder branches run the same steps; only the names of their nodes differ.

What travels along the edges is the job, a plain dictionary that each step extends:

    ask, name, parameters, purpose, test     what is wanted             (PlanRAG)
    query, passages                          what was looked up         (TaskCallRAG)
    signature, summary                       the request, restated      (TaskLLMSubmit)
    temperature, seed, failure               how to try, and why again  (PlanRefine, PlanAccept)
    reply, code, passed, output              the try and its verdict    (CodeLLM, PostGenPlan, CheckCodeLLM)
"""

from __future__ import annotations

import ast

from agent import asks, checks, corpus, llm
from tickwork import Next, PlanResult, TerminalError
from tickwork.model.records import payload_value

TRIES = 5  # of one branch: the first and four refinements
CODER = "You write short, correct Python functions. Answer with one Python code block and nothing else."
ANALYST = (
    "You turn a request into a Python signature with a docstring. Answer with one Python code block: the def line and "
    "a docstring of one sentence, no body."
)


def look_up(job):
    """Adds the passages that fit the job's query."""
    return {**job, "passages": corpus.search(job["query"])}


def restate(job, context):
    """Asks the model for the request as a signature and a docstring; what it gets wrong is put right from the test."""
    if asks.open_question(job):
        return job  # nothing to restate yet: the Plan behind will ask the person
    parameters = job["parameters"] or asks.parameters(job["test"], job["name"])
    request = f"Write the signature and docstring of {job['name']}({parameters}): {job['purpose']}."
    reply = llm.chat(context, ANALYST, request, max_tokens=96)
    return {**job, "parameters": parameters, "signature": f"{job['name']}({parameters})", "summary": docstring(reply)}


def docstring(reply):
    """The first line of the docstring in a reply; empty when there is none."""
    code = checks.fenced(reply)
    tree = checks.parsed(code) or checks.parsed(code.rstrip() + "\n    pass")
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
    return (ast.get_docstring(functions[0]) or "").partition("\n")[0][:200] if functions else ""


def branches(job, turn):
    """One input for each coder branch: the first is sober, the second varies. Each turn gets seeds of its own."""
    seed = 100 * turn
    return [
        Next("CodeLLM1", input={**job, "temperature": 0.8 if turn else 0.0, "seed": seed}),
        Next("CodeLLM2", input={**job, "temperature": 0.8, "seed": seed + 50}),
    ]


def write_code(job, context):
    """Adds the model's reply: a first try, or a better one that knows how the last one failed."""
    notes = "\n".join(passage["text"] for passage in job["passages"][:1])
    request = f"Write the Python function {job['signature']}: {job['purpose']}."
    if notes:
        request = f"Notes:\n{notes}\n\n{request}"
    if job.get("failure"):
        request += f"\n\nThe last try failed: {job['failure'].splitlines()[0]}"
    seed = job["seed"] + 1000 * (context.attempt - 1)  # a rejected reply would only come again
    reply = llm.chat(context, CODER, request, temperature=job["temperature"], seed=seed, max_tokens=200)
    return {**job, "reply": reply}


def take_code(job, check):
    """Takes the function out of the reply and sends it to the node `check`."""
    code = checks.code_in(job["reply"], job["name"])
    found = f"{len(code.splitlines())} lines of code" if code else "no code"
    return PlanResult(next=[Next(check, input={**job, "code": code})], reason=f"the reply holds {found}")


def check_code(job):
    """Adds the verdict: whether the test passed, and what it said."""
    return {**job, **checks.run_test(job["code"], job["test"])}


def pass_or_refine(job, coder, iteration):
    """To the person when the test passed, back to `coder` when tries are left; else this branch gives up."""
    if job["passed"]:
        shown = {key: job[key] for key in ("name", "code", "test", "output")}
        return PlanResult(next=[Next("HumanAcceptReject1", input=shown)], reason=job["output"])
    tries = iteration + 1
    if tries >= TRIES:
        return PlanResult(next=[], reason=f"gave up after {tries} tries; {job['output']}")
    again = {**job, "failure": job["output"], "temperature": 0.8, "seed": job["seed"] + 1}
    for stale in ("reply", "code", "passed", "output"):
        again.pop(stale)
    return PlanResult(next=[Next(coder, input=again)], reason=f"try {tries} of {TRIES}: {job['output']}")


async def latest(context, node):
    """The newest result of a node in this lifetime's log."""
    for logged in reversed(await context.history(limit=1000)):
        entry = logged.entry
        if getattr(entry, "name", "") == node and getattr(entry, "status", "") == "SUCCEEDED":
            return payload_value(entry.result)
    raise TerminalError(f"{node} has not run in this lifetime")
