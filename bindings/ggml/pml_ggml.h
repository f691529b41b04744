/*
 * Gives the tensors of llama.cpp, and of other engines on ggml, their weights out of libpml.
 *
 * One header over pml.h and ggml's own, for C99 and C++11; nothing of it is compiled into libpml. pml_ggml_set_tensor is
 * what llama_model_init_from_user takes as `set_tensor_data`:
 *
 *     pml_ggml_open(path, NULL, &weights);
 *     metadata = gguf_init_from_file(path, no_alloc);
 *     if (metadata == NULL) ...
 *     pml_ggml_describe(weights, metadata);
 *     model = llama_model_init_from_user(metadata, pml_ggml_set_tensor, weights, params);
 *     if (pml_ggml_status(weights) != PML_STATUS_OK) puts(pml_ggml_message(weights));
 *     else if (model == NULL) ...
 *     else if (pml_ggml_unused_count(weights) > 0) puts(pml_ggml_unused(weights, 0));
 *     gguf_free(metadata);
 *     pml_ggml_free(weights);
 *
 * Both NULLs are the engine's own errors, of which it tells in its log: pml_ggml_status may be PML_STATUS_OK then.
 *
 * An engine that makes its tensors itself calls pml_ggml_set_tensor for each of them, once they have memory.
 *
 * How bytes travel. Tensors of more than 256 KiB are read straight into the engine's memory where that is the host's, in
 * pieces on several threads; into other memory they go through ggml_backend_tensor_set, each tensor whole, or in pieces where
 * pml_ggml_set_piece asks for that. Smaller ones are read ahead, in the files' order, many with one call, into 4 MiB of the
 * binding's own: an engine names one tensor at a time, and the order in which it names them is not the files'. That and, for
 * memory that is not the host's, one tensor, the largest, or a piece where asked, are all the memory it takes, beside some
 * 350 bytes a tensor.
 *
 * Threads. An open file (pml_ggml_t) is used by one thread at a time.
 */

#ifndef PML_GGML_H
#define PML_GGML_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ggml-backend.h>
#include <ggml.h>
#include <gguf.h>

#include "pml.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A model whose weights an engine asks for. Its fields are private. */
typedef struct pml_ggml_t pml_ggml_t;

/* Tensors of at most so many bytes are read ahead, and so many bytes of them at once. */
#define PML_GGML_SMALL_BYTES ((size_t)256 << 10)
#define PML_GGML_AHEAD_BYTES ((size_t)4 << 20)

/*
 * Opens a model as pml_loader_open does: headers only. `options` are those of pml.h, NULL for the initial ones; `device`
 * must be NULL or "cpu": what is read passes through the host's memory.
 *
 * Errors: those of pml_loader_open, told by pml_last_error; PML_STATUS_INVALID_ARGUMENT for another device, and
 * PML_STATUS_OUT_OF_MEMORY for memory of the binding's own, of both of which the status alone tells: pml_last_error keeps what
 * it said before. *out is NULL then. `destroy` of the options is called as pml.h says, for these two before this returns.
 * Free it with pml_ggml_free.
 */
static inline pml_status_t pml_ggml_open(const char *path, const pml_options_t *options, pml_ggml_t **out);

/* Closes it; NULL does nothing. The engine's tensors are its own, and stay. */
static inline void pml_ggml_free(pml_ggml_t *weights);

/* The loader, for its stats and metadata; it lives until pml_ggml_free. */
static inline pml_loader_t *pml_ggml_loader(const pml_ggml_t *weights);

/*
 * Makes `metadata`, which was read from the same model, say what is delivered: an engine chooses the types of its tensors by
 * it. Tensors in other types than they are stored in (the option `dtype`, rules) get those; tensors of the model's other
 * files, which the first one's headers do not name, are added; and where there is no output.weight, as in models
 * whose embeddings are their output too, it is added as large as token_embd.weight, whose bytes it gets. The architecture that
 * the metadata name is noted, for pml_ggml_set_tensor.
 *
 * Of a tensor that ggml cannot say (more than four dimensions, 64 bytes of name, or a type that it does not know) nothing is
 * changed: asking for it is an error.
 */
