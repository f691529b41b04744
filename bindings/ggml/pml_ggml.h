/*
 * Gives the tensors of llama.cpp, and of other engines on ggml, their weights out of libpml.
 *
 * One header over pml.h and ggml's own, for C99 and C++11; nothing of it is compiled into libpml. pml_ggml_set_tensor is
 * what llama_model_init_from_user takes as `set_tensor_data`:
 *
 *     pml_ggml_open(path, NULL, &weights);
 *     metadata = gguf_init_from_file(path, no_alloc);
 *     pml_ggml_describe(weights, metadata);
 *     model = llama_model_init_from_user(metadata, pml_ggml_set_tensor, weights, params);
 *     if (pml_ggml_status(weights) != PML_STATUS_OK) puts(pml_ggml_message(weights));
 *     gguf_free(metadata);
 *     pml_ggml_free(weights);
 *
 * An engine that makes its tensors itself calls pml_ggml_set_tensor for each of them, once they have memory.
 *
 * How bytes travel. Tensors of more than 256 KiB are read straight into the engine's memory where that is the host's, in
 * pieces on several threads; into other memory they go through ggml_backend_tensor_set, 16 MiB at a time. Smaller ones are
 * read ahead, in the files' order, many with one call, into 4 MiB of the binding's own: an engine names one tensor at a
 * time, and the order in which it names them is not the files'. That and one piece are all the memory it takes, beside some
 * 300 bytes a tensor.
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
/* How much goes to ggml_backend_tensor_set at once, unless pml_ggml_set_piece says otherwise. */
#define PML_GGML_PIECE_BYTES ((size_t)16 << 20)

/*
 * Opens a model as pml_loader_open does: headers only. `options` are those of pml.h, NULL for the initial ones; `device`
 * must be NULL or "cpu": what is read passes through the host's memory.
 *
 * Errors: those of pml_loader_open, told by pml_last_error; PML_STATUS_OUT_OF_MEMORY; PML_STATUS_INVALID_ARGUMENT for
 * another device. *out is NULL then. Free it with pml_ggml_free.
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
 * whose embeddings are their output too, it is added as large as token_embd.weight, whose bytes it gets.
 *
 * Of a tensor that ggml cannot say (more than four dimensions, 64 bytes of name, or a type that it does not know) nothing is
 * changed: asking for it is an error.
 */
static inline void pml_ggml_describe(pml_ggml_t *weights, struct gguf_context *metadata);

/*
 * Fills a tensor that has memory by its name; `weights` is a pml_ggml_t. Its type and its shape, lengths of 1 aside, must
 * be those of the model's. The bytes are there on return.
 *
 * llama_model_init_from_user asks for every tensor that an architecture knows, those among them that the file does without.
 * These get what changes nothing: ones for scales ("*.scale", "*.input_scale") and for factors of rotations
 * ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"), zeros for biases ("*.bias") and for the
 * classifier ("cls.*") of a model that has nothing of one. Any other is an error, PML_STATUS_NOT_FOUND, for the model would
 * compute something else.
 *
 * It has no way to fail: after an error the tensor is all zeros, and pml_ggml_status tells.
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
 * How many bytes ggml_backend_tensor_set gets at once, at least 4096: SIZE_MAX for buffers that take whole tensors only,
 * such as those that repack or split them. Tensors that are read ahead are set whole.
 */
static inline void pml_ggml_set_piece(pml_ggml_t *weights, size_t bytes);

/* What follows is how it is done. */

typedef struct pml_ggml_entry_t {
    pml_tensor_t *handle;
    pml_tensor_info_t info;
    /* Where its bytes are in what was read ahead, and in which round of that: they are there until the next. */
    size_t ahead_at;
    size_t ahead_round;
    /* Whether there is no use in reading it ahead: it was, or it was asked for. */
    int is_past;
} pml_ggml_entry_t;

struct pml_ggml_t {
    pml_loader_t *loader;
    size_t count;
    /* In the files' order, and each tensor's place in it by its index in the loader. */
    pml_ggml_entry_t *entries;
    size_t *places;
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
    return PML_STATUS_OK;
}

