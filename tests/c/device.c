#define _POSIX_C_SOURCE 200809L
/* What an engine on a GPU does: streams, captures, its own memory, and the ends of handles in any order.
 *
 * It runs on a double of the driver: device.c SMALL LARGE, with LD_LIBRARY_PATH naming the double's folder and
 * PML_TEST_DEVICE its device. A violation of the driver's rules ends the process. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dlpack_abi.h"
#include "pml.h"

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #condition, pml_last_error());  \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)
#define OK(call) CHECK((call) == PML_STATUS_OK)
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { PADDING = 512, ALIGNMENT = 4096, MODE_GLOBAL = 0, MODE_THREAD_LOCAL = 1, MILLISECOND = 1000000 };

static const char *device_name;
static uint32_t device_kind;
static const char *small_model, *large_model;

/* ---- The driver: an address is the same in both, a number in CUDA's header and a pointer in HIP's ---- */

static struct {
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*stream_synchronize)(void *stream);
    int (*capture_begin)(void *stream, int mode);
    int (*capture_end)(void *stream, void **graph);
    int (*graph_destroy)(void *graph);
    int (*exchange_mode)(int *mode);
    int (*allocate)(void **memory, size_t bytes);
    int (*release)(void *memory);
    int (*cuda_copy_back)(void *to, const void *from, size_t bytes);
    int (*hip_copy_back)(void *to, const void *from, size_t bytes, int kind);
    int (*retain)(void **context, int ordinal);
    int (*set_current)(void *context);
    int (*get_current)(void **context);
    int (*get_device)(int *ordinal);
    int (*set_device)(int ordinal);
    uint64_t (*get)(const char *name);
    int (*set)(const char *name, uint64_t value);
    int (*launch)(void *stream, const void *memory, size_t bytes, uint64_t expected, uint64_t nanoseconds);
    uint64_t (*hash)(const void *memory, size_t bytes);
} driver;

static void *primary;

static int is_cuda(void)
{
    return device_kind == PML_DEVICE_CUDA;
}

/* A function's address as the bytes that dlsym gives. */
static void look_up(void *library, const char *cuda, const char *hip, void *into, size_t size)
{
    const char *name = is_cuda() ? cuda : hip;
    void *symbol = name != NULL ? dlsym(library, name) : NULL;
    CHECK(size == sizeof symbol && (name == NULL || symbol != NULL));
    memcpy(into, &symbol, size);
}

#define LOOK_UP(field, cuda, hip) look_up(library, cuda, hip, &driver.field, sizeof driver.field)

static void load_driver(void)
{
    void *library = dlopen(is_cuda() ? "libcuda.so.1" : "libamdhip64.so.6", RTLD_NOW);
    int (*initialise)(unsigned flags);
    CHECK(library != NULL);
    look_up(library, "cuInit", "hipInit", &initialise, sizeof initialise);
    LOOK_UP(stream_create, "cuStreamCreate", "hipStreamCreateWithFlags");
    LOOK_UP(stream_destroy, "cuStreamDestroy_v2", "hipStreamDestroy");
    LOOK_UP(stream_synchronize, "cuStreamSynchronize", "hipStreamSynchronize");
    LOOK_UP(capture_begin, "cuStreamBeginCapture_v2", "hipStreamBeginCapture");
    LOOK_UP(capture_end, "cuStreamEndCapture", "hipStreamEndCapture");
    LOOK_UP(graph_destroy, "cuGraphDestroy", "hipGraphDestroy");
    LOOK_UP(exchange_mode, "cuThreadExchangeStreamCaptureMode", "hipThreadExchangeStreamCaptureMode");
    LOOK_UP(allocate, "cuMemAlloc_v2", "hipMalloc");
    LOOK_UP(release, "cuMemFree_v2", "hipFree");
    LOOK_UP(cuda_copy_back, "cuMemcpyDtoH_v2", NULL);
    LOOK_UP(hip_copy_back, NULL, "hipMemcpy");
    LOOK_UP(retain, "cuDevicePrimaryCtxRetain", NULL);
    LOOK_UP(set_current, "cuCtxSetCurrent", NULL);
    LOOK_UP(get_current, "cuCtxGetCurrent", NULL);
    LOOK_UP(get_device, NULL, "hipGetDevice");
    LOOK_UP(set_device, NULL, "hipSetDevice");
    LOOK_UP(get, "double_get", "double_get");
    LOOK_UP(set, "double_set", "double_set");
    LOOK_UP(launch, "double_launch", "double_launch");
    LOOK_UP(hash, "double_hash", "double_hash");
    CHECK(initialise(0) == 0);
    if (is_cuda()) {
        CHECK(driver.retain(&primary, 0) == 0);
    }
}

