/* The CUDA driver's functions, as libcuda.so.1 exports them: contexts, and what else is CUDA's own. The rest is the
 * core's. A device's only context is its primary one, whose handle is the core's device.
 *
 * DOUBLE_OLD_DRIVER leaves out functions that came late, DOUBLE_TOO_OLD_DRIVER one that a program cannot do without. */
#define _GNU_SOURCE
#include "double.h"

#include <stdio.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef void *CUcontext;
typedef void *CUstream;
typedef void *CUevent;
typedef void *CUgraph;

const char *const *const double_visibility[] = {(const char *const[]){"CUDA_VISIBLE_DEVICES", NULL}, NULL};

/* Begins a function: counts its call, and ends it with the fault that was asked for. */
#define ENTER(name) ENTER_WHEN(name, WHEN_INITIALISED)
#define ENTER_WHEN(name, usable)                                                                                       \
    do {                                                                                                               \
        int fault = double_enter(name, usable);                                                                        \
        if (fault != SUCCESS) {                                                                                        \
            return fault;                                                                                              \
        }                                                                                                              \
    } while (0)

/* What follows ENTER where a context must be current. */
#define CURRENT(device)                                                                                                \
    int device##_code;                                                                                                 \
    struct device *device = double_current(&device##_code);                                                            \
    if (device == NULL) {                                                                                              \
        return device##_code;                                                                                          \
    }                                                                                                                  \
    (void)0

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            return INVALID_VALUE;                                                                                      \
        }                                                                                                              \
    } while (0)

static void *pointer(CUdeviceptr address)
{
    return (void *)(uintptr_t)address;
}

/* ---- Errors ---- */

