#define _POSIX_C_SOURCE 200809L
/* What an engine does with a model: metadata, lazy tensors, layers, threads, and the ends of handles in any order. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>

#include "pml.h"

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #condition, pml_last_error());  \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)
#define OK(call) CHECK((call) == PML_STATUS_OK)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int destroyed;

static void count_destroy(void *user_data)
{
    CHECK(user_data == &destroyed);
    pthread_mutex_lock(&lock);
    destroyed++;
    pthread_mutex_unlock(&lock);
}

static int destroyed_now(void)
{
    int now;
    pthread_mutex_lock(&lock);
    now = destroyed;
    pthread_mutex_unlock(&lock);
    return now;
}

/* `destroy` may run on a worker that is just letting go of the loader. */
static void wait_for_destroy(void)
{
    struct timespec pause = {0, 1000000};
    int rounds;
    for (rounds = 0; rounds < 10000 && destroyed_now() == 0; rounds++) nanosleep(&pause, NULL);
    CHECK(destroyed_now() == 1);
}

/* The size in memory of what `size` bytes of a struct say: alignment and offsets are those that the library uses. */
static void struct_sizes(void)
{
    CHECK(sizeof(pml_options_t) == 216);
    CHECK(sizeof(pml_device_info_t) == 72);
    CHECK(sizeof(pml_layer_info_t) == 64);
    CHECK(sizeof(pml_tensor_info_t) == 88);
    CHECK(sizeof(pml_view_t) == 48);
    CHECK(sizeof(pml_metadata_info_t) == 48);
    CHECK(sizeof(pml_stats_t) == 264);
    CHECK(sizeof(pml_event_t) == 96);
    CHECK(sizeof(pml_allocator_t) == 32);
    CHECK(sizeof(pml_zoo_options_t) == 48);
    CHECK(sizeof(pml_model_info_t) == 176);
    CHECK(sizeof(pml_model_file_t) == 48);
}

static void metadata(pml_loader_t *loader)
{
    pml_metadata_info_t value = PML_METADATA_INFO_INIT;
    const char *text = NULL;
    const char *texts[3];
    size_t length = 0;
    size_t lengths[3];
    uint64_t number = 0;
    double real = 0;
    float scores[2];

    CHECK(pml_loader_metadata_count(loader) > 0);
    OK(pml_loader_metadata_find(loader, "general.architecture", &value));
    CHECK(value.value_type == PML_VALUE_STRING && value.key_length == strlen("general.architecture"));
    CHECK(memcmp(value.key, "general.architecture", value.key_length) == 0);
    OK(pml_loader_metadata_string(loader, value.index, &text, &length));
    CHECK(length == 5 && memcmp(text, "llama", 5) == 0);
    CHECK(pml_loader_metadata_u64(loader, value.index, &number) == PML_STATUS_WRONG_TYPE);
    CHECK(strstr(pml_last_error(), "'general.architecture'") != NULL);
    CHECK(strstr(pml_last_error(), "string") != NULL);

    OK(pml_loader_metadata_find(loader, "llama.block_count", &value));
    OK(pml_loader_metadata_u64(loader, value.index, &number));
    CHECK(number == 4);
    CHECK(pml_loader_metadata_f64(loader, value.index, &real) == PML_STATUS_WRONG_TYPE);
    CHECK(pml_loader_metadata_element_u64(loader, value.index, 0, &number) == PML_STATUS_WRONG_TYPE);

    OK(pml_loader_metadata_find(loader, "tokenizer.ggml.tokens", &value));
    CHECK(value.value_type == PML_VALUE_ARRAY && value.element_type == PML_VALUE_STRING && value.count > 100);
    OK(pml_loader_metadata_element_string(loader, value.index, 99, &text, &length));
    OK(pml_loader_metadata_array_strings(loader, value.index, 98, 3, texts, lengths));
    CHECK(texts[1] == text && lengths[1] == length && texts[2] == text + length + 8);
    CHECK(pml_loader_metadata_element_string(loader, value.index, value.count, &text, &length) ==
          PML_STATUS_OUT_OF_RANGE);
    texts[0] = NULL;
    CHECK(pml_loader_metadata_array_strings(loader, value.index, value.count - 1, 2, texts, lengths) ==
          PML_STATUS_OUT_OF_RANGE);
    CHECK(texts[0] == NULL);
    CHECK(pml_loader_metadata_element_array(loader, value.index, 0, &value) == PML_STATUS_WRONG_TYPE);

    OK(pml_loader_metadata_find(loader, "tokenizer.ggml.scores", &value));
    OK(pml_loader_metadata_element_f64(loader, value.index, 1, &real));
    OK(pml_loader_metadata_array_copy(loader, value.index, 0, 2, PML_VALUE_F32, scores, sizeof scores));
    CHECK(real == (double)scores[1]);
    CHECK(pml_loader_metadata_array_copy(loader, value.index, 0, 2, PML_VALUE_I32, scores, sizeof scores) ==
          PML_STATUS_WRONG_TYPE);
    CHECK(pml_loader_metadata_array_copy(loader, value.index, value.count - 1, 2, PML_VALUE_F32, scores,
                                         sizeof scores) == PML_STATUS_OUT_OF_RANGE);
    CHECK(pml_loader_metadata_find(loader, "no.such.key", &value) == PML_STATUS_NOT_FOUND);
    CHECK(strstr(pml_last_error(), "'no.such.key'") != NULL);
}

