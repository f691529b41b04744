/* A libamdhip64 that hands each call to NVIDIA's driver, so that what is written for HIP runs on an NVIDIA GPU.
 *
 * It has the functions that libpml uses, no others. Both drivers number errors, flags and capture modes alike as far as
 * these functions go. A thread's device is its primary context there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

typedef int hipError_t;
typedef void *handle;

enum { SUCCESS = 0, INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_DEVICE = 101, MOST_DEVICES = 64 };
enum { HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, HIP_INTEGRATED = 16, CUDA_INTEGRATED = 18 };
enum { HIP_CAPABILITY_MAJOR = 23, CUDA_CAPABILITY_MAJOR = 75 };

/* X(name, the name of the symbol, its arguments); an address is a pointer here and a number there, of the same size. */
#define CUDA_FUNCTIONS(X)                                                                                              \
    X(init, "cuInit", (unsigned flags))                                                                                \
    X(device_count, "cuDeviceGetCount", (int *count))                                                                  \
    X(device_get, "cuDeviceGet", (int *device, int ordinal))                                                           \
    X(device_name, "cuDeviceGetName", (char *name, int length, int device))                                            \
    X(device_total, "cuDeviceTotalMem_v2", (size_t *bytes, int device))                                                \
    X(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, int device))                               \
    X(device_bus, "cuDeviceGetPCIBusId", (char *id, int length, int device))                                           \
    X(retain, "cuDevicePrimaryCtxRetain", (handle *context, int device))                                               \
    X(get_current, "cuCtxGetCurrent", (handle *context))                                                               \
    X(set_current, "cuCtxSetCurrent", (handle context))                                                                \
    X(context_finish, "cuCtxSynchronize", (void))                                                                      \
    X(memory_info, "cuMemGetInfo_v2", (size_t *free_bytes, size_t *total))                                             \
    X(allocate, "cuMemAlloc_v2", (void **memory, size_t bytes))                                                        \
    X(release, "cuMemFree_v2", (void *memory))                                                                         \
    X(host_register, "cuMemHostRegister_v2", (void *memory, size_t bytes, unsigned flags))                             \
    X(host_unregister, "cuMemHostUnregister", (void *memory))                                                          \
    X(copy_in, "cuMemcpyHtoDAsync_v2", (void *to, const void *from, size_t bytes, handle stream))                      \
    X(copy_out, "cuMemcpyDtoHAsync_v2", (void *to, const void *from, size_t bytes, handle stream))                     \
    X(stream_create, "cuStreamCreate", (handle * stream, unsigned flags))                                              \
    X(stream_destroy, "cuStreamDestroy_v2", (handle stream))                                                           \
    X(stream_finish, "cuStreamSynchronize", (handle stream))                                                           \
    X(stream_wait, "cuStreamWaitEvent", (handle stream, handle event, unsigned flags))                                 \
    X(stream_captures, "cuStreamIsCapturing", (handle stream, int *status))                                            \
    X(exchange_mode, "cuThreadExchangeStreamCaptureMode", (int *mode))                                                 \
    X(event_create, "cuEventCreate", (handle * event, unsigned flags))                                                 \
    X(event_destroy, "cuEventDestroy_v2", (handle event))                                                              \
    X(event_record, "cuEventRecord", (handle event, handle stream))                                                    \
    X(event_query, "cuEventQuery", (handle event))                                                                     \
    X(event_finish, "cuEventSynchronize", (handle event))                                                              \
    X(error_name, "cuGetErrorName", (int error, const char **name))                                                    \
    X(error_text, "cuGetErrorString", (int error, const char **text))

#define AS_FIELD(name, symbol, arguments) int(*name) arguments;
static struct {
    CUDA_FUNCTIONS(AS_FIELD)
} cuda;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int is_loaded;
static handle primaries[MOST_DEVICES];
static __thread int current_ordinal;
static __thread hipError_t last_error;

static hipError_t finish(hipError_t code)
{
    if (code != SUCCESS) {
        last_error = code;
    }
    return code;
}

static void load(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return;
    }
    is_loaded = 1;
#define LOOK_UP(name, symbol, arguments)                                                                               \
    *(void **)&cuda.name = dlsym(library, symbol);                                                                     \
    is_loaded &= cuda.name != NULL;
    CUDA_FUNCTIONS(LOOK_UP)
}

/* Any call initialises the runtime. */
static int initialise(void)
{
    pthread_once(&once, load);
    return is_loaded ? cuda.init(0) : NO_DEVICE;
}

/* The driver's number for a device. */
static int device_of(int ordinal, int *device)
{
    int code = initialise();
    if (code == SUCCESS && (ordinal < 0 || ordinal >= MOST_DEVICES)) {
        code = INVALID_DEVICE;
    }
    return code != SUCCESS ? code : cuda.device_get(device, ordinal);
}

/* Makes the thread's device current in the driver too. */
static int enter(void)
{
    int device, code = device_of(current_ordinal, &device);
    handle found;
    if (code != SUCCESS) {
        return code;
    }
    pthread_mutex_lock(&lock);
    if (primaries[current_ordinal] == NULL) {
        /* For as long as the process lives, as the runtime does it. */
        code = cuda.retain(&primaries[current_ordinal], device);
    }
    handle wanted = primaries[current_ordinal];
    pthread_mutex_unlock(&lock);
    if (code == SUCCESS) {
        code = cuda.get_current(&found);
    }
    return code == SUCCESS && found != wanted ? cuda.set_current(wanted) : code;
}

/* Gives a call to the driver, on the thread's device. */
#define FORWARD(call)                                                                                                  \
    do {                                                                                                               \
        int entered = enter();                                                                                         \
        return finish(entered != SUCCESS ? entered : (call));                                                          \
    } while (0)

