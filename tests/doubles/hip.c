/* The HIP runtime's functions, as libamdhip64.so.6 exports them: the current device, and the last error. The rest is
 * the core's.
 *
 * DOUBLE_OLD_DRIVER leaves out functions that came late, DOUBLE_TOO_OLD_DRIVER one that a program cannot do without. */
#define _GNU_SOURCE
#include "double.h"

#include <stdio.h>
#include <string.h>

typedef int hipError_t;
typedef int hipDevice_t;
typedef void *hipStream_t;
typedef void *hipEvent_t;
typedef void *hipGraph_t;
typedef void *hipDeviceptr_t;

/* As in the real runtime, which takes CUDA's variable where its own is not set. */
const char *const *const double_visibility[] = {
    (const char *const[]){"ROCR_VISIBLE_DEVICES", NULL},
    (const char *const[]){"HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", NULL},
    NULL,
};

static __thread int current_ordinal;
/* The last call's that failed, until it is asked for. */
static __thread hipError_t last_error;

static hipError_t finish(hipError_t code)
{
    if (code != SUCCESS) {
        last_error = code;
    }
    return code;
}

/* Any call initialises the runtime. */
static int enter(const char *function)
{
    int code = double_enter(function, BEFORE_INITIALISED);
    return code != SUCCESS ? code : double_initialise();
}

#define ENTER(name)                                                                                                    \
    do {                                                                                                               \
        int fault = enter(name);                                                                                       \
        if (fault != SUCCESS) {                                                                                        \
            return finish(fault);                                                                                      \
        }                                                                                                              \
    } while (0)

#define ENTER_ALWAYS(name, otherwise)                                                                                  \
    do {                                                                                                               \
        int fault = double_enter(name, ALWAYS);                                                                        \
        if (fault != SUCCESS) {                                                                                        \
            return otherwise;                                                                                          \
        }                                                                                                              \
    } while (0)

#define REQUIRE(condition, code)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            return finish(code);                                                                                       \
        }                                                                                                              \
    } while (0)

struct device *double_current(int *code)
{
    *code = double_initialise();
    struct device *device = double_device(current_ordinal);
    if (*code == SUCCESS && device == NULL) {
        *code = INVALID_DEVICE;
    }
    return *code == SUCCESS ? device : NULL;
}

/* After ENTER there is a device. */
static struct device *current(void)
{
    int code;
    return double_current(&code);
}

/* ---- Errors ---- */