/* Makes the device this thread's. */
static void enter_device(void)
{
    CHECK((is_cuda() ? driver.set_current(primary) : driver.set_device(0)) == 0);
}

/* What this thread's calls go to: a context, or a device's number. */
static uintptr_t current(void)
{
    void *context = NULL;
    int ordinal = -1;
    CHECK((is_cuda() ? driver.get_current(&context) : driver.get_device(&ordinal)) == 0);
    return is_cuda() ? (uintptr_t)context : (uintptr_t)ordinal;
}

static int capture_mode(void)
{
    int mode = MODE_THREAD_LOCAL, back;
    CHECK(driver.exchange_mode(&mode) == 0);
    back = mode;
    CHECK(driver.exchange_mode(&back) == 0);
    return mode;
}

static void *new_stream(void)
{
    void *stream = NULL;
    CHECK(driver.stream_create(&stream, 1) == 0);
    return stream;
}

static void *device_memory(size_t bytes)
{
    void *memory = NULL;
    CHECK(driver.allocate(&memory, bytes) == 0);
    return memory;
}

static unsigned char *copy_back(const void *memory, size_t bytes)
{
    unsigned char *copy = malloc(bytes + 1);
    CHECK(copy != NULL);
    CHECK((is_cuda() ? driver.cuda_copy_back(copy, memory, bytes) : driver.hip_copy_back(copy, memory, bytes, 2)) == 0);
    return copy;
}

static void nap(long milliseconds)
{
    struct timespec pause;
    pause.tv_sec = milliseconds / 1000;
    pause.tv_nsec = milliseconds % 1000 * MILLISECOND;
    nanosleep(&pause, NULL);
}

/* Whether a counter of the double comes to be that within some seconds. */
static int becomes(const char *counter, uint64_t value)
{
    int rounds;
    for (rounds = 0; rounds < 8000 && driver.get(counter) != value; rounds++) nap(1);
    if (driver.get(counter) != value) {
        fprintf(stderr, "%s: %llu\n", counter, (unsigned long long)driver.get(counter));
    }
    return driver.get(counter) == value;
}

/* ---- Models ---- */

static pml_loader_t *open_on(const char *model, const char *device, const pml_options_t *given)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    if (given != NULL) options = *given;
    options.device = device;
    OK(pml_loader_open(model, &options, &loader));
    return loader;
}

static pml_loader_t *open_small(void)
{
    return open_on(small_model, device_name, NULL);
}

static pml_tensor_t *tensor_of(pml_loader_t *loader, const char *name)
{
    pml_tensor_t *tensor = NULL;
    OK(pml_loader_tensor(loader, name, &tensor));
    return tensor;
}

static size_t layer_of(pml_loader_t *loader, const char *name)
{
    size_t layer = SIZE_MAX;
    OK(pml_loader_find_layer(loader, name, &layer));
    return layer;
}

/* The bytes that the file has of a tensor. */
static unsigned char *stored(pml_tensor_t *tensor, size_t *bytes)
{
    pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
    unsigned char *copy;
    OK(pml_tensor_get_info(tensor, &info));
    *bytes = (size_t)info.bytes;
    copy = malloc(*bytes + 1);
    CHECK(copy != NULL);
    OK(pml_tensor_read(tensor, 0, copy, *bytes));
    return copy;
}

static uint64_t stored_hash(pml_tensor_t *tensor)
{
    size_t bytes;
    unsigned char *copy = stored(tensor, &bytes);
    uint64_t hash = driver.hash(copy, bytes);
    free(copy);
    return hash;
}

/* That a view is of the tensor, on the device, and has its bytes, with zeros behind them. */
static void check_view(pml_tensor_t *tensor, const pml_view_t *view, size_t padding)
{
    size_t bytes, i;
    unsigned char *expected = stored(tensor, &bytes);
    unsigned char *found = copy_back(view->data, view->size + padding);
    CHECK(view->size == bytes && memcmp(found, expected, bytes) == 0);
    for (i = 0; i < padding; i++) CHECK(found[bytes + i] == 0);
    free(found);
    free(expected);
}

static void check_place(const pml_view_t *view)
{
    CHECK(view->data != NULL && view->device_kind == device_kind && view->device_ordinal == 0);
}

/* Queues work on a stream that reads every tensor of a layer, at its beginning and its end. */
static void launch_layer(pml_loader_t *loader, size_t layer, void *stream, uint64_t nanoseconds)
{
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    size_t i;
    OK(pml_loader_layer_info(loader, layer, &info));
    for (i = 0; i < info.tensor_count; i++) {
        pml_view_t view = PML_VIEW_INIT;
        pml_tensor_t *tensor = NULL;
        size_t index;
        OK(pml_loader_layer_tensor(loader, layer, i, &index));
        OK(pml_loader_tensor_at(loader, index, &tensor));
        OK(pml_tensor_view(tensor, &view));
        check_place(&view);
        CHECK(driver.launch(stream, view.data, view.size, stored_hash(tensor), nanoseconds) == 0);
        pml_tensor_free(tensor);
    }
}