static void lazy_tensor(pml_loader_t *loader)
{
    pml_tensor_t *tensor = NULL;
    pml_tensor_t *other = NULL;
    pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
    pml_view_t view = PML_VIEW_INIT;
    pml_view_t again = PML_VIEW_INIT;
    unsigned char *copy;
    size_t layer = SIZE_MAX;

    OK(pml_loader_tensor(loader, "blk.2.attn_q.weight", &tensor));
    OK(pml_tensor_get_info(tensor, &info));
    CHECK(info.rank == 2 && info.shape[0] == 256 && info.shape[1] == 256 && info.shard == 0);
    CHECK(info.bytes == info.stored_bytes && info.stored_dtype == info.delivered_dtype);
    OK(pml_loader_find_layer(loader, "blk.2", &layer));
    CHECK(info.layer == layer);
    CHECK(!pml_tensor_is_loaded(tensor));
    CHECK(pml_tensor_view(tensor, &view) == PML_STATUS_INVALID_STATE);
    CHECK(pml_tensor_release(tensor, PML_STREAM_HOST) == PML_STATUS_INVALID_STATE);
    CHECK(pml_tensor_acquire(tensor, PML_STREAM_HOST, -2, &view) == PML_STATUS_INVALID_ARGUMENT);
    CHECK(pml_tensor_acquire(tensor, (void *)4096, -1, &view) == PML_STATUS_INVALID_ARGUMENT);

    OK(pml_tensor_acquire(tensor, PML_STREAM_HOST, PML_TIMEOUT_NEVER, &view));
    CHECK(pml_tensor_is_loaded(tensor));
    CHECK(view.size == info.bytes && view.dtype == info.stored_dtype && view.rank == 2 && view.shape[1] == 256);
    CHECK(view.device_kind == PML_DEVICE_HOST);
    copy = malloc(view.size);
    CHECK(copy != NULL);
    OK(pml_tensor_read(tensor, 0, copy, view.size));
    CHECK(memcmp(copy, view.data, view.size) == 0);
    OK(pml_tensor_read(tensor, view.size - 3, copy, 3));
    CHECK(memcmp(copy, (const char *)view.data + view.size - 3, 3) == 0);
    CHECK(pml_tensor_read(tensor, view.size - 3, copy, 4) == PML_STATUS_INVALID_ARGUMENT);
    CHECK(pml_tensor_read(tensor, UINT64_MAX, copy, 4) == PML_STATUS_INVALID_ARGUMENT);
    CHECK(pml_tensor_read(tensor, 0, copy, SIZE_MAX) == PML_STATUS_INVALID_ARGUMENT);
    free(copy);

    /* Another tensor of the layer did not come with it; a held layer is not unloaded. */
    OK(pml_loader_tensor(loader, "blk.2.ffn_up.weight", &other));
    CHECK(!pml_tensor_is_loaded(other));
    CHECK(pml_loader_unload_layer(loader, layer) == PML_STATUS_BUSY);
    OK(pml_loader_acquire_layer(loader, layer, PML_STREAM_HOST, -1));
    OK(pml_tensor_view(other, &again));
    OK(pml_loader_release_layer(loader, layer, PML_STREAM_HOST));
    CHECK(pml_loader_release_layer(loader, layer, PML_STREAM_HOST) == PML_STATUS_INVALID_STATE);
    CHECK(pml_tensor_view(other, &again) == PML_STATUS_INVALID_STATE);
    OK(pml_tensor_release(tensor, PML_STREAM_HOST));
    OK(pml_loader_unload_layer(loader, layer));
    CHECK(!pml_tensor_is_loaded(tensor) && !pml_tensor_is_loaded(other));
    OK(pml_tensor_prefetch(other));
    OK(pml_tensor_acquire(other, NULL, 0, &view));
    pml_tensor_free(other);
    /* Freed with its acquire, so that nothing holds the layer. */
    OK(pml_loader_unload_layer(loader, layer));
    pml_tensor_free(tensor);
}

