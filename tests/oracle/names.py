"""Prints, as JSON, what PyPI's gguf would name each of the tensors named on standard input, of a BERT of so many blocks."""

import json
import sys

import gguf

names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, int(sys.argv[1]))
given = sys.stdin.read().split()
print(json.dumps({name: names.get_name(name, try_suffixes=(".weight", ".bias")) for name in given}))