static uint64_t acquires(pml_loader_t *loader, size_t layer)
{
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    OK(pml_loader_layer_info(loader, layer, &info));
    return info.acquire_count;
}

/* ---- Streams ---- */

static void every_stream_finds_its_bytes(void)
{
    pml_loader_t *loader = open_small();
    size_t layer = layer_of(loader, "blk.1");
    pml_tensor_t *tensor = tensor_of(loader, "blk.2.attn_q.weight");
    void *own = new_stream();
    void *streams[4];
    size_t i;
    streams[0] = PML_STREAM_HOST;
    streams[1] = own;
    streams[2] = PML_STREAM_LEGACY;
    streams[3] = PML_STREAM_PER_THREAD;
    driver.set("copy_latency_ns", 2 * MILLISECOND);
    for (i = 0; i < 2 * COUNT(streams); i++) {
        void *stream = streams[i % COUNT(streams)];
        pml_view_t view = PML_VIEW_INIT;
        OK(pml_loader_acquire_layer(loader, layer, stream, PML_TIMEOUT_NEVER));
        OK(pml_tensor_acquire(tensor, stream, PML_TIMEOUT_NEVER, &view));
        check_place(&view);
        CHECK(view.rank == 2 && view.shape[0] == 256 && view.shape[1] == 256 && view.size == 131072);
        if (stream == PML_STREAM_HOST) {
            check_view(tensor, &view, 0);
        } else {
            CHECK(driver.launch(stream, view.data, view.size, stored_hash(tensor), MILLISECOND) == 0);
            launch_layer(loader, layer, stream, MILLISECOND / 4);
        }
        OK(pml_tensor_release(tensor, stream));
        OK(pml_loader_release_layer(loader, layer, stream));
        CHECK(pml_loader_release_layer(loader, layer, stream) == PML_STATUS_INVALID_STATE);
        if (i < COUNT(streams)) {
            OK(pml_loader_unload_layer(loader, layer));
            OK(pml_loader_unload_layer(loader, layer_of(loader, "blk.2")));
        }
    }
    driver.set("copy_latency_ns", 0);
    CHECK(driver.stream_destroy(own) == 0);
    pml_tensor_free(tensor);
    pml_loader_free(loader);
}

static void null_is_no_stream(void)
{
    pml_loader_t *loader = open_small();
    size_t layer = layer_of(loader, "blk.1"), size = 131072;
    pml_tensor_t *tensor = tensor_of(loader, "blk.1.attn_q.weight");
    void *memory = device_memory(size);
    pml_view_t view = PML_VIEW_INIT;
    CHECK(pml_loader_acquire_layer(loader, layer, NULL, -1) == PML_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(pml_last_error(), "PML_STREAM_HOST") != NULL && strstr(pml_last_error(), device_name) != NULL);
    CHECK(pml_tensor_acquire(tensor, NULL, -1, &view) == PML_STATUS_INVALID_ARGUMENT && view.data == NULL);
    CHECK(pml_loader_load_into(loader, &tensor, &memory, &size, 1, NULL) == PML_STATUS_INVALID_ARGUMENT);
    OK(pml_loader_acquire_layer(loader, layer, PML_STREAM_HOST, -1));
    OK(pml_tensor_acquire(tensor, PML_STREAM_HOST, -1, &view));
    CHECK(pml_loader_release_layer(loader, layer, NULL) == PML_STATUS_INVALID_ARGUMENT);
    CHECK(pml_tensor_release(tensor, NULL) == PML_STATUS_INVALID_ARGUMENT);
    CHECK(acquires(loader, layer) == 2);
    OK(pml_tensor_release(tensor, PML_STREAM_HOST));
    OK(pml_loader_release_layer(loader, layer, PML_STREAM_HOST));
    CHECK(driver.release(memory) == 0);
    pml_tensor_free(tensor);
    pml_loader_free(loader);
}

/* Room for one layer: the next one evicts what a kernel still reads. */
static void eviction_waits_for_the_engines_work(void)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader;
    void *stream = new_stream();
    size_t round, count;
    options.unload = PML_UNLOAD_LRU;
    options.memory_budget = 700 << 10;
    loader = open_on(small_model, device_name, &options);
    count = pml_loader_layer_count(loader);
    for (round = 0; round < 3 * count; round++) {
        size_t layer = round % count;
        OK(pml_loader_acquire_layer(loader, layer, stream, PML_TIMEOUT_NEVER));
        launch_layer(loader, layer, stream, 3 * MILLISECOND);
        OK(pml_loader_release_layer(loader, layer, stream));
    }
    CHECK(driver.stream_synchronize(stream) == 0 && driver.stream_destroy(stream) == 0);
    {
        pml_stats_t stats = PML_STATS_INIT;
        OK(pml_loader_stats(loader, &stats));
        CHECK(stats.evictions >= 8 && stats.device_kind == device_kind && stats.device_ordinal == 0);
    }
    pml_loader_free(loader);
}