static void forward_pass(pml_loader_t *loader)
{
    size_t count = pml_loader_layer_count(loader);
    size_t *order = malloc(count * sizeof *order);
    size_t i;
    pml_stats_t stats = PML_STATS_INIT;

    CHECK(order != NULL);
    for (i = 0; i < count; i++) {
        pml_layer_info_t info = PML_LAYER_INFO_INIT;
        OK(pml_loader_layer_info(loader, i, &info));
        CHECK(info.position < count);
        order[info.position] = i;
    }
    OK(pml_loader_prefetch(loader, order, count));
    for (i = 0; i < count; i++) {
        pml_layer_info_t info = PML_LAYER_INFO_INIT;
        size_t k;
        OK(pml_loader_acquire_layer(loader, order[i], PML_STREAM_HOST, -1));
        OK(pml_loader_layer_info(loader, order[i], &info));
        CHECK(info.state == PML_LAYER_RESIDENT && info.acquire_count == 1);
        for (k = 0; k < info.tensor_count; k++) {
            size_t index;
            pml_tensor_t *tensor = NULL;
            pml_view_t view = PML_VIEW_INIT;
            OK(pml_loader_layer_tensor(loader, order[i], k, &index));
            OK(pml_loader_tensor_at(loader, index, &tensor));
            OK(pml_tensor_view(tensor, &view));
            CHECK(view.data != NULL);
            pml_tensor_free(tensor);
        }
        CHECK(pml_loader_layer_tensor(loader, order[i], info.tensor_count, &k) == PML_STATUS_OUT_OF_RANGE);
        OK(pml_loader_release_layer(loader, order[i], PML_STREAM_HOST));
    }
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.resident_bytes == stats.total_bytes);
    /* First and last change places, and nothing else. */
    OK(pml_loader_set_layer_order(loader, &order[count - 1], 1));
    {
        pml_layer_info_t info = PML_LAYER_INFO_INIT;
        OK(pml_loader_layer_info(loader, order[count - 1], &info));
        CHECK(info.position == 0);
        OK(pml_loader_layer_info(loader, order[0], &info));
        CHECK(info.position == 1);
    }
    CHECK(pml_loader_prefetch_layer(loader, "blk.1") == PML_STATUS_OK);
    CHECK(pml_loader_prefetch_layer(loader, "blk.99") == PML_STATUS_NOT_FOUND);
    CHECK(pml_loader_acquire_layer(loader, count, PML_STREAM_HOST, -1) == PML_STATUS_OUT_OF_RANGE);
    free(order);
}

