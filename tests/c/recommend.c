/* What pml_options_recommend chooses opens, and every layer of it fits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pml.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #condition, pml_last_error()); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define OK(call) CHECK((call) == PML_STATUS_OK)

static const uint64_t MIB = 1 << 20;

/* Two passes over all layers. */
static void visit(const char *path, const pml_options_t *options, uint64_t available)
{
    pml_loader_t *loader = NULL;
    pml_stats_t stats = PML_STATS_INIT;
    size_t count;
    size_t i;

    OK(pml_loader_open(path, options, &loader));
    count = pml_loader_layer_count(loader);
    for (i = 0; i < 2 * count; i++) {
        OK(pml_loader_acquire_layer(loader, i % count, PML_STREAM_HOST, -1));
        OK(pml_loader_release_layer(loader, i % count, PML_STREAM_HOST));
    }
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.peak_charged_bytes <= available);
    pml_loader_free(loader);
}

static void much_memory(const char *path)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_options_t initial = PML_OPTIONS_INIT;
    const char *device;

    options.prefetch_count = 77;
    options.io = 77;
    OK(pml_options_recommend(path, "cpu", 1024 * MIB, &options));
    device = options.device;
    CHECK(strcmp(device, "cpu") == 0);
    CHECK(options.strategy == PML_STRATEGY_PARALLEL && options.memory_budget == 0);
    CHECK(options.unload == PML_UNLOAD_NEVER && options.dtype == PML_DTYPE_KEEP);
    /* All else has its initial value. */
    options.device = initial.device;
    options.strategy = initial.strategy;
    CHECK(memcmp(&options, &initial, sizeof options) == 0);
    options.strategy = PML_STRATEGY_PARALLEL;
    visit(path, &options, 1024 * MIB);
    /* The machine has as much. */
    OK(pml_options_recommend(path, "cpu", 0, &options));
    CHECK(options.device == device && options.memory_budget == 0);
    OK(pml_options_recommend(path, NULL, 0, &options));
    visit(path, &options, UINT64_MAX);
}

static void little_memory(const char *path)
{
    uint64_t available;
    int windows = 0;
    int narrower = 0;

    for (available = 2 * MIB; available < 256 * MIB; available += 6 * MIB) {
        pml_options_t options = PML_OPTIONS_INIT;
        pml_status_t status = pml_options_recommend(path, "cpu", available, &options);
        if (status == PML_STATUS_BUDGET) {
            pml_options_t initial = PML_OPTIONS_INIT;
            CHECK(memcmp(&options, &initial, sizeof options) == 0);
            CHECK(strstr(pml_last_error(), "expected room for") != NULL);
            continue;
        }
        CHECK(status == PML_STATUS_OK);
        windows += options.strategy == PML_STRATEGY_PREFETCH;
        narrower += options.dtype != PML_DTYPE_KEEP;
        visit(path, &options, available);
    }
    CHECK(windows > 10 && narrower > 0);
}

/* A struct of an older version, and one of a newer. */
static void other_sizes(const char *path)
{
    union {
        pml_options_t value;
        unsigned char bytes[sizeof(pml_options_t) + 16];
    } a;
    uint64_t available = MIB;
    size_t i;

    memset(&a, 0xAA, sizeof a);
    a.value.struct_size = sizeof a;
    OK(pml_options_recommend(path, "cpu", 1024 * MIB, &a.value));
    CHECK(a.value.struct_size == sizeof a && a.value.strategy == PML_STRATEGY_PARALLEL);
    for (i = sizeof(pml_options_t); i < sizeof a; i++) CHECK(a.bytes[i] == 0xAA);

    memset(&a, 0xAA, sizeof a);
    a.value.struct_size = offsetof(pml_options_t, dtype);
    OK(pml_options_recommend(path, "cpu", 1024 * MIB, &a.value));
    CHECK(a.value.strategy == PML_STRATEGY_PARALLEL && a.value.dtype == 0xAAAAAAAA);
    /* One that cannot say in which type the model fits. */
    for (;; available += MIB / 4) {
        pml_options_t whole = PML_OPTIONS_INIT;
        if (pml_options_recommend(path, "cpu", available, &whole) == PML_STATUS_OK) {
            CHECK(whole.dtype != PML_DTYPE_KEEP);
            break;
        }
    }
    CHECK(pml_options_recommend(path, "cpu", available, &a.value) == PML_STATUS_UNSUPPORTED);
    CHECK(a.value.strategy == PML_STRATEGY_PARALLEL);
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    much_memory(argv[1]);
    little_memory(argv[1]);
    other_sizes(argv[1]);
    return 0;
}
