#define _POSIX_C_SOURCE 200809L
/* What an engine does that loads as it goes: strategies, callbacks, limits, its own memory, cancelling and ends. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pml.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #condition, pml_last_error()); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define IS(expected, call) is(__LINE__, #call, (call), (expected))
#define OK(call) IS(PML_STATUS_OK, call)
#define SAYS(text) CHECK(strstr(pml_last_error(), (text)) != NULL)

enum { MOST_LAYERS = 16, MOST_EVENTS = 1000, MOST_BLOCKS = 64 };

static void is(int line, const char *what, pml_status_t found, pml_status_t expected)
{
    if (found == expected) return;
    fprintf(stderr, "line %d: %s gave %s (%s), expected %s\n", line, what, pml_status_name(found), pml_last_error(),
            pml_status_name(expected));
    exit(1);
}

/* An engine: what its callbacks were told, and what they do. */
struct engine {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pml_loader_t *loader;
    /* What the callbacks do besides. */
    int32_t (*act)(struct engine *engine, const pml_event_t *event);
    size_t events;
    struct {
        uint32_t kind;
        uint32_t stage;
        size_t layer;
    } told[MOST_EVENTS];
    int layers_told[MOST_LAYERS];
    int progress_told;
    int fully_told;
    int errors_told;
    pml_event_t last;
    int lines;
    int is_inside;
    int destroyed;
    /* Signals between a callback and the rest. */
    int goes_on;
    int has_acted;
};

static void set(struct engine *engine, int *flag)
{
    pthread_mutex_lock(&engine->lock);
    ++*flag;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
}

static int get(struct engine *engine, const int *number)
{
    int now;
    pthread_mutex_lock(&engine->lock);
    now = *number;
    pthread_mutex_unlock(&engine->lock);
    return now;
}

static void wait_line(int line, struct engine *engine, const int *number, int least)
{
    struct timespec end;
    int late = 0;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 60;
    pthread_mutex_lock(&engine->lock);
    while (*number < least && late == 0) late = pthread_cond_timedwait(&engine->changed, &engine->lock, &end);
    if (*number < least) {
        fprintf(stderr, "line %d: %d after a minute, expected %d\n", line, *number, least);
        exit(1);
    }
    pthread_mutex_unlock(&engine->lock);
}
#define WAIT_FOR(number, least) wait_line(__LINE__, engine, &engine->number, (least))

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Told of every event. One at a time, in order, never after destroy; figures never fall. */
static int32_t tell(void *user_data, const pml_event_t *event)
{
    struct engine *engine = user_data;
    int32_t answer;

    pthread_mutex_lock(&engine->lock);
    CHECK(!engine->is_inside && engine->destroyed == 0);
    engine->is_inside = 1;
    CHECK(event->struct_size == sizeof *event && event->reserved == 0);
    CHECK(event->bytes_done >= engine->last.bytes_done && event->layers_done >= engine->last.layers_done);
    CHECK(event->bytes_done <= event->bytes_total && event->layers_done <= event->layers_total);
    CHECK(event->bytes_per_second >= 0.0);
    CHECK((event->status != PML_STATUS_OK) == (event->kind == PML_EVENT_ERROR));
    CHECK((event->message != NULL) == (event->message_length > 0));
    engine->last = *event;
    if (engine->events < MOST_EVENTS) {
        engine->told[engine->events].kind = event->kind;
        engine->told[engine->events].stage = event->stage;
        engine->told[engine->events++].layer = event->layer;
    }
    switch (event->kind) {
    case PML_EVENT_LAYER_LOADED:
        CHECK(event->layer < MOST_LAYERS && event->tensor == SIZE_MAX);
        engine->layers_told[event->layer]++;
        break;
    case PML_EVENT_PROGRESS:
        CHECK(event->layer == SIZE_MAX && event->tensor == SIZE_MAX);
        engine->progress_told++;
        break;
    case PML_EVENT_FULLY_LOADED:
        CHECK(event->bytes_done == event->bytes_total && event->layers_done == event->layers_total);
        engine->fully_told++;
        break;
    default:
        CHECK(event->kind == PML_EVENT_ERROR && event->message_length > 0);
        engine->errors_told++;
    }
    pthread_mutex_unlock(&engine->lock);

    answer = engine->act == NULL ? 0 : engine->act(engine, event);

    pthread_mutex_lock(&engine->lock);
    engine->is_inside = 0;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    return answer;
}

static int32_t tell_layer(void *user_data, const pml_event_t *event)
{
    CHECK(event->kind == PML_EVENT_LAYER_LOADED);
    return tell(user_data, event);
}

static int32_t tell_progress(void *user_data, const pml_event_t *event)
{
    CHECK(event->kind == PML_EVENT_PROGRESS);
    return tell(user_data, event);
}

static int32_t tell_fully(void *user_data, const pml_event_t *event)
{
    CHECK(event->kind == PML_EVENT_FULLY_LOADED);
    return tell(user_data, event);
}

static int32_t tell_error(void *user_data, const pml_event_t *event)
{
    CHECK(event->kind == PML_EVENT_ERROR);
    return tell(user_data, event);
}

static void end(void *user_data)
{
    struct engine *engine = user_data;
    CHECK(!get(engine, &engine->is_inside));
    set(engine, &engine->destroyed);
}

static struct engine *new_engine(int32_t (*act)(struct engine *, const pml_event_t *))
{
    struct engine *engine = calloc(1, sizeof *engine);
    CHECK(engine != NULL);
    CHECK(pthread_mutex_init(&engine->lock, NULL) == 0 && pthread_cond_init(&engine->changed, NULL) == 0);
    engine->act = act;
    return engine;
}

/* Options with every callback. */
static pml_options_t with_callbacks(struct engine *engine)
{
    pml_options_t options = PML_OPTIONS_INIT;
    options.on_layer_loaded = tell_layer;
    options.on_progress = tell_progress;
    options.on_fully_loaded = tell_fully;
    options.on_error = tell_error;
    options.user_data = engine;
    options.destroy = end;
    return options;
}

/* After destroy nothing comes any more. */
static void free_engine(struct engine *engine)
{
    struct timespec pause = {0, 2000000};
    size_t events;
    WAIT_FOR(destroyed, 1);
    events = engine->events;
    nanosleep(&pause, NULL);
    CHECK(get(engine, &engine->destroyed) == 1 && engine->events == events);
    pthread_cond_destroy(&engine->changed);
    pthread_mutex_destroy(&engine->lock);
    free(engine);
}