static void a_stream_may_go_after_the_release(void)
{
    pml_loader_t *loader = open_small();
    size_t layer = layer_of(loader, "blk.0");
    pml_tensor_t *tensor = tensor_of(loader, "blk.3.attn_k.weight");
    int round;
    for (round = 0; round < 3; round++) {
        void *stream = new_stream();
        pml_view_t view = PML_VIEW_INIT;
        OK(pml_loader_acquire_layer(loader, layer, stream, PML_TIMEOUT_NEVER));
        OK(pml_tensor_acquire(tensor, stream, PML_TIMEOUT_NEVER, &view));
        launch_layer(loader, layer, stream, 4 * MILLISECOND);
        OK(pml_tensor_release(tensor, stream));
        OK(pml_loader_release_layer(loader, layer, stream));
        CHECK(driver.stream_destroy(stream) == 0);
        if (round < 2) OK(pml_loader_unload_layer(loader, layer));
    }
    pml_tensor_free(tensor);
    pml_loader_free(loader);
}

/* ---- Captures ---- */

static void *load_elsewhere(void *argument)
{
    pml_loader_t *loader = argument;
    size_t layer;
    uintptr_t before = current();
    for (layer = 0; layer < pml_loader_layer_count(loader); layer++) {
        OK(pml_loader_acquire_layer(loader, layer, PML_STREAM_HOST, PML_TIMEOUT_NEVER));
        OK(pml_loader_release_layer(loader, layer, PML_STREAM_HOST));
        OK(pml_loader_unload_layer(loader, layer));
    }
    pml_trim();
    CHECK(current() == before && capture_mode() == MODE_GLOBAL);
    return NULL;
}

static void a_capture_is_told_and_survives(void)
{
    pml_loader_t *loader = open_small();
    size_t here = layer_of(loader, "blk.0"), under_way = layer_of(loader, "blk.1"), size = 131072;
    pml_tensor_t *tensor = tensor_of(loader, "blk.2.attn_q.weight");
    pml_view_t view = PML_VIEW_INIT;
    void *stream = new_stream(), *other = new_stream(), *memory = device_memory(size), *graph = NULL;
    pthread_t thread;
    OK(pml_loader_acquire_layer(loader, here, PML_STREAM_HOST, PML_TIMEOUT_NEVER));
    driver.set("copy_latency_ns", 60 * MILLISECOND);
    OK(pml_loader_acquire_layer(loader, under_way, other, PML_TIMEOUT_NEVER));
    CHECK(driver.capture_begin(stream, MODE_GLOBAL) == 0);

    CHECK(pml_loader_acquire_layer(loader, under_way, stream, PML_TIMEOUT_NEVER) == PML_STATUS_STREAM_CAPTURING);
    CHECK(pml_tensor_acquire(tensor, stream, PML_TIMEOUT_NEVER, &view) == PML_STATUS_STREAM_CAPTURING);
    CHECK(view.data == NULL && acquires(loader, under_way) == 1);
    CHECK(pml_loader_load_into(loader, &tensor, &memory, &size, 1, stream) == PML_STATUS_STREAM_CAPTURING);
    OK(pml_loader_acquire_layer(loader, under_way, PML_STREAM_HOST, PML_TIMEOUT_NEVER));
    OK(pml_loader_release_layer(loader, under_way, PML_STREAM_HOST));
    driver.set("copy_latency_ns", 0);
    OK(pml_loader_release_layer(loader, under_way, other));

    OK(pml_loader_acquire_layer(loader, here, stream, PML_TIMEOUT_NEVER));
    CHECK(pml_loader_release_layer(loader, here, stream) == PML_STATUS_STREAM_CAPTURING);
    CHECK(acquires(loader, here) == 2);
    {
        pml_loader_t *others = open_small();
        CHECK(pthread_create(&thread, NULL, load_elsewhere, others) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        pml_loader_free(others);
    }
    OK(pml_tensor_acquire(tensor, PML_STREAM_HOST, PML_TIMEOUT_NEVER, &view));
    OK(pml_tensor_release(tensor, PML_STREAM_HOST));
    CHECK(driver.capture_end(stream, &graph) == 0 && graph != NULL && driver.graph_destroy(graph) == 0);

    OK(pml_loader_release_layer(loader, here, stream));
    OK(pml_loader_release_layer(loader, here, PML_STREAM_HOST));
    CHECK(acquires(loader, here) == 0 && acquires(loader, under_way) == 0);
    CHECK(driver.stream_synchronize(stream) == 0 && driver.stream_synchronize(other) == 0);
    CHECK(driver.stream_destroy(stream) == 0 && driver.stream_destroy(other) == 0 && driver.release(memory) == 0);
    pml_tensor_free(tensor);
    pml_loader_free(loader);
}

/* A thread of the engine's that has no context is left without. */
static void *load_without_context(void *argument)
{
    pml_loader_t *loader = argument;
    pml_tensor_t *tensor = tensor_of(loader, "blk.1.ffn_up.weight");
    pml_view_t view = PML_VIEW_INIT;
    uintptr_t before = current();
    CHECK(before == 0);
    OK(pml_tensor_acquire(tensor, PML_STREAM_HOST, PML_TIMEOUT_NEVER, &view));
    OK(pml_tensor_release(tensor, PML_STREAM_HOST));
    pml_tensor_free(tensor);
    CHECK(current() == before && capture_mode() == MODE_GLOBAL);
    return NULL;
}

static void a_thread_is_left_without_a_context(void)
{
    pml_loader_t *loader = open_small();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, load_without_context, loader) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    pml_loader_free(loader);
}