static const struct {
    int code;
    const char *name, *text;
} errors[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the memory is mapped already"},
    {NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered region"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency on uncaptured work in another stream"},
    {CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "dependency on an implicit stream"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capture"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to end a capture of another thread"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

/* The index of an error; -1 for one that has no name here. */
static int find_error(CUresult error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (errors[i].code == error) {
            return (int)i;
        }
    }
    return -1;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char **name)
{
    ENTER_WHEN("cuGetErrorName", ALWAYS);
    int index = find_error(error);
    *name = index < 0 ? NULL : errors[index].name;
    return index < 0 ? INVALID_VALUE : SUCCESS;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text)
{
    ENTER_WHEN("cuGetErrorString", ALWAYS);
    int index = find_error(error);
    *text = index < 0 ? NULL : errors[index].text;
    return index < 0 ? INVALID_VALUE : SUCCESS;
}

/* ---- The driver and its devices ---- */

EXPORT CUresult cuInit(unsigned flags)
{
    ENTER_WHEN("cuInit", BEFORE_INITIALISED);
    REQUIRE(flags == 0);
    return double_initialise();
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
    ENTER_WHEN("cuDriverGetVersion", ALWAYS);
    *version = 12000;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count)
{
    ENTER("cuDeviceGetCount");
    *count = double_device_count();
    return SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    ENTER("cuDeviceGet");
    *device = ordinal;
    return double_device(ordinal) != NULL ? SUCCESS : INVALID_DEVICE;
}

EXPORT CUresult cuDeviceGetName(char *name, int length, CUdevice ordinal)
{
    ENTER("cuDeviceGetName");
    struct device *device = double_device(ordinal);
    REQUIRE(name != NULL && length > 0);
    if (device == NULL) {
        return INVALID_DEVICE;
    }
    snprintf(name, (size_t)length, "CUDA double %d", device->ordinal);
    return SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice ordinal)
{
    ENTER("cuDeviceTotalMem");
    *bytes = double_get("device_bytes");
    return double_device(ordinal) != NULL ? SUCCESS : INVALID_DEVICE;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice ordinal)
{
    enum { INTEGRATED = 18, PCI_BUS = 33, PCI_DEVICE = 34, UNIFIED_ADDRESSING = 41, PCI_DOMAIN = 50, CAPABILITY_MAJOR = 75 };
    ENTER("cuDeviceGetAttribute");
    struct device *device = double_device(ordinal);
    if (device == NULL) {
        return INVALID_DEVICE;
    }
    switch (attribute) {
    case INTEGRATED:
        *value = double_get("unified") != 0;
        break;
    case CAPABILITY_MAJOR:
        *value = (int)double_get("capability_major");
        break;
    case PCI_BUS:
        *value = device->ordinal + 1;
        break;
    case UNIFIED_ADDRESSING:
        *value = 1;
        break;
    case PCI_DEVICE:
    case PCI_DOMAIN:
    default:
        *value = 0;
    }
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetPCIBusId(char *id, int length, CUdevice ordinal)
{
    ENTER("cuDeviceGetPCIBusId");
    struct device *device = double_device(ordinal);
    REQUIRE(id != NULL && length >= 13);
    if (device == NULL) {
        return INVALID_DEVICE;
    }
    snprintf(id, (size_t)length, "0000:%02x:00.0", (unsigned)device->ordinal + 1);
    return SUCCESS;
}

/* ---- Contexts ---- */

/* A thread's; the last is current. */
static __thread struct device *contexts[16];
static __thread int context_count;

struct device *double_current(int *code)
{
    struct device *device = context_count > 0 ? contexts[context_count - 1] : NULL;
    *code = SUCCESS;
    if (device == NULL) {
        *code = INVALID_CONTEXT;
        return NULL;
    }
    double_lock();
    bool is_there = device->retained > 0;
    double_unlock();
    *code = is_there ? SUCCESS : CONTEXT_IS_DESTROYED;
    return is_there ? device : NULL;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice ordinal)
{
    ENTER("cuDevicePrimaryCtxRetain");
    struct device *device = double_device(ordinal);
    if (device == NULL) {
        return INVALID_DEVICE;
    }
    double_lock();
    device->retained++;
    COUNTER(contexts_retained)++;
    double_unlock();
    *context = device;
    return SUCCESS;
}

/* What was made in a context that ends stays, and is counted as live: a program should have ended it itself. */
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice ordinal)
{
    ENTER("cuDevicePrimaryCtxRelease");
    struct device *device = double_device(ordinal);
    if (device == NULL) {
        return INVALID_DEVICE;
    }
    double_lock();
    bool is_there = device->retained > 0;
    if (is_there) {
        device->retained--;
        COUNTER(contexts_retained)--;
    }
    double_unlock();
    return is_there ? SUCCESS : INVALID_CONTEXT;
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned *flags, int *active)
{
    ENTER("cuDevicePrimaryCtxGetState");
    struct device *device = double_device(ordinal);
    if (device == NULL) {
        return INVALID_DEVICE;
    }
    double_lock();
    *active = device->retained > 0;
    double_unlock();
    *flags = 0;
    return SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context)
{
    ENTER("cuCtxGetCurrent");
    *context = context_count > 0 ? contexts[context_count - 1] : NULL;
    return SUCCESS;
}

static CUresult push(CUcontext context)
{
    if (!double_is_device(context)) {
        return INVALID_CONTEXT;
    }
    REQUIRE(context_count < (int)(sizeof contexts / sizeof *contexts));
    contexts[context_count++] = context;
    return SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context)
{
    ENTER("cuCtxSetCurrent");
    if (context != NULL && !double_is_device(context)) {
        return INVALID_CONTEXT;
    }
    if (context_count > 0) {
        context_count--;
    }
    return context != NULL ? push(context) : SUCCESS;
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    ENTER("cuCtxPushCurrent");
    return push(context);
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    ENTER("cuCtxPopCurrent");
    if (context_count == 0) {
        return INVALID_CONTEXT;
    }
    context_count--;
    if (context != NULL) {
        *context = contexts[context_count];
    }
    return SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *ordinal)
{
    ENTER("cuCtxGetDevice");
    CURRENT(device);
    for (*ordinal = 0; double_device(*ordinal) != device; ++*ordinal) {
    }
    return SUCCESS;
}

EXPORT CUresult cuCtxSynchronize(void)
{
    ENTER("cuCtxSynchronize");
    CURRENT(device);
    return double_device_synchronize(device);
}

/* ---- Memory ---- */

EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    ENTER("cuMemGetInfo");
    CURRENT(device);
    return double_memory_info(device, free_bytes, total);
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *memory, size_t bytes)
{
    void *allocated;
    ENTER("cuMemAlloc");
    CURRENT(device);
    REQUIRE(memory != NULL && bytes > 0);
    int code = double_allocate(device, bytes, &allocated);
    if (code == SUCCESS) {
        *memory = (uintptr_t)allocated;
    }
    return code;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr memory)
{
    ENTER("cuMemFree");
    CURRENT(device);
    return memory == 0 ? SUCCESS : double_free(pointer(memory));
}

