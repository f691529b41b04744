/* A test double of a GPU's driver: what the two fronts, cuda.c and hip.c, share.
 *
 * There is no device. Device memory is host memory, a stream is a queue with a thread of its own, and nothing that was
 * queued is done before the call has returned, so that a program which forgets to wait reads what is not there yet.
 * What no driver would tell, and what breaks a program now and then on a real machine, is a violation here: it is
 * printed and the process aborts.
 *
 *   double.c   settings, faults, counters, violations, time; the double_* functions that tests call
 *   memory.c   devices, their memory, page-locked host memory
 *   handles.c  what stands for streams, events and graphs
 *   streams.c  streams, operations, events
 *   capture.c  stream capture, as far as others' captures forbid calls
 *
 * One lock guards everything and one condition tells of every change. Both are plain pthread objects, which
 * ThreadSanitizer understands although this code is not built with it. */
#ifndef DOUBLE_H
#define DOUBLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Everything else is hidden: the fronts' symbols are those of the real library. */
#define EXPORT __attribute__((visibility("default")))

/* Both drivers' numbers for the errors that are given here. */
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CONTEXT_IS_DESTROYED = 709,
    ALREADY_REGISTERED = 712,
    NOT_REGISTERED = 713,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

/* ---- What tests set and read (double.c) ---- */

/* X(name, value when nothing is set) */
#define DOUBLE_SETTINGS(X)                                                                                             \
    X(copy_latency_ns, 0)       /* each copy to the device takes that longer on the wire */                            \
    X(copy_bytes_per_second, 0) /* the wire of a device, shared by all copies to it; 0 = no limit */                   \
    X(allocation_latency_ns, 0) /* each allocation of device memory takes that longer */                               \
    X(allocation_ns_per_gib, 0) /* and that much for each GiB */                                                       \
    X(register_ns_per_gib, 0)   /* page-locking memory takes that much for each GiB */                                 \
    X(random_latency_ns, 0)     /* each operation of a stream begins up to that much later */                          \
    X(seed, 1)                  /* of those random times */                                                            \
    X(device_count, 1)          /* at most DOUBLE_DEVICES; before the environment hides some */                        \
    X(device_bytes, 8ull << 30) /* the memory of each device */                                                        \
    X(taken_bytes, 0)           /* of it, what other processes took */                                                 \
    X(check_sources, 1)         /* whether page-locked sources are hashed, to see them change; takes time */           \
    X(abort, 1)                 /* whether a violation ends the process; else it is only counted */                    \
    X(lose_device, 0)           /* from now on every call fails */                                                     \
    X(unified, 0)               /* whether the devices say that they are integrated */                                 \
    X(capability_major, 7)      /* their generation; newer ones compute with BF16 */

/* Values that only double_get gives. */
#define DOUBLE_COUNTERS(X)                                                                                             \
    X(live_bytes)              /* of device memory, on all devices */                                                  \
    X(peak_bytes)                                                                                                      \
    X(live_allocations)                                                                                                \
    X(allocations)                                                                                                     \
    X(frees)                                                                                                           \
    X(registered_bytes)        /* page-locked host memory, registered or allocated */                                  \
    X(peak_registered_bytes)                                                                                           \
    X(live_streams)            /* made by the program: not those that every device has */                              \
    X(live_events)                                                                                                     \
    X(contexts_retained)                                                                                               \
    X(violations)                                                                                                      \
    X(copies)                  /* from host to device, that have passed */                                             \
    X(copied_bytes)                                                                                                    \
    X(queued)                  /* operations that have not passed */

#define DOUBLE_AS_SETTING(name, value) SETTING_##name,
#define DOUBLE_AS_COUNTER(name) COUNTER_##name,
enum setting { DOUBLE_SETTINGS(DOUBLE_AS_SETTING) SETTINGS };
enum counter { DOUBLE_COUNTERS(DOUBLE_AS_COUNTER) COUNTERS };

extern uint64_t double_settings[SETTINGS];
extern uint64_t double_counters[COUNTERS];

/* Under the lock. */
#define SET(name) double_settings[SETTING_##name]
#define COUNTER(name) double_counters[COUNTER_##name]