/* ---- The engine's own memory ---- */

static void load_all_into(const char *model, void *stream)
{
    pml_loader_t *loader = open_on(model, device_name, NULL);
    size_t count = pml_loader_tensor_count(loader), i;
    pml_tensor_t **tensors = calloc(count, sizeof *tensors);
    void **memory = calloc(count, sizeof *memory);
    size_t *sizes = calloc(count, sizeof *sizes);
    CHECK(tensors != NULL && memory != NULL && sizes != NULL);
    for (i = 0; i < count; i++) {
        pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
        /* Backwards, with room to spare. */
        OK(pml_loader_tensor_at(loader, count - 1 - i, &tensors[i]));
        OK(pml_tensor_get_info(tensors[i], &info));
        sizes[i] = (size_t)info.bytes + i % 3;
        memory[i] = device_memory(sizes[i]);
    }
    sizes[0] = 1;
    CHECK(pml_loader_load_into(loader, tensors, memory, sizes, count, stream) == PML_STATUS_INVALID_ARGUMENT);
    sizes[0] = SIZE_MAX / 2;
    OK(pml_loader_load_into(loader, tensors, memory, sizes, count, stream));
    for (i = 0; i < count; i++) {
        size_t bytes;
        unsigned char *expected = stored(tensors[i], &bytes);
        if (stream == PML_STREAM_HOST) {
            unsigned char *found = copy_back(memory[i], bytes);
            CHECK(memcmp(found, expected, bytes) == 0);
            free(found);
        } else {
            CHECK(driver.launch(stream, memory[i], bytes, driver.hash(expected, bytes), MILLISECOND / 10) == 0);
        }
        free(expected);
    }
    if (stream != PML_STREAM_HOST) CHECK(driver.stream_synchronize(stream) == 0);
    CHECK(driver.get("live_allocations") == count);
    for (i = 0; i < count; i++) {
        CHECK(driver.release(memory[i]) == 0);
        pml_tensor_free(tensors[i]);
    }
    free(sizes);
    free(memory);
    free(tensors);
    pml_loader_free(loader);
}

static void tensors_come_into_the_engines_memory(void)
{
    void *stream = new_stream();
    pml_trim();
    CHECK(becomes("live_allocations", 0));
    load_all_into(small_model, PML_STREAM_HOST);
    load_all_into(large_model, PML_STREAM_HOST);
    driver.set("random_latency_ns", MILLISECOND / 2);
    load_all_into(small_model, stream);
    load_all_into(large_model, stream);
    load_all_into(small_model, PML_STREAM_LEGACY);
    load_all_into(small_model, PML_STREAM_PER_THREAD);
    driver.set("random_latency_ns", 0);
    CHECK(driver.stream_destroy(stream) == 0);
}

/* ---- Alignment, padding, the engine's allocator ---- */

static struct {
    pthread_mutex_t lock;
    void *given[64], *own[64];
    size_t sizes[64], count, live;
    int is_on_device;
} heap = {PTHREAD_MUTEX_INITIALIZER, {NULL}, {NULL}, {0}, 0, 0, 0};

