/* What a consumer of DLPack does: takes arrays, keeps them past every handle, and gives them back on other threads.
 *
 * dlpack.c MODEL */
#include "dlpack_abi.h"
#include "pml.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #condition, pml_last_error());  \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)
#define OK(call) CHECK((call) == PML_STATUS_OK)

enum { THREADS = 4, ROUNDS = 300 };

static const char *model;

static pml_loader_t *open_within(uint64_t budget)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    options.device = "cpu";
    options.unload = PML_UNLOAD_LRU;
    options.memory_budget = budget;
    OK(pml_loader_open(model, &options, &loader));
    return loader;
}

static pml_tensor_t *tensor_of(pml_loader_t *loader, const char *name)
{
    pml_tensor_t *tensor = NULL;
    OK(pml_loader_tensor(loader, name, &tensor));
    return tensor;
}

static DLManagedTensorVersioned *take(pml_tensor_t *tensor)
{
    DLManagedTensorVersioned *taken = NULL;
    OK(pml_tensor_to_dlpack(tensor, PML_STREAM_HOST, &taken));
    CHECK(taken != NULL);
    return taken;
}

static uint64_t acquires(pml_loader_t *loader, const char *layer)
{
    pml_layer_info_t info = PML_LAYER_INFO_INIT;
    size_t index;
    OK(pml_loader_find_layer(loader, layer, &index));
    OK(pml_loader_layer_info(loader, index, &info));
    return info.acquire_count;
}

static void check_bytes(pml_tensor_t *tensor, const DLTensor *array)
{
    pml_tensor_info_t info = PML_TENSOR_INFO_INIT;
    unsigned char *expected;
    OK(pml_tensor_get_info(tensor, &info));
    expected = malloc((size_t)info.bytes);
    CHECK(expected != NULL);
    OK(pml_tensor_read(tensor, 0, expected, (size_t)info.bytes));
    CHECK(memcmp((const char *)array->data + array->byte_offset, expected, (size_t)info.bytes) == 0);
    free(expected);
}

static void an_array_says_all_of_a_tensor(void)
{
    pml_loader_t *loader = open_within(0);
    pml_tensor_t *matrix = tensor_of(loader, "token_embd.weight"), *vector = tensor_of(loader, "output_norm.weight");
    DLManagedTensorVersioned *array = take(matrix);
    pml_view_t view = PML_VIEW_INIT;
    const DLTensor *tensor = &array->dl_tensor;
    CHECK(array->version.major == 1 && array->version.minor >= 1 && array->deleter != NULL);
    CHECK(array->flags == DLPACK_FLAG_BITMASK_READ_ONLY);
    CHECK(tensor->device.device_type == kDLCPU && tensor->device.device_id == 0 && tensor->byte_offset == 0);
    CHECK(tensor->dtype.code == kDLFloat && tensor->dtype.bits == 16 && tensor->dtype.lanes == 1);
    CHECK(tensor->ndim == 2 && tensor->shape[0] == 128 && tensor->shape[1] == 256);
    CHECK(tensor->strides[0] == 256 && tensor->strides[1] == 1);
    check_bytes(matrix, tensor);
    /* No copy: what an acquire finds is the same memory. */
    OK(pml_tensor_acquire(matrix, PML_STREAM_HOST, 0, &view));
    CHECK(view.data == tensor->data);
    CHECK(acquires(loader, "token_embd") == 2);
    OK(pml_tensor_release(matrix, PML_STREAM_HOST));
    /* The lease is not the handle's, so that the handle cannot end it. */
    CHECK(pml_tensor_release(matrix, PML_STREAM_HOST) == PML_STATUS_INVALID_STATE);
    CHECK(acquires(loader, "token_embd") == 1);
    array->deleter(array);
    CHECK(acquires(loader, "token_embd") == 0);

    array = take(vector);
    CHECK(array->dl_tensor.dtype.bits == 32 && array->dl_tensor.ndim == 1 && array->dl_tensor.strides[0] == 1);
    check_bytes(vector, &array->dl_tensor);
    array->deleter(array);
    pml_tensor_free(matrix);
    pml_tensor_free(vector);
    pml_loader_free(loader);
}

/* Room for one block: another one comes only when the array has gone, and is not waited for. */
static void what_an_array_holds_is_not_evicted(void)
{
    pml_loader_t *loader = open_within(700 << 10);
    pml_tensor_t *one = tensor_of(loader, "blk.0.attn_q.weight"), *other = tensor_of(loader, "blk.1.attn_q.weight");
    DLManagedTensorVersioned *array = take(one), *none = array;
    int i;
    for (i = 0; i < 3; i++) {
        CHECK(pml_tensor_to_dlpack(other, PML_STREAM_HOST, &none) == PML_STATUS_BUDGET && none == NULL);
        CHECK(strstr(pml_last_error(), "blk.0") != NULL);
        check_bytes(one, &array->dl_tensor);
    }
    array->deleter(array);
    array = take(other);
    check_bytes(other, &array->dl_tensor);
    CHECK(!pml_tensor_is_loaded(one));
    array->deleter(array);
    pml_tensor_free(one);
    pml_tensor_free(other);
    pml_loader_free(loader);
}

