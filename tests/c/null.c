/* Every function, with NULL in every pointer position: an error or the documented meaning, and never a crash. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pml.h"

static int failures;

static void expect(int line, const char *what, pml_status_t found, pml_status_t expected)
{
    if (found != expected) {
        fprintf(stderr, "line %d: %s gave %s (%s), expected %s\n", line, what, pml_status_name(found),
                pml_last_error(), pml_status_name(expected));
        failures++;
    }
}

#define EXPECT(expected, call) expect(__LINE__, #call, (call), (expected))
#define INVALID(call) EXPECT(PML_STATUS_INVALID_ARGUMENT, call)
#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition); \
            failures++;                                                     \
        }                                                                   \
    } while (0)

/* The INIT macro and the init function agree byte for byte, and a shorter or longer struct gets its part. */
#define INIT_AGREES(type, init, macro)                                  \
    do {                                                                \
        union {                                                         \
            type value;                                                 \
            unsigned char bytes[sizeof(type) + 16];                     \
        } a;                                                            \
        type b = macro;                                                 \
        size_t size = sizeof(type) + 16;                                \
        size_t i;                                                       \
        memset(&a, 0xAA, sizeof a);                                     \
        init(&a.value, sizeof(type));                                   \
        CHECK(memcmp(&a, &b, sizeof(type)) == 0);                       \
        CHECK(a.bytes[sizeof(type)] == 0xAA);                           \
        init(&a.value, size);                                           \
        CHECK(a.value.struct_size == size);                             \
        for (i = sizeof(type); i < size; i++) CHECK(a.bytes[i] == 0);   \
        memset(&a, 0xAA, sizeof a);                                     \
        init(&a.value, sizeof(size_t));                                 \
        CHECK(a.value.struct_size == sizeof(size_t));                   \
        CHECK(a.bytes[sizeof(size_t)] == 0xAA);                         \
        init(NULL, sizeof(type));                                       \
        init(&a.value, 0);                                              \
    } while (0)

static int destroyed;

static void count_destroy(void *user_data)
{
    (void)user_data;
    destroyed++;
}

static void *allocate_nothing(void *user_data, size_t size, size_t alignment, uint32_t kind, uint32_t ordinal)
{
    (void)user_data, (void)size, (void)alignment, (void)kind, (void)ordinal;
    return NULL;
}

static void deallocate_nothing(void *user_data, void *memory, size_t size, size_t alignment, uint32_t kind,
                               uint32_t ordinal)
{
    (void)user_data, (void)memory, (void)size, (void)alignment, (void)kind, (void)ordinal;
}