static const struct {
    int code;
    const char *name, *text;
} errors[] = {
    {SUCCESS, "hipSuccess", "no error"},
    {INVALID_VALUE, "hipErrorInvalidValue", "invalid argument"},
    {OUT_OF_MEMORY, "hipErrorOutOfMemory", "out of memory"},
    {NOT_INITIALIZED, "hipErrorNotInitialized", "initialization error"},
    {NO_DEVICE, "hipErrorNoDevice", "no ROCm-capable device is detected"},
    {INVALID_DEVICE, "hipErrorInvalidDevice", "invalid device ordinal"},
    {INVALID_CONTEXT, "hipErrorInvalidContext", "invalid device context"},
    {INVALID_HANDLE, "hipErrorInvalidHandle", "invalid resource handle"},
    {ILLEGAL_STATE, "hipErrorIllegalState", "the operation cannot be performed in the present state"},
    {NOT_READY, "hipErrorNotReady", "device not ready"},
    {ILLEGAL_ADDRESS, "hipErrorIllegalAddress", "an illegal memory access was encountered"},
    {CONTEXT_IS_DESTROYED, "hipErrorContextIsDestroyed", "context is destroyed"},
    {ALREADY_REGISTERED, "hipErrorHostMemoryAlreadyRegistered", "part or all of the memory is mapped already"},
    {NOT_REGISTERED, "hipErrorHostMemoryNotRegistered", "pointer does not correspond to a registered region"},
    {719, "hipErrorLaunchFailure", "unspecified launch failure"},
    {CAPTURE_UNSUPPORTED, "hipErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "hipErrorStreamCaptureInvalidated", "operation failed due to a previous error"},
    {CAPTURE_UNMATCHED, "hipErrorStreamCaptureUnmatched", "capture was not initiated in this stream"},
    {CAPTURE_ISOLATION, "hipErrorStreamCaptureIsolation", "dependency on uncaptured work in another stream"},
    {CAPTURE_IMPLICIT, "hipErrorStreamCaptureImplicit", "dependency on an implicit stream"},
    {CAPTURED_EVENT, "hipErrorCapturedEvent", "operation not permitted on an event last recorded in a capture"},
    {CAPTURE_WRONG_THREAD, "hipErrorStreamCaptureWrongThread", "attempt to end a capture of another thread"},
    {999, "hipErrorUnknown", "unknown error"},
};

/* The last is the error that is given for those without a name here. */
static size_t find_error(hipError_t error)
{
    size_t i = 0;
    while (i < sizeof errors / sizeof *errors - 1 && errors[i].code != error) {
        i++;
    }
    return i;
}

EXPORT const char *hipGetErrorName(hipError_t error)
{
    ENTER_ALWAYS("hipGetErrorName", "hipErrorUnknown");
    return errors[find_error(error)].name;
}

EXPORT const char *hipGetErrorString(hipError_t error)
{
    ENTER_ALWAYS("hipGetErrorString", "unknown error");
    return errors[find_error(error)].text;
}

EXPORT hipError_t hipGetLastError(void)
{
    ENTER_ALWAYS("hipGetLastError", fault);
    hipError_t error = last_error;
    last_error = SUCCESS;
    return error;
}

EXPORT hipError_t hipPeekAtLastError(void)
{
    ENTER_ALWAYS("hipPeekAtLastError", fault);
    return last_error;
}

/* ---- The runtime and its devices ---- */

EXPORT hipError_t hipInit(unsigned flags)
{
    int fault = double_enter("hipInit", BEFORE_INITIALISED);
    if (fault != SUCCESS) {
        return finish(fault);
    }
    REQUIRE(flags == 0, INVALID_VALUE);
    double_initialise();
    return SUCCESS;
}

EXPORT hipError_t hipDriverGetVersion(int *version)
{
    ENTER_ALWAYS("hipDriverGetVersion", finish(fault));
    *version = 60000000;
    return SUCCESS;
}

EXPORT hipError_t hipRuntimeGetVersion(int *version)
{
    ENTER_ALWAYS("hipRuntimeGetVersion", finish(fault));
    *version = 60000000;
    return SUCCESS;
}

EXPORT hipError_t hipGetDeviceCount(int *count)
{
    *count = 0;
    ENTER("hipGetDeviceCount");
    *count = double_device_count();
    return SUCCESS;
}

EXPORT hipError_t hipGetDevice(int *ordinal)
{
    ENTER("hipGetDevice");
    *ordinal = current_ordinal;
    return SUCCESS;
}

EXPORT hipError_t hipSetDevice(int ordinal)
{
    ENTER("hipSetDevice");
    REQUIRE(double_device(ordinal) != NULL, INVALID_DEVICE);
    current_ordinal = ordinal;
    return SUCCESS;
}

EXPORT hipError_t hipDeviceGetName(char *name, int length, hipDevice_t ordinal)
{
    ENTER("hipDeviceGetName");
    struct device *device = double_device(ordinal);
    REQUIRE(device != NULL, INVALID_DEVICE);
    REQUIRE(name != NULL && length > 0, INVALID_VALUE);
    snprintf(name, (size_t)length, "HIP double %d", device->ordinal);
    return SUCCESS;
}

EXPORT hipError_t hipDeviceTotalMem(size_t *bytes, hipDevice_t ordinal)
{
    ENTER("hipDeviceTotalMem");
    REQUIRE(double_device(ordinal) != NULL, INVALID_DEVICE);
    *bytes = double_get("device_bytes");
    return SUCCESS;
}

EXPORT hipError_t hipDeviceGetAttribute(int *value, int attribute, int ordinal)
{
    enum { INTEGRATED = 16, CAPABILITY_MAJOR = 23, PCI_BUS = 67 };
    ENTER("hipDeviceGetAttribute");
    struct device *device = double_device(ordinal);
    REQUIRE(device != NULL, INVALID_DEVICE);
    switch (attribute) {
    case INTEGRATED:
        *value = double_get("unified") != 0;
        break;
    case CAPABILITY_MAJOR:
        *value = (int)double_get("capability_major");
        break;
    default:
        *value = attribute == PCI_BUS ? device->ordinal + 1 : 0;
    }
    return SUCCESS;
}

EXPORT hipError_t hipDeviceGetPCIBusId(char *id, int length, int ordinal)
{
    ENTER("hipDeviceGetPCIBusId");
    struct device *device = double_device(ordinal);
    REQUIRE(device != NULL, INVALID_DEVICE);
    REQUIRE(id != NULL && length >= 13, INVALID_VALUE);
    snprintf(id, (size_t)length, "0000:%02x:00.0", (unsigned)device->ordinal + 1);
    return SUCCESS;
}

EXPORT hipError_t hipDeviceSynchronize(void)
{
    ENTER("hipDeviceSynchronize");
    return finish(double_device_synchronize(current()));
}

/* ---- Memory ---- */

EXPORT hipError_t hipMemGetInfo(size_t *free_bytes, size_t *total)
{
    ENTER("hipMemGetInfo");
    return finish(double_memory_info(current(), free_bytes, total));
}

EXPORT hipError_t hipMalloc(void **memory, size_t bytes)
{
    ENTER("hipMalloc");
    REQUIRE(memory != NULL, INVALID_VALUE);
    if (bytes == 0) {
        *memory = NULL;
        return SUCCESS;
    }
    return finish(double_allocate(current(), bytes, memory));
}

EXPORT hipError_t hipFree(void *memory)
{
    ENTER("hipFree");
    return memory == NULL ? SUCCESS : finish(double_free(memory));
}

EXPORT hipError_t hipHostMalloc(void **memory, size_t bytes, unsigned flags)
{
    ENTER("hipHostMalloc");
    (void)flags; /* how the GPU sees the memory changes nothing here */
    REQUIRE(memory != NULL, INVALID_VALUE);
    return finish(double_host_allocate(bytes, memory));
}

EXPORT hipError_t hipHostFree(void *memory)
{
    ENTER("hipHostFree");
    return finish(double_host_free(memory));
}

#ifndef DOUBLE_TOO_OLD_DRIVER
EXPORT hipError_t hipHostRegister(void *memory, size_t bytes, unsigned flags)
{
    ENTER("hipHostRegister");
    (void)flags;
    return finish(double_host_register(memory, bytes));
}
#endif

EXPORT hipError_t hipHostUnregister(void *memory)
{
    ENTER("hipHostUnregister");
    return finish(double_host_unregister(memory));
}

enum copy_kind { HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, AS_THE_POINTERS_SAY = 4 };

/* HOST_TO_DEVICE or DEVICE_TO_HOST; 0 for what is not tried here. */
static int direction(const void *to, size_t bytes, int kind)
{
    if (kind != AS_THE_POINTERS_SAY) {
        return kind == HOST_TO_DEVICE || kind == DEVICE_TO_HOST ? kind : 0;
    }
    double_lock();
    bool is_device = double_owner((struct range){(uintptr_t)to, bytes}) != NULL;
    double_unlock();
    return is_device ? HOST_TO_DEVICE : DEVICE_TO_HOST;
}

EXPORT hipError_t hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, hipStream_t stream)
{
    ENTER("hipMemcpyAsync");
    int way = direction(to, bytes, kind);
    REQUIRE(way != 0, INVALID_VALUE);
    return finish(way == HOST_TO_DEVICE ? double_copy_to_device(current(), to, from, bytes, stream)
                                        : double_copy_to_host(current(), to, from, bytes, stream));
}