static void an_array_outlives_every_handle(void)
{
    pml_loader_t *loader = open_within(0);
    pml_tensor_t *tensor = tensor_of(loader, "blk.2.ffn_up.weight");
    DLManagedTensorVersioned *array = take(tensor), *second = take(tensor), *none = array;
    size_t bytes = 131072, i;
    unsigned char *expected = malloc(bytes);
    CHECK(expected != NULL);
    OK(pml_tensor_read(tensor, 0, expected, bytes));
    pml_loader_free(loader);
    CHECK(pml_tensor_to_dlpack(tensor, PML_STREAM_HOST, &none) == PML_STATUS_CLOSED && none == NULL);
    pml_tensor_free(tensor);
    second->deleter(second);
    for (i = 0; i < 2; i++) CHECK(array->dl_tensor.shape[i] == 256);
    CHECK(memcmp(array->dl_tensor.data, expected, bytes) == 0);
    array->deleter(array);
    free(expected);
}

/* ---- From several threads at once ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static DLManagedTensorVersioned *arrays[16];

/* Puts one array in a place and gives the one back that was there, whoever took it. */
static void exchange(size_t place, DLManagedTensorVersioned *array)
{
    DLManagedTensorVersioned *before;
    pthread_mutex_lock(&lock);
    before = arrays[place];
    arrays[place] = array;
    pthread_mutex_unlock(&lock);
    if (before != NULL) before->deleter(before);
}

struct worker {
    pthread_t thread;
    pml_loader_t *loader;
    unsigned number, taken;
};

static void *take_and_give_back(void *argument)
{
    static const char *const names[] = {"blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.2.attn_v.weight",
                                        "blk.3.ffn_up.weight"};
    struct worker *self = argument;
    unsigned round;
    for (round = 0; round < ROUNDS; round++) {
        pml_tensor_t *tensor = tensor_of(self->loader, names[(round * (2 * self->number + 1) + round / 50) % 4]);
        DLManagedTensorVersioned *array = NULL;
        pml_status_t status = pml_tensor_to_dlpack(tensor, PML_STREAM_HOST, &array);
        CHECK(status == PML_STATUS_OK || status == PML_STATUS_BUDGET);
        if (status == PML_STATUS_OK) {
            check_bytes(tensor, &array->dl_tensor);
            self->taken++;
        }
        pml_tensor_free(tensor);
        exchange(round % 16, array);
    }
    return NULL;
}

static void threads_take_and_give_back(void)
{
    pml_loader_t *loader = open_within(1400 << 10);
    struct worker workers[THREADS];
    unsigned i;
    for (i = 0; i < THREADS; i++) {
        workers[i].loader = loader;
        workers[i].number = i;
        workers[i].taken = 0;
        CHECK(pthread_create(&workers[i].thread, NULL, take_and_give_back, &workers[i]) == 0);
    }
    for (i = 0; i < THREADS; i++) CHECK(pthread_join(workers[i].thread, NULL) == 0 && workers[i].taken > 0);
    for (i = 0; i < 8; i++) exchange(i, NULL);
    pml_loader_free(loader);
    for (i = 8; i < 16; i++) exchange(i, NULL);
}

/* ---- Inside a callback ---- */

static DLManagedTensorVersioned *kept;
static pml_tensor_t *asked;
static pthread_cond_t given_back = PTHREAD_COND_INITIALIZER;

static int32_t give_back(void *user_data, const pml_event_t *event)
{
    DLManagedTensorVersioned *none = NULL;
    (void)user_data, (void)event;
    pthread_mutex_lock(&lock);
    if (kept != NULL) {
        CHECK(pml_tensor_to_dlpack(asked, PML_STREAM_HOST, &none) == PML_STATUS_WOULD_DEADLOCK && none == NULL);
        kept->deleter(kept);
        kept = NULL;
        pthread_cond_signal(&given_back);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static void a_callback_gives_back(void)
{
    pml_options_t options = PML_OPTIONS_INIT;
    pml_loader_t *loader = NULL;
    options.device = "cpu";
    options.on_layer_loaded = give_back;
    OK(pml_loader_open(model, &options, &loader));
    asked = tensor_of(loader, "blk.0.attn_q.weight");
    kept = take(asked);
    OK(pml_loader_start(loader));
    pthread_mutex_lock(&lock);
    while (kept != NULL) pthread_cond_wait(&given_back, &lock);
    pthread_mutex_unlock(&lock);
    CHECK(acquires(loader, "blk.0") == 0);
    pml_tensor_free(asked);
    pml_loader_free(loader);
}

int main(int count, char **arguments)
{
    CHECK(count == 2 && sizeof(DLManagedTensorVersioned) == 80);
    model = arguments[1];
    an_array_says_all_of_a_tensor();
    what_an_array_holds_is_not_evicted();
    an_array_outlives_every_handle();
    threads_take_and_give_back();
    a_callback_gives_back();
    return 0;
}