static inline pml_status_t pml_ggml_open(const char *path, const pml_options_t *options, pml_ggml_t **out)
{
    pml_options_t host = PML_OPTIONS_INIT;
    pml_ggml_t *weights;
    pml_status_t status;
    *out = NULL;
    if (options != NULL) host = *options;
    if (host.device == NULL) host.device = "cpu";
    if (strcmp(host.device, "cpu") != 0) return PML_STATUS_INVALID_ARGUMENT;
    weights = (pml_ggml_t *)calloc(1, sizeof *weights);
    if (weights == NULL) return PML_STATUS_OUT_OF_MEMORY;
    weights->piece_bytes = PML_GGML_PIECE_BYTES;
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

/* The tensor of this name; NULL where there is none. */
static inline pml_ggml_entry_t *pml_ggml_find_(pml_ggml_t *weights, const char *name)
{
    pml_tensor_t *handle = NULL;
    pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
    pml_status_t status = pml_loader_tensor(weights->loader, name, &handle);
    if (status == PML_STATUS_OK) status = pml_tensor_get_info(handle, &info);
    pml_tensor_free(handle);
    return status == PML_STATUS_OK ? &weights->entries[weights->places[info.index]] : NULL;
}

/* The tensor that one of this name gets its bytes from; NULL where there is none. */
static inline pml_ggml_entry_t *pml_ggml_source_(pml_ggml_t *weights, const char *name)
{
    pml_ggml_entry_t *entry = pml_ggml_find_(weights, name);
    if (entry == NULL && strcmp(name, "output.weight") == 0) entry = pml_ggml_find_(weights, "token_embd.weight");
    return entry;
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
    const pml_ggml_entry_t *output = pml_ggml_source_(weights, "output.weight");
    for (size_t i = 0; i < weights->count; i++) {
        const pml_tensor_info_t *info = &weights->entries[i].info;
        char name[GGML_MAX_NAME];
        if (info->name_length >= sizeof name) continue;
        memcpy(name, info->name, info->name_length);
        name[info->name_length] = 0;
        pml_ggml_describe_one_(info, name, metadata);
    }
    if (output != NULL) pml_ggml_describe_one_(&output->info, "output.weight", metadata);
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

/* Fills an F32 tensor with one value, or one of any type with zeros. */
static inline void pml_ggml_fill_(pml_ggml_t *weights, struct ggml_tensor *tensor, float value)
{
    size_t total = ggml_nbytes(tensor);
    size_t most = total < weights->piece_bytes ? total : weights->piece_bytes / sizeof value * sizeof value;
    char *piece = pml_ggml_piece_(weights, most);
    if (piece == NULL) {
        pml_ggml_refuse_(weights, PML_STATUS_OUT_OF_MEMORY, tensor, "no memory", "memory for a piece of it");
        return;
    }
    memset(piece, 0, most);
    for (size_t i = 0; value != 0 && i + sizeof value <= most; i += sizeof value) memcpy(piece + i, &value, sizeof value);
    for (size_t done = 0; done < total; done += most)
        pml_ggml_put_(tensor, piece, done, total - done < most ? total - done : most);
}

static inline int pml_ggml_ends_with_(const char *name, const char *end)
{
    size_t length = strlen(name), wanted = strlen(end);
    return length >= wanted && strcmp(name + length - wanted, end) == 0;
}

static inline int pml_ggml_has_classifier_(const pml_ggml_t *weights)
{
    for (size_t i = 0; i < weights->count; i++) {
        const pml_tensor_info_t *info = &weights->entries[i].info;
        if (info->name_length > 4 && memcmp(info->name, "cls.", 4) == 0) return 1;
    }
    return 0;
}

/* A tensor that the model has not: what changes nothing, where there is such a value. */
static inline void pml_ggml_set_absent_(pml_ggml_t *weights, struct ggml_tensor *tensor)
{
    const char *name = ggml_get_name(tensor);
    int is_one = pml_ggml_ends_with_(name, ".scale") || pml_ggml_ends_with_(name, ".input_scale") ||
                 strcmp(name, "rope_freqs.weight") == 0 || strcmp(name, "rope_factors_long.weight") == 0 ||
                 strcmp(name, "rope_factors_short.weight") == 0;
    int is_classifier = strncmp(name, "cls.", 4) == 0 && !pml_ggml_has_classifier_(weights);
    int is_zero = pml_ggml_ends_with_(name, ".bias") || is_classifier;
    is_one = is_one && tensor->type == GGML_TYPE_F32;
    pml_ggml_fill_(weights, tensor, is_one ? 1.0F : 0.0F);
    if (is_zero || is_one) weights->neutral_count++;
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
    if (!ggml_is_contiguous(tensor)) {
        pml_ggml_refuse_(weights, PML_STATUS_UNSUPPORTED, tensor, "rows that lie apart", "a contiguous tensor");
        return 0;
    }
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
    /* Another's error is not this one's: it is read alone, and so are the others. */
    weights->ahead_round++;
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

static inline void pml_ggml_set_tensor(struct ggml_tensor *tensor, void *user_data)
{
    pml_ggml_t *weights = (pml_ggml_t *)user_data;
    pml_ggml_entry_t *entry = pml_ggml_source_(weights, ggml_get_name(tensor));
    pml_status_t status;
    if (ggml_nbytes(tensor) == 0) return;
    if (tensor->data == NULL) {
        pml_ggml_refuse_(weights, PML_STATUS_INVALID_ARGUMENT, tensor, "no memory", "a tensor that has its memory");
        return;
    }
    if (entry == NULL) {
        pml_ggml_set_absent_(weights, tensor);
        return;
    }
    if (!pml_ggml_agree_(weights, entry, tensor)) {
        pml_ggml_fill_(weights, tensor, 0);
        return;
    }
    status = entry->info.bytes <= PML_GGML_SMALL_BYTES ? pml_ggml_set_small_(weights, entry, tensor)
                                                       : pml_ggml_set_large_(weights, entry, tensor);
    entry->is_past = 1;
    if (status == PML_STATUS_OK) return;
    if (status == PML_STATUS_OUT_OF_MEMORY)
        pml_ggml_refuse_(weights, status, tensor, "no memory", "memory to read it into");
    else
        pml_ggml_note_(weights, status, pml_last_error());
    pml_ggml_fill_(weights, tensor, 0);
}

#ifdef __cplusplus
}
#endif

#endif /* PML_GGML_H */