EXPORT hipError_t hipMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    ENTER("hipMemcpy");
    int way = direction(to, bytes, kind);
    REQUIRE(way != 0, INVALID_VALUE);
    return finish(way == HOST_TO_DEVICE ? double_copy_to_device_now(current(), to, from, bytes)
                                        : double_copy_to_host_now(current(), to, from, bytes));
}

EXPORT hipError_t hipMemcpyHtoDAsync(hipDeviceptr_t to, void *from, size_t bytes, hipStream_t stream)
{
    ENTER("hipMemcpyHtoDAsync");
    return finish(double_copy_to_device(current(), to, from, bytes, stream));
}

EXPORT hipError_t hipMemcpyDtoH(void *to, hipDeviceptr_t from, size_t bytes)
{
    ENTER("hipMemcpyDtoH");
    return finish(double_copy_to_host_now(current(), to, from, bytes));
}

/* ---- Streams ---- */

EXPORT hipError_t hipStreamCreateWithFlags(hipStream_t *stream, unsigned flags)
{
    ENTER("hipStreamCreateWithFlags");
    return finish(double_stream_create(current(), flags, stream));
}

EXPORT hipError_t hipStreamDestroy(hipStream_t stream)
{
    ENTER("hipStreamDestroy");
    return finish(double_stream_destroy(stream));
}

