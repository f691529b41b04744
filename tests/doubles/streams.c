/* Streams, the operations that are queued on them, and events. */
#define _GNU_SOURCE
#include "double.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* What was recorded at one time. An event refers to its latest record; a wait keeps the one that it found, so that
 * recording the event again changes nothing for it. */
struct record {
    unsigned references;
    bool has_passed;
    int64_t passed_at; /* as stream.ended_at */
};

struct event {
    struct device *device;
    struct record *latest; /* NULL = never recorded, or captured */
    uint64_t captured_by;  /* a capture's id; 0 = none */
};

enum kind { COPY_TO_DEVICE, COPY_TO_HOST, RECORD, WAIT, KERNEL };

struct operation {
    enum kind kind;
    uint64_t sequence; /* operations that were queued earlier have smaller ones */
    struct stream *stream;
    struct range memory;    /* of a device */
    struct range host;      /* page-locked, or what `staged` holds */
    void *staged;           /* a copy of a page-able source; released with the operation */
    bool is_checked;        /* whether `expected` is the hash of what is copied, or read */
    uint64_t expected;
    int64_t takes;          /* nanoseconds, of a kernel */
    struct record *record;
    int64_t queued_at;
    struct operation *next_in_stream;
    struct operation *previous, *next; /* among all that have not passed, in order of `sequence` */
};

struct stream *double_streams;
static struct operation *first_pending, *last_pending;
static uint64_t last_sequence;
static uint64_t last_stream_id;

/* ---- Records ---- */

static void drop_record(struct record *record)
{
    if (record != NULL && --record->references == 0) {
        free(record);
    }
}

static struct record *share_record(struct record *record)
{
    record->references++;
    return record;
}

/* ---- What is pending ---- */

static void add_pending(struct operation *operation)
{
    operation->previous = last_pending;
    *(last_pending != NULL ? &last_pending->next : &first_pending) = operation;
    last_pending = operation;
    COUNTER(queued)++;
}

static void remove_pending(struct operation *operation)
{
    struct operation *previous = operation->previous;
    struct operation *next = operation->next;
    *(previous != NULL ? &previous->next : &first_pending) = next;
    *(next != NULL ? &next->previous : &last_pending) = previous;
    COUNTER(queued)--;
}

bool double_is_device_memory_used(struct range range)
{
    for (const struct operation *other = first_pending; other != NULL; other = other->next) {
        if (double_overlap(other->memory, range)) {
            return true;
        }
    }
    return false;
}

bool double_is_host_memory_used(struct range range)
{
    for (const struct operation *other = first_pending; other != NULL; other = other->next) {
        if (other->staged == NULL && double_overlap(other->host, range)) {
            return true;
        }
    }
    return false;
}

/* Of two operations that touch the same memory, one of them writing, the later must not begin before the earlier has
 * passed: what orders them is missing. */
static void check_order(const struct operation *begins)
{
    bool writes = begins->kind == COPY_TO_DEVICE;
    for (const struct operation *other = first_pending; other != begins; other = other->next) {
        bool other_writes = other->kind == COPY_TO_DEVICE;
        if ((!writes && !other_writes) || !double_overlap(other->memory, begins->memory)) {
            continue;
        }
        if (!writes) {
            double_violation("device memory is read before its copy has passed");
        } else if (other_writes) {
            double_violation("device memory is written by two copies at once");
        } else {
            double_violation("device memory is written while an earlier kernel or copy still reads it");
        }
    }
}

/* The legacy stream waits for all earlier work of its device, and later work waits for it; but for streams that were
 * made not to. */
static bool must_wait_for_legacy(const struct operation *operation)
{
    const struct stream *own = operation->stream;
    if (own->is_non_blocking) {
        return false;
    }
    for (const struct operation *other = first_pending; other != operation; other = other->next) {
        const struct stream *theirs = other->stream;
        if (theirs != own && theirs->device == own->device && (own->is_legacy || theirs->is_legacy) &&
            !theirs->is_non_blocking) {
            return true;
        }
    }
    return false;
}

/* ---- Doing it, in a stream's thread; under the lock, which is given back while time passes ---- */

static void sleep_unlocked(int64_t until)
{
    double_unlock();
    double_sleep_until(until);
    double_lock();
}

/* Takes the wire's next free time for a copy. It is counted from when the copy could have begun, not from when a
 * thread woke up for it, so that the rate is kept although sleeps last too long. */
