/* Visits every layer of a model in order, as a forward pass would. */
#include <stdio.h>
#include <stdlib.h>

#include "pml.h"

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, pml_last_error());
    return 1;
}

int main(int argc, char **argv)
{
    pml_loader_t *loader = NULL;
    pml_metadata_info_t key = PML_METADATA_INFO_INIT;
    const char *architecture = "";
    size_t length = 0, count, position, layer;
    size_t *order;

    if (argc != 2) return fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]), 2;
    if (pml_loader_open(argv[1], NULL, &loader) != PML_STATUS_OK) return fail("open");
    if (pml_loader_metadata_find(loader, "general.architecture", &key) == PML_STATUS_OK)
        pml_loader_metadata_string(loader, key.index, &architecture, &length);
    count = pml_loader_layer_count(loader);
    printf("a %.*s model of %zu layers and %zu tensors, opened without reading one of them\n", (int)length,
           architecture, count, pml_loader_tensor_count(loader));

    /* Layers have fixed indices; their order of use stands beside them. */
    order = malloc((count + 1) * sizeof *order);
    if (order == NULL) return 1;
    for (layer = 0; layer < count; layer++) {
        pml_layer_info_t info = PML_LAYER_INFO_INIT;
        if (pml_loader_layer_info(loader, layer, &info) != PML_STATUS_OK) return fail("layer");
        order[info.position] = layer;
    }
    for (position = 0; position < count; position++) {
        pml_layer_info_t info = PML_LAYER_INFO_INIT;
        pml_view_t view = PML_VIEW_INIT;
        pml_tensor_t *tensor = NULL;
        size_t first;
        if (position + 1 < count) pml_loader_prefetch(loader, &order[position + 1], 1);
        if (pml_loader_acquire_layer(loader, order[position], PML_STREAM_HOST, -1) != PML_STATUS_OK)
            return fail("acquire");
        pml_loader_layer_info(loader, order[position], &info);
        if (pml_loader_layer_tensor(loader, order[position], 0, &first) != PML_STATUS_OK ||
            pml_loader_tensor_at(loader, first, &tensor) != PML_STATUS_OK ||
            pml_tensor_view(tensor, &view) != PML_STATUS_OK)
            return fail("view");
        printf("%-16.*s %4zu tensors %12llu bytes, the first one a %s at %p\n", (int)info.name_length, info.name,
               info.tensor_count, (unsigned long long)info.bytes, pml_dtype_name(view.dtype), view.data);
        pml_tensor_free(tensor);
        pml_loader_release_layer(loader, order[position], PML_STREAM_HOST);
        pml_loader_unload_layer(loader, order[position]);
    }
    free(order);
    pml_loader_free(loader);
    return 0;
}