EXPORT CUresult cuMemHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    ENTER("cuMemHostAlloc");
    CURRENT(device);
    REQUIRE(memory != NULL && flags < 8);
    return double_host_allocate(bytes, memory);
}

EXPORT CUresult cuMemFreeHost(void *memory)
{
    ENTER("cuMemFreeHost");
    CURRENT(device);
    return double_host_free(memory);
}

#ifndef DOUBLE_TOO_OLD_DRIVER
EXPORT CUresult cuMemHostRegister_v2(void *memory, size_t bytes, unsigned flags)
{
    ENTER("cuMemHostRegister");
    CURRENT(device);
    REQUIRE(flags < 16);
    return double_host_register(memory, bytes);
}
#endif

EXPORT CUresult cuMemHostUnregister(void *memory)
{
    ENTER("cuMemHostUnregister");
    CURRENT(device);
    return double_host_unregister(memory);
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    ENTER("cuMemcpyHtoDAsync");
    CURRENT(device);
    return double_copy_to_device(device, pointer(to), from, bytes, stream);
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    ENTER("cuMemcpyDtoHAsync");
    CURRENT(device);
    return double_copy_to_host(device, to, pointer(from), bytes, stream);
}

EXPORT CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    ENTER("cuMemcpyDtoH");
    CURRENT(device);
    return double_copy_to_host_now(device, to, pointer(from), bytes);
}

/* ---- Streams ---- */

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    ENTER("cuStreamCreate");
    CURRENT(device);
    return double_stream_create(device, flags, stream);
}

EXPORT CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    ENTER("cuStreamCreateWithPriority");
    CURRENT(device);
    (void)priority; /* any is allowed, and brought into the range there is */
    return double_stream_create(device, flags, stream);
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream)
{
    ENTER("cuStreamDestroy");
    CURRENT(device);
    return double_stream_destroy(stream);
}

EXPORT CUresult cuStreamSynchronize(CUstream stream)
{
    ENTER("cuStreamSynchronize");
    CURRENT(device);
    return double_stream_synchronize(device, stream);
}

EXPORT CUresult cuStreamQuery(CUstream stream)
{
    ENTER("cuStreamQuery");
    CURRENT(device);
    return double_stream_query(device, stream);
}

EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    ENTER("cuStreamWaitEvent");
    CURRENT(device);
    REQUIRE(flags <= 1);
    return double_stream_wait(device, stream, event);
}

EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, int mode)
{
    ENTER("cuStreamBeginCapture");
    CURRENT(device);
    return double_capture_begin(device, stream, mode);
}

EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    ENTER("cuStreamEndCapture");
    CURRENT(device);
    return double_capture_end(device, stream, graph);
}

EXPORT CUresult cuGraphDestroy(CUgraph graph)
{
    ENTER("cuGraphDestroy");
    return double_graph_destroy(graph);
}

#ifndef DOUBLE_OLD_DRIVER
EXPORT CUresult cuStreamGetId(CUstream stream, unsigned long long *id)
{
    ENTER("cuStreamGetId");
    CURRENT(device);
    return double_stream_id(device, stream, id);
}

EXPORT CUresult cuStreamIsCapturing(CUstream stream, int *status)
{
    ENTER("cuStreamIsCapturing");
    CURRENT(device);
    return double_capture_status(device, stream, status);
}

EXPORT CUresult cuThreadExchangeStreamCaptureMode(int *mode)
{
    ENTER("cuThreadExchangeStreamCaptureMode");
    return double_capture_exchange(mode);
}
#endif

/* ---- Events ---- */

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    ENTER("cuEventCreate");
    CURRENT(device);
    REQUIRE(flags < 8);
    return double_event_create(device, event);
}

EXPORT CUresult cuEventDestroy_v2(CUevent event)
{
    ENTER("cuEventDestroy");
    CURRENT(device);
    return double_event_destroy(event);
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream)
{
    ENTER("cuEventRecord");
    CURRENT(device);
    return double_event_record(device, event, stream);
}

EXPORT CUresult cuEventQuery(CUevent event)
{
    ENTER("cuEventQuery");
    CURRENT(device);
    return double_event_query(event);
}

EXPORT CUresult cuEventSynchronize(CUevent event)
{
    ENTER("cuEventSynchronize");
    CURRENT(device);
    return double_event_synchronize(event);
}