static size_t layer_at(const pml_loader_t *loader, size_t position, pml_layer_info_t *info)
{
    size_t layer;
    for (layer = 0; layer < pml_loader_layer_count(loader); layer++) {
        pml_layer_info_init(info, sizeof *info);
        OK(pml_loader_layer_info(loader, layer, info));
        if (info->position == position) return layer;
    }
    CHECK(!"a layer at every position");
    return 0;
}

static uint64_t layer_bytes(const pml_loader_t *loader, size_t layer)
{
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    OK(pml_loader_layer_info(loader, layer, &info));
    return info.bytes;
}

static uint32_t layer_state(const pml_loader_t *loader, size_t layer)
{
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    OK(pml_loader_layer_info(loader, layer, &info));
    return info.state;
}

static uint64_t largest_layer(const pml_loader_t *loader)
{
    uint64_t most = 0;
    size_t layer;
    for (layer = 0; layer < pml_loader_layer_count(loader); layer++)
        if (layer_bytes(loader, layer) > most) most = layer_bytes(loader, layer);
    return most;
}

static size_t layers_in_memory(const pml_loader_t *loader)
{
    size_t layer, count = 0;
    for (layer = 0; layer < pml_loader_layer_count(loader); layer++)
        count += layer_state(loader, layer) != PML_LAYER_ABSENT;
    return count;
}

/* The bytes of an acquired layer are those of the file. */
static void compare(pml_loader_t *loader, size_t layer)
{
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    size_t i;
    OK(pml_loader_layer_info(loader, layer, &info));
    CHECK(info.state == PML_LAYER_RESIDENT && info.acquire_count > 0);
    for (i = 0; i < info.tensor_count; i++) {
        pml_tensor_t *tensor = NULL;
        pml_view_t view = PML_VIEW_INIT;
        size_t index;
        char *copy;
        OK(pml_loader_layer_tensor(loader, layer, i, &index));
        OK(pml_loader_tensor_at(loader, index, &tensor));
        OK(pml_tensor_view(tensor, &view));
        copy = malloc(view.size);
        CHECK(copy != NULL);
        OK(pml_tensor_read(tensor, 0, copy, view.size));
        CHECK(memcmp(copy, view.data, view.size) == 0);
        free(copy);
        pml_tensor_free(tensor);
    }
}

static void visit_all(pml_loader_t *loader)
{
    size_t layer;
    for (layer = 0; layer < pml_loader_layer_count(loader); layer++) {
        OK(pml_loader_acquire_layer(loader, layer, PML_STREAM_HOST, -1));
        compare(loader, layer);
        OK(pml_loader_release_layer(loader, layer, PML_STREAM_HOST));
    }
}

/* Start and wait, under each strategy and with each reader; each thing is told as often as it should be. */
static void strategies(const char *path)
{
    static const uint32_t readers[] = {PML_IO_AUTO, PML_IO_READ};
    uint32_t strategy;
    size_t i, layer;

    for (strategy = PML_STRATEGY_ON_DEMAND; strategy <= PML_STRATEGY_PREFETCH; strategy++)
        for (i = 0; i < 2; i++) {
            struct engine *engine = new_engine(NULL);
            pml_options_t options = with_callbacks(engine);
            pml_event_t event = PML_EVENT_INIT;
            pml_loader_t *loader = NULL;
            size_t count;
            options.strategy = strategy;
            options.io = readers[i];
            OK(pml_loader_open(path, &options, &loader));
            count = pml_loader_layer_count(loader);
            CHECK(count > 2 && count <= MOST_LAYERS);
            CHECK(pml_loader_progress(loader) == 0.0 && pml_loader_stage(loader) == PML_STAGE_OPENING);
            CHECK(!pml_loader_is_fully_loaded(loader));
            IS(PML_STATUS_INVALID_STATE, pml_loader_wait(loader, -1));
            OK(pml_loader_start(loader));
            OK(pml_loader_wait(loader, -1));
            CHECK(pml_loader_progress(loader) == 1.0 && pml_loader_is_fully_loaded(loader));
            CHECK(pml_loader_stage(loader) == PML_STAGE_DONE);
            IS(PML_STATUS_INVALID_STATE, pml_loader_next_event(loader, 0, &event));
            WAIT_FOR(fully_told, 1);
            /* Once more: all is there, and nothing is told twice. */
            OK(pml_loader_start(loader));
            OK(pml_loader_wait(loader, 0));
            visit_all(loader);
            pml_loader_free(loader);
            WAIT_FOR(destroyed, 1);
            for (layer = 0; layer < count; layer++) CHECK(engine->layers_told[layer] == 1);
            CHECK(engine->fully_told == 1 && engine->progress_told > 0 && engine->errors_told == 0);
            CHECK(engine->last.stage == PML_STAGE_DONE && engine->last.layers_done == count);
            free_engine(engine);
        }
}

/* `destroy` is called once wherever opening ends, but where the struct itself is refused. */
static void opens_that_fail(const char *path)
{
    struct engine *engine = new_engine(NULL);
    pml_options_t options = with_callbacks(engine);
    pml_loader_t *loader = (pml_loader_t *)engine;

    options.struct_size = 7;
    IS(PML_STATUS_INVALID_ARGUMENT, pml_loader_open(path, &options, &loader));
    CHECK(get(engine, &engine->destroyed) == 0);
    options.struct_size = sizeof options;
    IS(PML_STATUS_NOT_FOUND, pml_loader_open("/no/such/model.gguf", &options, &loader));
    CHECK(loader == NULL);
    free_engine(engine);

    engine = new_engine(NULL);
    options = with_callbacks(engine);
    CHECK(pml_loader_open("/dev/null", &options, &loader) != PML_STATUS_OK);
    free_engine(engine);

    engine = new_engine(NULL);
    options = with_callbacks(engine);
    options.strategy = 77;
    IS(PML_STATUS_INVALID_ARGUMENT, pml_loader_open(path, &options, &loader));
    free_engine(engine);

    engine = new_engine(NULL);
    options = with_callbacks(engine);
    options.workers = 1000;
    IS(PML_STATUS_INVALID_ARGUMENT, pml_loader_open(path, &options, &loader));
    free_engine(engine);
}

