"""Makes dequantise/: blocks of every quantised type, and the values they stand for by PyPI's gguf 0.19.

    pip install gguf==0.19.0
    python make_dequantised.py

TYPE.bin holds blocks, then their values, F32. digests.txt holds, for a thousand blocks of pseudo-random bytes, the
SHA-256 of the values. NaNs are written as one NaN: their payloads are not ours to promise.

gguf 0.19 does not decode Q8_1, Q8_K, Q1_0 and Q2_0; these are written out here. The last three were compared, over
2,000,000 blocks each, with dequantize_row_q8_K, _q1_0 and _q2_0 of ggml-quants.c as the crate llama-cpp-sys-2 0.1.161 has
it, and did not differ in one bit. Q8_1, which ggml itself never decodes, is its definition in ggml-common.h.
"""

import hashlib
import pathlib

import gguf
import numpy

# Elements and bytes of a block, and where its scale, and its minimum, are.
F16_SCALES = {
    "Q4_0": (32, 18, [0]),
    "Q4_1": (32, 20, [0, 2]),
    "Q5_0": (32, 22, [0]),
    "Q5_1": (32, 24, [0, 2]),
    "Q8_0": (32, 34, [0]),
    "Q8_1": (32, 36, [0, 2]),
    "Q2_K": (256, 84, [80, 82]),
    "Q3_K": (256, 110, [108]),
    "Q4_K": (256, 144, [0, 2]),
    "Q5_K": (256, 176, [0, 2]),
    "Q6_K": (256, 210, [208]),
    "IQ2_XXS": (256, 66, [0]),
    "IQ2_XS": (256, 74, [0]),
    "IQ3_XXS": (256, 98, [0]),
    "IQ1_S": (256, 50, [0]),
    "IQ4_NL": (32, 18, [0]),
    "IQ3_S": (256, 110, [0]),
    "IQ2_S": (256, 82, [0]),
    "IQ4_XS": (256, 136, [0]),
    "TQ1_0": (256, 54, [52]),
    "TQ2_0": (256, 66, [64]),
    "Q1_0": (128, 18, [0]),
    "Q2_0": (64, 18, [0]),
}
OTHERS = {"Q8_K": (256, 292), "IQ1_M": (256, 56), "MXFP4": (32, 17), "NVFP4": (64, 36)}

# Ordinary, ordinary and negative, smallest, largest subnormal, largest, infinite.
EXTREME_F16 = [0x2E66, 0xA801, 0x0001, 0x83FF, 0x7BFF, 0xFC00]
EXTREME_F32 = [0x3C23D70A, 0xBD4CCCCD, 0x00000001, 0x807FFFFF, 0x7F7FFFFF, 0xFF800000]
EXTREME_E8M0 = [121, 0, 1, 2, 254, 255]
EXTREME_UE4M3 = [0x38, 0x00, 0x01, 0x7E, 0x7F, 0xFF]

VALUES_A_FILE = 6 * 256
DIGEST_BLOCKS = 1000


def size(name):
    return (F16_SCALES.get(name) or OTHERS[name])[:2]


def noise(name, blocks):
    """SplitMix64, started at the sum of the name's letters."""
    count = blocks * size(name)[1]
    with numpy.errstate(over="ignore"):
        steps = numpy.arange(1, (count + 7) // 8 + 1, dtype=numpy.uint64)
        state = numpy.uint64(sum(name.encode())) + steps * numpy.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        state = state ^ (state >> numpy.uint64(31))
    return state.view(numpy.uint8)[:count].reshape(blocks, -1).copy()


def with_extremes(name, blocks):
    """The blocks, their scales replaced by each extreme in turn."""
    for index, block in enumerate(blocks):
        kind = index % 6
        for order, offset in enumerate(F16_SCALES[name][2] if name in F16_SCALES else []):
            # Minima are other extremes than the scales beside them.
            number = EXTREME_F16[(kind + order * (index // 6 + 1)) % 6]
            block[offset : offset + 2] = list(number.to_bytes(2, "little"))
        if name == "Q8_K":
            block[:4] = list(EXTREME_F32[kind].to_bytes(4, "little"))
        elif name == "IQ1_M":
            for word in range(4):
                nibble = EXTREME_F16[kind] >> (4 * word) & 0xF
                block[49 + 2 * word] = block[49 + 2 * word] & 0xF | nibble << 4
        elif name == "MXFP4":
            block[0] = EXTREME_E8M0[kind]
        elif name == "NVFP4":
            block[:4] = [EXTREME_UE4M3[(kind + scale) % 6] for scale in range(4)]
    return blocks


def small_quants(blocks, start, shifts):
    """Unsigned quants that are neighbours in their bytes, the first the lowest."""
    quants = blocks[:, start:, None] >> numpy.array(shifts, dtype=numpy.uint8)
    return (quants & (2 ** shifts[1] - 1)).reshape(len(blocks), -1).astype(numpy.float32)


def values(name, blocks):
    f16 = blocks[:, :2].copy().view(numpy.float16).astype(numpy.float32)
    if name == "Q8_1":
        decoded = f16 * blocks[:, 4:].view(numpy.int8).astype(numpy.float32)
    elif name == "Q8_K":
        f32 = blocks[:, :4].copy().view(numpy.float32)
        decoded = f32 * blocks[:, 4:260].view(numpy.int8).astype(numpy.float32)
    elif name == "Q1_0":
        decoded = numpy.where(small_quants(blocks, 2, range(8)) == 1, f16, -f16)
    elif name == "Q2_0":
        decoded = f16 * (small_quants(blocks, 2, [0, 2, 4, 6]) - numpy.float32(1))
    else:
        decoded = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
    assert decoded.dtype == numpy.float32
    return numpy.where(numpy.isnan(decoded), numpy.float32("nan"), decoded).astype("<f4").tobytes()


def main():
    folder = pathlib.Path(__file__).parent / "dequantise"
    digests = []
    for name in sorted([*F16_SCALES, *OTHERS]):
        blocks = with_extremes(name, noise(name, VALUES_A_FILE // size(name)[0]))
        (folder / f"{name}.bin").write_bytes(blocks.tobytes() + values(name, blocks))
        digest = hashlib.sha256(values(name, noise(name, DIGEST_BLOCKS))).hexdigest()
        digests.append(f"{name} {digest}\n")
    (folder / "digests.txt").write_text("".join(digests))


with numpy.errstate(all="ignore"):
    main()