static inline void pml_ggml_describe(pml_ggml_t *weights, struct gguf_context *metadata);

/*
 * Fills a tensor that has memory by its name; `weights` is a pml_ggml_t. It must be contiguous; its type and its shape,
 * lengths of 1 aside, must be those of the model's. The bytes are there on return.
 *
 * llama_model_init_from_user asks for every tensor that an architecture knows, those among them that the file does without.
 * These get what changes nothing: ones for scales ("*.scale", "*.input_scale") and for factors of rotations
 * ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"), zeros for biases ("*.bias") and for the
 * classifier ("cls.*") of a model that has nothing of one, where pml_ggml_describe noted the architecture bert, qwen3, qwen3vl
 * or neo-bert. Any other is an error, PML_STATUS_NOT_FOUND, for the model would compute something else; so are
 * "blk.N.exp_probs_b_vl.bias", for which llama.cpp has another tensor, and one, scales aside, that another block of the model
 * has: one block's was lost.
 *
 * Two things it cannot tell. With LLAMA_POOLING_TYPE_RANK a classifier of zeros ranks everything alike, where llama.cpp's own
 * loader leaves it out: use that pooling with models only that have a classifier. And the hook is not told what an
 * architecture cannot do without, as Gemma 4 its rope_freqs.weight: of a model that should be complete, look at
 * pml_ggml_neutral_count.
 *
 * It has no way to fail: after an error the tensor is all zeros, and pml_ggml_status tells. Unless that error is
 * PML_STATUS_NOT_FOUND, nothing more is read, and all further tensors are zeros too. Into a tensor that is not contiguous
 * nothing is written.
 */
static inline void pml_ggml_set_tensor(struct ggml_tensor *tensor, void *weights);

/*
 * The first error of pml_ggml_set_tensor, PML_STATUS_OK where there was none; PML_STATUS_NOT_FOUND only where nothing worse
 * happened. Ask after the load, and use no model that was not filled.
 */
static inline pml_status_t pml_ggml_status(const pml_ggml_t *weights);

/* One line about that error, "" where there was none; lives until pml_ggml_free or a further error. */
static inline const char *pml_ggml_message(const pml_ggml_t *weights);

/* How many tensors were asked for that the model has not, and that got what changes nothing. */
static inline size_t pml_ggml_neutral_count(const pml_ggml_t *weights);

/*
 * How many of the model's tensors were not asked for yet. After a load each of them is one that the engine does not compute
 * with: an architecture that it does not know fully, or metadata of another model.
 */
static inline size_t pml_ggml_unused_count(const pml_ggml_t *weights);

/* The name of one of them, in the files' order; NULL from pml_ggml_unused_count on. Lives until pml_ggml_free. */
static inline const char *pml_ggml_unused(const pml_ggml_t *weights, size_t index);

/*
 * Sets larger tensors in pieces of so many bytes, at least 4096, where their memory is not the host's; SIZE_MAX, the initial
 * value, sets them whole. Ask for pieces only where the buffer takes a part of a tensor: those that repack, transform or split
 * tensors do not, and ggml cannot tell which these are. Tensors that are read ahead are set whole.
 */
static inline void pml_ggml_set_piece(pml_ggml_t *weights, size_t bytes);

/* What follows is how it is done. */

typedef struct pml_ggml_entry_t {
    pml_tensor_t *handle;
    pml_tensor_info_t info;
    /* That of `info`, ending in NUL. */
    const char *name;
    /* Where its bytes are in what was read ahead, and in which round of that: they are there until the next. */
    size_t ahead_at;
    size_t ahead_round;
    /* Whether there is no use in reading it ahead: it was, or it was asked for. */
    int is_past;
    int is_asked_for;
} pml_ggml_entry_t;

struct pml_ggml_t {
    pml_loader_t *loader;
    size_t count;
    /* In the files' order, and each tensor's place in it by its index in the loader. */
    pml_ggml_entry_t *entries;
    size_t *places;
    char *names;
    /* What was read ahead, and the arguments of the call that reads it. */
    char *ahead;
    size_t ahead_round;
    pml_tensor_t **ahead_handles;
    void **ahead_memory;
    size_t *ahead_sizes;
    /* What goes to ggml_backend_tensor_set. */
    char *piece;
    size_t piece_capacity;
    size_t piece_bytes;
    size_t neutral_count;
    /* What general.architecture says in the metadata that were described. */
    char architecture[64];
    pml_status_t status;
    char message[1024];
};

