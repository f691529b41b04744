#!/usr/bin/env python3
"""Makes gguf_quants.*.bin: blocks of F32 values, and what PyPI's gguf 0.19 (NumPy 2.4, on x86-64) makes of them.

    pip install gguf==0.19.0 && ./make_gguf_quants.py
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize

BLOCK = 32
HERE = Path(__file__).parent


def fusible(random, middle):
    """Blocks in which a code is another where multiplication and addition are fused, that is, rounded once."""
    found = 0
    while found < 2:
        largest = random.uniform(0.5, 2, 1).astype(np.float32)
        scale = largest / np.float32(-middle)
        inverse = np.float32(1) / scale
        near = (np.arange(1 - middle, middle - 1, dtype=np.float32) + np.float32(0.5)) * scale
        near = np.concatenate([near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))])
        offset = np.float32(middle + 0.5)
        rounded_twice = np.floor(near * inverse + offset)
        rounded_once = np.floor((near.astype(np.float64) * inverse + offset).astype(np.float32))
        others = near[rounded_twice != rounded_once]
        if len(others):
            found += 1
            yield np.resize(np.concatenate([largest, [0], others]), BLOCK)


def blocks():
    """Blocks for every rule and every edge. None has zeros of both signs, of which NumPy's minimum is not defined."""
    random = np.random.default_rng(4)
    ramp = np.linspace(-1, 0.9, BLOCK, dtype=np.float32)
    yield np.zeros(BLOCK)
    yield -np.zeros(BLOCK)
    for constant in (1, -1, 0.1, -3e-8, 65504, -1e-45):
        yield np.full(BLOCK, constant)
    for at in (0, 7, 31):
        for value in (5, -5):
            yield np.where(np.arange(BLOCK) == at, value, 0)
    # The largest magnitude twice, with either sign first.
    for first, second in ((1, -1), (-1, 1)):
        yield np.where(np.arange(BLOCK) == 3, first, np.where(np.arange(BLOCK) == 30, second, ramp / 2))
    # Ties between codes of every type: multiples of half a step.
    for steps in (7, 8, 15, 16, 31, 127):
        yield np.resize(np.arange(-2 * steps, 2 * steps + 1) / 2, BLOCK)
        yield np.append(random.permutation(np.arange(0, BLOCK - 1) + 0.5), steps)
        yield np.append(random.permutation(np.arange(0, BLOCK - 1) + 0.5), -steps)
    # The number before a half, which must not be rounded up.
    yield np.where(np.arange(BLOCK) == 9, 127, np.nextafter(np.float32(0.5), np.float32(0)))
    yield from fusible(random, 8)
    yield from fusible(random, 16)
    # Scales from the smallest number to the largest, with the edges of F16's range and of that of the inverse.
    scales = [1e-45, 1e-42, 1e-40, 3e-39, 2e-38, 5e-37, 6e-8, 1e-7, 3e-6, 1e-5, 5e-4, 65504, 65519, 65520, 1e38, 1.7e38, 3.4e38]
    for scale in scales + [scale * factor for scale in (65519, 65520) for factor in (8, 15, 16, 31, 127)]:
        yield ramp * np.float32(scale)
        yield random.permutation(ramp[::-1]) * np.float32(-scale)
    for exponent in range(-24, 24, 3):
        yield random.standard_normal(BLOCK) * 2.0**exponent
    for _ in range(8):
        bits = random.integers(0, 2**32, BLOCK, dtype=np.uint32).view(np.float32)
        yield np.where(np.isfinite(bits), bits, 1)
    for odd in (np.inf, -np.inf, np.nan):
        yield np.where(np.arange(BLOCK) == 4, odd, ramp)


def main():
    values = np.array([np.asarray(block, np.float32) for block in blocks()])
    (HERE / "gguf_quants.f32.bin").write_bytes(values.astype("<f4").tobytes())
    with np.errstate(all="ignore"):
        for kind in (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1):
            (HERE / f"gguf_quants.{kind.name.lower()}.bin").write_bytes(quantize(values, kind).tobytes())
    print(len(values), "blocks")


if __name__ == "__main__":
    main()