static int64_t end_on_wire(const struct operation *copy, int64_t ready_at)
{
    struct device *device = copy->stream->device;
    uint64_t rate = SET(copy_bytes_per_second);
    int64_t begins = device->wire_free_at > ready_at ? device->wire_free_at : ready_at;
    int64_t takes = (int64_t)SET(copy_latency_ns);
    takes += rate == 0 ? 0 : double_cost(copy->memory.bytes, UINT64_C(1000000000), rate);
    device->wire_free_at = begins + takes;
    return begins + takes;
}

/* As late as possible: what changed its source or read its target too early is seen. */
static int64_t copy_to_device(struct operation *copy, int64_t ready_at)
{
    void *to = (void *)copy->memory.start;
    const void *from = copy->staged != NULL ? copy->staged : (void *)copy->host.start;
    check_order(copy);
    int64_t ends = end_on_wire(copy, ready_at);
    double_unlock();
    double_sleep_until(ends);
    memcpy(to, from, copy->memory.bytes);
    /* What arrived is compared, so that a change during the copy is seen too. */
    bool is_same = !copy->is_checked || double_hash(to, copy->memory.bytes) == copy->expected;
    double_lock();
    if (!is_same) {
        double_violation("staging memory changed before its copy passed (%zu bytes at %p)", copy->host.bytes,
                         (void *)copy->host.start);
    }
    COUNTER(copies)++;
    COUNTER(copied_bytes) += copy->memory.bytes;
    return ends;
}

static int64_t copy_to_host(struct operation *copy, int64_t ready_at)
{
    check_order(copy);
    double_unlock();
    memcpy((void *)copy->host.start, (void *)copy->memory.start, copy->memory.bytes);
    double_lock();
    return ready_at;
}

static int64_t run_kernel(struct operation *kernel, int64_t ready_at)
{
    const void *memory = (void *)kernel->memory.start;
    check_order(kernel);
    double_unlock();
    uint64_t first = double_hash(memory, kernel->memory.bytes);
    double_sleep_until(ready_at + kernel->takes);
    uint64_t second = double_hash(memory, kernel->memory.bytes);
    double_lock();
    if (kernel->is_checked && first != kernel->expected) {
        double_violation("a kernel read other bytes than were expected");
    }
    if (first != second) {
        double_violation("device memory changed while a kernel read it");
    }
    return ready_at + kernel->takes;
}

/* When the operation would have ended, had nothing overslept. */
static int64_t run(struct operation *operation, int64_t ready_at)
{
    switch (operation->kind) {
    case COPY_TO_DEVICE:
        return copy_to_device(operation, ready_at);
    case COPY_TO_HOST:
        return copy_to_host(operation, ready_at);
    case KERNEL:
        return run_kernel(operation, ready_at);
    case RECORD:
        operation->record->has_passed = true;
        operation->record->passed_at = ready_at;
        return ready_at;
    case WAIT:
        while (!operation->record->has_passed) {
            double_wait_change();
        }
        return operation->record->passed_at > ready_at ? operation->record->passed_at : ready_at;
    }
    abort();
}

static void run_first(struct stream *stream)
{
    struct operation *operation = stream->first;
    int64_t ready_at = stream->ended_at > operation->queued_at ? stream->ended_at : operation->queued_at;
    if (must_wait_for_legacy(operation)) {
        do {
            double_wait_change();
        } while (must_wait_for_legacy(operation));
        ready_at = double_now();
    }
    uint64_t later = double_random(SET(random_latency_ns));
    if (later > 0) {
        ready_at += (int64_t)later;
        sleep_unlocked(ready_at);
    }
    stream->ended_at = run(operation, ready_at);
    stream->first = operation->next_in_stream;
    if (stream->first == NULL) {
        stream->last = NULL;
    }
    remove_pending(operation);
    drop_record(operation->record);
    free(operation->staged);
    free(operation);
    double_tell_change();
}

/* A stream's thread: until the stream was destroyed and everything that was queued has passed. */
static void *serve(void *argument)
{
    struct stream *stream = argument;
    double_lock();
    for (;;) {
        if (stream->first != NULL) {
            run_first(stream);
        } else if (stream->is_destroyed && stream->waiting == 0) {
            break;
        } else {
            double_wait_change();
        }
    }
    struct stream **link = &double_streams;
    while (*link != stream) {
        link = &(*link)->next;
    }
    *link = stream->next;
    free(stream);
    double_unlock();
    return NULL;
}

/* ---- Streams ---- */

