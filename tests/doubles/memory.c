/* Devices, their memory, and page-locked host memory. */
#define _GNU_SOURCE
#include "double.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((uintptr_t)4096)
#define GIB (UINT64_C(1) << 30)

/* ---- Ranges ---- */

bool double_contains(struct range outer, struct range inner)
{
    return inner.start >= outer.start && inner.bytes <= outer.bytes &&
           inner.start - outer.start <= outer.bytes - inner.bytes;
}

bool double_overlap(struct range one, struct range other)
{
    return one.bytes > 0 && other.bytes > 0 && one.start < other.start + other.bytes &&
           other.start < one.start + one.bytes;
}

/* Live memory of either kind. There are few: a list will do. */
struct block {
    struct range range;
    struct device *device; /* NULL for host memory */
    bool is_ours;          /* host memory that was allocated, not registered */
    struct block *next;
};

static struct block *device_blocks;
static struct block *host_blocks;

static int add_block(struct block **list, struct block block)
{
    struct block *added = malloc(sizeof *added);
    if (added == NULL) {
        return OUT_OF_MEMORY;
    }
    *added = block;
    added->next = *list;
    *list = added;
    return SUCCESS;
}

/* The link to the block that starts there; it links to NULL where there is none. */
static struct block **find_start(struct block **list, const void *memory)
{
    struct block **link = list;
    while (*link != NULL && (*link)->range.start != (uintptr_t)memory) {
        link = &(*link)->next;
    }
    return link;
}

static const struct block *find_holder(const struct block *list, struct range range)
{
    while (list != NULL && !double_contains(list->range, range)) {
        list = list->next;
    }
    return list;
}

static void remove_block(struct block **link)
{
    struct block *block = *link;
    *link = block->next;
    free(block);
}

static void raise_peak(uint64_t *peak, uint64_t value)
{
    *peak = value > *peak ? value : *peak;
}

/* ---- Devices ---- */

static struct device devices[DOUBLE_DEVICES];
static struct device *visible[DOUBLE_DEVICES];
static int visible_count;
static bool is_initialised;

bool double_is_initialised(void)
{
    return is_initialised;
}

/* Keeps of the visible devices those that a list of ordinals names; the first that is not there ends it. */
static void keep_listed(const char *list)
{
    struct device *kept[DOUBLE_DEVICES];
    int count = 0;
    while (count < DOUBLE_DEVICES) {
        char *end;
        long ordinal = strtol(list, &end, 10);
        if (end == list || ordinal < 0 || ordinal >= visible_count) {
            break;
        }
        kept[count++] = visible[ordinal];
        if (*end != ',') {
            break;
        }
        list = end + 1;
    }
    memcpy(visible, kept, sizeof *kept * (size_t)count);
    visible_count = count;
}

void double_choose_devices(void)
{
    visible_count = (int)SET(device_count);
    for (int i = 0; i < DOUBLE_DEVICES; i++) {
        devices[i].ordinal = i;
        visible[i] = &devices[i];
    }
    for (const char *const *const *choice = double_visibility; *choice != NULL; choice++) {
        const char *list = NULL;
        for (const char *const *name = *choice; list == NULL && *name != NULL; name++) {
            list = getenv(*name);
        }
        if (list != NULL) {
            keep_listed(list);
        }
    }
}

int double_initialise(void)
{
    double_lock();
    if (!is_initialised) {
        double_choose_devices();
        is_initialised = visible_count > 0;
    }
    int code = visible_count > 0 ? SUCCESS : NO_DEVICE;
    double_unlock();
    return code;
}

int double_device_count(void)
{
    double_lock();
    int count = visible_count;
    double_unlock();
    return count;
}

struct device *double_device(int ordinal)
{
    double_lock();
    struct device *device = ordinal >= 0 && ordinal < visible_count ? visible[ordinal] : NULL;
    double_unlock();
    return device;
}

bool double_is_device(const void *handle)
{
    for (int i = 0; i < DOUBLE_DEVICES; i++) {
        if (handle == &devices[i]) {
            return true;
        }
    }
    return false;
}

/* ---- Device memory ---- */

struct device *double_owner(struct range range)
{
    const struct block *block = find_holder(device_blocks, range);
    return block == NULL ? NULL : block->device;
}

/* Under the lock. */
static uint64_t free_bytes_of(const struct device *device)
{
    uint64_t used = device->live_bytes + SET(taken_bytes);
    return used < SET(device_bytes) ? SET(device_bytes) - used : 0;
}

int double_memory_info(struct device *device, size_t *free_bytes, size_t *total)
{
    double_lock();
    *free_bytes = free_bytes_of(device);
    *total = SET(device_bytes);
    double_unlock();
    return SUCCESS;
}

