#!/usr/bin/env python3
"""Makes bitsandbytes.*.bin: F32 values, and what PyPI's bitsandbytes 0.50.2 makes of them on the CPU.

    pip download --no-deps bitsandbytes==0.50.2 && unzip -d FOLDER bitsandbytes-*.whl && ./make_bitsandbytes.py FOLDER

What quantises on the CPU is plain PyTorch code, in bitsandbytes/backends/default/ops.py. It is run as it is, without
the rest of the package, which wants a PyTorch built for the GPU: any PyTorch from 1.13 on will do.
"""

import ast
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import torch

BLOCK = 64
HERE = Path(__file__).parent


def code_book(package):
    """NF4's numbers, from the body of functional.get_4bit_type."""
    for node in ast.walk(ast.parse((package / "functional.py").read_text())):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "typename == 'nf4'":
            return torch.tensor(ast.literal_eval(node.body[-1].value), dtype=torch.float32)
    raise LookupError("no code book")


def operations(package):
    """The operations that ops.py registers, by name."""
    found = {}

    def register_kernel(name, _backend):
        return lambda function: found.setdefault(name.removeprefix("bitsandbytes::"), function)

    def module(name, **contents):
        made = types.ModuleType(name)
        made.__path__ = []
        made.__dict__.update(contents)
        sys.modules[name] = made

    module("bitsandbytes")
    module("bitsandbytes._ops", register_kernel=register_kernel)
    module("bitsandbytes.backends")
    module("bitsandbytes.backends.utils", _get_4bit_code=lambda _kind, _device: code_book(package))
    module("bitsandbytes.backends.default")
    name = "bitsandbytes.backends.default.ops"
    spec = importlib.util.spec_from_file_location(name, package / "backends/default/ops.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return found


def blocks(codes):
    """Blocks for every rule and every edge."""
    random = np.random.default_rng(5)
    bounds = (codes[:-1] + codes[1:]) / np.float32(2)
    ramp = np.linspace(-1, 0.95, BLOCK, dtype=np.float32)
    yield np.zeros(BLOCK)
    yield -np.zeros(BLOCK)
    # Ties between codes, and the numbers on either side of them.
    around = [bounds, np.nextafter(bounds, np.float32(-2)), np.nextafter(bounds, np.float32(2)), codes, [1]]
    yield np.resize(np.concatenate(around), BLOCK)[::-1]
    yield np.resize(np.append(np.arange(-63, 64) + 0.5, 127), BLOCK)
    yield np.append(np.arange(0, BLOCK - 1) + 0.5, -127)
    for scale in (1e-45, 1e-40, 9e-39, 1e-38, 2e-38, 5e-37, 1e-30, 1e-3, 1, 3, 1e10, 3.4e38):
        yield ramp * np.float32(scale)
        yield random.permutation(ramp[::-1]) * np.float32(-scale)
    # Ties between INT8's codes, where PyTorch's 127 / x, which is 127 * (1 / x), is not the quotient.
    largest = random.uniform(0.5, 2, 100).astype(np.float32)
    factors = np.float32(127) / largest, np.float32(1) / largest * np.float32(127)
    for value in largest[factors[0] != factors[1]][:8]:
        yield np.append(value * (np.arange(0, BLOCK - 1) + np.float32(0.5)) / np.float32(127), value)
    for _ in range(16):
        yield random.standard_normal(BLOCK) * 0.02
    for odd in (np.inf, -np.inf, np.nan):
        yield np.where(np.arange(BLOCK) == 4, odd, ramp)


def main():
    package = Path(sys.argv[1]) / "bitsandbytes"
    operation = operations(package)
    codes = code_book(package)
    values = torch.from_numpy(np.array([np.asarray(block, np.float32) for block in blocks(codes.numpy())]))
    data, scales = operation["quantize_4bit"](values, BLOCK, "nf4", torch.uint8)
    rows, absmax, _ = operation["int8_vectorwise_quant"](values)
    for name, tensor in dict(f32=values, codes=codes, nf4=data, nf4_absmax=scales, int8=rows, int8_absmax=absmax).items():
        (HERE / f"bitsandbytes.{name}.bin").write_bytes(tensor.contiguous().numpy().tobytes())
    print(len(values), "blocks")


if __name__ == "__main__":
    main()