static void *give(void *user_data, size_t size, size_t alignment, uint32_t kind, uint32_t ordinal)
{
    uintptr_t start;
    size_t i;
    CHECK(user_data == &heap && size > 0 && alignment > 0 && (alignment & (alignment - 1)) == 0);
    CHECK(kind == (heap.is_on_device ? device_kind : PML_DEVICE_HOST) && ordinal == 0);
    pthread_mutex_lock(&heap.lock);
    CHECK(heap.count < COUNT(heap.given));
    i = heap.count++;
    heap.live++;
    if (heap.is_on_device) {
        uintptr_t before = current();
        enter_device();
        heap.own[i] = device_memory(size + alignment);
        if (is_cuda()) CHECK(driver.set_current((void *)before) == 0);
    } else {
        heap.own[i] = malloc(size + alignment);
        CHECK(heap.own[i] != NULL);
        memset(heap.own[i], 0xAA, size + alignment);
    }
    start = (uintptr_t)heap.own[i];
    heap.given[i] = (void *)((start + alignment - 1) & ~(uintptr_t)(alignment - 1));
    heap.sizes[i] = size;
    pthread_mutex_unlock(&heap.lock);
    return heap.given[i];
}

static void take(void *user_data, void *memory, size_t size, size_t alignment, uint32_t kind, uint32_t ordinal)
{
    size_t i;
    CHECK(user_data == &heap && alignment > 0 && ordinal == 0);
    CHECK(kind == (heap.is_on_device ? device_kind : PML_DEVICE_HOST));
    pthread_mutex_lock(&heap.lock);
    for (i = 0; i < heap.count && heap.given[i] != memory; i++) {}
    CHECK(i < heap.count && heap.sizes[i] == size && heap.own[i] != NULL);
    if (heap.is_on_device) {
        uintptr_t before = current();
        enter_device();
        CHECK(driver.release(heap.own[i]) == 0);
        if (is_cuda()) CHECK(driver.set_current((void *)before) == 0);
    } else {
        free(heap.own[i]);
    }
    heap.own[i] = heap.given[i] = NULL;
    heap.live--;
    pthread_mutex_unlock(&heap.lock);
}

static size_t heap_live(void)
{
    size_t live;
    pthread_mutex_lock(&heap.lock);
    live = heap.live;
    pthread_mutex_unlock(&heap.lock);
    return live;
}

static void check_layout(pml_loader_t *loader, int is_on_device, size_t alignment, size_t padding)
{
    size_t count = pml_loader_tensor_count(loader), i;
    for (i = 0; i < count; i++) {
        pml_tensor_t *tensor = NULL;
        pml_view_t view = PML_VIEW_INIT;
        OK(pml_loader_tensor_at(loader, i, &tensor));
        OK(pml_tensor_acquire(tensor, PML_STREAM_HOST, PML_TIMEOUT_NEVER, &view));
        CHECK((uintptr_t)view.data % alignment == 0);
        if (is_on_device) {
            check_place(&view);
            check_view(tensor, &view, padding);
        } else {
            size_t bytes, at;
            unsigned char *expected = stored(tensor, &bytes);
            const unsigned char *found = view.data;
            CHECK(view.device_kind == PML_DEVICE_HOST && view.size == bytes);
            CHECK(memcmp(found, expected, bytes) == 0);
            for (at = bytes; at < bytes + padding; at++) CHECK(found[at] == 0);
            free(expected);
        }
        OK(pml_tensor_release(tensor, PML_STREAM_HOST));
        pml_tensor_free(tensor);
    }
}

static void check_layouts(int is_on_device, int has_allocator, size_t alignment, size_t padding)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_allocator_t allocator = PML_ALLOCATOR_INIT;
    pml_loader_t *loader;
    int rounds;
    allocator.allocate = give;
    allocator.deallocate = take;
    allocator.user_data = &heap;
    heap.is_on_device = is_on_device;
    heap.count = 0;
    options.alignment = alignment;
    options.tail_padding = padding;
    if (has_allocator) options.allocator = &allocator;
    loader = open_on(small_model, is_on_device ? device_name : "cpu", &options);
    check_layout(loader, is_on_device, alignment > 0 ? alignment : 32, padding);
    CHECK(!has_allocator || heap_live() > 0);
    pml_loader_free(loader);
    /* The last of it may go with a thread of the library's. */
    for (rounds = 0; rounds < 5000 && heap_live() > 0; rounds++) nap(1);
    CHECK(heap_live() == 0);
}

static void addresses_and_zeros_are_as_asked_for(void)
{
    int is_on_device, has_allocator;
    for (is_on_device = 0; is_on_device < 2; is_on_device++) {
        for (has_allocator = 0; has_allocator < 2; has_allocator++) {
            check_layouts(is_on_device, has_allocator, ALIGNMENT, PADDING);
            check_layouts(is_on_device, has_allocator, 0, PADDING);
            check_layouts(is_on_device, has_allocator, 64, 0);
            check_layouts(is_on_device, has_allocator, 0, 0);
        }
    }
}

