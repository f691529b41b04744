"""Visits every layer of a model twice within a budget, the next one on its way meanwhile, as NumPy arrays: no copies.

lazy.py MODEL MIB, with NumPy 2.1 or later. PML_LIBRARY names the library where the system does not find it."""
import ctypes, numpy, os, sys
from ctypes import byref, c_char_p, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

pml, python = ctypes.CDLL(os.environ.get("PML_LIBRARY", "libpml.so.0.1")), ctypes.pythonapi
pml.pml_last_error.restype = c_char_p
pml.pml_loader_layer_count.restype = c_size_t
python.PyCapsule_New.restype = ctypes.py_object
HOST, FOREVER, LAYER_LOADED, PREFETCH, LRU = -1, -1, 1, 3, 2
UNTAKEN, TAKEN = c_char_p(b"dltensor_versioned"), c_char_p(b"used_dltensor_versioned")

def call(function, *arguments, out=None):
    """Calls what answers with a status, and returns what it wrote. Integers of pml.h take 64 bits at most."""
    arguments = [c_int64(value) if isinstance(value, int) else value for value in arguments]
    if getattr(pml, function)(*arguments, *([] if out is None else [byref(out)])) != 0:
        raise BufferError(pml.pml_last_error().decode())
    return out

def struct(*fields, **values):
    """A struct's first fields: libpml reads and writes as much as its size says."""
    kind = type("struct", (ctypes.Structure,), {"_fields_": [("struct_size", c_size_t), *fields]})
    return kind(struct_size=ctypes.sizeof(kind), **values)

class Tensor:
    """A tensor on the host: numpy.from_dlpack brings it, and it stays as long as the array lives."""
    def __init__(self, loader, index):
        self.handle, self.given = c_void_p(), []
        call("pml_loader_tensor_at", loader, index, out=self.handle)

    def __del__(self):
        for capsule, managed in self.given:
            # Who takes a tensor renames its capsule; where nobody did, its deleter, the third word, is ours to call.
            if python.PyCapsule_IsValid(ctypes.py_object(capsule), UNTAKEN):
                ctypes.CFUNCTYPE(None, c_void_p)(c_void_p.from_address(managed.value + 16).value)(managed)
                python.PyCapsule_SetName(ctypes.py_object(capsule), TAKEN)  # whoever still has it finds it empty
        pml.pml_tensor_free(self.handle)

    def __dlpack_device__(self): return 1, 0

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if (max_version or (0, 0))[0] < 1 or copy or dl_device not in (None, (1, 0)) or stream is not None:
            raise BufferError("read-only memory of the host, as it is, without a stream, for DLPack 1.0 and later")
        managed = call("pml_tensor_to_dlpack", self.handle, HOST, out=c_void_p())
        self.given.append((python.PyCapsule_New(managed, UNTAKEN, None), managed))
        return self.given[-1][0]

def layer_info(loader, layer):
    fields = ("name", "name_length", "bytes", "tensor_count", "position")
    return call("pml_loader_layer_info", loader, layer, out=struct(*((field, c_uint64) for field in fields)))

def print_sums(loader, layer):
    """Of a layer's tensors, where NumPy has their type. No array outlasts the call, and so no lease of its own."""
    for place in range(layer_info(loader, layer).tensor_count):
        index = call("pml_loader_layer_tensor", loader, layer, place, out=c_size_t())
        try:
            array = numpy.from_dlpack(Tensor(loader, index.value))
            print(f"layer {layer}: {array.dtype} {array.shape}, the sum {array.sum(dtype='f8')}")
        except (BufferError, RuntimeError) as error:
            print(f"no array: {error}")

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(print("usage: lazy.py MODEL MIB", file=sys.stderr) or 2)
    words = [(name, c_uint32) for name in ("strategy", "max_concurrent_loads", "prefetch_count", "unload")]
    options = struct(("device", c_char_p), *words, ("max_loaded_layers", c_int64), ("memory_budget", c_uint64),
                     device=b"cpu", strategy=PREFETCH, max_concurrent_loads=3, prefetch_count=1, unload=LRU,
                     max_loaded_layers=-1, memory_budget=int(float(sys.argv[2]) * 2**20))
    event, loaded = struct(("kind", c_uint32), ("stage", c_uint32)), 0
    loader = call("pml_loader_open", os.fsencode(sys.argv[1]), byref(options), out=c_void_p())
    order = sorted(range(pml.pml_loader_layer_count(loader)), key=lambda layer: layer_info(loader, layer).position)
    for layer in 2 * order:  # that of use, not of the indices
        call("pml_loader_acquire_layer", loader, layer, HOST, FOREVER)  # which queues the next one
        print_sums(loader, layer)
        call("pml_loader_release_layer", loader, layer, HOST)
        while pml.pml_loader_next_event(loader, c_int64(0), byref(event)) == 0: loaded += event.kind == LAYER_LOADED
    print(f"{loaded} events of layers")
    pml.pml_loader_free(loader)
