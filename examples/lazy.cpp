// Visits every layer of a model twice within half of it, or room for two layers, the next one coming meanwhile.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "pml.hpp"

static void print_layer(const pml::layer &layer)
{
    const pml::tensor first = layer.tensors()[0];
    const pml::view seen = first.view().value(); // no lock, no copy; here it would be used
    std::printf("%-16s %12llu bytes, the first tensor a %s at %p\n", std::string(layer.name()).c_str(),
                static_cast<unsigned long long>(layer.bytes()), std::string(pml::dtype_name(seen.dtype())).c_str(), seen.data());
}

static void visit(const std::string &path)
{
    // Headers only: nothing of a tensor is read yet.
    std::uint64_t largest = 1, total = 0; // of a model without tensors too: a budget of 0 is none
    {
        const pml::loader model = pml::loader::open(path).value();
        for (const pml::layer &layer : model.layers()) {
            largest = std::max(largest, layer.bytes());
            total += layer.bytes();
        }
        std::printf("a %s model of %zu layers and %zu tensors, opened without reading one of them\n",
                    model.metadata().get<std::string>("general.architecture").value_or("nameless").c_str(),
                    model.layers().size(), model.tensors().size());
    }
    const std::uint64_t budget = std::max(total / 2, 2 * largest); // one that is held, one that comes
    pml::loader model = pml::loader::open(path, pml::options{}
                                                    .device("cpu")
                                                    .strategy(pml::strategy::prefetch)
                                                    .prefetch_count(1)
                                                    .unload(pml::unload::lru)
                                                    .memory_budget(budget))
                            .value();
    std::size_t loaded = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (const pml::layer &layer : model.layer_order()) {
            // Held until the end of this block; the next layer comes while this one is used.
            const pml::layer_lease held = model.acquire_layer(layer.index()).value();
            if (pass == 0) print_layer(layer);
            // What happened meanwhile; callbacks in the options would be told at once.
            while (const pml::result<pml::event> event = model.next_event(std::chrono::milliseconds(0)))
                if (event->kind == pml::event_kind::layer_loaded) loaded++;
        }
    }
    const pml::stats stats = model.stats().value();
    std::printf("%zu events of layers; at most %llu bytes at once, of a budget of %llu\n", loaded,
                static_cast<unsigned long long>(stats.peak_charged_bytes), static_cast<unsigned long long>(budget));
}

int main(int argc, char **argv)
{
    if (argc != 2) return std::fprintf(stderr, "usage: %s MODEL\n", argv[0]), 2;
    try {
        visit(argv[1]);
    } catch (const std::exception &error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
}