/* Each layer's callback prefetches the next one, and tries what it must not do. */
static int32_t act_inside(struct engine *engine, const pml_event_t *event)
{
    pml_loader_t *loader = engine->loader;
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    pml_stats_t stats = PML_STATS_INIT;
    pml_event_t next = PML_EVENT_INIT;
    pml_tensor_t *tensor = NULL;
    pml_view_t view = PML_VIEW_INIT;
    char byte = 0;
    void *dst = &byte;
    size_t size = 1, index, following;

    if (event->kind != PML_EVENT_LAYER_LOADED) return 0;
    OK(pml_loader_layer_info(loader, event->layer, &info));
    CHECK(info.state == PML_LAYER_RESIDENT);
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.resident_bytes > 0 && pml_loader_progress(loader) > 0.0);
    CHECK(pml_loader_stage(loader) == PML_STAGE_LOADING || pml_loader_stage(loader) == PML_STAGE_DONE);
    OK(pml_loader_layer_tensor(loader, event->layer, 0, &index));
    OK(pml_loader_tensor_at(loader, index, &tensor));
    CHECK(pml_tensor_is_loaded(tensor));

    IS(PML_STATUS_WOULD_DEADLOCK, pml_loader_wait(loader, 0));
    IS(PML_STATUS_WOULD_DEADLOCK, pml_loader_acquire_layer(loader, event->layer, PML_STREAM_HOST, 0));
    IS(PML_STATUS_WOULD_DEADLOCK, pml_tensor_acquire(tensor, PML_STREAM_HOST, 0, &view));
    IS(PML_STATUS_WOULD_DEADLOCK, pml_tensor_read(tensor, 0, &byte, 1));
    IS(PML_STATUS_WOULD_DEADLOCK, pml_loader_load_into(loader, &tensor, &dst, &size, 1, NULL));
    IS(PML_STATUS_WOULD_DEADLOCK, pml_loader_unload_layer(loader, event->layer));
    IS(PML_STATUS_WOULD_DEADLOCK, pml_loader_verify(loader, 0, NULL, NULL));
    IS(PML_STATUS_WOULD_DEADLOCK, pml_loader_next_event(loader, 0, &next));
    CHECK(byte == 0);
    pml_tensor_free(tensor);

    following = info.position + 1;
    if (following == pml_loader_layer_count(loader)) return 0;
    index = layer_at(loader, following, &info);
    if (following % 2 == 0) {
        OK(pml_loader_prefetch(loader, &index, 1));
    } else {
        char name[64];
        CHECK(info.name_length < sizeof name);
        memcpy(name, info.name, info.name_length);
        name[info.name_length] = '\0';
        OK(pml_loader_prefetch_layer(loader, name));
    }
    return 0;
}

static void inside_callbacks(const char *path)
{
    struct engine *engine = new_engine(act_inside);
    pml_options_t options = with_callbacks(engine);
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    size_t first;

    OK(pml_loader_open(path, &options, &engine->loader));
    first = layer_at(engine->loader, 0, &info);
    OK(pml_loader_prefetch(engine->loader, &first, 1));
    WAIT_FOR(fully_told, 1);
    CHECK(pml_loader_is_fully_loaded(engine->loader));
    pml_loader_free(engine->loader);
    free_engine(engine);
}

/* Memory of the engine's own, which is counted; `user_data` is the arena. */
struct arena {
    struct engine *engine;
    pthread_mutex_t lock;
    uint64_t outstanding;
    uint64_t peak;
    uint64_t limit;
    int given;
    int taken_back;
    /* Gives nothing, or something that it should not. */
    int is_empty;
    int is_crooked;
    /* Waits for `goes_on` of the engine. */
    int is_slow;
    int asked;
    struct {
        void *start;
        size_t size;
        size_t alignment;
    } blocks[MOST_BLOCKS];
};

static void *give(void *user_data, size_t size, size_t alignment, uint32_t kind, uint32_t ordinal)
{
    struct arena *arena = user_data;
    struct engine *engine = arena->engine;
    void *memory = NULL;
    int i;

    CHECK(size > 0 && alignment > 0 && (alignment & (alignment - 1)) == 0);
    CHECK(kind == PML_DEVICE_HOST && ordinal == 0);
    if (arena->is_slow) {
        set(engine, &arena->asked);
        WAIT_FOR(goes_on, 1);
    }
    pthread_mutex_lock(&arena->lock);
    if (!arena->is_empty) {
        CHECK(posix_memalign(&memory, alignment, size + alignment) == 0);
        for (i = 0; arena->blocks[i].start != NULL; i++) CHECK(i + 1 < MOST_BLOCKS);
        if (arena->is_crooked) memory = (char *)memory + 1;
        arena->blocks[i].start = memory;
        arena->blocks[i].size = size;
        arena->blocks[i].alignment = alignment;
        arena->given++;
        arena->outstanding += size;
        if (arena->outstanding > arena->peak) arena->peak = arena->outstanding;
        CHECK(arena->limit == 0 || arena->outstanding <= arena->limit);
    }
    pthread_mutex_unlock(&arena->lock);
    return memory;
}

static void take_back(void *user_data, void *memory, size_t size, size_t alignment, uint32_t kind, uint32_t ordinal)
{
    struct arena *arena = user_data;
    int i;

    CHECK(kind == PML_DEVICE_HOST && ordinal == 0 && memory != NULL);
    pthread_mutex_lock(&arena->lock);
    for (i = 0; arena->blocks[i].start != memory; i++) CHECK(i + 1 < MOST_BLOCKS);
    CHECK(arena->blocks[i].size == size && arena->blocks[i].alignment == alignment);
    arena->blocks[i].start = NULL;
    arena->taken_back++;
    arena->outstanding -= size;
    free((char *)memory - ((size_t)memory % alignment == 0 ? 0 : 1));
    pthread_mutex_unlock(&arena->lock);
}

static pml_allocator_t allocator_of(struct arena *arena, struct engine *engine)
{
    pml_allocator_t allocator = PML_ALLOCATOR_INIT;
    memset(arena, 0, sizeof *arena);
    CHECK(pthread_mutex_init(&arena->lock, NULL) == 0);
    arena->engine = engine;
    allocator.allocate = give;
    allocator.deallocate = take_back;
    allocator.user_data = arena;
    return allocator;
}

static void check_given_back(struct arena *arena)
{
    CHECK(arena->given > 0 && arena->given == arena->taken_back && arena->outstanding == 0);
    pthread_mutex_destroy(&arena->lock);
}

