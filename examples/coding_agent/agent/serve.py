"""Runs in a process of its own: serves a model file over the OpenAI protocol on a free loopback port.

Prints its address, then serves until its stdin is closed, which is when the process that started it ends, however it
ends. A process of its own, so that leaving in the middle of a completion is nothing but leaving.
"""

from __future__ import annotations

import os
import sys

import xllamacpp

if __name__ == "__main__":
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 4096
    params.n_parallel = 2  # both coder branches at once
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.warmup = False
    params.verbosity = -1
    # One core stays free: threads that wait for each other on a busy core are twenty times slower than one thread.
    params.cpuparams.n_threads = max(1, min(4, (os.cpu_count() or 2) - 1))
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)