struct job {
    pml_loader_t *loader;
    pml_tensor_t *tensor;
};

static void *acquire_often(void *argument)
{
    struct job *job = argument;
    int round;
    for (round = 0; round < 200; round++) {
        pml_view_t view = PML_VIEW_INIT;
        OK(pml_tensor_acquire(job->tensor, PML_STREAM_HOST, -1, &view));
        CHECK(view.size > 0);
        OK(pml_tensor_release(job->tensor, PML_STREAM_HOST));
        if (round % 10 == 0) {
            pml_status_t status = pml_loader_unload_layer(job->loader, 0);
            CHECK(status == PML_STATUS_OK || status == PML_STATUS_BUSY);
        }
    }
    return NULL;
}

static void threads(pml_loader_t *loader)
{
    pthread_t thread[4];
    struct job job = {loader, NULL};
    int i;

    OK(pml_loader_tensor_at(loader, 0, &job.tensor));
    for (i = 0; i < 4; i++) CHECK(pthread_create(&thread[i], NULL, acquire_often, &job) == 0);
    for (i = 0; i < 4; i++) CHECK(pthread_join(thread[i], NULL) == 0);
    pml_tensor_free(job.tensor);
}

static int32_t count_event(void *user_data, const pml_event_t *event)
{
    CHECK(event->kind == PML_EVENT_ERROR && event->stage == PML_STAGE_VALIDATING && event->message_length > 0);
    ++*(int *)user_data;
    return 0;
}

/* Handles end in any order, and what is acquired stays. */
static void ends(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    pml_tensor_t *held = NULL;
    pml_tensor_t *idle = NULL;
    pml_view_t view = PML_VIEW_INIT;
    volatile unsigned char first;

    options.destroy = count_destroy;
    options.user_data = &destroyed;
    OK(pml_loader_open(path, &options, &loader));
    OK(pml_loader_tensor_at(loader, 0, &held));
    OK(pml_loader_tensor_at(loader, 1, &idle));
    OK(pml_tensor_acquire(held, PML_STREAM_HOST, -1, &view));
    pml_loader_free(loader);
    CHECK(destroyed_now() == 0);
    first = *(const unsigned char *)view.data;
    (void)first;
    OK(pml_tensor_view(held, &view));
    CHECK(pml_tensor_acquire(held, PML_STREAM_HOST, -1, &view) == PML_STATUS_CLOSED);
    CHECK(pml_tensor_acquire(idle, PML_STREAM_HOST, -1, NULL) == PML_STATUS_CLOSED);
    CHECK(pml_tensor_prefetch(idle) == PML_STATUS_CLOSED);
    OK(pml_tensor_release(held, PML_STREAM_HOST));
    pml_tensor_free(held);
    CHECK(destroyed_now() == 0);
    pml_tensor_free(idle);
    wait_for_destroy();
}

static int32_t ignore_event(void *user_data, const pml_event_t *event)
{
    (void)user_data, (void)event;
    return 0;
}

static void ignore_line(void *user_data, uint32_t level, const char *message, size_t message_length)
{
    (void)user_data, (void)level, (void)message, (void)message_length;
}

static void *allocate(void *user_data, size_t size, size_t alignment, uint32_t kind, uint32_t ordinal)
{
    void *memory = NULL;
    (void)user_data;
    CHECK(kind == PML_DEVICE_HOST && ordinal == 0);
    return posix_memalign(&memory, alignment, size) == 0 ? memory : NULL;
}

static void deallocate(void *user_data, void *memory, size_t size, size_t alignment, uint32_t kind, uint32_t ordinal)
{
    (void)user_data, (void)size, (void)alignment, (void)kind, (void)ordinal;
    free(memory);
}

