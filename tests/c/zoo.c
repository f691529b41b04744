/* An engine finds models by name and version, opens one under a budget, and is told what happens. */
#include <pthread.h>
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
#define SAYS(text) CHECK(strstr(pml_last_error(), text) != NULL)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static const uint64_t BUDGET = 1 << 20;

static bool is(const char *text, size_t length, const char *expected)
{
    return length == strlen(expected) && memcmp(text, expected, length) == 0;
}

static int32_t count(void *user_data, const pml_event_t *event)
{
    (void)event;
    pthread_mutex_lock(&lock);
    ++*(int *)user_data;
    pthread_cond_signal(&ended);
    pthread_mutex_unlock(&lock);
    return 0;
}

static void destroyed(void *user_data)
{
    pthread_mutex_lock(&lock);
    ((int *)user_data)[1] = 1;
    pthread_cond_signal(&ended);
    pthread_mutex_unlock(&lock);
}

/* `destroy` may be called a moment after the loader is freed. */
static void wait_for(const int *flag)
{
    pthread_mutex_lock(&lock);
    while (*flag == 0) pthread_cond_wait(&ended, &lock);
    pthread_mutex_unlock(&lock);
}

/* Both passes of an engine's layer loop, with less memory than the model has. */
static void visit(pml_loader_t *loader)
{
    pml_stats_t stats = PML_STATS_INIT;
    size_t layers = pml_loader_layer_count(loader);
    size_t i;

    for (i = 0; i < 2 * layers; i++) {
        OK(pml_loader_acquire_layer(loader, i % layers, PML_STREAM_HOST, -1));
        OK(pml_loader_release_layer(loader, i % layers, PML_STREAM_HOST));
    }
    OK(pml_loader_stats(loader, &stats));
    CHECK(stats.peak_charged_bytes <= BUDGET && stats.evictions > 0);
}

static void under_a_budget(const pml_model_t *model)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    pml_event_t event = PML_EVENT_INIT;
    int told[2] = {0, 0};
    int pulled = 0;

    options.device = "cpu";
    options.memory_budget = BUDGET;
    options.unload = PML_UNLOAD_LRU;
    options.strategy = PML_STRATEGY_PREFETCH;
    OK(pml_loader_open_model(model, &options, &loader));
    visit(loader);
    while (pml_loader_next_event(loader, 0, &event) == PML_STATUS_OK) pulled++;
    CHECK(pulled > 0);
    pml_loader_free(loader);

    options.on_layer_loaded = count;
    options.user_data = told;
    options.destroy = destroyed;
    OK(pml_loader_open_model(model, &options, &loader));
    visit(loader);
    /* What was not told when a loader is freed is told to nobody. */
    wait_for(&told[0]);
    pml_loader_free(loader);
    wait_for(&told[1]);
}

static void by_name(pml_zoo_t *zoo)
{
    pml_model_t *model = NULL;
    pml_model_t *again = NULL;
    pml_model_info_t info = PML_MODEL_INFO_INIT;
    pml_model_file_t file = PML_MODEL_FILE_INIT;

    OK(pml_zoo_find(zoo, "llama3", "8b", &model));
    OK(pml_model_summary(model, &info));
    CHECK(is(info.name, info.name_length, "llama3") && is(info.version, info.version_length, "8b"));
    CHECK(is(info.store, info.store_length, "ollama") && info.architecture_length == 0);
    CHECK(info.dtype == UINT32_MAX && info.format == PML_FORMAT_AUTO && info.tensor_count == 0);
    OK(pml_model_info(model, &info));
    CHECK(is(info.architecture, info.architecture_length, "llama") && info.dtype == PML_DTYPE_F16);
    CHECK(info.format == PML_FORMAT_GGUF && info.tensor_count == 27 && info.parameters > 1000000);
    CHECK(info.file_count == 1 && info.is_pinned == 0 && info.license_length == 0);
    OK(pml_model_file(model, 0, &file));
    CHECK(file.bytes == info.bytes && file.path_length == info.path_length);
    CHECK(file.digest_length == 71 && memcmp(file.digest, "sha256:", 7) == 0);
    OK(pml_zoo_verify(zoo, "llama3:8b", NULL));
    under_a_budget(model);

    OK(pml_zoo_find(zoo, "org/name", "main:Q8_0", &again));
    OK(pml_model_info(again, &info));
    CHECK(is(info.store, info.store_length, "huggingface") && info.tensor_count == 27);
    pml_model_free(again);
    OK(pml_zoo_find(zoo, "lm-studio://maker/model", NULL, &again));
    CHECK(pml_zoo_verify(zoo, "lm-studio://maker/model", NULL) == PML_STATUS_UNSUPPORTED);
    pml_model_free(again);

    CHECK(pml_zoo_find(zoo, "lama3", NULL, &again) == PML_STATUS_NOT_FOUND && again == NULL);
    SAYS("looked in");
    SAYS("near it: llama3");
    CHECK(pml_zoo_find(zoo, "llama3", "70b", &again) == PML_STATUS_NOT_FOUND);
    SAYS("there is ollama://llama3:8b");
    CHECK(pml_zoo_find(zoo, "a/../b", NULL, &again) == PML_STATUS_INVALID_ARGUMENT);
    CHECK(pml_zoo_find(zoo, "two", NULL, &again) == PML_STATUS_INVALID_ARGUMENT);
    SAYS("which 2 models have");
    CHECK(pml_zoo_find(zoo, "broken", NULL, &again) == PML_STATUS_NOT_FOUND);
    pml_model_free(model);
}