/* Sets one of DOUBLE_SETTINGS. 0, or -1 where the name is unknown or the value impossible. When the library is loaded
 * the environment's PML_DOUBLE is read, as in "device_count=2,copy_latency_ns=1000". */
EXPORT int double_set(const char *name, uint64_t value);
/* A setting or one of DOUBLE_COUNTERS; UINT64_MAX where the name is unknown. */
EXPORT uint64_t double_get(const char *name);
/* The calls of a driver's function since the last reset; "*" = of all. Names are given without "_v2". UINT64_MAX for
 * a function that the library does not export. */
EXPORT uint64_t double_calls(const char *function);
/* The nth call of a function from now on, 1 = the next, does nothing and answers `code`; "*" counts the calls of all
 * functions. 0 takes that back, as a later fault of the same function does. -1 for a function that the library does
 * not export. */
EXPORT int double_fail(const char *function, uint64_t nth, int code);
/* Settings go back to what they were when the library was loaded; there are no faults and no calls were counted.
 * Memory, streams, events and the other counters stay. */
EXPORT void double_reset(void);
/* Queues a kernel that reads device memory when it begins and again, `nanoseconds` later, when it ends. The hash of
 * both must be `expected`, or with 0 the same, else that is a violation. A driver's error, or 0. */
EXPORT int double_launch(void *stream, const void *device_memory, size_t bytes, uint64_t expected,
                         uint64_t nanoseconds);
/* FNV-1a with 64 bits that takes eight bytes, little-endian, in each step, and then single bytes. */
EXPORT uint64_t double_hash(const void *memory, size_t bytes);
/* What the last violation was; "" before the first. Until this thread's next call. */
EXPORT const char *double_last_violation(void);

/* ---- Time and order (double.c) ---- */

/* Waits until something has changed; the lock is given back meanwhile. */
void double_wait_change(void);
void double_tell_change(void);
void double_lock(void);
void double_unlock(void);

int64_t double_now(void);
void double_sleep_until(int64_t time);
/* `amount` (of bytes, say) at a cost for each `unit`. */
int64_t double_cost(uint64_t amount, uint64_t cost, uint64_t unit);
/* Evenly from 0 to `most`. Under the lock. */
uint64_t double_random(uint64_t most);

/* Under the lock. */
__attribute__((format(printf, 1, 2))) void double_violation(const char *format, ...);

/* What a front does first in each function: counts the call and answers the error that it is to fail with. The
 * functions that tell versions and errors' names work before the driver is initialised and when the device is lost. */
enum usable { WHEN_INITIALISED, BEFORE_INITIALISED, ALWAYS };
int double_enter(const char *function, enum usable usable);

/* ---- Memory (memory.c) ---- */

#define DOUBLE_DEVICES 8

struct range {
    uintptr_t start;
    size_t bytes;
};

struct device {
    int ordinal;             /* among all, also those that the environment hides */
    uint64_t retained;       /* of the primary context */
    uint64_t live_bytes;
    int64_t wire_free_at;    /* when the copies that were given a time will have passed the wire */
    struct stream *legacy;   /* the stream NULL; made when it is first used, as is the next */
    struct stream *per_thread; /* one for all threads of the process: enough for what is tested here */
};

bool double_contains(struct range outer, struct range inner);
bool double_overlap(struct range one, struct range other);

/* A front says which variables choose its devices. An outer list ends with NULL; the first that is set of an inner
 * list counts, and the second outer entry chooses among what the first left. */
extern const char *const *const double_visibility[];
/* Which device the calling thread's calls are for; NULL without one, with the error in *code. A front's. */
struct device *double_current(int *code);

/* 0 or NO_DEVICE; also after the first time. */
int double_initialise(void);
bool double_is_initialised(void);
void double_choose_devices(void); /* under the lock */
int double_device_count(void);
/* NULL where there is none. */
struct device *double_device(int ordinal);
bool double_is_device(const void *handle);

int double_memory_info(struct device *device, size_t *free_bytes, size_t *total);
int double_allocate(struct device *device, size_t bytes, void **memory);
int double_free(void *memory);
/* The device whose live allocation holds the whole range; NULL where none does. Under the lock. */
struct device *double_owner(struct range range);

