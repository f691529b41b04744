"""Prints, as JSON, what PyPI's gguf finds in each file named: every key with a digest of its whole value, every tensor
with its place and a digest of its bytes."""

import hashlib
import json
import sys

import gguf


def value_digest(field):
    """The digest of a value's type and of all its parts, as they stand in the file."""
    digest = hashlib.sha256()
    # The first two parts are the key's length and the key.
    for part in field.parts[2:]:
        digest.update(part.tobytes())
    return digest.hexdigest()


def key(field):
    return {
        "name": field.name,
        "type": int(field.types[0]),
        "leaves": len(field.data),
        "sha256": value_digest(field),
    }


def tensor(found):
    return {
        "name": found.name,
        "type": int(found.tensor_type),
        "shape": [int(length) for length in reversed(found.shape)],
        "offset": int(found.data_offset),
        "bytes": int(found.n_bytes),
        "sha256": hashlib.sha256(found.data.tobytes()).hexdigest(),
    }


def file(path):
    reader = gguf.GGUFReader(path)
    fields = [field for field in reader.fields.values() if not field.name.startswith("GGUF.")]
    return {
        "version": int(reader.fields["GGUF.version"].contents()),
        "keys": [key(field) for field in fields],
        "tensors": [tensor(found) for found in reader.tensors],
    }


json.dump([file(path) for path in sys.argv[1:]], sys.stdout)