static void without_handles(void)
{
    pml_device_info_t device = PML_DEVICE_INFO_INIT;
    pml_loader_t *loader = (pml_loader_t *)&device;
    pml_options_t options = PML_OPTIONS_INIT;
    pml_allocator_t allocator = PML_ALLOCATOR_INIT;
    pml_rules_t *rules = NULL;
    pml_budget_t *budget = (pml_budget_t *)&device;
    static const char bytes[4] = "GGUF";

    CHECK(pml_last_error() != NULL);
    CHECK(strcmp(pml_version_string(), "0.1.0") == 0);
    CHECK(pml_version_number() == PML_VERSION_NUMBER);
    CHECK(strcmp(pml_status_name(PML_STATUS_OK), "PML_STATUS_OK") == 0);
    CHECK(strcmp(pml_status_name(12345), "PML_STATUS_UNKNOWN") == 0);
    CHECK(strcmp(pml_status_name(INT32_MIN), "PML_STATUS_UNKNOWN") == 0);
    CHECK(pml_status_is_retryable(PML_STATUS_IO) && !pml_status_is_retryable(PML_STATUS_MALFORMED));
    CHECK(pml_status_is_retryable(PML_STATUS_OUT_OF_MEMORY) && pml_status_is_retryable(PML_STATUS_BUSY));
    CHECK(pml_status_is_retryable(PML_STATUS_BUDGET) && pml_status_is_retryable(PML_STATUS_TIMED_OUT));
    CHECK(!pml_status_is_retryable(PML_STATUS_INCOMPLETE) && !pml_status_is_retryable(PML_STATUS_CANCELLED));
    CHECK(strcmp(pml_dtype_name(PML_DTYPE_Q4_K), "Q4_K") == 0);
    CHECK(strcmp(pml_dtype_name(UINT32_MAX), "unknown") == 0);

    CHECK(pml_device_count() >= 1);
    INVALID(pml_device_info(0, NULL));
    EXPECT(PML_STATUS_OK, pml_device_info(0, &device));
    CHECK(device.model != NULL && strlen(device.model) == device.model_length);
    CHECK(device.kind == PML_DEVICE_HOST && strcmp(device.name, "cpu") == 0 && device.name_length == 3);
    EXPECT(PML_STATUS_OUT_OF_RANGE, pml_device_info(SIZE_MAX, &device));
    device.struct_size = 3;
    INVALID(pml_device_info(0, &device));

    INVALID(pml_rules_new(NULL));
    INVALID(pml_rules_layer(NULL, "*", "x"));
    INVALID(pml_rules_skip(NULL, "*"));
    EXPECT(PML_STATUS_OK, pml_rules_new(&rules));
    INVALID(pml_rules_layer(rules, NULL, "x"));
    INVALID(pml_rules_layer(rules, "*", NULL));
    INVALID(pml_rules_layer(rules, "", "x"));
    INVALID(pml_rules_skip(rules, NULL));
    INVALID(pml_rules_dtype(NULL, "*", PML_DTYPE_F16));
    INVALID(pml_rules_dtype(rules, NULL, PML_DTYPE_F16));
    INVALID(pml_rules_dtype(rules, "", PML_DTYPE_F16));
    INVALID(pml_rules_dtype(rules, "*", PML_DTYPE_Q6_K));
    INVALID(pml_rules_skip(rules, "\xff"));
    pml_rules_free(rules);
    pml_rules_free(NULL);

    INVALID(pml_budget_new(1, NULL));
    INVALID(pml_budget_new(0, &budget));
    CHECK(budget == NULL);
    EXPECT(PML_STATUS_OK, pml_budget_new(1, &budget));
    pml_budget_free(budget);
    pml_budget_free(NULL);

    INVALID(pml_options_recommend(NULL, "cpu", 1, &options));
    INVALID(pml_options_recommend("nothing.gguf", "cpu", 1, NULL));
    INVALID(pml_options_recommend("nothing.gguf", "gpu", 1, &options));
    EXPECT(PML_STATUS_NOT_FOUND, pml_options_recommend("nothing.gguf", NULL, 1, &options));
    options.struct_size = 3;
    INVALID(pml_options_recommend("nothing.gguf", "cpu", 1, &options));
    pml_options_init(&options, sizeof options);

    INVALID(pml_loader_open(NULL, NULL, &loader));
    CHECK(loader == NULL);
    INVALID(pml_loader_open("nothing.gguf", NULL, NULL));
    options.destroy = count_destroy;
    INVALID(pml_loader_open(NULL, &options, &loader));
    INVALID(pml_loader_open("nothing.gguf", &options, NULL));
    EXPECT(PML_STATUS_NOT_FOUND, pml_loader_open("nothing.gguf", &options, &loader));
    CHECK(destroyed == 3);
    /* An allocator lacks neither function. */
    options.allocator = &allocator;
    INVALID(pml_loader_open("nothing.gguf", &options, &loader));
    allocator.allocate = allocate_nothing;
    INVALID(pml_loader_open("nothing.gguf", &options, &loader));
    allocator.allocate = NULL;
    allocator.deallocate = deallocate_nothing;
    INVALID(pml_loader_open("nothing.gguf", &options, &loader));
    allocator.allocate = allocate_nothing;
    EXPECT(PML_STATUS_NOT_FOUND, pml_loader_open("nothing.gguf", &options, &loader));
    options.allocator = NULL;
    CHECK(destroyed == 7);
    options.destroy = NULL;
    INVALID(pml_loader_open_memory(NULL, 4, count_destroy, NULL, NULL, &loader));
    INVALID(pml_loader_open_memory(bytes, 4, count_destroy, NULL, NULL, NULL));
    INVALID(pml_loader_open_memory(bytes, SIZE_MAX, count_destroy, NULL, NULL, &loader));
    EXPECT(PML_STATUS_TRUNCATED, pml_loader_open_memory(bytes, 4, count_destroy, NULL, NULL, &loader));
    EXPECT(PML_STATUS_UNSUPPORTED, pml_loader_open_memory(bytes, 0, NULL, NULL, NULL, &loader));
    CHECK(destroyed == 11);
    CHECK(loader == NULL);
    pml_loader_free(NULL);
    pml_tensor_free(NULL);
}