int double_host_allocate(size_t bytes, void **memory);
int double_host_free(void *memory);
int double_host_register(void *memory, size_t bytes);
int double_host_unregister(void *memory);
bool double_is_page_locked(struct range range); /* under the lock */

/* ---- Handles (handles.c) ---- */

/* What is behind a handle. Handles are numbers that are never given twice, so that what is used after its end is
 * recognised. Under the lock. */
enum handle { HANDLE_STREAM = 1, HANDLE_EVENT, HANDLE_GRAPH };
void *double_handle_new(enum handle kind, void *object);
/* NULL, and a violation, where the handle is unknown or was destroyed. */
void *double_handle_find(enum handle kind, const void *handle);
void double_handle_end(const void *handle);

/* ---- Streams and events (streams.c) ---- */

enum { STREAM_NON_BLOCKING = 1 };

/* `stream` may be NULL or 1 (the legacy stream) or 2 (the per-thread stream) of the current device. */
int double_stream_create(struct device *device, unsigned flags, void **stream);
int double_stream_destroy(void *stream);
int double_stream_synchronize(struct device *current, void *stream);
int double_stream_query(struct device *current, void *stream);
int double_stream_id(struct device *current, void *stream, unsigned long long *id);
int double_device_synchronize(struct device *device);

/* Asynchronous, but for what page-able memory makes synchronous. */
int double_copy_to_device(struct device *current, void *to, const void *from, size_t bytes, void *stream);
int double_copy_to_host(struct device *current, void *to, const void *from, size_t bytes, void *stream);
/* On the legacy stream; they return when the copy has passed. */
int double_copy_to_device_now(struct device *current, void *to, const void *from, size_t bytes);
int double_copy_to_host_now(struct device *current, void *to, const void *from, size_t bytes);

int double_event_create(struct device *device, void **event);
int double_event_destroy(void *event);
int double_event_record(struct device *current, void *event, void *stream);
int double_event_query(void *event);
int double_event_synchronize(void *event);
int double_stream_wait(struct device *current, void *stream, void *event);

/* Whether an operation that has not passed touches the range. Under the lock. */
bool double_is_device_memory_used(struct range range);
bool double_is_host_memory_used(struct range range);

struct stream {
    struct device *device;
    uint64_t id;
    bool is_legacy;
    bool is_non_blocking;
    bool is_destroyed;
    unsigned waiting;         /* threads that look at this stream; it is not released before they have gone */
    uint64_t last_sequence;   /* of the operation that was queued last */
    int64_t ended_at;         /* when the last operation would have ended, had nothing overslept */
    struct operation *first, *last;
    struct capture *capture;  /* what is queued goes there and is not done */
    struct stream *next;
};

/* All streams there are, linked by `next`. Under the lock. */
extern struct stream *double_streams;
/* The stream behind what a program gave; NULL with the error in *code. Under the lock. */
struct stream *double_stream_find(struct device *current, void *handle, int *code);

/* ---- Capture (capture.c) ---- */

enum capture_mode { MODE_GLOBAL, MODE_THREAD_LOCAL, MODE_RELAXED };

/* What a call that might disturb a capture asks first: 0, or CAPTURE_UNSUPPORTED, and then the capture is spoilt. */
int double_capture_allows(void);
/* The same for an operation that is queued on this stream: *is_captured says that it is not to be queued. Under the
 * lock, as the next three are. */
int double_capture_takes(struct stream *stream, bool *is_captured);
void double_capture_spoil(struct stream *stream);
uint64_t double_capture_id(const struct stream *stream); /* 0 = not capturing */
/* A stream that waits for what another captured becomes part of that capture. Whether there still is one. */
bool double_capture_join(struct stream *stream, uint64_t id);

int double_capture_begin(struct device *current, void *stream, int mode);
int double_capture_end(struct device *current, void *stream, void **graph);
int double_capture_status(struct device *current, void *stream, int *status);
int double_capture_exchange(int *mode);
int double_graph_destroy(void *graph);

#endif