EXPORT hipError_t hipStreamSynchronize(hipStream_t stream)
{
    ENTER("hipStreamSynchronize");
    return finish(double_stream_synchronize(current(), stream));
}

EXPORT hipError_t hipStreamQuery(hipStream_t stream)
{
    ENTER("hipStreamQuery");
    return finish(double_stream_query(current(), stream));
}

EXPORT hipError_t hipStreamWaitEvent(hipStream_t stream, hipEvent_t event, unsigned flags)
{
    ENTER("hipStreamWaitEvent");
    REQUIRE(flags == 0, INVALID_VALUE);
    return finish(double_stream_wait(current(), stream, event));
}

EXPORT hipError_t hipStreamBeginCapture(hipStream_t stream, int mode)
{
    ENTER("hipStreamBeginCapture");
    return finish(double_capture_begin(current(), stream, mode));
}

EXPORT hipError_t hipStreamEndCapture(hipStream_t stream, hipGraph_t *graph)
{
    ENTER("hipStreamEndCapture");
    return finish(double_capture_end(current(), stream, graph));
}

EXPORT hipError_t hipGraphDestroy(hipGraph_t graph)
{
    ENTER("hipGraphDestroy");
    return finish(double_graph_destroy(graph));
}

#ifndef DOUBLE_OLD_DRIVER
EXPORT hipError_t hipStreamGetId(hipStream_t stream, unsigned long long *id)
{
    ENTER("hipStreamGetId");
    return finish(double_stream_id(current(), stream, id));
}

EXPORT hipError_t hipStreamIsCapturing(hipStream_t stream, int *status)
{
    ENTER("hipStreamIsCapturing");
    return finish(double_capture_status(current(), stream, status));
}

EXPORT hipError_t hipThreadExchangeStreamCaptureMode(int *mode)
{
    ENTER("hipThreadExchangeStreamCaptureMode");
    return finish(double_capture_exchange(mode));
}
#endif

/* ---- Events ---- */

EXPORT hipError_t hipEventCreateWithFlags(hipEvent_t *event, unsigned flags)
{
    ENTER("hipEventCreateWithFlags");
    (void)flags;
    return finish(double_event_create(current(), event));
}

EXPORT hipError_t hipEventDestroy(hipEvent_t event)
{
    ENTER("hipEventDestroy");
    return finish(double_event_destroy(event));
}

EXPORT hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream)
{
    ENTER("hipEventRecord");
    return finish(double_event_record(current(), event, stream));
}

EXPORT hipError_t hipEventQuery(hipEvent_t event)
{
    ENTER("hipEventQuery");
    return finish(double_event_query(event));
}

EXPORT hipError_t hipEventSynchronize(hipEvent_t event)
{
    ENTER("hipEventSynchronize");
    return finish(double_event_synchronize(event));
}