static void without_zoo(void)
{
    pml_zoo_options_t options = PML_ZOO_OPTIONS_INIT;
    pml_model_info_t info = PML_MODEL_INFO_INIT;
    pml_model_file_t file = PML_MODEL_FILE_INIT;
    pml_zoo_t *zoo = (pml_zoo_t *)&options;
    pml_models_t *models = (pml_models_t *)&options;
    pml_model_t *model = (pml_model_t *)&options;
    pml_loader_t *loader = (pml_loader_t *)&options;
    const char *text = "x";
    size_t length = 1;

    INVALID(pml_zoo_open(NULL, NULL));
    options.struct_size = 3;
    INVALID(pml_zoo_open(&options, &zoo));
    CHECK(zoo == NULL);
    pml_zoo_options_init(&options, sizeof options);
    INVALID(pml_zoo_list(NULL, &models));
    CHECK(models == NULL);
    INVALID(pml_zoo_find(NULL, "x", NULL, &model));
    CHECK(model == NULL);
    INVALID(pml_zoo_add(NULL, "x", NULL, NULL, 0, NULL));
    INVALID(pml_zoo_remove(NULL, "x", NULL));
    INVALID(pml_zoo_pin(NULL, "x", NULL, 1));
    INVALID(pml_zoo_verify(NULL, "x", NULL));
    CHECK(pml_models_count(NULL) == 0 && pml_models_remark_count(NULL) == 0);
    INVALID(pml_models_at(NULL, 0, &model));
    INVALID(pml_models_remark(NULL, 0, &text, &length));
    CHECK(text == NULL && length == 0);
    INVALID(pml_model_info(NULL, &info));
    INVALID(pml_model_summary(NULL, &info));
    INVALID(pml_model_file(NULL, 0, &file));
    INVALID(pml_model_open_path(NULL, &model));
    INVALID(pml_model_open_path("nothing.gguf", NULL));
    EXPECT(PML_STATUS_NOT_FOUND, pml_model_open_path("nothing.gguf", &model));
    destroyed = 0;
    {
        pml_options_t open = PML_OPTIONS_INIT;
        open.destroy = count_destroy;
        INVALID(pml_loader_open_model(NULL, &open, &loader));
        CHECK(loader == NULL && destroyed == 1);
        INVALID(pml_loader_open_model(NULL, &open, NULL));
        CHECK(destroyed == 2);
    }

    /* Stores that are nowhere hold nothing. */
    options.path = "nowhere/zoo";
    options.huggingface_path = "nowhere/hub";
    options.ollama_path = options.lm_studio_path = "";
    EXPECT(PML_STATUS_OK, pml_zoo_open(&options, &zoo));
    INVALID(pml_zoo_list(zoo, NULL));
    EXPECT(PML_STATUS_OK, pml_zoo_list(zoo, &models));
    CHECK(pml_models_count(models) == 0 && pml_models_remark_count(models) == 0);
    INVALID(pml_models_at(models, 0, NULL));
    EXPECT(PML_STATUS_OUT_OF_RANGE, pml_models_at(models, 0, &model));
    INVALID(pml_models_remark(models, 0, NULL, &length));
    INVALID(pml_models_remark(models, 0, &text, NULL));
    EXPECT(PML_STATUS_OUT_OF_RANGE, pml_models_remark(models, 0, &text, &length));
    INVALID(pml_zoo_find(zoo, NULL, NULL, &model));
    INVALID(pml_zoo_find(zoo, "x", NULL, NULL));
    INVALID(pml_zoo_find(zoo, "\xff", NULL, &model));
    INVALID(pml_zoo_find(zoo, "x", "\xff", &model));
    INVALID(pml_zoo_find(zoo, "", NULL, &model));
    EXPECT(PML_STATUS_NOT_FOUND, pml_zoo_find(zoo, "x", NULL, &model));
    EXPECT(PML_STATUS_NOT_FOUND, pml_zoo_find(zoo, "x", "y", &model));
    CHECK(model == NULL);
    INVALID(pml_zoo_add(zoo, NULL, NULL, NULL, 0, &model));
    INVALID(pml_zoo_add(zoo, "nothing.gguf", NULL, NULL, 4, &model));
    INVALID(pml_zoo_add(zoo, "nothing.gguf", "\xff", NULL, 0, &model));
    INVALID(pml_zoo_add(zoo, "nothing.gguf", "a b", NULL, 0, &model));
    INVALID(pml_zoo_add(zoo, "nothing.gguf", "a", "b/c", 0, &model));
    EXPECT(PML_STATUS_NOT_FOUND, pml_zoo_add(zoo, "nothing.gguf", NULL, NULL, 0, &model));
    INVALID(pml_zoo_remove(zoo, NULL, NULL));
    EXPECT(PML_STATUS_NOT_FOUND, pml_zoo_remove(zoo, "x", NULL));
    INVALID(pml_zoo_pin(zoo, NULL, NULL, 1));
    INVALID(pml_zoo_pin(zoo, "x", NULL, 2));
    EXPECT(PML_STATUS_NOT_FOUND, pml_zoo_pin(zoo, "x", NULL, 0));
    INVALID(pml_zoo_verify(zoo, NULL, NULL));
    EXPECT(PML_STATUS_NOT_FOUND, pml_zoo_verify(zoo, "x", NULL));
    pml_zoo_free(zoo);
    pml_models_free(models);
    pml_zoo_free(NULL);
    pml_models_free(NULL);
    pml_model_free(NULL);
}