/* The program's signals are for its own threads. */
static int start_thread(struct stream *stream)
{
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&thread, NULL, serve, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed == 0) {
        pthread_detach(thread);
    }
    return failed == 0 ? SUCCESS : OUT_OF_MEMORY;
}

/* Under the lock; NULL without memory. */
static struct stream *new_stream(struct device *device, bool is_legacy, bool is_non_blocking)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        return NULL;
    }
    stream->device = device;
    stream->id = ++last_stream_id;
    stream->is_legacy = is_legacy;
    stream->is_non_blocking = is_non_blocking;
    if (start_thread(stream) != SUCCESS) {
        free(stream);
        return NULL;
    }
    stream->next = double_streams;
    double_streams = stream;
    return stream;
}

struct stream *double_stream_find(struct device *current, void *handle, int *code)
{
    uintptr_t number = (uintptr_t)handle;
    struct stream *stream = NULL;
    *code = INVALID_HANDLE;
    if (number <= 2) {
        struct stream **own = number == 2 ? &current->per_thread : &current->legacy;
        if (*own == NULL) {
            *own = new_stream(current, number != 2, false);
        }
        *code = OUT_OF_MEMORY;
        stream = *own;
    } else {
        stream = double_handle_find(HANDLE_STREAM, handle);
    }
    if (stream != NULL) {
        *code = SUCCESS;
    }
    return stream;
}

int double_stream_create(struct device *device, unsigned flags, void **handle)
{
    if (flags > STREAM_NON_BLOCKING) {
        return INVALID_VALUE;
    }
    double_lock();
    struct stream *stream = new_stream(device, false, flags == STREAM_NON_BLOCKING);
    if (stream != NULL) {
        *handle = double_handle_new(HANDLE_STREAM, stream);
        COUNTER(live_streams)++;
    }
    double_unlock();
    return stream != NULL ? SUCCESS : OUT_OF_MEMORY;
}

int double_stream_destroy(void *handle)
{
    double_lock();
    struct stream *stream = double_handle_find(HANDLE_STREAM, handle);
    if (stream != NULL) {
        double_handle_end(handle);
        stream->is_destroyed = true;
        COUNTER(live_streams)--;
        double_tell_change();
    }
    double_unlock();
    return stream != NULL ? SUCCESS : INVALID_HANDLE;
}

/* Until everything has passed that was queued before. Under the lock. */
static void drain(struct stream *stream)
{
    uint64_t last = stream->last_sequence;
    stream->waiting++;
    while (stream->first != NULL && stream->first->sequence <= last) {
        double_wait_change();
    }
    stream->waiting--;
    double_tell_change();
}

/* What asking a stream or waiting for it may not do: disturb a capture. Under the lock. */
static int refuse_capturing(struct stream *stream)
{
    if (stream->capture == NULL) {
        return SUCCESS;
    }
    double_capture_spoil(stream);
    return CAPTURE_UNSUPPORTED;
}

int double_stream_synchronize(struct device *current, void *handle)
{
    int code = double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    double_lock();
    struct stream *stream = double_stream_find(current, handle, &code);
    if (stream != NULL) {
        code = refuse_capturing(stream);
    }
    if (code == SUCCESS) {
        drain(stream);
    }
    double_unlock();
    return code;
}

int double_stream_query(struct device *current, void *handle)
{
    int code = double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    double_lock();
    struct stream *stream = double_stream_find(current, handle, &code);
    if (stream != NULL) {
        code = refuse_capturing(stream);
    }
    if (code == SUCCESS && stream->first != NULL) {
        code = NOT_READY;
    }
    double_unlock();
    return code;
}

int double_stream_id(struct device *current, void *handle, unsigned long long *id)
{
    int code;
    double_lock();
    struct stream *stream = double_stream_find(current, handle, &code);
    if (stream != NULL) {
        *id = stream->id;
    }
    double_unlock();
    return code;
}

/* Whether anything of a device is pending that was queued up to then. Under the lock. */
static bool is_device_busy(const struct device *device, uint64_t sequence)
{
    for (const struct operation *other = first_pending; other != NULL && other->sequence <= sequence;
         other = other->next) {
        if (other->stream->device == device) {
            return true;
        }
    }
    return false;
}

int double_device_synchronize(struct device *device)
{
    int code = double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    double_lock();
    uint64_t sequence = last_sequence;
    while (is_device_busy(device, sequence)) {
        double_wait_change();
    }
    double_unlock();
    return SUCCESS;
}

