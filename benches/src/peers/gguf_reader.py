"""Opens each model whose path comes as a line; says how many seconds that took."""

import importlib.metadata
import sys
import time

from gguf import GGUFReader

print(importlib.metadata.version("gguf"), flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    reader = GGUFReader(line.rstrip("\n"))
    seconds = time.perf_counter() - started
    del reader
    print(seconds, flush=True)