static void without_loader(void)
{
    pml_layer_info_t layer = PML_LAYER_INFO_INIT;
    pml_stats_t stats = PML_STATS_INIT;
    pml_metadata_info_t value = PML_METADATA_INFO_INIT;
    pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
    pml_view_t view = PML_VIEW_INIT;
    pml_event_t event = PML_EVENT_INIT;
    pml_tensor_t *tensor = (pml_tensor_t *)&view;
    struct DLManagedTensorVersioned *array = (struct DLManagedTensorVersioned *)&view;
    size_t index = 0;
    const char *name = "x";
    uint64_t u = 0;
    void *dst = &u;
    int64_t i = 0;
    double f = 0;
    bool b = false;

    CHECK(pml_loader_layer_count(NULL) == 0);
    CHECK(pml_loader_tensor_count(NULL) == 0);
    CHECK(pml_loader_metadata_count(NULL) == 0);
    CHECK(pml_loader_progress(NULL) == 0.0);
    CHECK(!pml_loader_is_fully_loaded(NULL));
    CHECK(pml_loader_stage(NULL) == PML_STAGE_OPENING);
    INVALID(pml_loader_start(NULL));
    INVALID(pml_loader_wait(NULL, 0));
    INVALID(pml_loader_cancel(NULL));
    INVALID(pml_loader_next_event(NULL, 0, &event));
    INVALID(pml_loader_load_into(NULL, &tensor, &dst, &index, 1, PML_STREAM_HOST));
    INVALID(pml_loader_stats(NULL, &stats));
    INVALID(pml_loader_verify(NULL, 0, NULL, NULL));
    INVALID(pml_loader_layer_info(NULL, 0, &layer));
    INVALID(pml_loader_layer_tensor(NULL, 0, 0, &index));
    INVALID(pml_loader_find_layer(NULL, "x", &index));
    INVALID(pml_loader_set_layer_order(NULL, &index, 1));
    INVALID(pml_loader_prefetch(NULL, &index, 1));
    INVALID(pml_loader_prefetch_layer(NULL, "x"));
    INVALID(pml_loader_prefetch_layers(NULL, &name, 1));
    INVALID(pml_loader_acquire_layer(NULL, 0, PML_STREAM_HOST, -1));
    INVALID(pml_loader_release_layer(NULL, 0, PML_STREAM_HOST));
    INVALID(pml_loader_unload_layer(NULL, 0));
    INVALID(pml_loader_tensor(NULL, "x", &tensor));
    CHECK(tensor == NULL);
    INVALID(pml_loader_tensor_at(NULL, 0, &tensor));
    INVALID(pml_loader_metadata_at(NULL, 0, &value));
    INVALID(pml_loader_metadata_find(NULL, "x", &value));
    INVALID(pml_loader_metadata_u64(NULL, 0, &u));
    INVALID(pml_loader_metadata_i64(NULL, 0, &i));
    INVALID(pml_loader_metadata_f64(NULL, 0, &f));
    INVALID(pml_loader_metadata_bool(NULL, 0, &b));
    INVALID(pml_loader_metadata_string(NULL, 0, &name, &index));
    INVALID(pml_loader_metadata_element_u64(NULL, 0, 0, &u));
    INVALID(pml_loader_metadata_element_i64(NULL, 0, 0, &i));
    INVALID(pml_loader_metadata_element_f64(NULL, 0, 0, &f));
    INVALID(pml_loader_metadata_element_bool(NULL, 0, 0, &b));
    INVALID(pml_loader_metadata_element_string(NULL, 0, 0, &name, &index));
    INVALID(pml_loader_metadata_element_array(NULL, 0, 0, &value));
    INVALID(pml_loader_metadata_array_copy(NULL, 0, 0, 1, PML_VALUE_U8, &u, sizeof u));
    INVALID(pml_loader_metadata_array_strings(NULL, 0, 0, 1, &name, &index));
    INVALID(pml_tensor_get_info(NULL, &info));
    CHECK(!pml_tensor_is_loaded(NULL));
    INVALID(pml_tensor_prefetch(NULL));
    INVALID(pml_tensor_acquire(NULL, PML_STREAM_HOST, -1, &view));
    INVALID(pml_tensor_release(NULL, PML_STREAM_HOST));
    INVALID(pml_tensor_view(NULL, &view));
    INVALID(pml_tensor_to_dlpack(NULL, PML_STREAM_HOST, &array));
    CHECK(array == NULL);
    INVALID(pml_tensor_read(NULL, 0, &u, sizeof u));
    CHECK(strstr(pml_last_error(), "tensor") != NULL);
}

