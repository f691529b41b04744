/*
 * What pml.h needs and no generator writes: includes, linkage, versions, initial values.
 * Do not include it by itself; include pml.h.
 */
#ifndef PML_BASE_H
#define PML_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version that this header belongs to; pml_version_number() is the library's. */
#define PML_VERSION_MAJOR 0
#define PML_VERSION_MINOR 1
#define PML_VERSION_PATCH 0
#define PML_VERSION_NUMBER \
    ((uint32_t)PML_VERSION_MAJOR << 16 | (uint32_t)PML_VERSION_MINOR << 8 | (uint32_t)PML_VERSION_PATCH)

/* PML_STATIC says that the static library is linked. */
#ifndef PML_API
#if defined(_WIN32) && !defined(PML_STATIC)
#define PML_API __declspec(dllimport)
#else
#define PML_API
#endif
#endif

/*
 * The caller's own thread in place of a stream: the data is there when an acquire returns, and the caller has finished
 * with it when it releases. NULL means the same for loaders on the host.
 */
#define PML_STREAM_HOST ((void *)-1)
/* A GPU's stream that waits for all others of its context, and each thread's own, where no handle is given. */
#define PML_STREAM_LEGACY ((void *)1)
#define PML_STREAM_PER_THREAD ((void *)2)

/* Wait as long as it takes: a time-out in milliseconds. */
#define PML_TIMEOUT_NEVER ((int64_t)-1)

/* The initial values of each struct, for `pml_options_t options = PML_OPTIONS_INIT;`. */
#define PML_OPTIONS_INIT                                                                                         \
    {                                                                                                            \
        sizeof(pml_options_t), NULL, 0, 3, 1, 0, -1, 0, NULL, 0, 0, 0, 0, 0, 0, NULL, NULL, 3, 100, 0, NULL, NULL, \
            NULL, NULL, NULL, PML_LOG_WARNING, 0, NULL, NULL, NULL, PML_DTYPE_KEEP, 0, 0, 0, 0                       \
    }
#define PML_DEVICE_INFO_INIT                                          \
    {                                                                 \
        sizeof(pml_device_info_t), 0, 0, NULL, 0, 0, 0, 0, 0, NULL, 0 \
    }
#define PML_LAYER_INFO_INIT                                 \
    {                                                       \
        sizeof(pml_layer_info_t), NULL, 0, 0, 0, 0, 0, 0, 0 \
    }
#define PML_TENSOR_INFO_INIT                                                   \
    {                                                                          \
        sizeof(pml_tensor_info_t), NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0    \
    }
#define PML_VIEW_INIT                                  \
    {                                                  \
        sizeof(pml_view_t), NULL, 0, NULL, 0, 0, 0, 0  \
    }
#define PML_METADATA_INFO_INIT                          \
    {                                                   \
        sizeof(pml_metadata_info_t), 0, NULL, 0, 0, 0, 0 \
    }
#define PML_STATS_INIT                                                                          \
    {                                                                                           \
        sizeof(pml_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0, \
            0, 0, 0, 0, 0, 0, UINT32_MAX, 0, NULL, 0, 0, 0, 0                                    \
    }
#define PML_ALLOCATOR_INIT                            \
    {                                                 \
        sizeof(pml_allocator_t), NULL, NULL, NULL     \
    }
#define PML_EVENT_INIT                                                                   \
    {                                                                                    \
        sizeof(pml_event_t), 0, 0, SIZE_MAX, SIZE_MAX, 0, 0, 0, 0, 0.0, 0, 0, NULL, 0    \
    }
#define PML_ZOO_OPTIONS_INIT                                  \
    {                                                         \
        sizeof(pml_zoo_options_t), NULL, NULL, NULL, NULL, 0  \
    }
#define PML_MODEL_INFO_INIT                                                                                 \
    {                                                                                                       \
        sizeof(pml_model_info_t), NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, 0, 0, 0, 0, \
            0, UINT32_MAX, 0, 0, 0                                                                          \
    }
#define PML_MODEL_FILE_INIT                           \
    {                                                 \
        sizeof(pml_model_file_t), NULL, 0, NULL, 0, 0 \
    }

#endif /* PML_BASE_H */