static void own_memory(const char *path)
{
    static const uint32_t strategies[] = {PML_STRATEGY_ON_DEMAND, PML_STRATEGY_PREFETCH};
    size_t i;

    for (i = 0; i < 2; i++) {
        struct engine *engine = new_engine(NULL);
        pml_options_t options = with_callbacks(engine);
        struct arena arena;
        pml_allocator_t allocator = allocator_of(&arena, engine);
        pml_loader_t *loader = NULL;
        pml_tensor_t *held = NULL;
        pml_view_t view = PML_VIEW_INIT;
        int round;
        OK(pml_loader_open(path, NULL, &loader));
        options.memory_budget = arena.limit = 2 * largest_layer(loader);
        pml_loader_free(loader);
        options.allocator = &allocator;
        options.unload = PML_UNLOAD_LRU;
        options.strategy = strategies[i];
        OK(pml_loader_open(path, &options, &loader));
        /* The struct is copied. */
        memset(&allocator, 0, sizeof allocator);
        for (round = 0; round < 3; round++) visit_all(loader);
        CHECK(arena.given > (int)pml_loader_layer_count(loader) && arena.peak <= arena.limit);
        /* What is held outlives the loader, and its memory does too. */
        OK(pml_loader_tensor_at(loader, 0, &held));
        OK(pml_tensor_acquire(held, NULL, -1, &view));
        pml_loader_free(loader);
        CHECK(*(const volatile unsigned char *)view.data < 60 && get(engine, &engine->destroyed) == 0);
        pml_tensor_free(held);
        free_engine(engine);
        check_given_back(&arena);
    }
}

/* The engine has no memory, or answers with what was not asked for; later it has some. */
static void no_memory(const char *path)
{
    struct engine *engine = new_engine(NULL);
    pml_options_t options = with_callbacks(engine);
    struct arena arena;
    pml_allocator_t allocator = allocator_of(&arena, engine);
    pml_loader_t *loader = NULL;
    pml_stats_t stats = PML_STATS_INIT;
    int way;

    options.allocator = &allocator;
    OK(pml_loader_open(path, &options, &loader));
    for (way = 0; way < 2; way++) {
        arena.is_empty = way == 0;
        arena.is_crooked = way == 1;
        IS(PML_STATUS_OUT_OF_MEMORY, pml_loader_acquire_layer(loader, 1, NULL, -1));
        CHECK(layer_state(loader, 1) == PML_LAYER_ABSENT);
        OK(pml_loader_start(loader));
        IS(PML_STATUS_OUT_OF_MEMORY, pml_loader_wait(loader, -1));
        CHECK(pml_loader_stage(loader) == PML_STAGE_FAILED);
        OK(pml_loader_stats(loader, &stats));
        CHECK(stats.charged_bytes == 0 && stats.resident_bytes == 0);
    }
    CHECK(arena.outstanding == 0);
    WAIT_FOR(errors_told, 1);
    CHECK(engine->last.kind != PML_EVENT_ERROR || engine->last.status == PML_STATUS_OUT_OF_MEMORY);
    arena.is_empty = arena.is_crooked = 0;
    OK(pml_loader_acquire_layer(loader, 1, NULL, -1));
    compare(loader, 1);
    OK(pml_loader_start(loader));
    OK(pml_loader_wait(loader, -1));
    pml_loader_free(loader);
    free_engine(engine);
    check_given_back(&arena);
}

/* Cancels once; then lets the arena go on as soon as it is told that it has cancelled. */
static int32_t act_cancel(struct engine *engine, const pml_event_t *event)
{
    if (event->kind != PML_EVENT_PROGRESS) return 0;
    if (event->stage == PML_STAGE_CANCELLED) set(engine, &engine->goes_on);
    if (get(engine, &engine->has_acted)) return 0;
    set(engine, &engine->has_acted);
    return 1;
}

static void cancelling(const char *path)
{
    struct engine *engine = new_engine(act_cancel);
    pml_options_t options = with_callbacks(engine);
    struct arena arena;
    pml_allocator_t allocator = allocator_of(&arena, engine);
    pml_loader_t *loader = NULL;

    arena.is_slow = 1;
    options.allocator = &allocator;
    options.strategy = PML_STRATEGY_SEQUENTIAL;
    OK(pml_loader_open(path, &options, &loader));
    OK(pml_loader_start(loader));
    IS(PML_STATUS_CANCELLED, pml_loader_wait(loader, -1));
    CHECK(pml_loader_stage(loader) == PML_STAGE_CANCELLED && pml_loader_progress(loader) < 1.0);
    IS(PML_STATUS_CANCELLED, pml_loader_wait(loader, -1));
    WAIT_FOR(goes_on, 1);
    OK(pml_loader_start(loader));
    OK(pml_loader_wait(loader, -1));
    WAIT_FOR(fully_told, 1);
    CHECK(pml_loader_stage(loader) == PML_STAGE_DONE);
    /* With nothing under way it changes nothing. */
    OK(pml_loader_cancel(loader));
    visit_all(loader);
    pml_loader_free(loader);
    free_engine(engine);
    check_given_back(&arena);
}

struct acquire {
    struct engine *engine;
    pml_loader_t *loader;
    size_t layer;
    pml_status_t status;
};

static void *acquire(void *argument)
{
    struct acquire *acquire = argument;
    acquire->status = pml_loader_acquire_layer(acquire->loader, acquire->layer, PML_STREAM_HOST, -1);
    return NULL;
}

/* Cancelled while the engine's allocator is asked: the layer is absent again, and comes when it is wanted again. */
static void cancelled_in_the_allocator(const char *path)
{
    struct engine *engine = new_engine(NULL);
    pml_options_t options = PML_OPTIONS_INIT;
    struct arena arena;
    pml_allocator_t allocator = allocator_of(&arena, engine);
    struct acquire job = {engine, NULL, 2, PML_STATUS_OK};
    pml_stats_t stats = PML_STATS_INIT;
    pthread_t thread;

    arena.is_slow = 1;
    options.allocator = &allocator;
    options.destroy = end;
    options.user_data = engine;
    OK(pml_loader_open(path, &options, &job.loader));
    CHECK(pthread_create(&thread, NULL, acquire, &job) == 0);
    wait_line(__LINE__, engine, &arena.asked, 1);
    OK(pml_loader_cancel(job.loader));
    set(engine, &engine->goes_on);
    CHECK(pthread_join(thread, NULL) == 0);
    IS(PML_STATUS_CANCELLED, job.status);
    CHECK(layer_state(job.loader, 2) == PML_LAYER_ABSENT);
    OK(pml_loader_stats(job.loader, &stats));
    CHECK(stats.charged_bytes == 0 && arena.outstanding == 0);
    OK(pml_loader_unload_layer(job.loader, 2));
    visit_all(job.loader);
    pml_loader_free(job.loader);
    free_engine(engine);
    check_given_back(&arena);
}

