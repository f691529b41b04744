/* A strategy of the caller's own: odd layers first, the next one read ahead, the one before given back. */
#include <stdio.h>
#include <stdlib.h>
#include "pml.h"

static int fail(const char *what)
{
    return fprintf(stderr, "%s: %s\n", what, pml_last_error()), 1;
}

int main(int argc, char **argv)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    size_t count, layer, i, n = 0, *order;

    options.max_loaded_layers = 2; /* the one in use, and the one that comes */
    if (argc != 2) return fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]), 2;
    if (pml_loader_open(argv[1], &options, &loader) != PML_STATUS_OK) return fail("open");
    count = pml_loader_layer_count(loader);
    order = malloc((count + 1) * sizeof *order);
    if (order == NULL) return 1;
    for (layer = 1; layer < count; layer += 2) order[n++] = layer;
    for (layer = 0; layer < count; layer += 2) order[n++] = layer;
    /* The library's own strategies and pml_loader_start follow it too. */
    if (pml_loader_set_layer_order(loader, order, count) != PML_STATUS_OK) return fail("order");
    for (i = 0; i < count; i++) {
        pml_layer_info_t info = PML_LAYER_INFO_INIT;
        if (pml_loader_acquire_layer(loader, order[i], PML_STREAM_HOST, -1) != PML_STATUS_OK) return fail("acquire");
        if (i + 1 < count && pml_loader_prefetch(loader, &order[i + 1], 1) != PML_STATUS_OK) return fail("prefetch");
        pml_loader_layer_info(loader, order[i], &info); /* here it would be used */
        printf("%.*s: %llu bytes\n", (int)info.name_length, info.name, (unsigned long long)info.bytes);
        pml_loader_release_layer(loader, order[i], PML_STREAM_HOST);
        if (pml_loader_unload_layer(loader, order[i]) != PML_STATUS_OK) return fail("unload");
    }
    free(order);
    pml_loader_free(loader);
    return 0;
}