/* ---- Ends ---- */

static void trim_gives_staging_back(void)
{
    pml_loader_t *loader = open_small();
    pml_stats_t stats = PML_STATS_INIT;
    size_t layer;
    pml_trim();
    CHECK(driver.get("registered_bytes") == 0);
    for (layer = 0; layer < pml_loader_layer_count(loader); layer++) {
        OK(pml_loader_acquire_layer(loader, layer, PML_STREAM_HOST, PML_TIMEOUT_NEVER));
        OK(pml_loader_release_layer(loader, layer, PML_STREAM_HOST));
    }
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.staging_bytes > 0 && stats.staging_bytes <= 128u << 20);
    CHECK(driver.get("registered_bytes") == stats.staging_bytes && driver.get("live_bytes") > 0);
    pml_trim();
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.staging_bytes == 0 && stats.peak_staging_bytes > 0 && driver.get("registered_bytes") == 0);
    for (layer = 0; layer < pml_loader_layer_count(loader); layer++) OK(pml_loader_unload_layer(loader, layer));
    pml_trim();
    CHECK(becomes("live_bytes", 0));
    pml_loader_free(loader);
}

/* One order of the ends of a loader and two tensors, all acquired; what is not released before goes with its handle. */
static void end_in_order(const int *order, int releases, void *stream)
{
    pml_loader_t *loader = open_small();
    size_t layer = layer_of(loader, "blk.2");
    pml_tensor_t *one = tensor_of(loader, "blk.2.attn_q.weight"), *two = tensor_of(loader, "blk.0.attn_k.weight");
    pml_view_t view_of_one = PML_VIEW_INIT, view_of_two = PML_VIEW_INIT;
    uint64_t hash_of_one = stored_hash(one), hash_of_two = stored_hash(two);
    int i;
    OK(pml_tensor_acquire(one, stream, PML_TIMEOUT_NEVER, &view_of_one));
    OK(pml_tensor_acquire(two, PML_STREAM_HOST, PML_TIMEOUT_NEVER, &view_of_two));
    OK(pml_loader_acquire_layer(loader, layer, stream, PML_TIMEOUT_NEVER));
    launch_layer(loader, layer, stream, 2 * MILLISECOND);
    for (i = 0; i < 3; i++) {
        /* Still valid, whatever has ended. */
        if (one != NULL) CHECK(driver.launch(stream, view_of_one.data, view_of_one.size, hash_of_one, MILLISECOND) == 0);
        if (two != NULL) {
            unsigned char *found = copy_back(view_of_two.data, view_of_two.size);
            CHECK(driver.hash(found, view_of_two.size) == hash_of_two);
            free(found);
        }
        switch (order[i]) {
        case 0:
            if (releases) OK(pml_loader_release_layer(loader, layer, stream));
            pml_loader_free(loader);
            break;
        case 1:
            if (releases) OK(pml_tensor_release(one, stream));
            pml_tensor_free(one);
            one = NULL;
            break;
        default:
            if (releases) OK(pml_tensor_release(two, PML_STREAM_HOST));
            pml_tensor_free(two);
            two = NULL;
        }
    }
}

static void handles_end_in_any_order(void)
{
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    void *stream = new_stream();
    size_t i;
    for (i = 0; i < COUNT(orders); i++) {
        end_in_order(orders[i], 1, stream);
        end_in_order(orders[i], 0, stream);
    }
    CHECK(driver.stream_synchronize(stream) == 0 && driver.stream_destroy(stream) == 0);
    pml_trim();
    CHECK(becomes("live_bytes", 0));
}

static void tensors_end_with_an_acquire_on_each_stream(void)
{
    pml_loader_t *loader = open_small();
    pml_tensor_t *tensor = tensor_of(loader, "output.weight");
    void *one = new_stream(), *two = new_stream();
    pml_view_t view = PML_VIEW_INIT;
    uint64_t hash = stored_hash(tensor);
    OK(pml_tensor_acquire(tensor, one, PML_TIMEOUT_NEVER, &view));
    OK(pml_tensor_acquire(tensor, two, PML_TIMEOUT_NEVER, &view));
    OK(pml_tensor_acquire(tensor, PML_STREAM_HOST, PML_TIMEOUT_NEVER, &view));
    CHECK(driver.launch(one, view.data, view.size, hash, 20 * MILLISECOND) == 0);
    CHECK(driver.launch(two, view.data, view.size, hash, 20 * MILLISECOND) == 0);
    pml_tensor_free(tensor);
    OK(pml_loader_unload_layer(loader, layer_of(loader, "output")));
    pml_loader_free(loader);
    CHECK(driver.stream_destroy(one) == 0 && driver.stream_destroy(two) == 0);
}