static void of_our_own(pml_zoo_t *zoo, const char *path)
{
    pml_model_t *model = NULL;
    pml_model_t *found = NULL;
    pml_model_info_t info = PML_MODEL_INFO_INIT;
    pml_loader_t *loader = NULL;
    pml_loader_t *late = NULL;

    OK(pml_zoo_add(zoo, path, "team/mine", NULL, PML_ZOO_COPY | PML_ZOO_PIN, &model));
    OK(pml_model_summary(model, &info));
    CHECK(info.is_pinned == 1 && is(info.version, info.version_length, "latest"));
    OK(pml_zoo_pin(zoo, "team/mine", NULL, 0));
    OK(pml_zoo_find(zoo, "team/mine", "latest", &found));
    OK(pml_model_summary(found, &info));
    CHECK(info.is_pinned == 0 && is(info.store, info.store_length, "pml"));
    OK(pml_zoo_verify(zoo, "team/mine", NULL));
    OK(pml_zoo_add(zoo, path, NULL, "2", 0, NULL));
    CHECK(pml_zoo_remove(zoo, "llama3", "8b") == PML_STATUS_UNSUPPORTED);
    SAYS("another program's");
    OK(pml_loader_open_model(found, NULL, &loader));
    OK(pml_zoo_remove(zoo, "team/mine", "latest"));
    CHECK(pml_zoo_remove(zoo, "team/mine", NULL) == PML_STATUS_NOT_FOUND);
    CHECK(pml_loader_open_model(model, NULL, &late) == PML_STATUS_NOT_FOUND && late == NULL);
    /* What is read stays. */
    OK(pml_loader_start(loader));
    OK(pml_loader_wait(loader, -1));
    pml_loader_free(loader);
    pml_model_free(found);
    pml_model_free(model);
}

int main(int argc, char **argv)
{
    pml_zoo_options_t options = PML_ZOO_OPTIONS_INIT;
    pml_zoo_t *zoo = NULL;
    pml_models_t *models = NULL;
    pml_model_t *first = NULL;
    pml_model_info_t info = PML_MODEL_INFO_INIT;
    pml_loader_t *loader = NULL;
    const char *text = NULL;
    size_t length = 0;

    if (argc != 6) return 2;
    options.path = argv[2];
    options.huggingface_path = argv[3];
    options.ollama_path = argv[4];
    options.lm_studio_path = argv[5];
    OK(pml_zoo_open(&options, &zoo));
    OK(pml_zoo_list(zoo, &models));
    CHECK(pml_models_count(models) == 5 && pml_models_remark_count(models) == 1);
    OK(pml_models_remark(models, 0, &text, &length));
    CHECK(length > 10 && memcmp(text, "ollama://broken", 15) == 0);
    OK(pml_models_at(models, 0, &first));
    by_name(zoo);
    of_our_own(zoo, argv[1]);

    /* Freed in any order. */
    pml_zoo_free(zoo);
    pml_models_free(models);
    OK(pml_loader_open_model(first, NULL, &loader));
    OK(pml_model_info(first, &info));
    CHECK(info.tensor_count == pml_loader_tensor_count(loader));
    pml_model_free(first);
    OK(pml_loader_start(loader));
    OK(pml_loader_wait(loader, -1));
    pml_loader_free(loader);
    return 0;
}