/* Opens, and acquires a layer. */
static void serve(int line, const char *path, pml_options_t *options)
{
    pml_loader_t *loader = NULL;
    pml_status_t status = pml_loader_open(path, options, &loader);
    if (status == PML_STATUS_OK) status = pml_loader_acquire_layer(loader, 1, NULL, -1);
    if (status != PML_STATUS_OK) {
        fprintf(stderr, "line %d: %s: %s\n", line, pml_status_name(status), pml_last_error());
        exit(1);
    }
    pml_loader_free(loader);
}

static void options_answered(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_allocator_t allocator = PML_ALLOCATOR_INIT;
    pml_allocator_t half = PML_ALLOCATOR_INIT;
    pml_budget_t *budget = NULL;
    pml_loader_t *loader = NULL;
    uint32_t i;
    union {
        pml_options_t options;
        unsigned char bytes[sizeof(pml_options_t) + 8];
    } longer;

#define REFUSED(field, value, status)                                        \
    do {                                                                     \
        options.field = (value);                                             \
        CHECK(pml_loader_open(path, &options, &loader) == (status));         \
        CHECK(loader == NULL);                                               \
        CHECK(strstr(pml_last_error(), #field) != NULL);                     \
        pml_options_init(&options, sizeof options);                          \
    } while (0)
#define SERVED(field, value)                        \
    do {                                            \
        options.field = (value);                    \
        serve(__LINE__, path, &options);            \
        pml_options_init(&options, sizeof options); \
    } while (0)
    allocator.allocate = allocate;
    allocator.deallocate = deallocate;
    half.allocate = allocate;
    OK(pml_budget_new(64 << 20, &budget));

    /* Not served by this version. */
    REFUSED(device, "cuda:99", PML_STATUS_UNSUPPORTED);
    REFUSED(device, "hip:99", PML_STATUS_UNSUPPORTED);
    /* Served by none. */
    REFUSED(device, "toaster", PML_STATUS_INVALID_ARGUMENT);
    REFUSED(dtype, PML_DTYPE_Q4_K, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(dtype, 3000, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(keep_original, 2, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(format, 3, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(cache_digest, 2, PML_STATUS_INVALID_ARGUMENT);
    /* Without a folder there is nothing that they could mean. */
    REFUSED(cache_digest, 1, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(cache_limit, 1, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(alignment, 48, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(alignment, 8192, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(tail_padding, (1 << 20) + 1, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(strategy, 4, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(max_concurrent_loads, 0, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(unload, 3, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(max_loaded_layers, 0, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(max_loaded_layers, -2, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(io, 9, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(workers, 100000, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(layer_order, 6, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(recovery, 4, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(allocator, &half, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(log_level, 4, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(reserved, 1, PML_STATUS_INVALID_ARGUMENT);
    REFUSED(struct_size, 4, PML_STATUS_INVALID_ARGUMENT);
    /* Served, each by itself. */
    SERVED(alignment, 64);
    SERVED(tail_padding, 64);
    SERVED(device, "auto");
    for (i = 0; i <= PML_STRATEGY_PREFETCH; i++) SERVED(strategy, i);
    SERVED(max_concurrent_loads, 1);
    SERVED(max_concurrent_loads, UINT32_MAX);
    SERVED(prefetch_count, 0);
    SERVED(prefetch_count, UINT32_MAX);
    for (i = 0; i <= PML_UNLOAD_LRU; i++) SERVED(unload, i);
    SERVED(max_loaded_layers, 1);
    SERVED(max_loaded_layers, INT64_MAX);
    SERVED(memory_budget, UINT64_MAX);
    SERVED(budget, budget);
    SERVED(workers, 64);
    for (i = 0; i <= PML_LAYER_ORDER_FILE; i++) SERVED(layer_order, i);
    for (i = 0; i <= PML_RECOVERY_SKIP; i++) SERVED(recovery, i);
    SERVED(allocator, &allocator);
    SERVED(retry_count, 0);
    SERVED(retry_count, UINT32_MAX);
    SERVED(retry_backoff_ms, UINT32_MAX);
    SERVED(pressure_threshold, 1);
    SERVED(on_layer_loaded, ignore_event);
    SERVED(on_progress, ignore_event);
    SERVED(on_fully_loaded, ignore_event);
    SERVED(on_error, ignore_event);
    SERVED(log, ignore_line);
    for (i = 0; i <= PML_LOG_DEBUG; i++) SERVED(log_level, i);
    pml_budget_free(budget);

    pml_options_init(&longer.options, sizeof longer);
    OK(pml_loader_open(path, &longer.options, &loader));
    pml_loader_free(loader);
    longer.bytes[sizeof(pml_options_t) + 7] = 1;
    CHECK(pml_loader_open(path, &longer.options, &loader) == PML_STATUS_UNSUPPORTED);
    /* No pointer is taken by half. */
    options.struct_size = offsetof(pml_options_t, device) + 4;
    options.device = "cpu";
    OK(pml_loader_open(path, &options, &loader));
    pml_loader_free(loader);
    /* Of a shorter struct the rest has its initial values. */
    options.struct_size = offsetof(pml_options_t, strategy);
    options.strategy = 77;
    OK(pml_loader_open(path, &options, &loader));
    pml_loader_free(loader);
}

static void rules(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_rules_t *rules = NULL;
    pml_loader_t *loader = NULL;
    pml_tensor_t *tensor = NULL;
    size_t layer;

    OK(pml_rules_new(&rules));
    OK(pml_rules_skip(rules, "blk.3.*"));
    OK(pml_rules_layer(rules, "*norm*", "norms"));
    options.rules = rules;
    OK(pml_loader_open(path, &options, &loader));
    pml_rules_free(rules);
    CHECK(pml_loader_tensor(loader, "blk.3.attn_q.weight", &tensor) == PML_STATUS_NOT_FOUND);
    CHECK(strstr(pml_last_error(), "'blk.3.*'") != NULL);
    OK(pml_loader_find_layer(loader, "norms", &layer));
    CHECK(pml_loader_find_layer(loader, "blk.3", &layer) == PML_STATUS_NOT_FOUND);
    pml_loader_free(loader);
}

/* Tensors in other types than they are stored in, with their scales beside them. */
static void types(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_tensor_info_t info = PML_TENSOR_INFO_INIT, scales = PML_TENSOR_INFO_INIT;
    pml_view_t view = PML_VIEW_INIT;
    pml_stats_t stats = PML_STATS_INIT;
    pml_rules_t *rules = NULL;
    pml_loader_t *loader = NULL;
    pml_tensor_t *tensor = NULL, *beside = NULL;

    OK(pml_rules_new(&rules));
    OK(pml_rules_dtype(rules, "blk.2.attn_q.*", PML_DTYPE_INT8));
    OK(pml_rules_dtype(rules, "*norm*", PML_DTYPE_KEEP));
    options.rules = rules;
    options.dtype = PML_DTYPE_F16;
    options.format = PML_FORMAT_GGUF;
    options.device = "cpu";
    OK(pml_loader_open(path, &options, &loader));
    OK(pml_loader_tensor(loader, "blk.2.attn_q.weight", &tensor));
    OK(pml_tensor_get_info(tensor, &info));
    CHECK(info.delivered_dtype == PML_DTYPE_I8 && info.stored_dtype != PML_DTYPE_I8);
    CHECK(info.rank == 2 && info.bytes == (uint64_t)(info.shape[0] * info.shape[1]));
    OK(pml_loader_tensor(loader, "blk.2.attn_q.weight.scales", &beside));
    OK(pml_tensor_get_info(beside, &scales));
    CHECK(scales.delivered_dtype == PML_DTYPE_F32 && scales.rank == 1 && scales.shape[0] == info.shape[0]);
    CHECK(scales.layer == info.layer);
    OK(pml_tensor_acquire(tensor, PML_STREAM_HOST, -1, &view));
    CHECK(view.dtype == PML_DTYPE_I8 && view.size == info.bytes);
    CHECK(pml_tensor_is_loaded(beside));
    OK(pml_tensor_release(tensor, PML_STREAM_HOST));
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.transform_seconds > 0);
    pml_tensor_free(beside);
    pml_tensor_free(tensor);
    pml_loader_free(loader);

    OK(pml_rules_dtype(rules, "*norm*", PML_DTYPE_NF4));
    options.rules = rules;
    options.format = PML_FORMAT_SAFETENSORS;
    CHECK(pml_loader_open(path, &options, &loader) == PML_STATUS_UNSUPPORTED);
    pml_rules_free(rules);
}

/* The second load finds what the first one made. */
static void cache(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_stats_t stats = PML_STATS_INIT;
    pml_loader_t *loader = NULL;
    char folder[4096];
    uint32_t round;

    /* Of this run alone. */
    CHECK(snprintf(folder, sizeof folder, "%s.%ld", path, (long)getpid()) < (int)sizeof folder);
    options.device = "cpu";
    options.dtype = PML_DTYPE_F32;
    options.cache_path = folder;
    options.cache_limit = (uint64_t)1 << 40;
    for (round = 0; round < 4; round++) {
        options.cache_digest = round / 2;
        OK(pml_loader_open(path, &options, &loader));
        OK(pml_loader_stats(loader, &stats));
        CHECK(stats.cache == (round % 2 == 0 ? PML_CACHE_WRITING : PML_CACHE_READ));
        OK(pml_loader_start(loader));
        OK(pml_loader_wait(loader, -1));
        OK(pml_loader_stats(loader, &stats));
        CHECK((stats.transform_seconds > 0) == (round % 2 == 0));
        pml_loader_free(loader);
    }
    options.cache_limit = 1000;
    options.dtype = PML_DTYPE_BF16;
    OK(pml_loader_open(path, &options, &loader));
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.cache == PML_CACHE_FAILED);
    pml_loader_free(loader);
}

static void memory(const char *path)
{
    FILE *file = fopen(path, "rb");
    pml_loader_t *loader = NULL;
    pml_tensor_t *tensor = NULL;
    pml_view_t view = PML_VIEW_INIT;
    char *bytes;
    long size;

    destroyed = 0;
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) > 0);
    rewind(file);
    bytes = malloc((size_t)size);
    CHECK(bytes != NULL && fread(bytes, 1, (size_t)size, file) == (size_t)size);
    fclose(file);
    OK(pml_loader_open_memory(bytes, (size_t)size, count_destroy, &destroyed, NULL, &loader));
    OK(pml_loader_tensor_at(loader, 3, &tensor));
    OK(pml_tensor_acquire(tensor, PML_STREAM_HOST, -1, &view));
    CHECK((const char *)view.data > bytes && (const char *)view.data < bytes + size);
    pml_tensor_free(tensor);
    pml_loader_free(loader);
    wait_for_destroy();
    free(bytes);
}

int main(int argc, char **argv)
{
    static const uint32_t modes[] = {PML_IO_AUTO, PML_IO_MMAP, PML_IO_READ, PML_IO_DIRECT};
    pml_loader_t *loader = NULL;
    size_t i;

    if (argc != 2) return 2;
    struct_sizes();
    for (i = 0; i < sizeof modes / sizeof *modes; i++) {
        pml_options_t options = PML_OPTIONS_INIT;
        int findings = 0;
        options.io = modes[i];
        options.device = "cpu";
        options.workers = (uint32_t)i;
        OK(pml_loader_open(argv[1], &options, &loader));
        metadata(loader);
        lazy_tensor(loader);
        forward_pass(loader);
        threads(loader);
        OK(pml_loader_verify(loader, 0, count_event, &findings));
        CHECK(findings == 0);
        CHECK(pml_loader_verify(loader, 64, NULL, NULL) == PML_STATUS_INVALID_ARGUMENT);
        pml_loader_free(loader);
    }
    ends(argv[1]);
    options_answered(argv[1]);
    rules(argv[1]);
    types(argv[1]);
    cache(argv[1]);
    memory(argv[1]);
    return 0;
}