/* ---- The runtime and its devices ---- */

EXPORT hipError_t hipInit(unsigned flags)
{
    return finish(flags == 0 ? initialise() : INVALID_VALUE);
}

EXPORT hipError_t hipGetLastError(void)
{
    hipError_t error = last_error;
    last_error = SUCCESS;
    return error;
}

EXPORT hipError_t hipPeekAtLastError(void)
{
    return last_error;
}

EXPORT const char *hipGetErrorName(hipError_t error)
{
    const char *name = NULL;
    return initialise() == SUCCESS && cuda.error_name(error, &name) == SUCCESS && name != NULL ? name
                                                                                               : "hipErrorUnknown";
}

EXPORT const char *hipGetErrorString(hipError_t error)
{
    const char *text = NULL;
    return initialise() == SUCCESS && cuda.error_text(error, &text) == SUCCESS && text != NULL ? text : "unknown error";
}

EXPORT hipError_t hipGetDeviceCount(int *count)
{
    int code = initialise();
    *count = 0;
    return finish(code != SUCCESS ? code : cuda.device_count(count));
}

EXPORT hipError_t hipDeviceGetName(char *name, int length, int ordinal)
{
    int device, code = device_of(ordinal, &device);
    return finish(code != SUCCESS ? code : cuda.device_name(name, length, device));
}

EXPORT hipError_t hipDeviceTotalMem(size_t *bytes, int ordinal)
{
    int device, code = device_of(ordinal, &device);
    return finish(code != SUCCESS ? code : cuda.device_total(bytes, device));
}

EXPORT hipError_t hipDeviceGetAttribute(int *value, unsigned attribute, int ordinal)
{
    int device, code = device_of(ordinal, &device);
    if (code == SUCCESS && attribute != HIP_INTEGRATED && attribute != HIP_CAPABILITY_MAJOR) {
        code = INVALID_VALUE;
    }
    int asked = attribute == HIP_INTEGRATED ? CUDA_INTEGRATED : CUDA_CAPABILITY_MAJOR;
    return finish(code != SUCCESS ? code : cuda.device_attribute(value, asked, device));
}

EXPORT hipError_t hipDeviceGetPCIBusId(char *id, int length, int ordinal)
{
    int device, code = device_of(ordinal, &device);
    return finish(code != SUCCESS ? code : cuda.device_bus(id, length, device));
}

EXPORT hipError_t hipGetDevice(int *ordinal)
{
    *ordinal = current_ordinal;
    return finish(initialise());
}

EXPORT hipError_t hipSetDevice(int ordinal)
{
    int device, code = device_of(ordinal, &device);
    if (code == SUCCESS) {
        current_ordinal = ordinal;
    }
    return finish(code);
}

EXPORT hipError_t hipDeviceSynchronize(void)
{
    FORWARD(cuda.context_finish());
}

/* ---- Memory ---- */

EXPORT hipError_t hipMemGetInfo(size_t *free_bytes, size_t *total)
{
    FORWARD(cuda.memory_info(free_bytes, total));
}

EXPORT hipError_t hipMalloc(void **memory, size_t bytes)
{
    FORWARD(cuda.allocate(memory, bytes));
}

EXPORT hipError_t hipFree(void *memory)
{
    FORWARD(cuda.release(memory));
}

EXPORT hipError_t hipHostRegister(void *memory, size_t bytes, unsigned flags)
{
    FORWARD(cuda.host_register(memory, bytes, flags));
}

EXPORT hipError_t hipHostUnregister(void *memory)
{
    FORWARD(cuda.host_unregister(memory));
}

EXPORT hipError_t hipMemcpyAsync(void *to, const void *from, size_t bytes, unsigned kind, handle stream)
{
    if (kind != HOST_TO_DEVICE && kind != DEVICE_TO_HOST) {
        return finish(INVALID_VALUE);
    }
    FORWARD(kind == HOST_TO_DEVICE ? cuda.copy_in(to, from, bytes, stream) : cuda.copy_out(to, from, bytes, stream));
}

/* ---- Streams and events ---- */

EXPORT hipError_t hipStreamCreateWithFlags(handle *stream, unsigned flags)
{
    FORWARD(cuda.stream_create(stream, flags));
}

EXPORT hipError_t hipStreamDestroy(handle stream)
{
    FORWARD(cuda.stream_destroy(stream));
}

EXPORT hipError_t hipStreamSynchronize(handle stream)
{
    FORWARD(cuda.stream_finish(stream));
}

EXPORT hipError_t hipStreamWaitEvent(handle stream, handle event, unsigned flags)
{
    FORWARD(cuda.stream_wait(stream, event, flags));
}

EXPORT hipError_t hipStreamIsCapturing(handle stream, int *status)
{
    FORWARD(cuda.stream_captures(stream, status));
}

EXPORT hipError_t hipThreadExchangeStreamCaptureMode(int *mode)
{
    FORWARD(cuda.exchange_mode(mode));
}

EXPORT hipError_t hipEventCreateWithFlags(handle *event, unsigned flags)
{
    FORWARD(cuda.event_create(event, flags));
}

EXPORT hipError_t hipEventDestroy(handle event)
{
    FORWARD(cuda.event_destroy(event));
}

EXPORT hipError_t hipEventRecord(handle event, handle stream)
{
    FORWARD(cuda.event_record(event, stream));
}

EXPORT hipError_t hipEventQuery(handle event)
{
    FORWARD(cuda.event_query(event));
}

EXPORT hipError_t hipEventSynchronize(handle event)
{
    FORWARD(cuda.event_finish(event));
}
