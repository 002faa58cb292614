"""What the person wants written: the asks that are known by name, and how any other ask is read.

An ask is usable when it yields a function name and a test. A known name brings both; any other ask names its function
(`is_leap_year`, or "a function called is_leap_year that ...") and brings a one-line test in the answer.
"""

from __future__ import annotations

import ast
import keyword
import re

# name: (parameters, what it does, test)
KNOWN = {
    "is_even": (
        "n",
        "return True if the integer n is even, else False",
        "assert is_even(4) is True and is_even(7) is False",
    ),
    "reverse_string": (
        "text",
        "return the string text reversed",
        "assert reverse_string('abc') == 'cba' and reverse_string('') == ''",
    ),
    "is_palindrome": (
        "text",
        "return True if the string text reads the same backwards",
        "assert is_palindrome('level') is True and is_palindrome('lever') is False",
    ),
    "factorial": (
        "n",
        "return the factorial of the integer n; the factorial of 0 is 1",
        "assert factorial(0) == 1 and factorial(5) == 120",
    ),
    "max_of_three": (
        "a, b, c",
        "return the largest of the three numbers a, b and c",
        "assert max_of_three(1, 3, 2) == 3 and max_of_three(5, 4, 4) == 5",
    ),
    "count_vowels": (
        "text",
        "return how many of the letters in text are vowels (a, e, i, o, u)",
        "assert count_vowels('banana') == 3 and count_vowels('sky') == 0",
    ),
    "celsius_to_fahrenheit": (
        "celsius",
        "return the temperature celsius in degrees Fahrenheit",
        "assert celsius_to_fahrenheit(0) == 32 and celsius_to_fahrenheit(100) == 212",
    ),
    "slugify": (
        "title",
        "return title in lower case, with one hyphen for every run of characters that are not letters or digits",
        "assert slugify(' Hello, World! ') == 'hello-world' and slugify('a--b') == 'a-b'",
    ),
    "fizzbuzz": (
        "n",
        "return a list of strings for 1 to n: Fizz for multiples of 3, Buzz of 5, FizzBuzz of both, else the number",
        "assert fizzbuzz(15)[-1] == 'FizzBuzz' and fizzbuzz(5) == ['1', '2', 'Fizz', '4', 'Buzz']",
    ),
}

NAMED = (
    re.compile(r"\b(?:called|named)\s+`?([A-Za-z_]\w*)"),
    re.compile(r"\b([A-Za-z_]\w*)\s*\("),
    re.compile(r"\b([A-Za-z]\w*_\w+)\b"),
)


def function_name(ask):
    """The name of the function that an ask is about, or an empty string when it names none."""
    ask = ask.strip()
    if ask.isidentifier():
        found = ask
    else:
        found = next((match.group(1) for pattern in NAMED if (match := pattern.search(ask))), "")
    return "" if keyword.iskeyword(found) else found


def understand(answer):
    """The job in an answer `{ask, test?}`: ask, name, parameters, purpose, test. What is missing is an empty string."""
    ask = str(answer.get("ask", ""))
    name = function_name(ask)
    parameters, purpose, test = KNOWN.get(name, ("", ask, ""))
    return {
        "ask": ask,
        "name": name,
        "parameters": parameters,
        "purpose": purpose,
        "test": str(answer.get("test") or test),
    }


def parameters(test, name):
    """Parameter names for a function of which only the test is known: as many as the test hands over."""
    calls = [node for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    counts = [len(call.args) for call in calls if isinstance(call.func, ast.Name) and call.func.id == name]
    return ", ".join("abcdefgh"[: max(counts, default=1)])


def open_question(job):
    """What has to be asked before code can be written for a job; empty when nothing has."""
    if not job["name"]:
        return "What shall the function be called? Name it, for example: a function called is_leap_year."
    if job["name"] not in job["test"]:
        return f"How shall {job['name']} be tested? Give one line, for example: assert {job['name']}(2) == 4"
    try:
        compile(job["test"], "the test", "exec")
    except SyntaxError as error:
        return f"The test is no Python ({error.msg}). Give one line, for example: assert {job['name']}(2) == 4"
    return ""