static void with_model(const char *path)
{
    pml_model_info_t info = PML_MODEL_INFO_INIT;
    pml_model_file_t file = PML_MODEL_FILE_INIT;
    pml_model_t *model = NULL;
    pml_loader_t *loader = NULL;

    EXPECT(PML_STATUS_OK, pml_model_open_path(path, &model));
    if (model == NULL) return;
    INVALID(pml_model_info(model, NULL));
    INVALID(pml_model_summary(model, NULL));
    INVALID(pml_model_file(model, 0, NULL));
    EXPECT(PML_STATUS_OUT_OF_RANGE, pml_model_file(model, 1, &file));
    EXPECT(PML_STATUS_OK, pml_model_file(model, 0, &file));
    EXPECT(PML_STATUS_OK, pml_model_info(model, &info));
    CHECK(info.file_count == 1 && info.bytes == file.bytes && file.digest_length == 0);
    info.struct_size = 3;
    INVALID(pml_model_info(model, &info));
    INVALID(pml_model_summary(model, &info));
    INVALID(pml_loader_open_model(model, NULL, NULL));
    EXPECT(PML_STATUS_OK, pml_loader_open_model(model, NULL, &loader));
    pml_model_free(model);
    CHECK(pml_loader_tensor_count(loader) > 0);
    pml_loader_free(loader);
}