/* Under the lock. */
static int allocate_now(struct device *device, size_t bytes, void **memory)
{
    if (bytes > free_bytes_of(device)) {
        return OUT_OF_MEMORY;
    }
    void *mapped =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        return OUT_OF_MEMORY;
    }
    struct block block = {.range = {(uintptr_t)mapped, bytes}, .device = device};
    if (add_block(&device_blocks, block) != SUCCESS) {
        munmap(mapped, bytes);
        return OUT_OF_MEMORY;
    }
    device->live_bytes += bytes;
    COUNTER(live_bytes) += bytes;
    COUNTER(live_allocations)++;
    COUNTER(allocations)++;
    raise_peak(&COUNTER(peak_bytes), COUNTER(live_bytes));
    *memory = mapped;
    return SUCCESS;
}

int double_allocate(struct device *device, size_t bytes, void **memory)
{
    int64_t began = double_now();
    int code = double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    double_lock();
    int64_t takes = (int64_t)SET(allocation_latency_ns) + double_cost(bytes, SET(allocation_ns_per_gib), GIB);
    double_unlock();
    double_sleep_until(began + takes);
    double_lock();
    code = allocate_now(device, bytes, memory);
    double_unlock();
    return code;
}

int double_free(void *memory)
{
    int code = double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    double_lock();
    struct block **link = find_start(&device_blocks, memory);
    if (*link == NULL) {
        double_violation("free of %p, which is freed already or never was allocated", memory);
        double_unlock();
        return INVALID_VALUE;
    }
    struct block block = **link;
    if (double_is_device_memory_used(block.range)) {
        /* It is kept, so that what is queued harms nobody when violations are only counted. */
        double_violation("free of %p, which a queued copy or kernel still touches", memory);
    } else {
        munmap(memory, block.range.bytes);
    }
    remove_block(link);
    block.device->live_bytes -= block.range.bytes;
    COUNTER(live_bytes) -= block.range.bytes;
    COUNTER(live_allocations)--;
    COUNTER(frees)++;
    double_unlock();
    return SUCCESS;
}

/* ---- Page-locked host memory ---- */

bool double_is_page_locked(struct range range)
{
    return find_holder(host_blocks, range) != NULL;
}

/* Whole pages are locked. */
static struct range pages_of(struct range range)
{
    uintptr_t start = range.start & ~(PAGE - 1);
    uintptr_t end = (range.start + range.bytes + PAGE - 1) & ~(PAGE - 1);
    return (struct range){start, end - start};
}

/* Sleeps as long as it takes to lock that many bytes, in all from `began` on. */
static void take_time_to_lock(int64_t began, size_t bytes)
{
    double_lock();
    int64_t takes = double_cost(bytes, SET(register_ns_per_gib), GIB);
    double_unlock();
    double_sleep_until(began + takes);
}

/* Under the lock. */
static int add_host_block(struct range range, bool is_ours)
{
    for (const struct block *block = host_blocks; block != NULL; block = block->next) {
        if (double_overlap(pages_of(block->range), pages_of(range))) {
            return ALREADY_REGISTERED;
        }
    }
    int code = add_block(&host_blocks, (struct block){.range = range, .is_ours = is_ours});
    if (code == SUCCESS) {
        COUNTER(registered_bytes) += range.bytes;
        raise_peak(&COUNTER(peak_registered_bytes), COUNTER(registered_bytes));
    }
    return code;
}

/* Ends what double_host_allocate or double_host_register began; `absent` is the error for what is not there. */
static int remove_host_block(void *memory, bool is_ours, int absent)
{
    int code = double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    double_lock();
    struct block **link = find_start(&host_blocks, memory);
    if (*link == NULL || (*link)->is_ours != is_ours) {
        if (is_ours) {
            double_violation("free of page-locked %p, which is freed already or never was allocated", memory);
        }
        double_unlock();
        return absent;
    }
    struct range range = (*link)->range;
    bool is_used = double_is_host_memory_used(range);
    if (is_used) {
        double_violation("page-locked memory at %p is given back while a queued copy still touches it", memory);
    }
    if (is_ours && !is_used) {
        munmap(memory, range.bytes);
    }
    remove_block(link);
    COUNTER(registered_bytes) -= range.bytes;
    double_unlock();
    return SUCCESS;
}

int double_host_allocate(size_t bytes, void **memory)
{
    int64_t began = double_now();
    int code = bytes == 0 ? INVALID_VALUE : double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    take_time_to_lock(began, bytes);
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
        return OUT_OF_MEMORY;
    }
    double_lock();
    code = add_host_block((struct range){(uintptr_t)mapped, bytes}, true);
    double_unlock();
    if (code != SUCCESS) {
        munmap(mapped, bytes);
        return code;
    }
    *memory = mapped;
    return SUCCESS;
}

int double_host_free(void *memory)
{
    return memory == NULL ? SUCCESS : remove_host_block(memory, true, INVALID_VALUE);
}

int double_host_register(void *memory, size_t bytes)
{
    int64_t began = double_now();
    int code = memory == NULL || bytes == 0 ? INVALID_VALUE : double_capture_allows();
    if (code != SUCCESS) {
        return code;
    }
    take_time_to_lock(began, bytes);
    double_lock();
    code = add_host_block((struct range){(uintptr_t)memory, bytes}, false);
    double_unlock();
    return code;
}

int double_host_unregister(void *memory)
{
    return remove_host_block(memory, false, NOT_REGISTERED);
}