static inline int pml_ggml_compare_(const void *left, const void *right)
{
    const pml_tensor_info_t *a = &((const pml_ggml_entry_t *)left)->info;
    const pml_tensor_info_t *b = &((const pml_ggml_entry_t *)right)->info;
    if (a->shard != b->shard) return a->shard < b->shard ? -1 : 1;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Gives each entry its name with a NUL. */
static inline pml_status_t pml_ggml_copy_names_(pml_ggml_t *weights)
{
    size_t bytes = 1;
    char *at;
    for (size_t i = 0; i < weights->count; i++) bytes += weights->entries[i].info.name_length + 1;
    at = weights->names = (char *)malloc(bytes);
    if (at == NULL) return PML_STATUS_OUT_OF_MEMORY;
    for (size_t i = 0; i < weights->count; i++) {
        pml_ggml_entry_t *entry = &weights->entries[i];
        memcpy(at, entry->info.name, entry->info.name_length);
        at[entry->info.name_length] = 0;
        entry->name = at;
        at += entry->info.name_length + 1;
    }
    return PML_STATUS_OK;
}

static inline pml_status_t pml_ggml_list_(pml_ggml_t *weights)
{
    size_t n = weights->count = pml_loader_tensor_count(weights->loader);
    /* One more than needed, so that no size is 0. */
    weights->entries = (pml_ggml_entry_t *)calloc(n + 1, sizeof *weights->entries);
    weights->places = (size_t *)calloc(n + 1, sizeof *weights->places);
    weights->ahead_handles = (pml_tensor_t **)calloc(n + 1, sizeof *weights->ahead_handles);
    weights->ahead_memory = (void **)calloc(n + 1, sizeof *weights->ahead_memory);
    weights->ahead_sizes = (size_t *)calloc(n + 1, sizeof *weights->ahead_sizes);
    if (weights->entries == NULL || weights->places == NULL || weights->ahead_handles == NULL ||
        weights->ahead_memory == NULL || weights->ahead_sizes == NULL)
        return PML_STATUS_OUT_OF_MEMORY;
    for (size_t i = 0; i < n; i++) {
        pml_ggml_entry_t *entry = &weights->entries[i];
        pml_status_t status = pml_loader_tensor_at(weights->loader, i, &entry->handle);
        entry->info.struct_size = sizeof entry->info;
        if (status == PML_STATUS_OK) status = pml_tensor_get_info(entry->handle, &entry->info);
        if (status != PML_STATUS_OK) return status;
    }
    qsort(weights->entries, n, sizeof *weights->entries, pml_ggml_compare_);
    for (size_t i = 0; i < n; i++) weights->places[weights->entries[i].info.index] = i;
    return pml_ggml_copy_names_(weights);
}

/* The caller's options, of which an older version may have fewer, with the host as their device where they name none. */
static inline pml_options_t pml_ggml_host_options_(const pml_options_t *options)
{
    pml_options_t host = PML_OPTIONS_INIT;
    if (options != NULL) {
        size_t known = options->struct_size < sizeof host ? options->struct_size : sizeof host;
        memcpy(&host, options, known);
        host.struct_size = known;
    }
    if (host.device == NULL) host.device = "cpu";
    return host;
}

static inline pml_status_t pml_ggml_open(const char *path, const pml_options_t *options, pml_ggml_t **out)
{
    pml_options_t host = pml_ggml_host_options_(options);
    pml_ggml_t *weights = NULL;
    pml_status_t status = PML_STATUS_INVALID_ARGUMENT;
    *out = NULL;
    if (strcmp(host.device, "cpu") == 0) {
        weights = (pml_ggml_t *)calloc(1, sizeof *weights);
        status = PML_STATUS_OUT_OF_MEMORY;
    }
    if (weights == NULL) {
        if (host.destroy != NULL) host.destroy(host.user_data);
        return status;
    }
    weights->piece_bytes = SIZE_MAX;
    status = pml_loader_open(path, &host, &weights->loader);
    if (status == PML_STATUS_OK) status = pml_ggml_list_(weights);
    if (status == PML_STATUS_OK) *out = weights;
    else pml_ggml_free(weights);
    return status;
}

static inline void pml_ggml_free(pml_ggml_t *weights)
{
    if (weights == NULL) return;
    if (weights->entries != NULL)
        for (size_t i = 0; i < weights->count; i++) pml_tensor_free(weights->entries[i].handle);
    pml_loader_free(weights->loader);
    free(weights->entries);
    free(weights->places);
    free(weights->names);
    free(weights->ahead_handles);
    free(weights->ahead_memory);
    free(weights->ahead_sizes);
    free(weights->ahead);
    free(weights->piece);
    free(weights);
}

static inline pml_loader_t *pml_ggml_loader(const pml_ggml_t *weights)
{
    return weights->loader;
}

static inline pml_status_t pml_ggml_status(const pml_ggml_t *weights)
{
    return weights->status;
}

static inline const char *pml_ggml_message(const pml_ggml_t *weights)
{
    return weights->message;
}

static inline size_t pml_ggml_neutral_count(const pml_ggml_t *weights)
{
    return weights->neutral_count;
}

static inline void pml_ggml_set_piece(pml_ggml_t *weights, size_t bytes)
{
    weights->piece_bytes = bytes < 4096 ? 4096 : bytes;
}

static inline size_t pml_ggml_unused_count(const pml_ggml_t *weights)
{
    size_t count = 0;
    for (size_t i = 0; i < weights->count; i++) count += !weights->entries[i].is_asked_for;
    return count;
}

static inline const char *pml_ggml_unused(const pml_ggml_t *weights, size_t index)
{
    for (size_t i = 0; i < weights->count; i++)
        if (!weights->entries[i].is_asked_for && index-- == 0) return weights->entries[i].name;
    return NULL;
}

/* The tensor of this name. Errors: PML_STATUS_NOT_FOUND where there is none; those of the loader. */
static inline pml_status_t pml_ggml_find_(pml_ggml_t *weights, const char *name, pml_ggml_entry_t **out)
{
    pml_tensor_t *handle = NULL;
    pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
    pml_status_t status = pml_loader_tensor(weights->loader, name, &handle);
    *out = NULL;
    if (status == PML_STATUS_OK) status = pml_tensor_get_info(handle, &info);
    if (status == PML_STATUS_OK) *out = &weights->entries[weights->places[info.index]];
    pml_tensor_free(handle);
    return status;
}

/* The tensor that one of this name gets its bytes from. Errors: those of pml_ggml_find_. */
static inline pml_status_t pml_ggml_source_(pml_ggml_t *weights, const char *name, pml_ggml_entry_t **out)
{
    pml_status_t status = pml_ggml_find_(weights, name, out);
    int is_tied = status == PML_STATUS_NOT_FOUND && strcmp(name, "output.weight") == 0;
    return is_tied ? pml_ggml_find_(weights, "token_embd.weight", out) : status;
}

/* What an engine would make of a tensor of the model; 0 where ggml cannot say it. */
static inline int pml_ggml_as_tensor_(const pml_tensor_info_t *info, const char *name, struct ggml_tensor *out)
{
    memset(out, 0, sizeof *out);
    if (info->delivered_dtype >= (uint32_t)GGML_TYPE_COUNT || info->rank > GGML_MAX_DIMS) return 0;
    out->type = (enum ggml_type)info->delivered_dtype;
    if (ggml_type_size(out->type) == 0 || strlen(name) >= GGML_MAX_NAME) return 0;
    if (info->rank > 0 && info->shape[info->rank - 1] % ggml_blck_size(out->type) != 0) return 0;
    for (uint32_t i = 0; i < GGML_MAX_DIMS; i++) {
        out->ne[i] = i < info->rank ? info->shape[info->rank - 1 - i] : 1;
        out->nb[i] = i == 0   ? ggml_type_size(out->type)
                     : i == 1 ? ggml_row_size(out->type, out->ne[0])
                              : out->nb[i - 1] * (size_t)out->ne[i - 1];
    }
    ggml_set_name(out, name);
    return 1;
}

static inline void pml_ggml_describe_one_(const pml_tensor_info_t *info, const char *name, struct gguf_context *metadata)
{
    struct ggml_tensor tensor;
    int64_t id = gguf_find_tensor(metadata, name);
    if (!pml_ggml_as_tensor_(info, name, &tensor)) return;
    if (id < 0) gguf_add_tensor(metadata, &tensor);
    else if (gguf_get_tensor_type(metadata, id) != tensor.type) gguf_set_tensor_type(metadata, name, tensor.type);
}

static inline void pml_ggml_describe(pml_ggml_t *weights, struct gguf_context *metadata)
{
    pml_ggml_entry_t *output = NULL;
    int64_t key = gguf_find_key(metadata, "general.architecture");
    if (key >= 0 && gguf_get_kv_type(metadata, key) == GGUF_TYPE_STRING)
        snprintf(weights->architecture, sizeof weights->architecture, "%s", gguf_get_val_str(metadata, key));
    for (size_t i = 0; i < weights->count; i++)
        pml_ggml_describe_one_(&weights->entries[i].info, weights->entries[i].name, metadata);
    if (pml_ggml_source_(weights, "output.weight", &output) == PML_STATUS_OK)
        pml_ggml_describe_one_(&output->info, "output.weight", metadata);
}

/* Notes an error; the first one stays, but a tensor that is not there is the least of them. */
static inline void pml_ggml_note_(pml_ggml_t *weights, pml_status_t status, const char *message)
{
    int is_worse = weights->status == PML_STATUS_NOT_FOUND && status != PML_STATUS_NOT_FOUND;
    if (weights->status != PML_STATUS_OK && !is_worse) return;
    weights->status = status;
    snprintf(weights->message, sizeof weights->message, "%s", message);
}

static inline void pml_ggml_refuse_(pml_ggml_t *weights, pml_status_t status, const struct ggml_tensor *tensor,
                                    const char *found, const char *expected)
{
    char message[512];
    snprintf(message, sizeof message, "tensor '%s': found %s, expected %s", ggml_get_name(tensor), found, expected);
    pml_ggml_note_(weights, status, message);
}

/* A piece of memory of at least so many bytes; NULL where there is no more. */
static inline char *pml_ggml_piece_(pml_ggml_t *weights, size_t bytes)
{
    if (bytes > weights->piece_capacity) {
        free(weights->piece);
        weights->piece = (char *)malloc(bytes);
        weights->piece_capacity = weights->piece == NULL ? 0 : bytes;
    }
    return weights->piece;
}

static inline int pml_ggml_is_host_(const struct ggml_tensor *tensor)
{
    ggml_backend_buffer_t buffer = tensor->view_src != NULL ? tensor->view_src->buffer : tensor->buffer;
    /* Without a buffer the memory is that of the ggml_context. */
    return buffer == NULL || ggml_backend_buffer_is_host(buffer);
}

static inline void pml_ggml_put_(struct ggml_tensor *tensor, const void *data, size_t offset, size_t bytes)
{
    if (pml_ggml_is_host_(tensor)) memcpy((char *)tensor->data + offset, data, bytes);
    else ggml_backend_tensor_set(tensor, data, offset, bytes);
}

static inline void pml_ggml_repeat_(char *memory, size_t bytes, float value)
{
    memset(memory, 0, bytes);
    for (size_t i = 0; value != 0 && i + sizeof value <= bytes; i += sizeof value) memcpy(memory + i, &value, sizeof value);
}

/* Fills an F32 tensor with one value, or one of any type with zeros. */
static inline void pml_ggml_fill_(pml_ggml_t *weights, struct ggml_tensor *tensor, float value)
{
    size_t total = ggml_nbytes(tensor);
    size_t most = total <= weights->piece_bytes ? total : weights->piece_bytes / sizeof value * sizeof value;
    char *piece;
    if (pml_ggml_is_host_(tensor)) {
        pml_ggml_repeat_((char *)tensor->data, total, value);
        return;
    }
    piece = pml_ggml_piece_(weights, most);
    if (piece == NULL) {
        pml_ggml_refuse_(weights, PML_STATUS_OUT_OF_MEMORY, tensor, "no memory", "memory to fill it from");
        return;
    }
    pml_ggml_repeat_(piece, most, value);
    for (size_t done = 0; done < total; done += most)
        ggml_backend_tensor_set(tensor, piece, done, total - done < most ? total - done : most);
}

static inline int pml_ggml_ends_with_(const char *name, const char *end)
{
    size_t length = strlen(name), wanted = strlen(end);
    return length >= wanted && strcmp(name + length - wanted, end) == 0;
}

static inline int pml_ggml_has_classifier_(const pml_ggml_t *weights)
{
    for (size_t i = 0; i < weights->count; i++)
        if (strncmp(weights->entries[i].name, "cls.", 4) == 0) return 1;
    return 0;
}

/* What is behind "blk.N." in a name, NULL in one that does not begin so. */
static inline const char *pml_ggml_in_block_(const char *name)
{
    size_t at = 4;
    if (strncmp(name, "blk.", 4) != 0) return NULL;
    while (name[at] >= '0' && name[at] <= '9') at++;
    return at > 4 && name[at] == '.' ? name + at + 1 : NULL;
}

/* Whether a block of the model has a tensor of this name: then this block's was lost. */
static inline int pml_ggml_has_sibling_(const pml_ggml_t *weights, const char *name)
{
    const char *wanted = pml_ggml_in_block_(name);
    if (wanted == NULL) return 0;
    for (size_t i = 0; i < weights->count; i++) {
        const char *found = pml_ggml_in_block_(weights->entries[i].name);
        if (found != NULL && strcmp(found, wanted) == 0) return 1;
    }
    return 0;
}

/* Whether the engine leaves what the classifier computes alone unless it is asked to rank. */
static inline int pml_ggml_only_ranks_(const pml_ggml_t *weights)
{
    const char *name = weights->architecture;
    return strcmp(name, "bert") == 0 || strcmp(name, "qwen3") == 0 || strcmp(name, "qwen3vl") == 0 ||
           strcmp(name, "neo-bert") == 0;
}

static inline int pml_ggml_zeros_are_neutral_(const pml_ggml_t *weights, const char *name)
{
    int is_bias = pml_ggml_ends_with_(name, ".bias");
    if (strncmp(name, "cls.", 4) == 0)
        return pml_ggml_only_ranks_(weights) && (is_bias || !pml_ggml_has_classifier_(weights));
    /* The engine takes exp_probs_b where this is not. */
    return is_bias && !pml_ggml_ends_with_(name, ".exp_probs_b_vl.bias");
}

static inline int pml_ggml_ones_are_neutral_(const char *name)
{
    return pml_ggml_ends_with_(name, ".scale") || pml_ggml_ends_with_(name, ".input_scale") ||
           strcmp(name, "rope_freqs.weight") == 0 || strcmp(name, "rope_factors_long.weight") == 0 ||
           strcmp(name, "rope_factors_short.weight") == 0;
}

/* A tensor that the model has not: what changes nothing, where there is such a value. */
static inline void pml_ggml_set_absent_(pml_ggml_t *weights, struct ggml_tensor *tensor)
{
    const char *name = ggml_get_name(tensor);
    int is_one = tensor->type == GGML_TYPE_F32 && pml_ggml_ones_are_neutral_(name);
    /* Blocks of several types have scales in some only. */
    int is_lost = !is_one && pml_ggml_has_sibling_(weights, name);
    int is_zero = !is_lost && pml_ggml_zeros_are_neutral_(weights, name);
    pml_ggml_fill_(weights, tensor, is_one ? 1.0F : 0.0F);
    if (is_zero || is_one) weights->neutral_count++;
    else if (is_lost) pml_ggml_refuse_(weights, PML_STATUS_NOT_FOUND, tensor, "it in other blocks only", "one in this block");
    else pml_ggml_refuse_(weights, PML_STATUS_NOT_FOUND, tensor, "none in the model", "one");
}

/* The lengths of a shape other than 1, outermost first; how many. */
static inline size_t pml_ggml_lengths_(const int64_t *shape, uint32_t rank, int is_reversed, int64_t *out)
{
    size_t count = 0;
    for (uint32_t i = 0; i < rank && count < 8; i++) {
        int64_t length = shape[is_reversed ? rank - 1 - i : i];
        if (length != 1) out[count++] = length;
    }
    return count;
}

static inline void pml_ggml_shape_text_(const char *type, const int64_t *lengths, size_t count, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "%s of shape [", type);
    for (size_t i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", i == 0 ? "" : ", ", (long long)lengths[i]);
    if (used < size) snprintf(out + used, size - used, "]");
}

/* Whether the engine's tensor is what the model has; if not, that is noted. */
static inline int pml_ggml_agree_(pml_ggml_t *weights, const pml_ggml_entry_t *entry, const struct ggml_tensor *tensor)
{
    const pml_tensor_info_t *info = &entry->info;
    int64_t ours[8], theirs[8];
    size_t our_count = pml_ggml_lengths_(info->shape, info->rank, 0, ours);
    size_t their_count = pml_ggml_lengths_(tensor->ne, GGML_MAX_DIMS, 1, theirs);
    char found[160], expected[160];
    if (info->delivered_dtype == (uint32_t)tensor->type && info->bytes == ggml_nbytes(tensor) && our_count == their_count &&
        memcmp(ours, theirs, our_count * sizeof *ours) == 0)
        return 1;
    pml_ggml_shape_text_(pml_dtype_name(info->delivered_dtype), ours, our_count, found, sizeof found);
    pml_ggml_shape_text_(pml_dtype_name((uint32_t)tensor->type), theirs, their_count, expected, sizeof expected);
    pml_ggml_refuse_(weights, PML_STATUS_WRONG_TYPE, tensor, found, expected);
    return 0;
}

/* Reads a small tensor, and with it those behind it in the files that are small and were not asked for yet. */
static inline pml_status_t pml_ggml_read_ahead_(pml_ggml_t *weights, pml_ggml_entry_t *first)
{
    size_t used = 0, n = 0;
    pml_status_t status;
    if (weights->ahead == NULL) weights->ahead = (char *)malloc(PML_GGML_AHEAD_BYTES);
    if (weights->ahead == NULL) return PML_STATUS_OUT_OF_MEMORY;
    weights->ahead_round++;
    for (pml_ggml_entry_t *entry = first; entry < weights->entries + weights->count; entry++) {
        if (entry->info.bytes > PML_GGML_SMALL_BYTES || (entry->is_past && entry != first)) continue;
        if (entry->info.bytes > PML_GGML_AHEAD_BYTES - used) break;
        entry->ahead_at = used;
        entry->ahead_round = weights->ahead_round;
        entry->is_past = 1;
        weights->ahead_handles[n] = entry->handle;
        weights->ahead_memory[n] = weights->ahead + used;
        weights->ahead_sizes[n++] = (size_t)entry->info.bytes;
        /* Each at the beginning of a line of the processor's cache; the sum stays a multiple of it. */
        used += ((size_t)entry->info.bytes + 63) / 64 * 64;
    }
    status = pml_loader_load_into(weights->loader, weights->ahead_handles, weights->ahead_memory, weights->ahead_sizes, n,
                                  PML_STREAM_HOST);
    if (status == PML_STATUS_OK) return status;
    weights->ahead_round++;
    if (status == PML_STATUS_CANCELLED) return status;
    /* Another's error is not this one's: it is read alone. */
    status = pml_loader_load_into(weights->loader, weights->ahead_handles, weights->ahead_memory, weights->ahead_sizes, 1,
                                  PML_STREAM_HOST);
    if (status == PML_STATUS_OK) first->ahead_round = weights->ahead_round;
    return status;
}

static inline pml_status_t pml_ggml_set_small_(pml_ggml_t *weights, pml_ggml_entry_t *entry, struct ggml_tensor *tensor)
{
    pml_status_t status = PML_STATUS_OK;
    int is_there = entry->ahead_round != 0 && entry->ahead_round == weights->ahead_round;
    if (!is_there) status = pml_ggml_read_ahead_(weights, entry);
    if (status == PML_STATUS_OK) pml_ggml_put_(tensor, weights->ahead + entry->ahead_at, 0, (size_t)entry->info.bytes);
    return status;
}

static inline pml_status_t pml_ggml_set_large_(pml_ggml_t *weights, pml_ggml_entry_t *entry, struct ggml_tensor *tensor)
{
    size_t total = (size_t)entry->info.bytes;
    size_t most = total < weights->piece_bytes ? total : weights->piece_bytes;
    pml_status_t status = PML_STATUS_OK;
    void *memory = tensor->data;
    if (pml_ggml_is_host_(tensor))
        return pml_loader_load_into(weights->loader, &entry->handle, &memory, &total, 1, PML_STREAM_HOST);
    memory = pml_ggml_piece_(weights, most);
    if (memory == NULL) return PML_STATUS_OUT_OF_MEMORY;
    if (most == total) {
        status = pml_loader_load_into(weights->loader, &entry->handle, &memory, &total, 1, PML_STREAM_HOST);
        if (status == PML_STATUS_OK) ggml_backend_tensor_set(tensor, memory, 0, total);
        return status;
    }
    for (size_t done = 0; done < total && status == PML_STATUS_OK; done += most) {
        size_t bytes = total - done < most ? total - done : most;
        status = pml_tensor_read(entry->handle, done, memory, bytes);
        if (status == PML_STATUS_OK) ggml_backend_tensor_set(tensor, memory, done, bytes);
    }
    return status;
}

/* Brings the bytes of a tensor that agrees. */
static inline void pml_ggml_set_present_(pml_ggml_t *weights, pml_ggml_entry_t *entry, struct ggml_tensor *tensor)
{
    pml_status_t status = entry->info.bytes <= PML_GGML_SMALL_BYTES ? pml_ggml_set_small_(weights, entry, tensor)
                                                                    : pml_ggml_set_large_(weights, entry, tensor);
    entry->is_past = 1;
    if (status == PML_STATUS_OK) return;
    if (status == PML_STATUS_OUT_OF_MEMORY)
        pml_ggml_refuse_(weights, status, tensor, "no memory", "memory to read it into");
    else
        pml_ggml_note_(weights, status, pml_last_error());
    pml_ggml_fill_(weights, tensor, 0);
}

/* Whether a tensor can be written to; if not, that is noted. */
static inline int pml_ggml_is_writable_(pml_ggml_t *weights, const struct ggml_tensor *tensor)
{
    if (tensor->data == NULL)
        pml_ggml_refuse_(weights, PML_STATUS_INVALID_ARGUMENT, tensor, "no memory", "a tensor that has its memory");
    else if (!ggml_is_contiguous(tensor))
        pml_ggml_refuse_(weights, PML_STATUS_UNSUPPORTED, tensor, "rows that lie apart", "a contiguous tensor");
    else
        return 1;
    return 0;
}

static inline void pml_ggml_set_tensor(struct ggml_tensor *tensor, void *user_data)
{
    pml_ggml_t *weights = (pml_ggml_t *)user_data;
    pml_ggml_entry_t *entry = NULL;
    pml_status_t status = pml_ggml_source_(weights, ggml_get_name(tensor), &entry);
    if (entry != NULL) entry->is_asked_for = 1;
    if (ggml_nbytes(tensor) == 0 || !pml_ggml_is_writable_(weights, tensor)) return;
    if (status != PML_STATUS_OK && status != PML_STATUS_NOT_FOUND) pml_ggml_note_(weights, status, pml_last_error());
    /* After an error the model is of no use: reading more of it would only take time. */
    if (weights->status != PML_STATUS_OK && weights->status != PML_STATUS_NOT_FOUND) pml_ggml_fill_(weights, tensor, 0);
    else if (entry == NULL) pml_ggml_set_absent_(weights, tensor);
    else if (pml_ggml_agree_(weights, entry, tensor)) pml_ggml_set_present_(weights, entry, tensor);
    else pml_ggml_fill_(weights, tensor, 0);
}

#ifdef __cplusplus
}
#endif

#endif /* PML_GGML_H */