/* ---- Queueing ---- */

/* Gives the operation to the stream's thread, which releases it; its `record` is one reference. What a capture takes
 * is released at once. Under the lock. */
static int enqueue(struct stream *stream, struct operation wanted)
{
    bool is_captured;
    int code = double_capture_takes(stream, &is_captured);
    struct operation *operation = code == SUCCESS && !is_captured ? malloc(sizeof *operation) : NULL;
    if (operation == NULL) {
        drop_record(wanted.record);
        free(wanted.staged);
        return code == SUCCESS && !is_captured ? OUT_OF_MEMORY : code;
    }
    *operation = wanted;
    operation->stream = stream;
    operation->sequence = stream->last_sequence = ++last_sequence;
    operation->queued_at = double_now();
    *(stream->last != NULL ? &stream->last->next_in_stream : &stream->first) = operation;
    stream->last = operation;
    add_pending(operation);
    double_tell_change();
    return SUCCESS;
}

/* Finds the stream, sees that the memory is of one live allocation, and queues the operation. With `waits` the call
 * lasts until it has passed. */
static int enqueue_on_memory(struct device *current, void *handle, struct operation wanted, bool waits)
{
    int code;
    double_lock();
    struct stream *stream = double_stream_find(current, handle, &code);
    if (stream != NULL && double_owner(wanted.memory) == NULL) {
        double_violation("%zu bytes at %p are not inside one live allocation", wanted.memory.bytes,
                         (void *)wanted.memory.start);
        code = INVALID_VALUE;
    }
    if (code != SUCCESS) {
        free(wanted.staged);
    } else {
        code = enqueue(stream, wanted);
    }
    if (code == SUCCESS && waits && stream->capture == NULL) {
        drain(stream);
    }
    double_unlock();
    return code;
}

static bool is_page_locked(struct range range)
{
    double_lock();
    bool locked = double_is_page_locked(range);
    double_unlock();
    return locked;
}

static int queue_copy_to_device(struct device *current, void *to, const void *from, size_t bytes, void *stream,
                                bool waits)
{
    if (bytes == 0) {
        return SUCCESS;
    }
    struct operation copy = {
        .kind = COPY_TO_DEVICE,
        .memory = {(uintptr_t)to, bytes},
        .host = {(uintptr_t)from, bytes},
    };
    if (!is_page_locked(copy.host)) {
        /* A driver reads page-able memory before it returns; only the way to the device is asynchronous. */
        copy.staged = malloc(bytes);
        if (copy.staged == NULL) {
            return OUT_OF_MEMORY;
        }
        memcpy(copy.staged, from, bytes);
    } else if (double_get("check_sources") != 0) {
        copy.is_checked = true;
        copy.expected = double_hash(from, bytes);
    }
    return enqueue_on_memory(current, stream, copy, waits);
}

static int queue_copy_to_host(struct device *current, void *to, const void *from, size_t bytes, void *stream,
                              bool waits)
{
    if (bytes == 0) {
        return SUCCESS;
    }
    struct operation copy = {
        .kind = COPY_TO_HOST,
        .memory = {(uintptr_t)from, bytes},
        .host = {(uintptr_t)to, bytes},
    };
    return enqueue_on_memory(current, stream, copy, waits || !is_page_locked(copy.host));
}

int double_copy_to_device(struct device *current, void *to, const void *from, size_t bytes, void *stream)
{
    return queue_copy_to_device(current, to, from, bytes, stream, false);
}

int double_copy_to_host(struct device *current, void *to, const void *from, size_t bytes, void *stream)
{
    return queue_copy_to_host(current, to, from, bytes, stream, false);
}

int double_copy_to_device_now(struct device *current, void *to, const void *from, size_t bytes)
{
    int code = double_capture_allows();
    return code != SUCCESS ? code : queue_copy_to_device(current, to, from, bytes, NULL, true);
}

int double_copy_to_host_now(struct device *current, void *to, const void *from, size_t bytes)
{
    int code = double_capture_allows();
    return code != SUCCESS ? code : queue_copy_to_host(current, to, from, bytes, NULL, true);
}

int double_launch(void *stream, const void *memory, size_t bytes, uint64_t expected, uint64_t nanoseconds)
{
    int code;
    struct device *current = double_current(&code);
    if (current == NULL) {
        return code;
    }
    struct operation kernel = {
        .kind = KERNEL,
        .memory = {(uintptr_t)memory, bytes},
        .is_checked = expected != 0,
        .expected = expected,
        .takes = (int64_t)nanoseconds,
    };
    return enqueue_on_memory(current, stream, kernel, false);
}

