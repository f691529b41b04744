/* What an engine on llama.cpp writes to load a model through libpml; prints the end of its first logits. */
#include <llama.h>
#include <stdio.h>

#include "pml_ggml.h"

/* Whether the engine has the whole model; says why not. */
static int is_complete(const char *path, const struct gguf_context *metadata, const struct llama_model *model,
                       const pml_ggml_t *weights)
{
    if (metadata == NULL)
        fprintf(stderr, "%s: ggml cannot read its headers\n", path);
    else if (pml_ggml_status(weights) != PML_STATUS_OK)
        fprintf(stderr, "%s\n", pml_ggml_message(weights));
    else if (model == NULL)
        fprintf(stderr, "%s: llama.cpp made no model of it; its log says why\n", path);
    else if (pml_ggml_unused_count(weights) > 0)
        fprintf(stderr, "%s: llama.cpp did not ask for '%s'\n", path, pml_ggml_unused(weights, 0));
    else
        return 1;
    return 0;
}

static struct llama_model *load(const char *path)
{
    struct gguf_init_params headers_only = {true, NULL};
    struct llama_model_params params = llama_model_default_params();
    struct gguf_context *metadata;
    struct llama_model *model = NULL;
    pml_ggml_t *weights = NULL;

    if (pml_ggml_open(path, NULL, &weights) != PML_STATUS_OK) {
        fprintf(stderr, "%s\n", pml_last_error());
        return NULL;
    }
    metadata = gguf_init_from_file(path, headers_only);
    if (metadata != NULL) {
        pml_ggml_describe(weights, metadata);
        model = llama_model_init_from_user(metadata, pml_ggml_set_tensor, weights, params);
    }
    if (!is_complete(path, metadata, model, weights)) {
        llama_model_free(model);
        model = NULL;
    }
    gguf_free(metadata);
    pml_ggml_free(weights);
    return model;
}

int main(int argc, char **argv)
{
    llama_token tokens[] = {1, 2, 3};
    struct llama_context *context;
    struct llama_model *model;
    int result = 1;

    if (argc != 2) return fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]), 2;
    llama_backend_init();
    model = load(argv[1]);
    if (model == NULL) return 1;
    context = llama_init_from_model(model, llama_context_default_params());
    if (context != NULL && llama_decode(context, llama_batch_get_one(tokens, 3)) == 0) {
        printf("%.9g\n", (double)llama_get_logits_ith(context, -1)[0]);
        result = 0;
    }
    llama_free(context);
    llama_model_free(model);
    return result;
}
