/* What a program holds of streams, events and graphs: numbers that are never given twice. */
#define _GNU_SOURCE
#include "double.h"

#include <stdlib.h>

struct slot {
    enum handle kind;
    void *object; /* NULL = destroyed */
};

static struct slot *slots;
static size_t slot_count, slot_room;

/* Far from every address, so that a handle which is taken for a pointer faults. */
#define HANDLE_BASE UINT64_C(0x0d0b100000000000)

void *double_handle_new(enum handle kind, void *object)
{
    if (slot_count == slot_room) {
        slot_room = slot_room == 0 ? 256 : slot_room * 2;
        slots = realloc(slots, slot_room * sizeof *slots);
        if (slots == NULL) {
            abort();
        }
    }
    slots[slot_count] = (struct slot){kind, object};
    return (void *)(uintptr_t)(HANDLE_BASE + 16 * slot_count++);
}

static struct slot *find_slot(const void *handle)
{
    uint64_t index = ((uintptr_t)handle - HANDLE_BASE) / 16;
    return (uintptr_t)handle % 16 == 0 && index < slot_count ? &slots[index] : NULL;
}

void *double_handle_find(enum handle kind, const void *handle)
{
    static const char *const names[] = {"", "stream", "event", "graph"};
    const struct slot *slot = find_slot(handle);
    if (slot == NULL || slot->kind != kind) {
        double_violation("%p is no %s", handle, names[kind]);
        return NULL;
    }
    if (slot->object == NULL) {
        double_violation("use of %s %p after it was destroyed", names[kind], handle);
    }
    return slot->object;
}

void double_handle_end(const void *handle)
{
    find_slot(handle)->object = NULL;
}
