"""Quantises or dequantises so many numbers of a type, as each line says; says how many seconds that took, or nothing where it cannot."""

import functools
import importlib.metadata
import sys
import time

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

ROW = 4096


@functools.cache
def given(verb, kind, count):
    """Numbers as weights are, or random blocks."""
    random = np.random.default_rng(1)
    if verb == "quantize":
        return random.uniform(-0.5, 0.5, (count // ROW, ROW)).astype(np.float32)
    elements, size = GGML_QUANT_SIZES[kind]
    return random.integers(0, 256, (count // ROW, ROW // elements * size), dtype=np.uint8)


np.seterr(all="ignore")
print(importlib.metadata.version("gguf"), flush=True)
for line in sys.stdin:
    verb, name, count = line.split()
    try:
        kind = GGMLQuantizationType[name]
        data = given(verb, kind, int(count))
        started = time.perf_counter()
        (quantize if verb == "quantize" else dequantize)(data, kind)
        print(time.perf_counter() - started, flush=True)
    except (KeyError, NotImplementedError):
        print(flush=True)