/* While the engine's allocator takes its time for a layer that is read ahead, another one is acquired. */
static void slow_allocator(const char *path)
{
    struct engine *engine = new_engine(NULL);
    pml_options_t options = PML_OPTIONS_INIT;
    struct arena arena;
    pml_allocator_t allocator = allocator_of(&arena, engine);
    pml_loader_t *loader = NULL;
    pml_loader_t *other = NULL;

    OK(pml_loader_open(path, NULL, &other));
    arena.is_slow = 1;
    options.allocator = &allocator;
    options.destroy = end;
    options.user_data = engine;
    OK(pml_loader_open(path, &options, &loader));
    OK(pml_loader_prefetch_layer(loader, "blk.0"));
    OK(pml_loader_prefetch_layer(loader, "blk.1"));
    wait_line(__LINE__, engine, &arena.asked, 2);
    visit_all(other);
    CHECK(arena.given == 0);
    set(engine, &engine->goes_on);
    visit_all(loader);
    pml_loader_free(loader);
    pml_loader_free(other);
    free_engine(engine);
    check_given_back(&arena);
}

/* Pulled, the events are those that callbacks are told: progress as it stands, all else alike. */
static void pulled_events(const char *path)
{
    struct engine *engine = new_engine(NULL);
    pml_options_t options = with_callbacks(engine);
    pml_loader_t *told = NULL;
    pml_loader_t *pulled = NULL;
    pml_event_t event = PML_EVENT_INIT;
    pml_event_t last = PML_EVENT_INIT;
    size_t i, count, others = 0;
    double start;

    OK(pml_loader_open(path, &options, &told));
    count = pml_loader_layer_count(told);
    OK(pml_loader_open(path, NULL, &pulled));
    IS(PML_STATUS_TIMED_OUT, pml_loader_next_event(pulled, 0, &event));
    start = seconds();
    IS(PML_STATUS_TIMED_OUT, pml_loader_next_event(pulled, 20, &event));
    CHECK(seconds() - start >= 0.019);
    for (i = 0; i < count; i++) {
        size_t layer = count - 1 - i;
        OK(pml_loader_acquire_layer(told, layer, NULL, -1));
        OK(pml_loader_release_layer(told, layer, NULL));
        OK(pml_loader_acquire_layer(pulled, layer, NULL, -1));
        OK(pml_loader_release_layer(pulled, layer, NULL));
    }
    WAIT_FOR(fully_told, 1);
    IS(PML_STATUS_INVALID_STATE, pml_loader_next_event(told, 0, &event));
    pml_loader_free(told);
    WAIT_FOR(destroyed, 1);

    for (i = 0; i < engine->events; i++) {
        if (engine->told[i].kind == PML_EVENT_PROGRESS) continue;
        do {
            OK(pml_loader_next_event(pulled, 60000, &event));
            CHECK(event.bytes_done >= last.bytes_done && event.message == NULL);
            last = event;
        } while (event.kind == PML_EVENT_PROGRESS);
        CHECK(event.kind == engine->told[i].kind && event.layer == engine->told[i].layer);
        others++;
    }
    CHECK(others == count + 1 && event.kind == PML_EVENT_FULLY_LOADED && event.stage == PML_STAGE_DONE);
    CHECK(event.bytes_done == event.bytes_total && event.layers_done == count);
    IS(PML_STATUS_TIMED_OUT, pml_loader_next_event(pulled, 0, &event));
    /* A shorter struct gets its part. */
    OK(pml_loader_unload_layer(pulled, 0));
    OK(pml_loader_acquire_layer(pulled, 0, NULL, -1));
    memset(&event, 0xAA, sizeof event);
    event.struct_size = offsetof(pml_event_t, layer);
    OK(pml_loader_next_event(pulled, 60000, &event));
    CHECK(event.struct_size == offsetof(pml_event_t, layer) && event.layer == (size_t)0xAAAAAAAAAAAAAAAA);
    pml_loader_free(pulled);
    free_engine(engine);
}

static void *visit_often(void *argument)
{
    int round;
    for (round = 0; round < 5; round++) visit_all(argument);
    return NULL;
}

/* Two loaders under one budget, one of them with a limit of its own: all layers of both are visited. */
static void shared_budget(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loaders[2] = {NULL, NULL};
    pml_budget_t *budget = NULL;
    pml_stats_t stats[2] = {PML_STATS_INIT, PML_STATS_INIT};
    pthread_t threads[2];
    uint64_t limit;
    size_t i, layer;

    OK(pml_loader_open(path, NULL, &loaders[0]));
    limit = 2 * largest_layer(loaders[0]) + 8192;
    pml_loader_free(loaders[0]);
    OK(pml_budget_new(limit, &budget));
    options.budget = budget;
    options.unload = PML_UNLOAD_LRU;
    OK(pml_loader_open(path, &options, &loaders[0]));
    options.strategy = PML_STRATEGY_PREFETCH;
    options.io = PML_IO_READ;
    options.max_loaded_layers = 2;
    OK(pml_loader_open(path, &options, &loaders[1]));
    pml_budget_free(budget);

    for (layer = 0; layer < pml_loader_layer_count(loaders[0]); layer++)
        for (i = 0; i < 2; i++) {
            OK(pml_loader_acquire_layer(loaders[i], layer, NULL, -1));
            compare(loaders[i], layer);
            OK(pml_loader_release_layer(loaders[i], layer, NULL));
        }
    for (i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, visit_often, loaders[i]) == 0);
    for (i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (i = 0; i < 2; i++) {
        OK(pml_loader_stats(loaders[i], &stats[i]));
        CHECK(stats[i].evictions > 0 && stats[i].peak_charged_bytes <= limit);
        CHECK(stats[i].delivered_bytes > stats[i].total_bytes);
    }
    CHECK(stats[1].prefetches > 0 && stats[1].allocations > 0);
    /* What one holds the other cannot have; what it frees it can. */
    for (layer = 0; layer < 2; layer++) OK(pml_loader_acquire_layer(loaders[0], layer + 1, NULL, -1));
    IS(PML_STATUS_BUDGET, pml_loader_acquire_layer(loaders[1], 1, NULL, 0));
    SAYS("acquired 1 times");
    pml_loader_free(loaders[0]);
    OK(pml_loader_acquire_layer(loaders[1], 1, NULL, -1));
    pml_loader_free(loaders[1]);
}

