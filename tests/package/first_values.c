/* Prints the values of a tensor: first_values MODEL TENSOR */
#include <pml.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    pml_tensor_t *tensor = NULL;
    pml_view_t view = PML_VIEW_INIT;
    size_t i;

    options.device = "cpu";
    if (argc != 3 || pml_loader_open(argv[1], &options, &loader) != PML_STATUS_OK ||
        pml_loader_tensor(loader, argv[2], &tensor) != PML_STATUS_OK ||
        pml_tensor_acquire(tensor, PML_STREAM_HOST, -1, &view) != PML_STATUS_OK)
        return fprintf(stderr, "%s\n", pml_last_error()), 1;
    for (i = 0; i < view.size / sizeof(float); i++) printf("%g ", (double)((const float *)view.data)[i]);
    printf("\n");
    pml_tensor_free(tensor);
    pml_loader_free(loader);
    return 0;
}
