"""Measures others' loaders, as far as Python can import them: peers.py MODEL.gguf DEVICE FOLDER [--only-name]

Prints a JSON list. Those that read safetensors get a file of as many bytes as the model has, in matrices of 64 MiB,
written here. Files are in the page cache. Each runs three times; the median counts."""

import importlib
import importlib.metadata
import json
import os
import struct
import sys
import time

MATRIX = 64 << 20
ROUNDS = 3


def write_safetensors(path, total):
    count = max(1, total // MATRIX)
    header = {
        f"blk.{i}.weight": {"dtype": "F16", "shape": [MATRIX // 2 // 4096, 4096], "data_offsets": [i * MATRIX, (i + 1) * MATRIX]}
        for i in range(count)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = os.urandom(MATRIX)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for _ in range(count):
            file.write(block)
    return count * MATRIX


def llama_cpp(module, model, _safetensors, _device):
    if not module.llama_supports_gpu_offload():
        raise RuntimeError("built without GPU support")
    module.Llama(model_path=model, n_gpu_layers=-1, n_ctx=32, verbose=False)
    return os.path.getsize(model)


def safetensors(_module, _model, path, device):
    import torch
    from safetensors.torch import load_file

    load_file(path, device=device)
    torch.cuda.synchronize()
    return os.path.getsize(path)


def fastsafetensors(_module, _model, path, device):
    import torch
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), torch.device(device), nogds=True)
    loader.add_filenames({0: [path]})
    buffers = loader.copy_files_to_device()
    torch.cuda.synchronize()
    buffers.close()
    loader.close()
    return os.path.getsize(path)


def streamer(_module, _model, path, device):
    import torch
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as stream:
        stream.stream_file(path)
        kept = [tensor.to(device) for _, tensor in stream.get_tensors()]
    torch.cuda.synchronize()
    del kept
    return os.path.getsize(path)


# What it is called, its module, its package, what it needs besides, how it loads.
PEERS = [
    ("llama.cpp", "llama_cpp", "llama-cpp-python", [], llama_cpp),
    ("safetensors", "safetensors", "safetensors", ["torch"], safetensors),
    ("fastsafetensors", "fastsafetensors", "fastsafetensors", ["torch"], fastsafetensors),
    ("Run:ai model streamer", "runai_model_streamer", "runai-model-streamer", ["torch"], streamer),
]


def find(name, module, package, needs):
    """What there is of it, and its module if it can be measured."""
    told = {"name": name, "present": False, "version": None, "seconds": None, "rate": None, "reason": None}
    try:
        found = importlib.import_module(module)
        told["version"] = importlib.metadata.version(package)
        for needed in needs:
            importlib.import_module(needed)
        told["present"] = True
        return told, found
    except Exception as error:
        told["reason"] = f"{type(error).__name__}: {error}"
        return told, None


def measure(told, found, load, arguments):
    times, size = [], 0
    try:
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            size = load(found, *arguments)
            times.append(time.perf_counter() - begun)
        told["seconds"] = sorted(times)[len(times) // 2]
        told["rate"] = size / told["seconds"]
    except Exception as error:
        told["reason"] = f"{type(error).__name__}: {error}"


def main():
    model, device, folder = sys.argv[1:4]
    only_name = "--only-name" in sys.argv
    # What a peer prints belongs into no JSON.
    out = os.dup(1)
    os.dup2(2, 1)
    results, path = [], os.path.join(folder, "peers.safetensors")
    for name, module, package, needs, load in PEERS:
        told, found = find(name, module, package, needs)
        results.append(told)
        if found is None:
            continue
        if only_name:
            told["reason"] = "there is no device to measure it on"
            continue
        if load is not llama_cpp and not os.path.exists(path):
            write_safetensors(path, os.path.getsize(model))
        measure(told, found, load, (model, path, device))
    if os.path.exists(path):
        os.remove(path)
    with os.fdopen(out, "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
