"""Takes every tensor of a GGUF file from libpml by numpy.from_dlpack, and compares it with PyPI's gguf.

arrays.py MODEL [BUDGET], which holds one block. Prints how many it compared, and how many of BF16 NumPy refused."""

import ctypes
import gc
import pathlib
import sys
import threading

import gguf
import numpy

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from lazy import Tensor, c_size_t, c_uint32, c_uint64, c_void_p, call, pml, struct

LRU = 2
pml.pml_tensor_is_loaded.restype = ctypes.c_bool


def open_model(path, budget):
    fields = [("device", ctypes.c_char_p), ("strategy", c_uint32), ("max_concurrent_loads", c_uint32)]
    fields += [("prefetch_count", c_uint32), ("unload", c_uint32), ("max_loaded_layers", ctypes.c_int64)]
    options = struct(*fields, ("memory_budget", c_uint64), device=b"cpu", max_concurrent_loads=3, prefetch_count=1)
    options.unload, options.max_loaded_layers, options.memory_budget = LRU, -1, budget
    loader = c_void_p()
    call("pml_loader_open", path.encode(), ctypes.byref(options), ctypes.byref(loader))
    return loader


def layer_of(tensor):
    fields = [(name, c_size_t) for name in ("name", "name_length", "shape")]
    fields += [(name, c_uint32) for name in ("rank", "stored_dtype", "delivered_dtype", "shard")]
    info = struct(*fields, ("index", c_size_t), ("layer", c_size_t))
    call("pml_tensor_get_info", tensor.handle, ctypes.byref(info))
    return info.layer


def acquires(loader, layer):
    fields = [(name, c_size_t) for name in ("name", "name_length", "bytes", "tensor_count", "position")]
    info = struct(*fields, ("state", c_uint32), ("reserved", c_uint32), ("acquire_count", c_uint64))
    call("pml_loader_layer_info", loader, layer, ctypes.byref(info))
    return info.acquire_count


def is_refused(tensor, why):
    try:
        numpy.from_dlpack(tensor)
    except (BufferError, RuntimeError) as error:
        return why in str(error)
    return False


def every_array_is_theirs(path):
    """The types that both have; how many."""
    loader = open_model(path, 0)
    compared = 0
    for index, expected in enumerate(gguf.GGUFReader(path).tensors):
        tensor, kind = Tensor(loader, index), expected.tensor_type.name
        if kind in ("F16", "F32", "F64", "I8", "I16", "I32", "I64"):
            array = numpy.from_dlpack(tensor)
            assert array.dtype == expected.data.dtype and array.shape == expected.data.shape, expected.name
            assert array.tobytes() == expected.data.tobytes(), expected.name
            assert not array.flags.writeable and array.flags.c_contiguous and array.flags.aligned
            compared += 1
        elif kind != "BF16":
            assert is_refused(tensor, expected.name), expected.name
    gc.collect()
    pml.pml_loader_free(loader)
    return compared


def what_nobody_takes_is_given_back(path):
    """NumPy has no BF16: its lease ends with the tensor's own object. How many there are."""
    loader, tried = open_model(path, 0), 0
    for index, expected in enumerate(gguf.GGUFReader(path).tensors):
        if expected.tensor_type.name == "BF16":
            tensor = Tensor(loader, index)
            layer = layer_of(tensor)
            assert is_refused(tensor, "dtype") and acquires(loader, layer) == 1
            del tensor
            assert acquires(loader, layer) == 0
            tried += 1
    pml.pml_loader_free(loader)
    return tried


def f32(loader, path):
    """A tensor that any array may be of."""
    kinds = [tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors]
    return Tensor(loader, kinds.index("F32"))


class Given:
    """Hands out a capsule that it was given."""

    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **_):
        return self.capsule


def a_capsule_that_outlives_its_tensor_is_empty(path):
    """Nobody took it: the lease ends with the tensor's object, and the capsule that is left says so."""
    loader = open_model(path, 0)
    tensor = f32(loader, path)
    layer = layer_of(tensor)
    capsule = tensor.__dlpack__(max_version=(1, 0))
    assert acquires(loader, layer) == 1
    del tensor
    assert acquires(loader, layer) == 0
    assert '"used_dltensor_versioned"' in repr(capsule), capsule
    try:
        array = numpy.from_dlpack(Given(capsule))
    except (BufferError, RuntimeError, ValueError):
        array = None
    assert array is None, "NumPy took what was given back"
    pml.pml_loader_free(loader)


def other_wishes_are_refused(path):
    """Streams, copies, other devices and older versions."""
    loader = open_model(path, 0)
    tensor = f32(loader, path)
    layer = layer_of(tensor)
    for wish in ({"stream": 1}, {"stream": -1}, {"copy": True}, {"dl_device": (2, 0)}, {"max_version": (0, 8)}):
        try:
            tensor.__dlpack__(**{"max_version": (1, 0), **wish})
        except BufferError:
            assert acquires(loader, layer) == 0
        else:
            raise AssertionError(wish)
    del tensor
    pml.pml_loader_free(loader)


def matrices(loader, path):
    """A tensor of each block."""
    names = [tensor.name for tensor in gguf.GGUFReader(path).tensors]
    return [Tensor(loader, names.index(f"blk.{block}.attn_norm.weight")) for block in range(2)]


def an_array_is_the_lease(path, budget):
    """Room for one block only."""
    loader = open_model(path, budget)
    first, second = matrices(loader, path)
    layer = layer_of(first)
    array = numpy.from_dlpack(first)
    part, copy = array[3:], array.copy()
    assert acquires(loader, layer) == 1
    assert is_refused(second, "budget") and is_refused(second, "blk.0")
    del array
    # What is of an array keeps it.
    assert acquires(loader, layer) == 1 and is_refused(second, "blk.0") and part.tobytes() == copy[3:].tobytes()
    del part
    assert acquires(loader, layer) == 0
    other = numpy.from_dlpack(second)
    assert not pml.pml_tensor_is_loaded(first.handle) and acquires(loader, layer) == 0
    # It outlives every handle, and ends on another thread.
    expected = other.copy()
    del first, second
    pml.pml_loader_free(loader)
    assert other.tobytes() == expected.tobytes()
    kept = [other]
    del other
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()


def main(path, budget=None):
    compared = every_array_is_theirs(path)
    tried = what_nobody_takes_is_given_back(path)
    a_capsule_that_outlives_its_tensor_is_empty(path)
    other_wishes_are_refused(path)
    if budget is not None:
        an_array_is_the_lease(path, int(budget))
    print(compared, tried)


main(*sys.argv[1:])