/* Acquires a layer again and again, with little between release and acquire; others look for room meanwhile. */
static void *acquire_often(void *argument)
{
    struct acquire *acquire = argument;
    while (!get(acquire->engine, &acquire->engine->goes_on)) {
        OK(pml_loader_acquire_layer(acquire->loader, acquire->layer, PML_STREAM_HOST, -1));
        OK(pml_loader_release_layer(acquire->loader, acquire->layer, PML_STREAM_HOST));
    }
    return NULL;
}

/* Two who want different layers where there is room for one: who waits gets it each time, who does not may get it. */
static void contention(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    struct engine *engine = new_engine(NULL);
    struct acquire job = {engine, NULL, 0, PML_STATUS_OK};
    pthread_t thread;
    size_t other;
    double start;

    options.max_loaded_layers = 1;
    options.unload = PML_UNLOAD_LRU;
    options.destroy = end;
    options.user_data = engine;
    OK(pml_loader_open(path, &options, &loader));
    job.loader = loader;
    OK(pml_loader_find_layer(loader, "token_embd", &job.layer));
    OK(pml_loader_find_layer(loader, "output", &other));
    CHECK(pthread_create(&thread, NULL, acquire_often, &job) == 0);
    for (start = seconds(); seconds() - start < 1.0;) {
        pml_status_t status = pml_loader_acquire_layer(loader, other, NULL, 0);
        CHECK(status == PML_STATUS_OK || status == PML_STATUS_BUDGET);
        if (status == PML_STATUS_OK) OK(pml_loader_release_layer(loader, other, NULL));
    }
    set(engine, &engine->goes_on);
    CHECK(pthread_join(thread, NULL) == 0);
    pml_loader_free(loader);
    free_engine(engine);
}

/* At a limit under PML_UNLOAD_NEVER there is no room, and the message has the arithmetic. */
static void no_room(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    pml_stats_t stats = PML_STATS_INIT;
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    uint64_t most;
    char text[64];
    size_t layer, second;
    int rounds = 0;
    double start;

    OK(pml_loader_open(path, NULL, &loader));
    most = largest_layer(loader);
    layer = layer_at(loader, 1, &info);
    second = layer_at(loader, 2, &info);
    CHECK(info.bytes == most && layer_bytes(loader, layer) == most);
    pml_loader_free(loader);

    options.memory_budget = most + most / 2;
    OK(pml_loader_open(path, &options, &loader));
    OK(pml_loader_acquire_layer(loader, layer, NULL, -1));
    OK(pml_loader_release_layer(loader, layer, NULL));
    IS(PML_STATUS_BUDGET, pml_loader_acquire_layer(loader, second, NULL, -1));
    sprintf(text, "%llu of %llu bytes", (unsigned long long)most, (unsigned long long)options.memory_budget);
    SAYS(text);
    sprintf(text, "%llu bytes", (unsigned long long)most);
    SAYS(text);
    SAYS("'blk.0'");
    SAYS("'blk.1'");
    /* What does not fit waits for its turn. */
    OK(pml_loader_prefetch(loader, &second, 1));
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.peak_charged_bytes <= options.memory_budget && stats.evictions == 0);
    OK(pml_loader_unload_layer(loader, layer));
    OK(pml_loader_acquire_layer(loader, second, NULL, -1));
    OK(pml_loader_release_layer(loader, second, NULL));
    /* Background loading pauses, and goes on when something was unloaded. */
    OK(pml_loader_start(loader));
    while (pml_loader_wait(loader, -1) == PML_STATUS_BUDGET) {
        CHECK(rounds++ < 100);
        for (layer = 0; layer < pml_loader_layer_count(loader); layer++) OK(pml_loader_unload_layer(loader, layer));
    }
    OK(pml_loader_wait(loader, -1));
    CHECK(rounds > 0 && pml_loader_progress(loader) == 1.0 && !pml_loader_is_fully_loaded(loader));
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.peak_charged_bytes <= options.memory_budget);
    pml_loader_free(loader);

    /* One that would fit into no empty budget fails at once, wherever it is asked for. */
    options.memory_budget = most - 1;
    OK(pml_loader_open(path, &options, &loader));
    IS(PML_STATUS_BUDGET, pml_loader_acquire_layer(loader, second, NULL, -1));
    IS(PML_STATUS_BUDGET, pml_loader_prefetch(loader, &second, 1));
    OK(pml_loader_start(loader));
    IS(PML_STATUS_BUDGET, pml_loader_wait(loader, -1));
    pml_loader_free(loader);

    /* Another holder is waited for as long as was said. */
    options.memory_budget = most + most / 2;
    options.unload = PML_UNLOAD_LRU;
    OK(pml_loader_open(path, &options, &loader));
    layer = layer_at(loader, 1, &info);
    OK(pml_loader_acquire_layer(loader, layer, NULL, -1));
    IS(PML_STATUS_BUDGET, pml_loader_acquire_layer(loader, second, NULL, 0));
    start = seconds();
    IS(PML_STATUS_BUDGET, pml_loader_acquire_layer(loader, second, NULL, 30));
    CHECK(seconds() - start >= 0.029);
    SAYS("acquired 1 times");
    OK(pml_loader_release_layer(loader, layer, NULL));
    OK(pml_loader_acquire_layer(loader, second, NULL, 0));
    CHECK(layer_state(loader, layer) == PML_LAYER_ABSENT);
    pml_loader_free(loader);
}

static void loaded_layers(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    size_t layer, round;
    uint32_t strategy;

    options.max_loaded_layers = 2;
    OK(pml_loader_open(path, &options, &loader));
    for (layer = 0; layer < 2; layer++) {
        OK(pml_loader_acquire_layer(loader, layer, NULL, -1));
        OK(pml_loader_release_layer(loader, layer, NULL));
    }
    IS(PML_STATUS_BUDGET, pml_loader_acquire_layer(loader, 2, NULL, -1));
    SAYS("2 of 2 loaded layers");
    pml_loader_free(loader);

    options.unload = PML_UNLOAD_LRU;
    for (strategy = PML_STRATEGY_ON_DEMAND; strategy <= PML_STRATEGY_PREFETCH; strategy++) {
        options.strategy = strategy;
        OK(pml_loader_open(path, &options, &loader));
        for (round = 0; round < 3; round++)
            for (layer = 0; layer < pml_loader_layer_count(loader); layer++) {
                OK(pml_loader_acquire_layer(loader, layer, NULL, -1));
                CHECK(layers_in_memory(loader) <= 2);
                OK(pml_loader_release_layer(loader, layer, NULL));
            }
        pml_loader_free(loader);
    }
}