/* ---- Events ---- */

int double_event_create(struct device *device, void **handle)
{
    struct event *event = calloc(1, sizeof *event);
    if (event == NULL) {
        return OUT_OF_MEMORY;
    }
    event->device = device;
    double_lock();
    *handle = double_handle_new(HANDLE_EVENT, event);
    COUNTER(live_events)++;
    double_unlock();
    return SUCCESS;
}

/* What is pending of an event lives on in its record. */
int double_event_destroy(void *handle)
{
    double_lock();
    struct event *event = double_handle_find(HANDLE_EVENT, handle);
    if (event != NULL) {
        double_handle_end(handle);
        drop_record(event->latest);
        free(event);
        COUNTER(live_events)--;
    }
    double_unlock();
    return event != NULL ? SUCCESS : INVALID_HANDLE;
}

/* Under the lock. */
static int record(struct event *event, struct stream *stream)
{
    if (event->device != stream->device) {
        return INVALID_HANDLE;
    }
    struct record *latest = calloc(1, sizeof *latest);
    if (latest == NULL) {
        return OUT_OF_MEMORY;
    }
    latest->references = 1;
    bool is_captured = stream->capture != NULL;
    int code = enqueue(stream, (struct operation){.kind = RECORD, .record = share_record(latest)});
    if (code != SUCCESS || is_captured) {
        drop_record(latest);
        latest = NULL;
    }
    if (code == SUCCESS) {
        drop_record(event->latest);
        event->latest = latest;
        event->captured_by = double_capture_id(stream);
    }
    return code;
}

int double_event_record(struct device *current, void *handle, void *stream_handle)
{
    int code;
    double_lock();
    struct stream *stream = double_stream_find(current, stream_handle, &code);
    struct event *event = stream != NULL ? double_handle_find(HANDLE_EVENT, handle) : NULL;
    if (stream != NULL) {
        code = event != NULL ? record(event, stream) : INVALID_HANDLE;
    }
    double_unlock();
    return code;
}

/* The event, where it may be asked; NULL with the error in *code. Under the lock. */
static struct event *find_to_ask(void *handle, int *code)
{
    struct event *event = double_handle_find(HANDLE_EVENT, handle);
    *code = event == NULL ? INVALID_HANDLE : event->captured_by != 0 ? CAPTURED_EVENT : SUCCESS;
    return *code == SUCCESS ? event : NULL;
}

int double_event_query(void *handle)
{
    int code = double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    double_lock();
    struct event *event = find_to_ask(handle, &code);
    if (event != NULL && event->latest != NULL && !event->latest->has_passed) {
        code = NOT_READY;
    }
    double_unlock();
    return code;
}

int double_event_synchronize(void *handle)
{
    int code = double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    double_lock();
    struct event *event = find_to_ask(handle, &code);
    if (event != NULL && event->latest != NULL) {
        /* The event may be destroyed or recorded again meanwhile. */
        struct record *awaited = share_record(event->latest);
        while (!awaited->has_passed) {
            double_wait_change();
        }
        drop_record(awaited);
    }
    double_unlock();
    return code;
}

/* Under the lock. */
static int wait_for(struct stream *stream, struct event *event)
{
    uint64_t own = double_capture_id(stream);
    if (event->captured_by != 0) {
        if (own == event->captured_by || (own == 0 && double_capture_join(stream, event->captured_by))) {
            return SUCCESS;
        }
        double_capture_spoil(stream);
        return own != 0 ? CAPTURE_ISOLATION : CAPTURED_EVENT;
    }
    if (event->latest == NULL) {
        return SUCCESS;
    }
    if (own != 0) {
        double_capture_spoil(stream);
        return CAPTURE_ISOLATION;
    }
    return enqueue(stream, (struct operation){.kind = WAIT, .record = share_record(event->latest)});
}

int double_stream_wait(struct device *current, void *stream_handle, void *handle)
{
    int code;
    double_lock();
    struct stream *stream = double_stream_find(current, stream_handle, &code);
    struct event *event = stream != NULL ? double_handle_find(HANDLE_EVENT, handle) : NULL;
    if (stream != NULL) {
        code = event != NULL ? wait_for(stream, event) : INVALID_HANDLE;
    }
    double_unlock();
    return code;
}
