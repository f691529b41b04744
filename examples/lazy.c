/* Visits every layer of a model twice within half of it, or room for two layers, the next one coming meanwhile. */
#include <stdio.h>
#include <stdlib.h>

#include "pml.h"

static int fail(const char *what, pml_loader_t *loader, size_t *order)
{
    fprintf(stderr, "%s: %s\n", what, pml_last_error());
    pml_loader_free(loader); /* NULL is fine; it releases what was acquired */
    free(order);
    return 1;
}

/* Where a forward pass would compute with a layer: views take no lock and make no copy. */
static pml_status_t use_layer(pml_loader_t *loader, size_t layer)
{
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    pml_view_t view = PML_VIEW_INIT;
    pml_tensor_t *tensor = NULL; /* an engine looks its tensors up once */
    size_t first;
    if (pml_loader_layer_info(loader, layer, &info) == PML_STATUS_OK &&
        pml_loader_layer_tensor(loader, layer, 0, &first) == PML_STATUS_OK &&
        pml_loader_tensor_at(loader, first, &tensor) == PML_STATUS_OK &&
        pml_tensor_view(tensor, &view) == PML_STATUS_OK)
        printf("%-16.*s %12llu bytes, the first tensor a %s at %p\n", (int)info.name_length, info.name,
               (unsigned long long)info.bytes, pml_dtype_name(view.dtype), view.data);
    pml_tensor_free(tensor);
    return view.data != NULL ? PML_STATUS_OK : PML_STATUS_INVALID_STATE;
}

int main(int argc, char **argv)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_event_t event = PML_EVENT_INIT;
    pml_stats_t stats = PML_STATS_INIT;
    pml_loader_t *loader = NULL;
    size_t count, i, pass, loaded = 0, *order;
    uint64_t total = 0, largest = 1; /* of a model without tensors too: a budget of 0 is none */

    if (argc != 2) return fprintf(stderr, "usage: %s MODEL\n", argv[0]), 2;
    options.device = "cpu";
    if (pml_loader_open(argv[1], &options, &loader) != PML_STATUS_OK) return fail("open", NULL, NULL);
    count = pml_loader_layer_count(loader);
    printf("%zu layers and %zu tensors, opened without reading one of them\n", count, pml_loader_tensor_count(loader));

    /* Layers have fixed indices; their order of use stands beside them. */
    order = malloc((count + 1) * sizeof *order);
    if (order == NULL) return fail("no memory", loader, NULL);
    for (i = 0; i < count; i++) {
        pml_layer_info_t info = PML_LAYER_INFO_INIT;
        if (pml_loader_layer_info(loader, i, &info) != PML_STATUS_OK) return fail("layer", loader, order);
        order[info.position] = i;
        total += info.bytes;
        if (info.bytes > largest) largest = info.bytes;
    }
    pml_loader_free(loader);

    options.strategy = PML_STRATEGY_PREFETCH; /* each acquire queues the layer that comes next */
    options.unload = PML_UNLOAD_LRU;          /* and the one that is needed last makes way */
    options.memory_budget = total / 2 > 2 * largest ? total / 2 : 2 * largest; /* one that is held, one that comes */
    if (pml_loader_open(argv[1], &options, &loader) != PML_STATUS_OK) return fail("open", NULL, order);
    for (pass = 0; pass < 2; pass++)
        for (i = 0; i < count; i++) {
            if (pml_loader_acquire_layer(loader, order[i], PML_STREAM_HOST, PML_TIMEOUT_NEVER) != PML_STATUS_OK)
                return fail("acquire", loader, order);
            if (pass == 0 && use_layer(loader, order[i]) != PML_STATUS_OK) return fail("use", loader, order);
            pml_loader_release_layer(loader, order[i], PML_STREAM_HOST);
            /* What happened meanwhile; callbacks in the options are told at once. */
            while (pml_loader_next_event(loader, 0, &event) == PML_STATUS_OK)
                if (event.kind == PML_EVENT_LAYER_LOADED) loaded++;
        }
    pml_loader_stats(loader, &stats);
    printf("%zu events of layers; at most %llu bytes at once, of a budget of %llu\n", loaded,
           (unsigned long long)stats.peak_charged_bytes, (unsigned long long)options.memory_budget);
    free(order);
    pml_loader_free(loader);
    return 0;
}
