"""Prints, as JSON, digests of what PyPI's gguf makes of each tensor of a file in each of the types named: FILE TYPE...

A tensor that cannot be of a type is as it is stored: integers always; in types of blocks vectors, and rows that are no whole
number of blocks."""

import hashlib
import json
import sys

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

INTEGERS = {"I8", "I16", "I32", "I64"}
FLOATS = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


def numbers(tensor):
    stored = tensor.tensor_type.name
    data = tensor.data if stored in FLOATS else dequantize(tensor.data, tensor.tensor_type)
    return np.ascontiguousarray(data).astype(np.float32)


def made(tensor, name):
    if tensor.tensor_type.name in INTEGERS or tensor.tensor_type.name == name:
        return tensor.data
    if name in FLOATS:
        return numbers(tensor).astype(FLOATS[name])
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    # gguf lists shapes innermost dimension first.
    if len(tensor.shape) < 2 or int(tensor.shape[0]) % block:
        return tensor.data
    return quantize(numbers(tensor), gguf.GGMLQuantizationType[name])


reader = gguf.GGUFReader(sys.argv[1])
digest = lambda data: hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()
print(json.dumps({name: {t.name: digest(made(t, name)) for t in reader.tensors} for name in sys.argv[2:]}))
