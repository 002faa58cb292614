"""The shortest useful graph: a Plan chooses, a Task works."""

from __future__ import annotations

from tickwork import Graph, plan, task


@plan
def choose(name):
    return "greet" if name else "ask"


@task
def greet(name):
    return f"Hello, {name}!"


@task
def ask():
    return "Hello! What is your name?"


graph = Graph("hello", "1.0.0").start(choose).then(choose, greet, ask).final(greet, ask)