static void with_loader(pml_loader_t *loader)
{
    pml_tensor_t *tensor = NULL;
    pml_tensor_t *none = NULL;
    size_t index = 0;
    size_t scalar;
    size_t strings;
    size_t numbers;
    const char *name = NULL;
    const char *text = NULL;
    uint64_t u = 0;
    void *dst = NULL;
    char memory[16];
    size_t dst_size = 0;
    pml_metadata_info_t value = PML_METADATA_INFO_INIT;
    pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
    pml_event_t event = PML_EVENT_INIT;

    EXPECT(PML_STATUS_OK, pml_loader_metadata_find(loader, "general.architecture", &value));
    scalar = value.index;
    EXPECT(PML_STATUS_OK, pml_loader_metadata_find(loader, "tokenizer.ggml.tokens", &value));
    strings = value.index;
    EXPECT(PML_STATUS_OK, pml_loader_metadata_find(loader, "tokenizer.ggml.token_type", &value));
    numbers = value.index;

    INVALID(pml_loader_wait(loader, -2));
    EXPECT(PML_STATUS_INVALID_STATE, pml_loader_wait(loader, -1));
    INVALID(pml_loader_next_event(loader, 0, NULL));
    INVALID(pml_loader_next_event(loader, -2, &event));
    EXPECT(PML_STATUS_TIMED_OUT, pml_loader_next_event(loader, 0, &event));
    event.struct_size = 3;
    INVALID(pml_loader_next_event(loader, 0, &event));
    INVALID(pml_loader_stats(loader, NULL));
    INVALID(pml_loader_layer_info(loader, 0, NULL));
    INVALID(pml_loader_layer_tensor(loader, 0, 0, NULL));
    INVALID(pml_loader_find_layer(loader, NULL, &index));
    INVALID(pml_loader_find_layer(loader, "x", NULL));
    INVALID(pml_loader_set_layer_order(loader, NULL, 1));
    EXPECT(PML_STATUS_OK, pml_loader_set_layer_order(loader, NULL, 0));
    INVALID(pml_loader_prefetch(loader, NULL, 1));
    EXPECT(PML_STATUS_OK, pml_loader_prefetch(loader, NULL, 0));
    INVALID(pml_loader_prefetch_layer(loader, NULL));
    INVALID(pml_loader_prefetch_layers(loader, NULL, 1));
    INVALID(pml_loader_prefetch_layers(loader, &name, 1));
    EXPECT(PML_STATUS_OK, pml_loader_prefetch_layers(loader, NULL, 0));
    EXPECT(PML_STATUS_OK, pml_loader_acquire_layer(loader, 0, NULL, -1));
    EXPECT(PML_STATUS_OK, pml_loader_release_layer(loader, 0, NULL));
    INVALID(pml_loader_tensor(loader, NULL, &tensor));
    INVALID(pml_loader_tensor(loader, "x", NULL));
    INVALID(pml_loader_tensor_at(loader, 0, NULL));
    INVALID(pml_loader_metadata_at(loader, 0, NULL));
    INVALID(pml_loader_metadata_find(loader, NULL, &value));
    INVALID(pml_loader_metadata_find(loader, "general.architecture", NULL));
    INVALID(pml_loader_metadata_u64(loader, scalar, NULL));
    INVALID(pml_loader_metadata_i64(loader, scalar, NULL));
    INVALID(pml_loader_metadata_f64(loader, scalar, NULL));
    INVALID(pml_loader_metadata_bool(loader, scalar, NULL));
    INVALID(pml_loader_metadata_string(loader, scalar, NULL, &index));
    INVALID(pml_loader_metadata_string(loader, scalar, &text, NULL));
    INVALID(pml_loader_metadata_element_u64(loader, numbers, 0, NULL));
    INVALID(pml_loader_metadata_element_i64(loader, numbers, 0, NULL));
    INVALID(pml_loader_metadata_element_f64(loader, numbers, 0, NULL));
    INVALID(pml_loader_metadata_element_bool(loader, numbers, 0, NULL));
    INVALID(pml_loader_metadata_element_string(loader, strings, 0, NULL, &index));
    INVALID(pml_loader_metadata_element_string(loader, strings, 0, &text, NULL));
    INVALID(pml_loader_metadata_element_array(loader, strings, 0, NULL));
    INVALID(pml_loader_metadata_array_copy(loader, numbers, 0, 1, PML_VALUE_I32, NULL, 4));
    INVALID(pml_loader_metadata_array_copy(loader, numbers, 0, 2, PML_VALUE_I32, &u, 4));
    EXPECT(PML_STATUS_OK, pml_loader_metadata_array_copy(loader, numbers, 0, 0, PML_VALUE_I32, NULL, 0));
    INVALID(pml_loader_metadata_array_strings(loader, strings, 0, 1, NULL, &index));
    INVALID(pml_loader_metadata_array_strings(loader, strings, 0, 1, &text, NULL));
    EXPECT(PML_STATUS_OK, pml_loader_metadata_array_strings(loader, strings, 0, 0, NULL, NULL));

    EXPECT(PML_STATUS_OK, pml_loader_tensor_at(loader, 0, &tensor));
    INVALID(pml_tensor_get_info(tensor, NULL));
    EXPECT(PML_STATUS_OK, pml_tensor_acquire(tensor, NULL, 0, NULL));
    INVALID(pml_tensor_view(tensor, NULL));
    INVALID(pml_tensor_to_dlpack(tensor, NULL, NULL));
    INVALID(pml_tensor_read(tensor, 0, NULL, 1));
    EXPECT(PML_STATUS_OK, pml_tensor_read(tensor, 0, NULL, 0));
    EXPECT(PML_STATUS_OK, pml_tensor_release(tensor, NULL));

    EXPECT(PML_STATUS_OK, pml_tensor_get_info(tensor, &info));
    dst_size = (size_t)info.bytes;
    INVALID(pml_loader_load_into(loader, NULL, &dst, &dst_size, 1, NULL));
    INVALID(pml_loader_load_into(loader, &tensor, NULL, &dst_size, 1, NULL));
    INVALID(pml_loader_load_into(loader, &tensor, &dst, NULL, 1, NULL));
    INVALID(pml_loader_load_into(loader, &tensor, &dst, &dst_size, 1, NULL));
    INVALID(pml_loader_load_into(loader, &none, &dst, &dst_size, 1, NULL));
    dst = memory;
    INVALID(pml_loader_load_into(loader, &tensor, &dst, &dst_size, 1, &u));
    dst_size = sizeof memory;
    INVALID(pml_loader_load_into(loader, &tensor, &dst, &dst_size, 1, NULL));
    dst_size = SIZE_MAX;
    INVALID(pml_loader_load_into(loader, &tensor, &dst, &dst_size, 1, NULL));
    EXPECT(PML_STATUS_OK, pml_loader_load_into(loader, NULL, NULL, NULL, 0, NULL));
    pml_tensor_free(tensor);

    EXPECT(PML_STATUS_OK, pml_loader_cancel(loader));
    EXPECT(PML_STATUS_OK, pml_loader_start(loader));
    EXPECT(PML_STATUS_OK, pml_loader_wait(loader, -1));
    CHECK(pml_loader_progress(loader) == 1.0 && pml_loader_is_fully_loaded(loader));
    CHECK(pml_loader_stage(loader) == PML_STAGE_DONE);
}