/* All tensors at once into memory of the engine's own are what acquires give. */
static void load_into(const char *path)
{
    static const uint32_t readers[] = {PML_IO_AUTO, PML_IO_MMAP, PML_IO_READ, PML_IO_DIRECT};
    size_t i, k;

    for (i = 0; i < 4; i++) {
        pml_options_t options = PML_OPTIONS_INIT;
        pml_loader_t *loader = NULL;
        pml_loader_t *other = NULL;
        pml_tensor_t *stranger = NULL;
        pml_tensor_t **tensors;
        pml_stats_t stats = PML_STATS_INIT;
        void **dst;
        size_t *dst_size;
        size_t n;
        options.io = readers[i];
        options.memory_budget = 1;
        OK(pml_loader_open(path, &options, &loader));
        OK(pml_loader_open(path, NULL, &other));
        n = pml_loader_tensor_count(loader);
        tensors = calloc(n, sizeof *tensors);
        dst = calloc(n, sizeof *dst);
        dst_size = calloc(n, sizeof *dst_size);
        CHECK(tensors != NULL && dst != NULL && dst_size != NULL);
        for (k = 0; k < n; k++) {
            pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
            /* Last first: the library finds the files' order by itself. */
            OK(pml_loader_tensor_at(loader, n - 1 - k, &tensors[k]));
            OK(pml_tensor_get_info(tensors[k], &info));
            dst_size[k] = (size_t)info.bytes + k % 3;
            dst[k] = malloc(dst_size[k]);
            CHECK(dst[k] != NULL);
            memset(dst[k], 0xEE, dst_size[k]);
        }
        OK(pml_loader_load_into(loader, tensors, dst, dst_size, n, PML_STREAM_HOST));
        OK(pml_loader_stats(loader, &stats));
        CHECK(stats.resident_bytes == 0 && stats.charged_bytes == 0 && stats.peak_charged_bytes == 0);
        for (k = 0; k < n; k++) {
            pml_tensor_t *tensor = NULL;
            pml_view_t view = PML_VIEW_INIT;
            size_t byte;
            OK(pml_loader_tensor_at(other, n - 1 - k, &tensor));
            OK(pml_tensor_acquire(tensor, NULL, -1, &view));
            CHECK(memcmp(view.data, dst[k], view.size) == 0);
            for (byte = view.size; byte < dst_size[k]; byte++) CHECK(((unsigned char *)dst[k])[byte] == 0xEE);
            pml_tensor_free(tensor);
        }
        dst_size[3] = 7;
        IS(PML_STATUS_INVALID_ARGUMENT, pml_loader_load_into(loader, tensors, dst, dst_size, n, NULL));
        SAYS("dst_size");
        dst_size[3] = 1 << 20;
        OK(pml_loader_tensor_at(other, 0, &stranger));
        IS(PML_STATUS_INVALID_ARGUMENT, pml_loader_load_into(loader, &stranger, dst, &dst_size[3], 1, NULL));
        pml_tensor_free(stranger);
        for (k = 0; k < n; k++) {
            pml_tensor_free(tensors[k]);
            free(dst[k]);
        }
        free(tensors);
        free(dst);
        free(dst_size);
        pml_loader_free(other);
        pml_loader_free(loader);
    }
}

static void log_line(void *user_data, uint32_t level, const char *message, size_t message_length)
{
    struct engine *engine = user_data;
    CHECK(level <= PML_LOG_DEBUG && message != NULL && message_length > 0);
    CHECK(memchr(message, '\n', message_length) == NULL && memchr(message, '\0', message_length) == NULL);
    /* The loader is set by then: the engine says so. */
    WAIT_FOR(goes_on, 1);
    IS(PML_STATUS_WOULD_DEADLOCK, pml_loader_wait(engine->loader, -1));
    CHECK(engine->destroyed == 0);
    set(engine, &engine->lines);
}

static void logs(const char *path)
{
    uint32_t level;
    int lines[PML_LOG_DEBUG + 1];

    for (level = PML_LOG_ERROR; level <= PML_LOG_DEBUG; level++) {
        struct engine *engine = new_engine(NULL);
        pml_options_t options = PML_OPTIONS_INIT;
        pml_event_t event = PML_EVENT_INIT;
        struct timespec pause = {0, 5000000};
        options.log = log_line;
        options.log_level = level;
        options.user_data = engine;
        options.destroy = end;
        OK(pml_loader_open(path, &options, &engine->loader));
        set(engine, &engine->goes_on);
        visit_all(engine->loader);
        /* A log is no callback for events. */
        OK(pml_loader_next_event(engine->loader, -1, &event));
        if (level >= PML_LOG_INFO) WAIT_FOR(lines, level == PML_LOG_INFO ? 1 : 4);
        nanosleep(&pause, NULL);
        pml_loader_free(engine->loader);
        WAIT_FOR(destroyed, 1);
        lines[level] = engine->lines;
        free_engine(engine);
    }
    CHECK(lines[PML_LOG_ERROR] == 0 && lines[PML_LOG_WARNING] == 0);
    CHECK(lines[PML_LOG_DEBUG] > lines[PML_LOG_INFO]);
}

static int32_t act_sleep(struct engine *engine, const pml_event_t *event)
{
    (void)event;
    set(engine, &engine->has_acted);
    WAIT_FOR(goes_on, 1);
    return 0;
}

/* While a callback sleeps, all layers are visited; what was not told meanwhile is told as it stands then. */
static void sleeping_callback(const char *path)
{
    struct engine *engine = new_engine(act_sleep);
    pml_options_t options = with_callbacks(engine);
    pml_loader_t *loader = NULL;
    size_t layer;

    options.unload = PML_UNLOAD_LRU;
    options.max_loaded_layers = 2;
    OK(pml_loader_open(path, &options, &loader));
    OK(pml_loader_prefetch_layer(loader, "output"));
    WAIT_FOR(has_acted, 1);
    visit_all(loader);
    visit_all(loader);
    OK(pml_loader_start(loader));
    OK(pml_loader_wait(loader, -1));
    CHECK(get(engine, &engine->fully_told) == 0 && engine->events == 1);
    set(engine, &engine->goes_on);
    WAIT_FOR(fully_told, 1);
    for (layer = 0; layer < pml_loader_layer_count(loader); layer++) CHECK(engine->layers_told[layer] == 1);
    CHECK(engine->events <= 2 * pml_loader_layer_count(loader) + 4);
    pml_loader_free(loader);
    free_engine(engine);
}

