"""Writes, with PyPI's gguf, a model of seven tensors as a set of shards with at most three each."""

import sys

import gguf
import numpy

writer = gguf.GGUFWriter(sys.argv[1], "llama", split_max_tensors=3)
writer.add_block_count(5)
writer.add_array("test.words", ["one", "two", "three"])
writer.add_array("test.nested", [[1, 2], [3]])
writer.add_float32("test.float", 0.5)
writer.add_tensor("token_embd.weight", numpy.arange(64, dtype=numpy.float32).reshape(8, 8))
for block in range(5):
    writer.add_tensor(f"blk.{block}.ffn_up.weight", (numpy.arange(96) * block).astype(numpy.float16).reshape(2, 3, 16))
quantised = gguf.quants.quantize(numpy.linspace(-1, 1, 128, dtype=numpy.float32).reshape(2, 64), gguf.GGMLQuantizationType.Q8_0)
writer.add_tensor("output.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