int main(int argc, char **argv)
{
    pml_loader_t *loader = NULL;

    if (argc != 2) return 2;
    INIT_AGREES(pml_options_t, pml_options_init, PML_OPTIONS_INIT);
    INIT_AGREES(pml_device_info_t, pml_device_info_init, PML_DEVICE_INFO_INIT);
    INIT_AGREES(pml_layer_info_t, pml_layer_info_init, PML_LAYER_INFO_INIT);
    INIT_AGREES(pml_tensor_info_t, pml_tensor_info_init, PML_TENSOR_INFO_INIT);
    INIT_AGREES(pml_view_t, pml_view_init, PML_VIEW_INIT);
    INIT_AGREES(pml_metadata_info_t, pml_metadata_info_init, PML_METADATA_INFO_INIT);
    INIT_AGREES(pml_stats_t, pml_stats_init, PML_STATS_INIT);
    INIT_AGREES(pml_event_t, pml_event_init, PML_EVENT_INIT);
    INIT_AGREES(pml_allocator_t, pml_allocator_init, PML_ALLOCATOR_INIT);
    INIT_AGREES(pml_zoo_options_t, pml_zoo_options_init, PML_ZOO_OPTIONS_INIT);
    INIT_AGREES(pml_model_info_t, pml_model_info_init, PML_MODEL_INFO_INIT);
    INIT_AGREES(pml_model_file_t, pml_model_file_init, PML_MODEL_FILE_INIT);
    without_handles();
    without_zoo();
    with_model(argv[1]);
    without_loader();
    EXPECT(PML_STATUS_OK, pml_loader_open(argv[1], NULL, &loader));
    if (loader != NULL) with_loader(loader);
    pml_loader_free(loader);
    pml_trim();
    return failures == 0 ? 0 : 1;
}