/* Frees the loader, once the engine is not inside another call. */
static int32_t act_free(struct engine *engine, const pml_event_t *event)
{
    (void)event;
    WAIT_FOR(goes_on, 1);
    pml_loader_free(engine->loader);
    set(engine, &engine->has_acted);
    return 1;
}

static void free_from_log(void *user_data, uint32_t level, const char *message, size_t message_length)
{
    struct engine *engine = user_data;
    (void)level, (void)message, (void)message_length;
    act_free(engine, NULL);
}

static void frees(const char *path)
{
    uint32_t kind;

    /* Inside each kind of callback, with much under way. */
    for (kind = PML_EVENT_LAYER_LOADED; kind <= PML_EVENT_FULLY_LOADED + 1; kind++) {
        struct engine *engine = new_engine(act_free);
        pml_options_t options = with_callbacks(engine);
        pml_tensor_t *tensor = NULL;
        pml_view_t view = PML_VIEW_INIT;
        if (kind != PML_EVENT_LAYER_LOADED) options.on_layer_loaded = NULL;
        if (kind != PML_EVENT_PROGRESS) options.on_progress = NULL;
        if (kind != PML_EVENT_FULLY_LOADED) options.on_fully_loaded = NULL;
        if (kind > PML_EVENT_FULLY_LOADED) {
            options.on_error = NULL;
            options.log = free_from_log;
            options.log_level = PML_LOG_INFO;
        }
        OK(pml_loader_open(path, &options, &engine->loader));
        OK(pml_loader_tensor_at(engine->loader, 3, &tensor));
        OK(pml_loader_start(engine->loader));
        set(engine, &engine->goes_on);
        WAIT_FOR(has_acted, 1);
        CHECK(get(engine, &engine->destroyed) == 0);
        IS(PML_STATUS_CLOSED, pml_tensor_acquire(tensor, NULL, -1, &view));
        IS(PML_STATUS_CLOSED, pml_tensor_prefetch(tensor));
        pml_tensor_free(tensor);
        free_engine(engine);
    }
    /* Outside, while one sleeps: it is not waited for. */
    {
        struct engine *engine = new_engine(act_sleep);
        pml_options_t options = with_callbacks(engine);
        OK(pml_loader_open(path, &options, &engine->loader));
        OK(pml_loader_start(engine->loader));
        WAIT_FOR(has_acted, 1);
        pml_loader_free(engine->loader);
        CHECK(get(engine, &engine->destroyed) == 0);
        set(engine, &engine->goes_on);
        WAIT_FOR(destroyed, 1);
        CHECK(engine->events == 1);
        free_engine(engine);
    }
}

static int32_t act_skip(struct engine *engine, const pml_event_t *event)
{
    (void)engine;
    if (event->kind != PML_EVENT_ERROR) return 0;
    CHECK(event->status == PML_STATUS_TRUNCATED && event->layer < MOST_LAYERS && event->tensor != SIZE_MAX);
    return PML_ON_ERROR_SKIP;
}

/* Somebody cuts the file: what is left of it is loaded, and what is not is told. */
static void cut_file(const char *path)
{
    char copy[4096];
    FILE *from = fopen(path, "rb");
    FILE *to;
    static char bytes[1 << 16];
    size_t read, layer = 0, gone = SIZE_MAX;
    long size;
    int decided;

    CHECK(strlen(path) + 5 < sizeof copy);
    sprintf(copy, "%s.cut", path);
    CHECK(from != NULL);
    for (decided = 0; decided < 2; decided++) {
        struct engine *engine = new_engine(decided ? act_skip : NULL);
        pml_options_t options = with_callbacks(engine);
        pml_loader_t *loader = NULL;
        rewind(from);
        to = fopen(copy, "wb");
        CHECK(to != NULL);
        while ((read = fread(bytes, 1, sizeof bytes, from)) > 0) CHECK(fwrite(bytes, 1, read, to) == read);
        size = ftell(to);
        CHECK(fclose(to) == 0 && size > 0);
        options.io = PML_IO_READ;
        OK(pml_loader_open(copy, &options, &loader));
        OK(pml_loader_find_layer(loader, "output", &gone));
        CHECK(truncate(copy, size - 16) == 0);
        OK(pml_loader_start(loader));
        IS(decided ? PML_STATUS_INCOMPLETE : PML_STATUS_TRUNCATED, pml_loader_wait(loader, -1));
        SAYS("tensor 'output");
        if (decided) WAIT_FOR(fully_told, 1);
        WAIT_FOR(errors_told, 1);
        CHECK(pml_loader_stage(loader) == (decided ? PML_STAGE_DONE : PML_STAGE_FAILED));
        for (layer = 0; layer < pml_loader_layer_count(loader); layer++) {
            pml_status_t lost = decided ? PML_STATUS_INCOMPLETE : PML_STATUS_TRUNCATED;
            IS(layer == gone ? lost : PML_STATUS_OK, pml_loader_acquire_layer(loader, layer, NULL, -1));
            if (layer != gone) OK(pml_loader_release_layer(loader, layer, NULL));
        }
        pml_loader_free(loader);
        free_engine(engine);
    }
    fclose(from);
    CHECK(remove(copy) == 0);
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    /* First, while there is no worker yet. */
    slow_allocator(argv[1]);
    strategies(argv[1]);
    opens_that_fail(argv[1]);
    inside_callbacks(argv[1]);
    own_memory(argv[1]);
    no_memory(argv[1]);
    cancelling(argv[1]);
    cancelled_in_the_allocator(argv[1]);
    pulled_events(argv[1]);
    shared_budget(argv[1]);
    contention(argv[1]);
    no_room(argv[1]);
    loaded_layers(argv[1]);
    load_into(argv[1]);
    logs(argv[1]);
    sleeping_callback(argv[1]);
    frees(argv[1]);
    cut_file(argv[1]);
    return 0;
}