/* ---- Arrays for others ---- */

static void *delete_elsewhere(void *argument)
{
    DLManagedTensorVersioned *array = argument;
    array->deleter(array);
    return NULL;
}

/* An array that a kernel of the consumer's still reads when it is given back, after every handle and on a thread without a
 * context: the memory goes when the kernel has passed, and nobody waits for that. */
static void arrays_go_when_their_consumer_is_done(void)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader;
    pml_tensor_t *tensor;
    DLManagedTensorVersioned *array = NULL;
    void *stream = new_stream();
    pthread_t thread;
    uint64_t hash;
    int frees;
    options.unload = PML_UNLOAD_LRU;
    options.memory_budget = 700 << 10;
    for (frees = 0; frees < 2; frees++) {
        loader = open_on(small_model, device_name, &options);
        tensor = tensor_of(loader, "blk.1.attn_q.weight");
        CHECK(pml_tensor_to_dlpack(tensor, NULL, &array) == PML_STATUS_INVALID_ARGUMENT && array == NULL);
        driver.set("copy_latency_ns", 5 * MILLISECOND);
        OK(pml_tensor_to_dlpack(tensor, stream, &array));
        CHECK(array->dl_tensor.device.device_type == (is_cuda() ? kDLCUDA : kDLROCM));
        CHECK(array->dl_tensor.device.device_id == 0 && array->dl_tensor.byte_offset == 0);
        hash = stored_hash(tensor);
        CHECK(driver.launch(stream, array->dl_tensor.data, 131072, hash, 50 * MILLISECOND) == 0);
        driver.set("copy_latency_ns", 0);
        if (frees) {
            pml_tensor_free(tensor);
            pml_loader_free(loader);
        }
        CHECK(pthread_create(&thread, NULL, delete_elsewhere, array) == 0 && pthread_join(thread, NULL) == 0);
        CHECK(driver.get("queued") > 0 && driver.get("live_bytes") > 0);
        if (!frees) {
            /* What comes in its place comes after the kernel: a copy before would be a violation. */
            size_t other = layer_of(loader, "blk.2");
            CHECK(acquires(loader, layer_of(loader, "blk.1")) == 0);
            OK(pml_loader_acquire_layer(loader, other, PML_STREAM_HOST, PML_TIMEOUT_NEVER));
            OK(pml_loader_release_layer(loader, other, PML_STREAM_HOST));
            pml_tensor_free(tensor);
            pml_loader_free(loader);
        }
        CHECK(becomes("live_bytes", 0));
    }
    CHECK(driver.stream_synchronize(stream) == 0 && driver.stream_destroy(stream) == 0);
}

/* ---- */

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"every stream finds its bytes", every_stream_finds_its_bytes},
    {"NULL is no stream", null_is_no_stream},
    {"eviction waits for the engine's work", eviction_waits_for_the_engines_work},
    {"a stream may go after the release", a_stream_may_go_after_the_release},
    {"a capture is told, and survives", a_capture_is_told_and_survives},
    {"a thread is left without a context", a_thread_is_left_without_a_context},
    {"tensors come into the engine's memory", tensors_come_into_the_engines_memory},
    {"addresses and zeros are as asked for", addresses_and_zeros_are_as_asked_for},
    {"trim gives staging back", trim_gives_staging_back},
    {"handles end in any order", handles_end_in_any_order},
    {"tensors end with an acquire on each stream", tensors_end_with_an_acquire_on_each_stream},
    {"arrays go when their consumer is done", arrays_go_when_their_consumer_is_done},
};

int main(int count, char **arguments)
{
    static const char *const counters[] = {"live_bytes", "registered_bytes", "live_streams", "live_events"};
    int mode = MODE_THREAD_LOCAL;
    uint64_t contexts;
    uintptr_t before;
    size_t i;
    CHECK(count == 3);
    small_model = arguments[1];
    large_model = arguments[2];
    device_name = getenv("PML_TEST_DEVICE");
    CHECK(device_name != NULL);
    device_kind = strncmp(device_name, "cuda", 4) == 0 ? PML_DEVICE_CUDA : PML_DEVICE_HIP;
    load_driver();
    enter_device();
    CHECK(driver.exchange_mode(&mode) == 0);
    contexts = driver.get("contexts_retained");
    before = current();
    for (i = 0; i < COUNT(tests); i++) {
        printf("%s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
        CHECK(current() == before && capture_mode() == MODE_THREAD_LOCAL);
    }
    pml_trim();
    for (i = 0; i < COUNT(counters); i++) CHECK(becomes(counters[i], 0));
    CHECK(becomes("contexts_retained", contexts) && driver.get("violations") == 0);
    return 0;
}
