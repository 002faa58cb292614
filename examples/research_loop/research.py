"""Looks a topic up, follows its leads, and goes round until enough is known or no lead is left."""

from __future__ import annotations

from pathlib import Path

from tickwork import Graph, Next, PlanResult, RetryableError, RetryPolicy, TerminalError, plan, task

CORPUS = Path(__file__).parent / "corpus"


@task(retry=RetryPolicy(max_attempts=3, initial_interval=0.05))
def search(job, ctx):
    """Adds what the corpus says about the next topic, and the topics that it points to."""
    topic, *leads = job["leads"]
    if topic == "moon" and ctx.attempt == 1:
        raise RetryableError("the source is busy")  # a flaky source, the same way every time
    file = CORPUS / f"{topic}.md"
    if topic not in {known.stem for known in CORPUS.glob("*.md")}:
        raise TerminalError(f"the corpus has nothing on {topic!r}")
    text, _, more = file.read_text(encoding="utf-8").strip().partition("\nSee also: ")
    seen = {note["topic"] for note in job["notes"]} | {topic}
    leads += [lead for lead in more.split(", ") if lead and lead not in seen | set(leads)]
    return {**job, "notes": [*job["notes"], {"topic": topic, "text": text}], "leads": leads}


@plan
def begin(question):
    return Next("search", input={"leads": [question["topic"]], "notes": [], "enough": question.get("enough", 3)})


@plan
def enough(job):
    found = len(job["notes"])
    if found >= job["enough"] or not job["leads"]:
        return PlanResult(next="write", reason=f"{found} notes are enough")
    return PlanResult(next="search", reason=f"{found} of {job['enough']} notes; next is {job['leads'][0]}")


@task
def write(job):
    return "\n".join(f"{note['topic']}: {note['text']}" for note in job["notes"])


graph = Graph("research_loop", "1.0.0")
graph.start(begin)
graph.then(begin, search)
graph.edge(search, enough)
graph.then(enough, search, write)
graph.final(write)
