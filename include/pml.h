/*
 * libpml: progressive loading of model weights.
 *
 * Generated from the library's source; do not edit.
 *
 * In short. pml_loader_open reads a model's headers and nothing else. pml_loader_tensor gives lazy tensors; layers
 * have indices. pml_loader_acquire_layer or pml_tensor_acquire brings bytes into memory and holds them there,
 * pml_tensor_view says where they are, and after pml_loader_release_layer or pml_tensor_release they may go. What is read
 * ahead, how much memory all of it may take, and what goes first is said in pml_options_t when the model is opened.
 *
 * Contents. First the numbers, the types and the statuses; then the functions, by what they are about: versions
 * and errors, devices, events, rules, budgets, the caller's own memory, options, loaders, layers, tensors, DLPack, loading
 * a whole model, metadata, and models by name.
 *
 * Units. Sizes and offsets are bytes, shapes are elements, times are milliseconds where no name says otherwise.
 *
 * Errors. A function that can fail returns a pml_status_t: 0 is success, errors are negative, and
 * pml_last_error() then has one line about it for the calling thread. Results are written only on
 * success, except that a handle asked for is set to NULL on failure.
 *
 * Pointers. NULL for a pointer that a function needs gives PML_STATUS_INVALID_ARGUMENT. Any other
 * pointer must be what its parameter says: a live handle of that type, a struct whose struct_size
 * is its size, a string that ends in NUL, memory for as many elements as are counted. Memory for
 * results must not be used by anyone else during the call.
 *
 * Handles. Every handle is freed by its owner, in any order, NULL included. Functions may be called
 * from any threads at once; freeing a handle must be the last thing that is done with it.
 *
 * Streams. Where a function takes a stream, it is PML_STREAM_HOST for the calling thread, on a GPU also one of the device's
 * streams; pml_loader_acquire_layer and pml_loader_release_layer say what is waited for. docs/ownership.md in the
 * source has all of it on one page.
 *
 * Structs begin with struct_size. Start them with PML_..._INIT, or with pml_..._init(x, sizeof *x),
 * which agree byte for byte. Later versions add fields only at the end. Names in structs come with
 * their length and do not end in NUL, unless their field says so.
 *
 * Indices of tensors, layers and metadata never change while a loader lives. Shapes are row-major,
 * outermost dimension first, whatever the file's own order.
 *
 * Processes. After fork the child may only exec or _exit. The library claims nothing that belongs to
 * its host: no signal handler, no logger; its threads take no signals, but that of callbacks those that
 * runtimes stop threads with, where the thread that opened the loader takes them.
 */

#ifndef PML_H
#define PML_H

#include "pml/base.h"

/* DLPack's own, of its dlpack.h, which may be included before or after; pml_tensor_to_dlpack hands it out. */
struct DLManagedTensorVersioned;


/* ---- Numbers that functions take and structs hold ---- */

/**
 * IEEE 754, 32 bits: the element types have ggml's numbers.
 */
#define PML_DTYPE_F32 0

/**
 * IEEE 754, 16 bits.
 */
#define PML_DTYPE_F16 1

/**
 * 32 elements in 18 bytes.
 */
#define PML_DTYPE_Q4_0 2

/**
 * 32 elements in 20 bytes.
 */
#define PML_DTYPE_Q4_1 3

/**
 * 32 elements in 22 bytes.
 */
#define PML_DTYPE_Q5_0 6

/**
 * 32 elements in 24 bytes.
 */
#define PML_DTYPE_Q5_1 7

/**
 * 32 elements in 34 bytes.
 */
#define PML_DTYPE_Q8_0 8

/**
 * 32 elements in 36 bytes.
 */
#define PML_DTYPE_Q8_1 9

/**
 * 256 elements in 84 bytes.
 */
#define PML_DTYPE_Q2_K 10

/**
 * 256 elements in 110 bytes.
 */
#define PML_DTYPE_Q3_K 11

/**
 * 256 elements in 144 bytes.
 */
#define PML_DTYPE_Q4_K 12

/**
 * 256 elements in 176 bytes.
 */
#define PML_DTYPE_Q5_K 13

/**
 * 256 elements in 210 bytes.
 */
#define PML_DTYPE_Q6_K 14

/**
 * 256 elements in 292 bytes.
 */
#define PML_DTYPE_Q8_K 15

/**
 * 256 elements in 66 bytes.
 */
#define PML_DTYPE_IQ2_XXS 16

/**
 * 256 elements in 74 bytes.
 */
#define PML_DTYPE_IQ2_XS 17

/**
 * 256 elements in 98 bytes.
 */
#define PML_DTYPE_IQ3_XXS 18

/**
 * 256 elements in 50 bytes.
 */
#define PML_DTYPE_IQ1_S 19

/**
 * 32 elements in 18 bytes.
 */
#define PML_DTYPE_IQ4_NL 20

/**
 * 256 elements in 110 bytes.
 */
#define PML_DTYPE_IQ3_S 21

/**
 * 256 elements in 82 bytes.
 */
#define PML_DTYPE_IQ2_S 22

/**
 * 256 elements in 136 bytes.
 */
#define PML_DTYPE_IQ4_XS 23

/**
 * Signed, 8 bits.
 */
#define PML_DTYPE_I8 24

/**
 * Signed, 16 bits.
 */
#define PML_DTYPE_I16 25

/**
 * Signed, 32 bits.
 */
#define PML_DTYPE_I32 26

/**
 * Signed, 64 bits.
 */
#define PML_DTYPE_I64 27

/**
 * IEEE 754, 64 bits.
 */
#define PML_DTYPE_F64 28

/**
 * 256 elements in 56 bytes.
 */
#define PML_DTYPE_IQ1_M 29

/**
 * The upper half of an F32.
 */
#define PML_DTYPE_BF16 30

/**
 * 256 elements in 54 bytes.
 */
#define PML_DTYPE_TQ1_0 34

/**
 * 256 elements in 66 bytes.
 */
#define PML_DTYPE_TQ2_0 35

/**
 * 32 elements in 17 bytes.
 */
#define PML_DTYPE_MXFP4 39

/**
 * 64 elements in 36 bytes.
 */
#define PML_DTYPE_NVFP4 40

/**
 * 128 elements in 18 bytes.
 */
#define PML_DTYPE_Q1_0 41

/**
 * 64 elements in 18 bytes.
 */
#define PML_DTYPE_Q2_0 42

/**
 * One byte: 0 or 1.
 */
#define PML_DTYPE_BOOL 1000

/**
 * 1 element in 1 byte, unsigned.
 */
#define PML_DTYPE_U8 1001

/**
 * 1 element in 2 bytes, unsigned.
 */
#define PML_DTYPE_U16 1002

/**
 * 1 element in 4 bytes, unsigned.
 */
#define PML_DTYPE_U32 1003

/**
 * 1 element in 8 bytes, unsigned.
 */
#define PML_DTYPE_U64 1004

/**
 * 1 element in 1 byte: four exponent and three mantissa bits, no infinities.
 */
#define PML_DTYPE_F8_E4M3 1005

/**
 * 1 element in 1 byte: five exponent and two mantissa bits.
 */
#define PML_DTYPE_F8_E5M2 1006

/**
 * 1 element in 1 byte: an exponent alone.
 */
#define PML_DTYPE_F8_E8M0 1007

/**
 * 1 element in 8 bytes: two F32, real and imaginary.
 */
#define PML_DTYPE_C64 1008

/**
 * 2 elements in 1 byte.
 */
#define PML_DTYPE_F4 1009

/**
 * 4 elements in 3 bytes.
 */
#define PML_DTYPE_F6_E2M3 1010

/**
 * 4 elements in 3 bytes.
 */
#define PML_DTYPE_F6_E3M2 1011

/**
 * 64 elements in 32 bytes, their scale beside them in a tensor of its own.
 */
#define PML_DTYPE_NF4 1012

/**
 * 1 element in 1 byte: four exponent and three mantissa bits, no infinities and no negative zero.
 */
#define PML_DTYPE_F8_E4M3FNUZ 1013

/**
 * 1 element in 1 byte: five exponent and two mantissa bits, no infinities and no negative zero.
 */
#define PML_DTYPE_F8_E5M2FNUZ 1014

/**
 * As it is stored: what a tensor is delivered as, for pml_rules_dtype and the option `dtype`.
 */
#define PML_DTYPE_KEEP 2000

/**
 * As it is stored, but PML_DTYPE_F16 in place of PML_DTYPE_BF16 where the device (of "auto": any GPU) does not compute with
 * BF16; larger numbers than F16 has become infinite.
 */
#define PML_DTYPE_AUTO 2001

/**
 * PML_DTYPE_I8, its scales beside it as "name.scales": F32, one for each row, the row's largest magnitude / 127.
 */
#define PML_DTYPE_INT8 2002

/**
 * PML_DTYPE_I8, its scales beside it as "name.scales": F16, one for each 32 elements of a row, as in PML_DTYPE_Q8_0.
 */
#define PML_DTYPE_INT8_32 2003

/**
 * The host's own memory: a device's kind.
 */
#define PML_DEVICE_HOST 0

/**
 * A GPU behind NVIDIA's driver.
 */
#define PML_DEVICE_CUDA 1

/**
 * A GPU behind AMD's HIP runtime.
 */
#define PML_DEVICE_HIP 2

/**
 * Something is wrong with a tensor, or with the model: an event's kind.
 */
#define PML_EVENT_ERROR 0

/**
 * A layer is in memory.
 */
#define PML_EVENT_LAYER_LOADED 1

/**
 * Bytes were delivered, or the stage has changed.
 */
#define PML_EVENT_PROGRESS 2

/**
 * Every tensor was delivered at least once. Told once.
 */
#define PML_EVENT_FULLY_LOADED 3

/**
 * As the options say: what `on_error` answers.
 */
#define PML_ON_ERROR_DEFAULT 0

/**
 * The read is tried again, after a pause that doubles from `retry_backoff_ms` on; as often as this is answered, whatever
 * `retry_count` says.
 */
#define PML_ON_ERROR_RETRY 1

/**
 * The next reader tries.
 */
#define PML_ON_ERROR_FALLBACK 2

/**
 * The tensor is left out.
 */
#define PML_ON_ERROR_SKIP 3

/**
 * Those who wait for the tensor are told.
 */
#define PML_ON_ERROR_FAIL 4

/**
 * Headers were read, and nothing else was wanted yet: a stage.
 */
#define PML_STAGE_OPENING 0

/**
 * Contents are being checked.
 */
#define PML_STAGE_VALIDATING 1

/**
 * Bytes are being brought.
 */
#define PML_STAGE_LOADING 2

/**
 * Bytes are being converted.
 */
#define PML_STAGE_TRANSFORMING 3

/**
 * Every tensor was delivered at least once.
 */
#define PML_STAGE_DONE 4

/**
 * The caller cancelled.
 */
#define PML_STAGE_CANCELLED 5

/**
 * It came to an error.
 */
#define PML_STAGE_FAILED 6

/**
 * Tensors and layers are brought when they are acquired or prefetched: a strategy.
 */
#define PML_STRATEGY_ON_DEMAND 0

/**
 * From pml_loader_start on one layer after another, in order.
 */
#define PML_STRATEGY_SEQUENTIAL 1

/**
 * From pml_loader_start on in order, several layers at once.
 */
#define PML_STRATEGY_PARALLEL 2

/**
 * Each acquire queues the layers that come next; after the last comes the first.
 */
#define PML_STRATEGY_PREFETCH 3

/**
 * Never: layers stay until the caller unloads them, and at a limit there is no room: when the library takes memory back of
 * layers that nobody holds.
 */
#define PML_UNLOAD_NEVER 0

/**
 * When the machine runs short of memory, as much as is missing to twice the threshold; at a limit there is no room.
 */
#define PML_UNLOAD_MEMORY_PRESSURE 1

/**
 * When a limit leaves no room for what is wanted: with PML_STRATEGY_PREFETCH the layer that is needed last goes, else the
 * one used longest ago.
 */
#define PML_UNLOAD_LRU 2

/**
 * Local files are mapped, files behind a network are read; copies of pages that are not in the page cache go past it:
 * how bytes are read.
 */
#define PML_IO_AUTO 0

/**
 * Map the file. Tensors are viewed in place; if somebody cuts the file while a view is used, the access faults.
 */
#define PML_IO_MMAP 1

/**
 * Positioned reads into memory of the library's own.
 */
#define PML_IO_READ 2

/**
 * Positioned reads past the page cache (O_DIRECT) into memory of the library's own.
 */
#define PML_IO_DIRECT 3

/**
 * Whatever the content says; of a folder with models of several formats the GGUF one: the format of a model.
 */
#define PML_FORMAT_AUTO 0

/**
 * GGUF.
 */
#define PML_FORMAT_GGUF 1

/**
 * Safetensors.
 */
#define PML_FORMAT_SAFETENSORS 2

/**
 * By the names of the tensors, one of the following: the order in which layers are used.
 */
#define PML_LAYER_ORDER_AUTO 0

/**
 * Embeddings, blocks, norms and output.
 */
#define PML_LAYER_ORDER_TRANSFORMER 1

/**
 * Shared embeddings, the encoder, the decoder, the output.
 */
#define PML_LAYER_ORDER_ENCODER_DECODER 2

/**
 * Embeddings, recurrent blocks or cells, output.
 */
#define PML_LAYER_ORDER_RNN 3

/**
 * From the input's convolutions to the classifier.
 */
#define PML_LAYER_ORDER_CNN 4

/**
 * As in the file.
 */
#define PML_LAYER_ORDER_FILE 5

/**
 * A tensor that cannot be brought fails those who wait for it, and ends background loading: what happens after an error.
 */
#define PML_RECOVERY_FAIL 0

/**
 * The read is tried again, where pml_status_is_retryable says that it may pass; then as PML_RECOVERY_FAIL.
 */
#define PML_RECOVERY_RETRY 1

/**
 * The next reader tries: buffered reads in place of a mapping or of direct reads, direct reads where PML_IO_READ was asked
 * for; then as PML_RECOVERY_FAIL.
 */
#define PML_RECOVERY_FALLBACK 2

/**
 * The tensor is left out and all else is loaded; it and its layer give PML_STATUS_INCOMPLETE until pml_loader_unload_layer
 * or pml_loader_start has them tried again.
 */
#define PML_RECOVERY_SKIP 3

/**
 * Errors only: how much the log callback is told.
 */
#define PML_LOG_ERROR 0

/**
 * What went otherwise than asked, besides.
 */
#define PML_LOG_WARNING 1

/**
 * What happens, besides.
 */
#define PML_LOG_INFO 2

/**
 * Why it happens, besides.
 */
#define PML_LOG_DEBUG 3

/**
 * Compare the blocks that the metadata promises with those that are there: a flag of pml_loader_verify.
 */
#define PML_VERIFY_STRUCTURE 1

/**
 * Look for NaN and infinities among floating-point elements and the scales of quantised blocks.
 */
#define PML_VERIFY_VALUES 2

/**
 * There is none, or nothing is delivered as something else than it is stored: what the cache of converted models does.
 */
#define PML_CACHE_NONE 0

/**
 * The model is read as it was kept before, and nothing is converted.
 */
#define PML_CACHE_READ 1

/**
 * What is converted is being written; all of it has to be brought at least once.
 */
#define PML_CACHE_WRITING 2

/**
 * All of it was written: the next load finds it.
 */
#define PML_CACHE_WRITTEN 3

/**
 * It is not kept; the log says why.
 */
#define PML_CACHE_FAILED 4

/**
 * Nothing of the layer is in memory: a layer's state.
 */
#define PML_LAYER_ABSENT 0

/**
 * Some of its tensors are under way.
 */
#define PML_LAYER_LOADING 1

/**
 * Some of its tensors are in memory and none is under way.
 */
#define PML_LAYER_PARTIAL 2

/**
 * All of it is in memory.
 */
#define PML_LAYER_RESIDENT 3

/**
 * Its memory is being given back.
 */
#define PML_LAYER_DRAINING 4

/**
 * Unsigned, 8 bits: the types of values have GGUF's numbers.
 */
#define PML_VALUE_U8 0

/**
 * Signed, 8 bits.
 */
#define PML_VALUE_I8 1

/**
 * Unsigned, 16 bits.
 */
#define PML_VALUE_U16 2

/**
 * Signed, 16 bits.
 */
#define PML_VALUE_I16 3

/**
 * Unsigned, 32 bits.
 */
#define PML_VALUE_U32 4

/**
 * Signed, 32 bits.
 */
#define PML_VALUE_I32 5

/**
 * IEEE 754, 32 bits.
 */
#define PML_VALUE_F32 6

/**
 * One byte, 0 or 1.
 */
#define PML_VALUE_BOOL 7

/**
 * Bytes with a length; should be UTF-8, but that is not checked.
 */
#define PML_VALUE_STRING 8

/**
 * Values of one type.
 */
#define PML_VALUE_ARRAY 9

/**
 * Unsigned, 64 bits.
 */
#define PML_VALUE_U64 10

/**
 * Signed, 64 bits.
 */
#define PML_VALUE_I64 11

/**
 * IEEE 754, 64 bits.
 */
#define PML_VALUE_F64 12

/**
 * Copy the files into our own store; else its manifest names them where they are: a flag of pml_zoo_add.
 */
#define PML_ZOO_COPY 1

/**
 * Keep the model whatever the store's limit.
 */
#define PML_ZOO_PIN 2

/* ---- Types: handles, structs, callbacks ---- */

/**
 * A limit of memory that loaders share. Functions may be called from any thread at once; pml_budget_free from one, when no
 * other call with this handle is under way.
 */
typedef struct pml_budget_t pml_budget_t;

/**
 * An opened model. Functions may be called from any thread at once; pml_loader_free from one, when no other call with
 * this handle is under way.
 */
typedef struct pml_loader_t pml_loader_t;

/**
 * One model as one value: a name, its version, and the files behind them. Immutable: it stays what it was when the store
 * changes, and functions may be called from any thread at once.
 */
typedef struct pml_model_t pml_model_t;

/**
 * The models that the stores had when they were asked. Immutable.
 */
typedef struct pml_models_t pml_models_t;

/**
 * A caller's choices by tensor name, copied when a model is opened with them.
 *
 * Patterns are globs: `*` stands for any characters, dots among them, `?` for one. Of the rules of one kind that match
 * a name, the last one wins.
 */
typedef struct pml_rules_t pml_rules_t;

/**
 * A tensor of an opened model: lazy, and independent of the loader's handle. Functions may be called from any thread at
 * once; pml_tensor_free from one, when no other call is under way.
 */
typedef struct pml_tensor_t pml_tensor_t;

/**
 * The stores of models, as they are whenever they are asked. Functions may be called from any thread at once.
 */
typedef struct pml_zoo_t pml_zoo_t;

/**
 * The outcome of a call: 0 is success, all errors are negative. Numbers never change.
 */
typedef int32_t pml_status_t;

/**
 * A device that can hold tensors.
 */
typedef struct pml_device_info_t {
    /**
     * sizeof(pml_device_info_t), set by the caller.
     */
    size_t struct_size;
    /**
     * One of PML_DEVICE_.
     */
    uint32_t kind;
    /**
     * Its number among those of its kind.
     */
    uint32_t ordinal;
    /**
     * Its name, as the option `device` takes it: "cpu", "cuda:0". Ends in NUL; lives as long as the library.
     */
    const char *name;
    /**
     * Bytes of the name, without the NUL.
     */
    size_t name_length;
    /**
     * 1 where it shares the host's memory, else 0.
     */
    uint32_t unified;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Bytes of memory it has; UINT64_MAX where that is not known.
     */
    uint64_t total_bytes;
    /**
     * Bytes of memory it could give now; UINT64_MAX where that is not known without waking it.
     */
    uint64_t free_bytes;
    /**
     * What its maker calls it; empty for the host. Ends in NUL; lives as long as the library.
     */
    const char *model;
    /**
     * Bytes of the model, without the NUL.
     */
    size_t model_length;
} pml_device_info_t;

/**
 * What a callback is told. It and its message live until the callback returns; of pml_loader_next_event the message lives
 * until its next call or the loader's end.
 */
typedef struct pml_event_t {
    /**
     * sizeof(pml_event_t): as the library knows it for a callback, set by the caller for pml_loader_next_event.
     */
    size_t struct_size;
    /**
     * A PML_EVENT_ value.
     */
    uint32_t kind;
    /**
     * A PML_STAGE_ value.
     */
    uint32_t stage;
    /**
     * The layer concerned; SIZE_MAX where it is none.
     */
    size_t layer;
    /**
     * The tensor concerned; SIZE_MAX where it is none.
     */
    size_t tensor;
    /**
     * Distinct bytes delivered so far.
     */
    uint64_t bytes_done;
    /**
     * Bytes of all tensors, less those left out because they could not be read.
     */
    uint64_t bytes_total;
    /**
     * Layers of which every tensor was delivered so far.
     */
    uint64_t layers_done;
    /**
     * Layers of the model.
     */
    uint64_t layers_total;
    /**
     * The rate of delivery now, repeated deliveries among it.
     */
    double bytes_per_second;
    /**
     * PML_STATUS_OK, or the error.
     */
    int32_t status;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * One line of text; does not end in NUL. NULL where there is none.
     */
    const char *message;
    /**
     * Bytes of the message.
     */
    size_t message_length;
} pml_event_t;

/**
 * Functions that give and take the memory of layers. Start from PML_ALLOCATOR_INIT. Both are called on any thread, several
 * at once, with no lock held; they must not call the library. On a GPU the thread may have any
 * context or device current, which stays as it was, and the memory is of the device that is told: several layers may lie in one
 * piece of it.
 */
typedef struct pml_allocator_t {
    /**
     * sizeof(pml_allocator_t).
     */
    size_t struct_size;
    /**
     * Gives `size` bytes, more than none, at a multiple of `alignment`, a power of two, on this device; NULL where there is
     * no more, which is PML_STATUS_OUT_OF_MEMORY.
     */
    void *(*allocate)(void *user_data,
                      size_t size,
                      size_t alignment,
                      uint32_t device_kind,
                      uint32_t device_ordinal);
    /**
     * Takes back what `allocate` gave for the same numbers, once.
     */
    void (*deallocate)(void *user_data,
                       void *memory,
                       size_t size,
                       size_t alignment,
                       uint32_t device_kind,
                       uint32_t device_ordinal);
    /**
     * Given to both. Lives until `destroy` of the options is called.
     */
    void *user_data;
} pml_allocator_t;

/**
 * A callback for an event. What it returns is the callback's own answer; where nothing else is said, non-zero asks for
 * the work to end.
 *
 * Callbacks of one loader are called one at a time and in order, on a thread of the library's own, with no lock held; no
 * load waits for them but a tensor for the answer of `on_error`. What was not told yet is told as it stands when its turn
 * comes, so that events never pile up. Inside, everything may be called but what can wait, which gives
 * PML_STATUS_WOULD_DEADLOCK.
 */
typedef int32_t (*pml_event_callback_t)(void *user_data, const struct pml_event_t *event);

/**
 * A callback for a line of the log: its level, a PML_LOG_ value, and its text, which does not end in NUL.
 */
typedef void (*pml_log_callback_t)(void *user_data,
                                   uint32_t level,
                                   const char *message,
                                   size_t message_length);

/**
 * How a model is opened. Start from PML_OPTIONS_INIT or pml_options_init, and change what you need.
 *
 * All fields stand from the first version on. A value that this version does not serve is answered with
 * PML_STATUS_UNSUPPORTED when the model is opened; none is ignored.
 */
typedef struct pml_options_t {
    /**
     * sizeof(pml_options_t).
     */
    size_t struct_size;
    /**
     * Where tensors end up: "cpu", a GPU such as "cuda:0" or "hip:1", or "auto" or NULL for the first GPU that has room when
     * the first layer is wanted, else the host. Opening wakes no device.
     */
    const char *device;
    /**
     * A PML_STRATEGY_ value; PML_STRATEGY_ON_DEMAND.
     */
    uint32_t strategy;
    /**
     * At most how many layers are loading at once, at least 1, those aside that a caller waits for; 3.
     */
    uint32_t max_concurrent_loads;
    /**
     * Layers read ahead under PML_STRATEGY_PREFETCH; 1.
     */
    uint32_t prefetch_count;
    /**
     * A PML_UNLOAD_ value; PML_UNLOAD_NEVER.
     */
    uint32_t unload;
    /**
     * The most layers in memory at once, at least 1; -1 for any number.
     */
    int64_t max_loaded_layers;
    /**
     * The most bytes of memory for layers, 0 for any number. What counts is told at pml_budget_new.
     */
    uint64_t memory_budget;
    /**
     * A limit shared with other loaders, besides; NULL for none. The handle may be freed after the call.
     */
    struct pml_budget_t *budget;
    /**
     * A PML_IO_ value; PML_IO_AUTO. A model in memory is viewed in place, or with PML_IO_READ copied; it has no
     * PML_IO_DIRECT.
     */
    uint32_t io;
    /**
     * At most how many reads are under way at once for this loader, up to 64; 0 for as many as suit the machine.
     */
    uint32_t workers;
    /**
     * What the address of each tensor must be a multiple of, in bytes: a power of two up to 4096; 0 for what the file's own
     * alignment gives.
     */
    size_t alignment;
    /**
     * Bytes behind each tensor that may be read, and are zero; up to 1 MiB. With any, nothing is viewed in place.
     */
    size_t tail_padding;
    /**
     * A PML_LAYER_ORDER_ value; PML_LAYER_ORDER_AUTO.
     */
    uint32_t layer_order;
    /**
     * A PML_RECOVERY_ value; PML_RECOVERY_FAIL.
     */
    uint32_t recovery;
    /**
     * Choices by tensor name, NULL for none; copied.
     */
    const struct pml_rules_t *rules;
    /**
     * Memory of the caller's own for layers, NULL for the library's; copied. Nothing is viewed in place then.
     */
    const struct pml_allocator_t *allocator;
    /**
     * How often PML_RECOVERY_RETRY tries again; 3.
     */
    uint32_t retry_count;
    /**
     * How long it waits before the first time, in milliseconds; 100. Twice as long before each further one, up to
     * a minute.
     */
    uint32_t retry_backoff_ms;
    /**
     * Available bytes of memory below which PML_UNLOAD_MEMORY_PRESSURE acts; 0 for 5 % of the total.
     */
    uint64_t pressure_threshold;
    /**
     * Told of each layer that came into memory, each time; its answer counts for nothing. NULL for none, as for the others.
     */
    pml_event_callback_t on_layer_loaded;
    /**
     * Told of bytes delivered and of another stage; non-zero cancels, as pml_loader_cancel.
     */
    pml_event_callback_t on_progress;
    /**
     * Told once when all is delivered; its answer counts for nothing.
     */
    pml_event_callback_t on_fully_loaded;
    /**
     * Told of a tensor that could not be read, and answers what to do: a PML_ON_ERROR_ value, of which all unknown ones mean
     * PML_ON_ERROR_DEFAULT. Where `tensor` is SIZE_MAX there is nothing to decide.
     */
    pml_event_callback_t on_error;
    /**
     * Told what happens, in words, on the thread of the callbacks; the message does not end in NUL and lives until it returns.
     */
    pml_log_callback_t log;
    /**
     * How much `log` is told: a PML_LOG_ value; PML_LOG_WARNING.
     */
    uint32_t log_level;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Given to the callbacks and to `destroy`.
     */
    void *user_data;
    /**
     * Called once with `user_data`, on any thread, after the last callback and after the loader and its last tensor are
     * freed (maybe a moment after that call returned); when opening fails, before it returns or, where callbacks were
     * given, a moment after. Not called only where `struct_size` itself is refused. May be NULL. Must not call the library.
     */
    void (*destroy)(void *user_data);
    /**
     * The folder where models are kept whose tensors are delivered as something else, so that the next load converts nothing;
     * "" for the user's own, $XDG_CACHE_HOME/pml or ~/.cache/pml; NULL for none. An entry is a GGUF or safetensors file, written
     * while tensors are brought, and there when each was brought at least once: pml_loader_free waits for the end of writing then.
     * What goes wrong with the cache is told to `log` and in pml_stats_t, and fails nothing else. An entry is read where the
     * sizes, times and headers of the model's files and its own are what they were: what changes no time, as the rot of a disk,
     * is found out with `cache_digest` only. A model that was changed within the last 20 ms is not kept. The user's own folder
     * is made so that nobody else sees into it, and no entry may be read by more than the model's files may. Whoever may write
     * into the folder decides what is loaded from it: name none that others may write who are not trusted with the model.
     */
    const char *cache_path;
    /**
     * What all tensors are delivered as that can be, unless a rule says otherwise: a PML_DTYPE_ value that pml_rules_dtype
     * takes; PML_DTYPE_KEEP. Floating-point and quantised tensors can be, and to types of less than 16 bits an element those
     * of two dimensions and more whose rows are whole blocks (of PML_DTYPE_NF4: whose elements are; of PML_DTYPE_INT8: of 32
     * elements and more); others stay as they are stored, as do those beside which a tensor has the name of their scales.
     * What of them is BF16 becomes F16 then, where the device does not compute with BF16.
     */
    uint32_t dtype;
    /**
     * 1 for delivering the stored bytes of each tensor that is delivered as something else too, as a tensor "name.original";
     * 0.
     */
    uint32_t keep_original;
    /**
     * The format that the model must have: a PML_FORMAT_ value; PML_FORMAT_AUTO.
     */
    uint32_t format;
    /**
     * 1 for knowing models in the cache by all of their bytes, which are read at each open that converts, and for looking at all
     * bytes of what is kept for damage as often; 0, by their headers, sizes and times. 0 where `cache_path` is NULL.
     */
    uint32_t cache_digest;
    /**
     * The most bytes that the cache's entries may have, 0 for any number: those used longest ago go, but none that a loader
     * reads. Files that are still being written do not count. 0 where `cache_path` is NULL.
     */
    uint64_t cache_limit;
} pml_options_t;

/**
 * Sums since the loader was opened. Figures of parts that a loader does not use are 0.
 */
typedef struct pml_stats_t {
    /**
     * sizeof(pml_stats_t), set by the caller.
     */
    size_t struct_size;
    /**
     * Bytes of all tensors.
     */
    uint64_t total_bytes;
    /**
     * Bytes of tensors brought into memory, each time counted.
     */
    uint64_t delivered_bytes;
    /**
     * Bytes of tensors in memory now.
     */
    uint64_t resident_bytes;
    /**
     * The most bytes of tensors in memory at once.
     */
    uint64_t peak_resident_bytes;
    /**
     * Bytes of staging memory now, which copies to devices pass through, of all loaders of the process.
     */
    uint64_t staging_bytes;
    /**
     * Acquires that found all they wanted.
     */
    uint64_t hits;
    /**
     * Acquires that did not.
     */
    uint64_t misses;
    /**
     * Misses that waited for a read.
     */
    uint64_t stalls;
    /**
     * Layers whose memory the library took back by itself.
     */
    uint64_t evictions;
    /**
     * Blocks of memory allocated for layers.
     */
    uint64_t allocations;
    /**
     * Bytes faulted in through mappings.
     */
    uint64_t mapped_bytes;
    /**
     * Bytes read through the page cache, headers among them.
     */
    uint64_t buffered_bytes;
    /**
     * Bytes read past the page cache.
     */
    uint64_t direct_bytes;
    /**
     * How often a reader failed and the next one took over.
     */
    uint64_t reader_fallbacks;
    /**
     * At most how many reads are under way at once.
     */
    uint64_t workers;
    /**
     * Seconds spent in reads, all threads together.
     */
    double read_seconds;
    /**
     * Seconds spent converting, likewise.
     */
    double transform_seconds;
    /**
     * Seconds spent queueing copies to a device and waiting for them, likewise, of all loaders of the process.
     */
    double copy_seconds;
    /**
     * Layers that were begun ahead of need: prefetched, by the strategy, by pml_loader_start.
     */
    uint64_t prefetches;
    /**
     * Reads that failed and were tried again.
     */
    uint64_t retries;
    /**
     * Tensors left out because they could not be read.
     */
    uint64_t left_out;
    /**
     * What layers take of the limits now, in bytes: in memory, on their way, or being given back. On a GPU the blocks that
     * they lie in may be larger.
     */
    uint64_t charged_bytes;
    /**
     * The most that they took at once.
     */
    uint64_t peak_charged_bytes;
    /**
     * Layers that were wanted again before their memory was taken.
     */
    uint64_t revivals;
    /**
     * The most bytes of staging memory at once.
     */
    uint64_t peak_staging_bytes;
    /**
     * 1 where some of it could not be page-locked, else 0.
     */
    uint64_t is_staging_pageable;
    /**
     * Bytes copied to the device of the layers, of all loaders of the process.
     */
    uint64_t copied_bytes;
    /**
     * Where the layers are: a PML_DEVICE_ value; UINT32_MAX until one is wanted.
     */
    uint32_t device_kind;
    /**
     * The number of that device among those of its kind.
     */
    uint32_t device_ordinal;
    /**
     * Why they are there, in words; does not end in NUL, and lives as long as the loader's handle. NULL until one is wanted.
     */
    const char *device_reason;
    /**
     * Bytes of that.
     */
    size_t device_reason_length;
    /**
     * Tensors copied, each time counted, because they do not lie in their file where their elements could be read in place.
     */
    uint64_t misaligned_tensors;
    /**
     * What the cache does: a PML_CACHE_ value.
     */
    uint32_t cache;
    /**
     * 0.
     */
    uint32_t reserved;
} pml_stats_t;

/**
 * A layer, as it stands. The name lives as long as the loader's handle.
 */
typedef struct pml_layer_info_t {
    /**
     * sizeof(pml_layer_info_t), set by the caller.
     */
    size_t struct_size;
    /**
     * Its name, in UTF-8; does not end in NUL.
     */
    const char *name;
    /**
     * Bytes of the name.
     */
    size_t name_length;
    /**
     * Bytes of its tensors.
     */
    uint64_t bytes;
    /**
     * How many tensors it has.
     */
    size_t tensor_count;
    /**
     * Its place in the order of use, from 0.
     */
    size_t position;
    /**
     * A PML_LAYER_ value: its state now.
     */
    uint32_t state;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * How often it and its tensors are acquired now.
     */
    uint64_t acquire_count;
} pml_layer_info_t;

/**
 * What the headers say of a tensor. The name and the shape live as long as the tensor's handle.
 */
typedef struct pml_tensor_info_t {
    /**
     * sizeof(pml_tensor_info_t), set by the caller.
     */
    size_t struct_size;
    /**
     * Its name, in UTF-8; does not end in NUL.
     */
    const char *name;
    /**
     * Bytes of the name.
     */
    size_t name_length;
    /**
     * `rank` lengths in elements, row-major, outermost dimension first. NULL where the rank is 0.
     */
    const int64_t *shape;
    /**
     * How many dimensions it has.
     */
    uint32_t rank;
    /**
     * A PML_DTYPE_ value: the elements in the file.
     */
    uint32_t stored_dtype;
    /**
     * A PML_DTYPE_ value: the elements in memory.
     */
    uint32_t delivered_dtype;
    /**
     * The file that holds it, counted from 0.
     */
    uint32_t shard;
    /**
     * Its index in the loader.
     */
    size_t index;
    /**
     * Its layer's index in the loader.
     */
    size_t layer;
    /**
     * Bytes in memory.
     */
    uint64_t bytes;
    /**
     * Bytes in the file.
     */
    uint64_t stored_bytes;
    /**
     * Where it starts in its file, in bytes.
     */
    uint64_t offset;
} pml_tensor_info_t;

/**
 * A tensor in memory. Its bytes must not be written. It is valid while the tensor or its layer is acquired; the shape
 * lives as long as the tensor's handle.
 */
typedef struct pml_view_t {
    /**
     * sizeof(pml_view_t), set by the caller.
     */
    size_t struct_size;
    /**
     * The address of the first byte, in the memory of the device. Not NULL; of a tensor without bytes not to be read.
     */
    const void *data;
    /**
     * How many bytes.
     */
    size_t size;
    /**
     * `rank` lengths in elements, row-major, outermost dimension first. NULL where the rank is 0.
     */
    const int64_t *shape;
    /**
     * How many dimensions it has.
     */
    uint32_t rank;
    /**
     * A PML_DTYPE_ value.
     */
    uint32_t dtype;
    /**
     * A PML_DEVICE_ value: whose memory it is.
     */
    uint32_t device_kind;
    /**
     * The number of that device among those of its kind.
     */
    uint32_t device_ordinal;
} pml_view_t;

/**
 * A metadata value. The key lives as long as the loader's handle.
 */
typedef struct pml_metadata_info_t {
    /**
     * sizeof(pml_metadata_info_t), set by the caller.
     */
    size_t struct_size;
    /**
     * Its index, which the getters take. Keys have indices below pml_loader_metadata_count; arrays inside arrays get
     * larger ones when they are first asked for.
     */
    size_t index;
    /**
     * The key, in UTF-8; does not end in NUL. NULL for an array inside an array.
     */
    const char *key;
    /**
     * Bytes of the key.
     */
    size_t key_length;
    /**
     * A PML_VALUE_ value: its type.
     */
    uint32_t value_type;
    /**
     * A PML_VALUE_ value: the type of an array's elements; else its own type.
     */
    uint32_t element_type;
    /**
     * Elements of an array, bytes of a string, else 1.
     */
    uint64_t count;
} pml_metadata_info_t;

/**
 * What is known of a model. Texts are in UTF-8, of paths the system's own bytes; they do not end in NUL, and live as long as the
 * model's handle. One that is not known is empty.
 */
typedef struct pml_model_info_t {
    /**
     * sizeof(pml_model_info_t), set by the caller.
     */
    size_t struct_size;
    /**
     * The name that people know it by, as "llama3" or "org/name"; of a path the path.
     */
    const char *name;
    /**
     * Bytes of that.
     */
    size_t name_length;
    /**
     * The word for its version: a tag, a revision, a quantisation, which pml_zoo_find takes. Empty where its store has none.
     */
    const char *version;
    /**
     * Bytes of that.
     */
    size_t version_length;
    /**
     * Its store: "pml", "huggingface", "ollama", "lm-studio", or "path" for none.
     */
    const char *store;
    /**
     * Bytes of that.
     */
    size_t store_length;
    /**
     * What is opened: a file, or a folder.
     */
    const char *path;
    /**
     * Bytes of that.
     */
    size_t path_length;
    /**
     * The model's word for what it is, as "llama". From its headers.
     */
    const char *architecture;
    /**
     * Bytes of that.
     */
    size_t architecture_length;
    /**
     * The licence that it names. From its headers.
     */
    const char *license;
    /**
     * Bytes of that.
     */
    size_t license_length;
    /**
     * The kind of its tokenizer: of GGUF tokenizer.ggml.model, as "gpt2"; of safetensors the class in tokenizer_config.json. From
     * its headers.
     */
    const char *tokenizer;
    /**
     * Bytes of that.
     */
    size_t tokenizer_length;
    /**
     * Bytes of all its files.
     */
    uint64_t bytes;
    /**
     * Elements of all tensors; what is packed in elements of another type counts as those. From its headers.
     */
    uint64_t parameters;
    /**
     * How many tokens it was made for at once; 0 where it does not say. From its headers.
     */
    uint64_t context_length;
    /**
     * How many tensors it has. From its headers.
     */
    uint64_t tensor_count;
    /**
     * How many files it has: indices of pml_model_file.
     */
    size_t file_count;
    /**
     * The type that most bytes are stored in: a PML_DTYPE_ value; UINT32_MAX where it is not known. From its headers.
     */
    uint32_t dtype;
    /**
     * A PML_FORMAT_ value; PML_FORMAT_AUTO where it is not known. From its headers.
     */
    uint32_t format;
    /**
     * 1 where our own store keeps it whatever its limit, else 0.
     */
    uint32_t is_pinned;
    /**
     * 0.
     */
    uint32_t reserved;
} pml_model_info_t;

/**
 * A file of a model. Texts live as long as the model's handle and do not end in NUL.
 */
typedef struct pml_model_file_t {
    /**
     * sizeof(pml_model_file_t), set by the caller.
     */
    size_t struct_size;
    /**
     * Where it is.
     */
    const char *path;
    /**
     * Bytes of that.
     */
    size_t path_length;
    /**
     * "sha256:" and 64 digits, where its store knows it; else empty.
     */
    const char *digest;
    /**
     * Bytes of that.
     */
    size_t digest_length;
    /**
     * Its bytes.
     */
    uint64_t bytes;
} pml_model_file_t;

/**
 * Where the stores are. Start from PML_ZOO_OPTIONS_INIT. Paths are copied.
 */
typedef struct pml_zoo_options_t {
    /**
     * sizeof(pml_zoo_options_t).
     */
    size_t struct_size;
    /**
     * Our own store: manifests, and what was copied in. NULL or "": $PML_ZOO, else $XDG_DATA_HOME/pml/zoo, else ~/.local/share/pml/zoo.
     */
    const char *path;
    /**
     * The Hugging Face Hub's cache. NULL: $HF_HUB_CACHE, $HUGGINGFACE_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, or
     * ~/.cache/huggingface/hub. "": it is not looked at.
     */
    const char *huggingface_path;
    /**
     * Ollama's store. NULL: $OLLAMA_MODELS, else ~/.ollama/models, and its service's /usr/share/ollama/.ollama/models. "": it is not
     * looked at.
     */
    const char *ollama_path;
    /**
     * LM Studio's folder of models. NULL: as its settings say, else models in its home: what ~/.lmstudio-home-pointer says,
     * ~/.cache/lm-studio where that is there, or ~/.lmstudio. "": it is not looked at.
     */
    const char *lm_studio_path;
    /**
     * The most bytes that our own store holds of what was copied in, 0 for any number: when something is added, what was opened
     * longest ago goes, but nothing that is pinned.
     */
    uint64_t limit;
} pml_zoo_options_t;

/* ---- Statuses ---- */

/**
 * Success.
 */
#define PML_STATUS_OK 0

/**
 * An argument that the function cannot take.
 */
#define PML_STATUS_INVALID_ARGUMENT -1

/**
 * A call that the handle's state does not allow, such as a release without an acquire.
 */
#define PML_STATUS_INVALID_STATE -2

/**
 * A file, shard, tensor, layer or metadata key that is not there.
 */
#define PML_STATUS_NOT_FOUND -3

/**
 * The system refuses access to the file.
 */
#define PML_STATUS_ACCESS_DENIED -4

/**
 * The system failed to read.
 */
#define PML_STATUS_IO -5

/**
 * The file ends before the bytes that its headers promise.
 */
#define PML_STATUS_TRUNCATED -6

/**
 * The file breaks the rules of its format.
 */
#define PML_STATUS_MALFORMED -7

/**
 * Understood, but not served by this version: another format, an option's value.
 */
#define PML_STATUS_UNSUPPORTED -8

/**
 * The system gives no more memory or threads.
 */
#define PML_STATUS_OUT_OF_MEMORY -9

/**
 * A metadata value of another type than the one asked for.
 */
#define PML_STATUS_WRONG_TYPE -10

/**
 * An index past the end.
 */
#define PML_STATUS_OUT_OF_RANGE -11

/**
 * The layer is acquired, so it cannot be unloaded.
 */
#define PML_STATUS_BUSY -12

/**
 * The loader was freed.
 */
#define PML_STATUS_CLOSED -13

/**
 * A defect of the library, caught at its boundary; the call had no other effect that is known.
 */
#define PML_STATUS_PANIC -14

/**
 * The caller asked for the work to end.
 */
#define PML_STATUS_CANCELLED -15

/**
 * A limit of memory leaves no room for the layer; the message has the arithmetic.
 */
#define PML_STATUS_BUDGET -16

/**
 * A tensor was left out because it could not be read (PML_RECOVERY_SKIP).
 */
#define PML_STATUS_INCOMPLETE -17

/**
 * A call that can wait, made inside a callback.
 */
#define PML_STATUS_WOULD_DEADLOCK -18

/**
 * The time given for a wait is over.
 */
#define PML_STATUS_TIMED_OUT -19

/**
 * A device's driver answered with an error; pml_last_error has the driver's own words.
 */
#define PML_STATUS_DEVICE -20

/**
 * A call that a stream does not bear while its work is being captured.
 */
#define PML_STATUS_STREAM_CAPTURING -21

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* ---- Versions, statuses, the last error, names of types ---- */

/**
 * The library's version, as "0.1.0". Never NULL; lives as long as the library.
 */
PML_API const char *pml_version_string(void);

/**
 * The library's version as one number, to compare with PML_VERSION_NUMBER: major << 16 | minor << 8 | patch.
 */
PML_API
uint32_t pml_version_number(void);

/**
 * A status' name, as "PML_STATUS_OK"; "PML_STATUS_UNKNOWN" for a number that is none. Never NULL; lives as long as the
 * library.
 */
PML_API
const char *pml_status_name(pml_status_t status);

/**
 * What went wrong in this thread's last call that failed: one line that names file, tensor, found and expected, as far
 * as each is known. Empty where no call has failed; never NULL. Valid until this thread's next call that fails. Calls
 * that succeed leave it as it is.
 */
PML_API
const char *pml_last_error(void);

/**
 * Whether the same call may succeed later although the caller changes nothing: after PML_STATUS_IO,
 * PML_STATUS_OUT_OF_MEMORY, PML_STATUS_BUSY, PML_STATUS_BUDGET and PML_STATUS_TIMED_OUT.
 */
PML_API bool pml_status_is_retryable(pml_status_t status);

/**
 * An element type's name, as "Q4_K"; "unknown" for a number that is none. Never NULL; lives as long as the library.
 */
PML_API
const char *pml_dtype_name(uint32_t dtype);

/* ---- Devices ---- */

/**
 * Writes the initial values, as PML_DEVICE_INFO_INIT has them. Does nothing where `info` is NULL.
 */
PML_API void pml_device_info_init(struct pml_device_info_t *info, size_t struct_size);

/**
 * How many devices there are, the host among them. Wakes none.
 */
PML_API size_t pml_device_count(void);

/**
 * Describes the device at `index`; the host has index 0. Wakes none.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API pml_status_t pml_device_info(size_t index, struct pml_device_info_t *out);

/* ---- Events: what a callback is told ---- */

/**
 * Writes the initial values, as PML_EVENT_INIT has them. Does nothing where `event` is NULL.
 */
PML_API void pml_event_init(struct pml_event_t *event, size_t struct_size);

/* ---- Rules: choices by tensor name ---- */

/**
 * Makes an empty set of rules, to be freed with pml_rules_free.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT.
 */
PML_API pml_status_t pml_rules_new(struct pml_rules_t **out);

/**
 * Frees rules. Loaders that were opened with them keep their copy. NULL is fine.
 */
PML_API void pml_rules_free(struct pml_rules_t *rules);

/**
 * Tensors whose names match `pattern` belong to the layer `layer_name`, whatever their names say.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT for an empty text or one that is not UTF-8.
 */
PML_API
pml_status_t pml_rules_layer(struct pml_rules_t *rules,
                             const char *pattern,
                             const char *layer_name);

/**
 * Tensors whose names match `pattern` are left out, as if the file had not got them: they have no index, take no
 * memory, and pml_loader_tensor answers PML_STATUS_NOT_FOUND with the rule.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT for an empty text or one that is not UTF-8.
 */
PML_API
pml_status_t pml_rules_skip(struct pml_rules_t *rules,
                            const char *pattern);

/**
 * Tensors whose names match `pattern` are delivered as `dtype`: PML_DTYPE_KEEP, PML_DTYPE_AUTO, PML_DTYPE_F64, PML_DTYPE_F32,
 * PML_DTYPE_F16, PML_DTYPE_BF16, PML_DTYPE_F8_E4M3, PML_DTYPE_F8_E5M2, PML_DTYPE_Q8_0, PML_DTYPE_Q4_0, PML_DTYPE_Q4_1,
 * PML_DTYPE_Q5_0, PML_DTYPE_Q5_1, PML_DTYPE_INT8, PML_DTYPE_INT8_32 or PML_DTYPE_NF4 (whose scales are a tensor
 * "name.scales": F32, one for each 64 elements). Opening a model in which one cannot be is answered with
 * PML_STATUS_UNSUPPORTED, naming the tensor.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT for an empty text, one that is not UTF-8, and any other type.
 */
PML_API
pml_status_t pml_rules_dtype(struct pml_rules_t *rules,
                             const char *pattern,
                             uint32_t dtype);

/* ---- Limits of memory that loaders share ---- */

/**
 * A limit of `bytes` bytes, at least one, for any number of loaders: give it to them with `pml_options_t.budget`. Free it
 * with pml_budget_free. On failure `*out` is NULL.
 *
 * What counts is every layer in memory, on its way, or being given back, in bytes of the space that it takes; the ends of
 * the first and last page of a layer are beyond. On a GPU it is the blocks that the driver gave, whatever lies in them.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_budget_new(uint64_t bytes,
                            struct pml_budget_t **out);

/**
 * Frees a budget's handle. Loaders that were opened with it keep to it; they may be freed before or after. NULL is fine.
 */
PML_API
void pml_budget_free(struct pml_budget_t *budget);

/* ---- Memory of the caller's own ---- */

/**
 * Writes the initial values, as PML_ALLOCATOR_INIT has them. Does nothing where `allocator` is NULL.
 */
PML_API
void pml_allocator_init(struct pml_allocator_t *allocator,
                        size_t struct_size);

/* ---- Options for opening a model ---- */

/**
 * Writes the initial values, as PML_OPTIONS_INIT has them: as many as `struct_size` bytes hold. Does nothing where
 * `options` is NULL.
 */
PML_API
void pml_options_init(struct pml_options_t *options,
                      size_t struct_size);

/* ---- Options that suit a model and a device's memory ---- */

/**
 * Looks for the options that suit a model and so many bytes of memory for its layers on a device; reads headers only. Start
 * `out` from PML_OPTIONS_INIT: its device, strategy, unload, memory_budget, prefetch_count and dtype are chosen, all else gets
 * its initial values. What is chosen opens, and every layer of it fits.
 *
 * `device` is as in pml_options_t; the device that is chosen for "auto" or NULL is told in `out->device`, a string that lives as
 * long as the library. `available_bytes` 0 stands for what is free on the device now, for which a GPU is woken. A part of the
 * memory stays free: 5 % of the total, and where the weights are transformed on the host what that takes. What an engine needs
 * beside the weights is not counted, its KV cache least of all: take it off first.
 *
 * The first of these that fits is chosen. As the model is stored (on a device that lacks BF16, with F16 in its place): all
 * layers in memory, PML_STRATEGY_PARALLEL, no budget; or layers read ahead of use and evicted behind it, with
 * PML_STRATEGY_PREFETCH, PML_UNLOAD_LRU and a budget of what may be used. The same in the widest type in which the model is
 * smaller by a sixteenth or more: PML_DTYPE_F16, PML_DTYPE_Q8_0, PML_DTYPE_Q5_0, PML_DTYPE_Q4_0. Last, with PML_STRATEGY_ON_DEMAND, one layer at a time.
 *
 * Errors: PML_STATUS_BUDGET where not even that fits, with the arithmetic in pml_last_error; those of pml_loader_open;
 * PML_STATUS_DEVICE where a GPU does not tell what is free; PML_STATUS_UNSUPPORTED where `out` is a struct of an older version that
 * lacks a field that was chosen.
 */
PML_API
pml_status_t pml_options_recommend(const char *path,
                                   const char *device,
                                   uint64_t available_bytes,
                                   struct pml_options_t *out);

/* ---- Loaders: opening, freeing, stats, verification, and the way to tensors ---- */

/**
 * Writes the initial values, as PML_STATS_INIT has them. Does nothing where `stats` is NULL.
 */
PML_API void pml_stats_init(struct pml_stats_t *stats, size_t struct_size);

/**
 * Opens the model file at `path`: of a model in several files, any of them. Reads headers only, and brings no tensor.
 * Free the loader with pml_loader_free.
 *
 * `options` may be NULL for the initial values. On failure `*out` is NULL.
 *
 * Errors: PML_STATUS_NOT_FOUND; PML_STATUS_ACCESS_DENIED; PML_STATUS_IO; PML_STATUS_TRUNCATED; PML_STATUS_MALFORMED;
 * PML_STATUS_UNSUPPORTED for a file of another format (the message says which, and what to do) and for options;
 * PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_open(const char *path,
                             const struct pml_options_t *options,
                             struct pml_loader_t **out);

/**
 * Opens a model that is in memory: `size` bytes at `data`, which stay readable and unchanged until `destroy` is called.
 * Tensors are viewed in place.
 *
 * `destroy` (may be NULL) is called once with `user_data`, on any thread, after the loader and its last tensor are
 * freed, maybe a moment after that call returned; when opening fails, before this returns. `options` may be NULL. On
 * failure `*out` is NULL.
 *
 * Errors: as pml_loader_open.
 */
PML_API
pml_status_t pml_loader_open_memory(const void *data,
                                    size_t size,
                                    void (*destroy)(void*),
                                    void *user_data,
                                    const struct pml_options_t *options,
                                    struct pml_loader_t **out);

/**
 * Frees a loader: ends what is under way and releases the layers acquired through it. Tensors that were acquired stay
 * valid until they are released; other acquires then give PML_STATUS_CLOSED. Waits for no callback, and may be called
 * inside one; where all of a model was converted for the cache, it waits until that is on the disk. NULL is fine.
 */
PML_API
void pml_loader_free(struct pml_loader_t *loader);

/**
 * Tells what happened so far.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT.
 */
PML_API pml_status_t pml_loader_stats(const struct pml_loader_t *loader, struct pml_stats_t *out);

/**
 * Reads the model through, and tells of blocks that the metadata promises and that are missing, and of each tensor with
 * a NaN or an infinity among its elements or scales. `flags` is a sum of PML_VERIFY_ values, 0 for all. Uses a few MiB
 * of memory and brings no tensor.
 *
 * `on_event` (may be NULL) is called on this thread for each finding, with an event of kind PML_EVENT_ERROR in stage
 * PML_STAGE_VALIDATING; non-zero ends the work.
 *
 * Errors: PML_STATUS_MALFORMED where anything was found; PML_STATUS_CANCELLED where `on_event` ended the work;
 * PML_STATUS_IO; PML_STATUS_TRUNCATED; PML_STATUS_INVALID_ARGUMENT for an unknown flag; PML_STATUS_WOULD_DEADLOCK inside a
 * callback of a loader's.
 */
PML_API
pml_status_t pml_loader_verify(struct pml_loader_t *loader,
                               uint64_t flags,
                               pml_event_callback_t on_event,
                               void *user_data);

/**
 * How many tensors the model has; 0 where `loader` is NULL.
 */
PML_API size_t pml_loader_tensor_count(const struct pml_loader_t *loader);

/**
 * A handle for the tensor of this name; loads nothing. Free it with pml_tensor_free, before or after the loader. On
 * failure `*out` is NULL.
 *
 * Errors: PML_STATUS_NOT_FOUND; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_tensor(struct pml_loader_t *loader,
                               const char *name,
                               struct pml_tensor_t **out);

/**
 * A handle for the tensor at `index`; loads nothing. Free it with pml_tensor_free, before or after the loader. On
 * failure `*out` is NULL.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_tensor_at(struct pml_loader_t *loader,
                                  size_t index,
                                  struct pml_tensor_t **out);

/* ---- Layers of an opened model ---- */

/**
 * Writes the initial values, as PML_LAYER_INFO_INIT has them. Does nothing where `info` is NULL.
 */
PML_API void pml_layer_info_init(struct pml_layer_info_t *info, size_t struct_size);

/**
 * How many layers the model has; 0 where `loader` is NULL.
 */
PML_API size_t pml_loader_layer_count(const struct pml_loader_t *loader);

/**
 * Describes the layer at index `layer`. Indices never change; `position` is its place in the order of use.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_layer_info(const struct pml_loader_t *loader,
                                   size_t layer,
                                   struct pml_layer_info_t *out);

/**
 * The index of a layer's `i`-th tensor, as they lie in the file.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_layer_tensor(const struct pml_loader_t *loader,
                                     size_t layer,
                                     size_t i,
                                     size_t *tensor_index);

/**
 * The index of the layer of this name.
 *
 * Errors: PML_STATUS_NOT_FOUND; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_find_layer(const struct pml_loader_t *loader,
                                   const char *name,
                                   size_t *layer);

/**
 * Puts `n` layers first in the order of use, in this order; the others follow in the order they had. Strategies follow it
 * from now on.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT for a layer given twice. The order is then as before.
 */
PML_API
pml_status_t pml_loader_set_layer_order(struct pml_loader_t *loader,
                                        const size_t *layers,
                                        size_t n);

/**
 * Queues `n` layers to be brought into memory, in this order, and waits for nothing. At most `max_concurrent_loads` of
 * them are under way at once, and they take space when their turn comes: of layers that nobody holds, under
 * PML_STRATEGY_PREFETCH, only those go for them that are needed later still, else only those used since they were loaded.
 * What comes to an error is told to those who wait for it by then, and to `on_error`; a later acquire tries again. May be
 * called inside a callback.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE and, for a layer that no limit of the loader would ever let in, PML_STATUS_BUDGET, before
 * any is queued; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_prefetch(struct pml_loader_t *loader,
                                 const size_t *layers,
                                 size_t n);

/**
 * Queues the layer of this name to be brought into memory, as pml_loader_prefetch.
 *
 * Errors: PML_STATUS_NOT_FOUND; PML_STATUS_BUDGET; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API pml_status_t pml_loader_prefetch_layer(struct pml_loader_t *loader, const char *name);

/**
 * Queues the layers of these `n` names to be brought into memory, as pml_loader_prefetch.
 *
 * Errors: PML_STATUS_NOT_FOUND and PML_STATUS_BUDGET, before any is queued; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_prefetch_layers(struct pml_loader_t *loader,
                                        const char *const *names,
                                        size_t n);

/**
 * Brings a layer into memory, all tensors of it, and holds it there until pml_loader_release_layer is called as often.
 *
 * `stream`: with PML_STREAM_HOST the bytes are there on return. On a GPU it may be a stream of the device's primary context
 * (CUstream, hipStream_t, PML_STREAM_LEGACY, PML_STREAM_PER_THREAD): this returns when every byte is read and its copy
 * queued, and the stream waits for the copy. NULL is PML_STREAM_HOST on the host, and refused on a GPU. Acquire and release
 * once for each stream that uses the layer.
 *
 * Where a limit of memory leaves no room, layers that nobody
 * holds go first (PML_UNLOAD_LRU); then this waits for what the library will finish by itself as long as it takes, and
 * for others' releases at most `timeout_ms` milliseconds (-1: for ever, 0: not at all; the time in the queue counts). A
 * read takes as long as it takes. Of a layer that is in memory this takes no lock.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_BUDGET when there is no room within the time, or none is to be had;
 * what befell the read (PML_STATUS_IO, PML_STATUS_TRUNCATED, PML_STATUS_OUT_OF_MEMORY), after which a later acquire tries
 * again; PML_STATUS_INCOMPLETE when a tensor of it was left out; PML_STATUS_CANCELLED; PML_STATUS_WOULD_DEADLOCK inside a
 * callback; PML_STATUS_INVALID_ARGUMENT for another stream or time-out; PML_STATUS_INVALID_STATE when 2^29 acquires are
 * open; PML_STATUS_DEVICE; PML_STATUS_STREAM_CAPTURING while a copy is under way, on a stream whose work is being captured.
 */
PML_API
pml_status_t pml_loader_acquire_layer(struct pml_loader_t *loader,
                                      size_t layer,
                                      void *stream,
                                      int64_t timeout_ms);

/**
 * Releases a layer that pml_loader_acquire_layer acquired, once. With PML_STREAM_HOST nothing uses its memory any more; with
 * a stream, what that was given so far may, and the memory is used for nothing else before. The stream may be destroyed
 * after the call.
 *
 * Errors: PML_STATUS_INVALID_STATE without an acquire; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT for another
 * stream; PML_STATUS_DEVICE and PML_STATUS_STREAM_CAPTURING, the latter on a stream whose work is being captured, after which it is acquired as before.
 */
PML_API
pml_status_t pml_loader_release_layer(struct pml_loader_t *loader,
                                      size_t layer,
                                      void *stream);

/**
 * Gives a layer's memory back to the system; on a GPU to other layers, when what streams still do with it has passed, and
 * until then an acquire finds it again. Of a layer that is under way it waits for the reads; of one that is not in
 * memory it does nothing but forget which tensors were left out, so that the next acquire tries them again.
 *
 * Errors: PML_STATUS_BUSY while the layer or one of its tensors is acquired; PML_STATUS_OUT_OF_RANGE;
 * PML_STATUS_WOULD_DEADLOCK inside a callback.
 */
PML_API
pml_status_t pml_loader_unload_layer(struct pml_loader_t *loader,
                                     size_t layer);

/* ---- Tensors ---- */

/**
 * Writes the initial values, as PML_TENSOR_INFO_INIT has them. Does nothing where `info` is NULL.
 */
PML_API void pml_tensor_info_init(struct pml_tensor_info_t *info, size_t struct_size);

/**
 * Writes the initial values, as PML_VIEW_INIT has them. Does nothing where `view` is NULL.
 */
PML_API void pml_view_init(struct pml_view_t *view, size_t struct_size);

/**
 * Frees a tensor's handle and releases what was acquired through it; on a GPU the memory is used for nothing else before the
 * device has done what it was given so far. The loader may be freed before or after. NULL is
 * fine.
 */
PML_API
void pml_tensor_free(struct pml_tensor_t *tensor);

/**
 * Describes a tensor. Loads nothing.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_tensor_get_info(const struct pml_tensor_t *tensor,
                                 struct pml_tensor_info_t *out);

/**
 * Whether the tensor's bytes are in memory now. Without an acquire that may change at once. False where `tensor` is
 * NULL.
 */
PML_API
bool pml_tensor_is_loaded(const struct pml_tensor_t *tensor);

/**
 * Queues a tensor to be brought into memory, as pml_loader_prefetch does layers. Space is taken for its whole layer.
 *
 * Errors: PML_STATUS_CLOSED; PML_STATUS_BUDGET; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_tensor_prefetch(struct pml_tensor_t *tensor);

/**
 * Brings a tensor into memory and holds it there, with its layer, until the same handle releases it as often.
 *
 * `stream` as at pml_loader_acquire_layer. Space is reserved for its layer, as by
 * pml_loader_acquire_layer, which also tells what `timeout_ms` limits. `out` may be NULL.
 *
 * Errors: those of pml_loader_acquire_layer; PML_STATUS_CLOSED after the loader was freed.
 */
PML_API
pml_status_t pml_tensor_acquire(struct pml_tensor_t *tensor,
                                void *stream,
                                int64_t timeout_ms,
                                struct pml_view_t *out);

/**
 * Releases what the same handle acquired, once. Its view is not valid any more, unless something else holds the layer.
 *
 * Errors: PML_STATUS_INVALID_STATE without an acquire; PML_STATUS_INVALID_ARGUMENT for another stream; PML_STATUS_DEVICE and
 * PML_STATUS_STREAM_CAPTURING, as from pml_loader_release_layer.
 */
PML_API
pml_status_t pml_tensor_release(struct pml_tensor_t *tensor,
                                void *stream);

/**
 * Where an acquired tensor's bytes are: of one acquired through this handle, or whose layer its loader has acquired.
 * Takes no lock and does not wait.
 *
 * Errors: PML_STATUS_INVALID_STATE where neither is acquired.
 */
PML_API
pml_status_t pml_tensor_view(const struct pml_tensor_t *tensor,
                             struct pml_view_t *out);

/**
 * Copies `size` bytes of a tensor, from its byte `offset` on, into the caller's memory. Keeps nothing in memory.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT for bytes past the tensor's end; PML_STATUS_IO and PML_STATUS_TRUNCATED, after
 * which some bytes may have been written; PML_STATUS_WOULD_DEADLOCK inside a callback.
 */
PML_API
pml_status_t pml_tensor_read(struct pml_tensor_t *tensor,
                             uint64_t offset,
                             void *dst,
                             size_t size);

/* ---- DLPack: tensors for whoever takes arrays of others ---- */

/**
 * Brings a tensor into memory and hands it out as a DLPack tensor (`dlpack.h` of version 1.1 and later), for whoever takes
 * arrays of others, as NumPy does: without a copy, read-only, row-major without gaps.
 *
 * It is a lease of its own, beside those of the handle: the tensor stays in memory until the consumer calls the DLPack
 * tensor's deleter, on any thread, at any time, also after the tensor's and the loader's handles were freed. The deleter
 * waits for nothing and may be called inside a callback; on a GPU the memory is used for nothing else before the device
 * has done what it was given until then, on whichever streams. Where nobody takes it, call the deleter yourself.
 *
 * `stream` as at pml_loader_acquire_layer; the consumer's own, where it told one. Of Python's `__dlpack__`: None, and 0 on
 * ROCm, are PML_STREAM_LEGACY; -1 is PML_STREAM_HOST, which waits though it need not; others pass as they are.
 *
 * The call waits for reads, but for others' releases not at all, as pml_tensor_acquire does with a time-out of 0: arrays
 * end when they are collected, which may be up to the thread that would wait. Acquire the tensor first where waiting is
 * wanted, and release it after this.
 *
 * `data` is the tensor's address, `byte_offset` 0 and `strides` never NULL but at rank 0; of a tensor without elements `data`
 * is NULL. DLPack asks for addresses that are multiples of 256, and advises not to rely on it: they are multiples of the
 * element's size, and of more where the file or the option `alignment` says so.
 *
 * Errors: those of pml_tensor_acquire; PML_STATUS_UNSUPPORTED, before anything is brought, for types that DLPack cannot say:
 * blocks, PML_DTYPE_NF4, and PML_DTYPE_F4 and PML_DTYPE_F6_E2M3 and _E3M2, whose order inside a byte files do not tell. On
 * failure `*out` is NULL.
 */
PML_API
pml_status_t pml_tensor_to_dlpack(struct pml_tensor_t *tensor,
                                  void *stream,
                                  struct DLManagedTensorVersioned **out);

/* ---- Loading a whole model: in the background, with events, or into the caller's own memory ---- */

/**
 * Starts loading every layer in order, and waits for nothing: one layer after another, or with PML_STRATEGY_PARALLEL up to
 * `max_concurrent_loads` at once. What is acquired meanwhile goes first. Nothing is unloaded for it: when no more fits, it
 * pauses until something is unloaded. While it goes on a further call changes nothing; after it has ended, failed or was
 * cancelled it begins again with what is not in memory, and tries again what was left out. May be called inside a callback.
 *
 * Errors: PML_STATUS_CLOSED; where layers go to a GPU that cannot be woken, PML_STATUS_DEVICE, PML_STATUS_UNSUPPORTED and
 * PML_STATUS_OUT_OF_MEMORY, as from every call that first wants a layer; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_start(struct pml_loader_t *loader);

/**
 * Waits until every tensor was delivered at least once, at most `timeout_ms` milliseconds (-1: for ever).
 *
 * Errors: PML_STATUS_INVALID_STATE unless pml_loader_start was called; what befell a tensor; PML_STATUS_INCOMPLETE where
 * one was left out; PML_STATUS_BUDGET when no more fits; PML_STATUS_CANCELLED; PML_STATUS_TIMED_OUT;
 * PML_STATUS_WOULD_DEADLOCK inside a callback; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_wait(struct pml_loader_t *loader,
                             int64_t timeout_ms);

/**
 * Ends all loading of this loader, and waits for nothing: whoever waits gets PML_STATUS_CANCELLED, and reads that have
 * begun come to their end. What is in memory stays, and later calls work as before. May be called inside a callback.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_cancel(struct pml_loader_t *loader);

/**
 * The part of all bytes that was delivered at least once, from 0 to 1; what was left out because it could not be read does
 * not count. Never falls. 1 for a model of no bytes, 0 where `loader` is NULL.
 */
PML_API
double pml_loader_progress(const struct pml_loader_t *loader);

/**
 * Whether every layer is in memory now. False where `loader` is NULL.
 */
PML_API bool pml_loader_is_fully_loaded(const struct pml_loader_t *loader);

/**
 * Where the loader is: a PML_STAGE_ value; never PML_STAGE_VALIDATING, which only pml_loader_verify's events have, nor in
 * this version PML_STAGE_TRANSFORMING. PML_STAGE_OPENING where `loader` is NULL.
 */
PML_API
uint32_t pml_loader_stage(const struct pml_loader_t *loader);

/**
 * Takes the next event, for an engine that wants no callback; waits for one at most `timeout_ms` milliseconds (-1: for
 * ever, 0: not at all). The events are those that callbacks would be told. Errors are decided as the options say.
 *
 * The message lives until the next call or the loader's end. Call it from one thread at a time.
 *
 * Errors: PML_STATUS_TIMED_OUT; PML_STATUS_INVALID_STATE where the options have a callback for events;
 * PML_STATUS_WOULD_DEADLOCK inside a callback; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_next_event(struct pml_loader_t *loader,
                                   int64_t timeout_ms,
                                   struct pml_event_t *out);

/**
 * Copies `n` whole tensors into memory of the caller's own, `dst[i]` with `dst_size[i]` bytes, which are at least the
 * tensor's: in the files' order, small neighbours with one read, several reads at once. Brings nothing into the library's
 * memory, and counts against no limit. The memory is of the device that the layers are on. With PML_STREAM_HOST, or on the
 * host NULL, the data is there on return; with a stream of the device the copies are under way, and the stream waits for
 * them. They wait for nothing that any stream was given before: none of it may still use the memory.
 *
 * Errors: what befell a read, after PML_RECOVERY_RETRY and PML_RECOVERY_FALLBACK have done what they can (some bytes may
 * have been written by then; nothing is skipped, and `on_error` is not asked); PML_STATUS_CANCELLED;
 * PML_STATUS_WOULD_DEADLOCK inside a callback; PML_STATUS_DEVICE; PML_STATUS_STREAM_CAPTURING on a stream whose work is
 * being captured; PML_STATUS_INVALID_ARGUMENT for another stream, NULL, too small a size, or a tensor of another loader.
 */
PML_API
pml_status_t pml_loader_load_into(struct pml_loader_t *loader,
                                  struct pml_tensor_t *const *tensors,
                                  void *const *dst,
                                  const size_t *dst_size,
                                  size_t n,
                                  void *stream);

/**
 * Gives memory back that is kept for the next load: page-locked memory that copies to GPUs pass through, and blocks of
 * their memory in which no layer lies. What is not used for two seconds goes by itself, but for blocks of an open loader.
 */
PML_API
void pml_trim(void);

/* ---- Metadata: keys and values of a model ---- */

/**
 * Writes the initial values, as PML_METADATA_INFO_INIT has them. Does nothing where `info` is NULL.
 */
PML_API void pml_metadata_info_init(struct pml_metadata_info_t *info, size_t struct_size);

/**
 * How many keys the model has; 0 where `loader` is NULL. Of a model in several files, those of the first.
 */
PML_API
size_t pml_loader_metadata_count(const struct pml_loader_t *loader);

/**
 * Describes the value at `index`.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_at(const struct pml_loader_t *loader,
                                    size_t index,
                                    struct pml_metadata_info_t *out);

/**
 * Finds a key and describes its value.
 *
 * Errors: PML_STATUS_NOT_FOUND; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_find(const struct pml_loader_t *loader,
                                      const char *key,
                                      struct pml_metadata_info_t *out);

/**
 * The value at `index`, an integer of any width that is not negative.
 *
 * Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_u64(const struct pml_loader_t *loader,
                                     size_t index,
                                     uint64_t *out);

/**
 * The value at `index`, an integer of any width below 2^63.
 *
 * Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_i64(const struct pml_loader_t *loader,
                                     size_t index,
                                     int64_t *out);

/**
 * The value at `index`, a floating-point number of either width.
 *
 * Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_f64(const struct pml_loader_t *loader,
                                     size_t index,
                                     double *out);

/**
 * The value at `index`, a boolean.
 *
 * Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_bool(const struct pml_loader_t *loader,
                                      size_t index,
                                      bool *out);

/**
 * The value at `index`, a string: `length` bytes at `*out`, without a NUL. They point into the file and live as long as
 * the loader's handle; where the file is mapped and somebody cuts it, using them may fault.
 *
 * Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_TRUNCATED; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_string(const struct pml_loader_t *loader,
                                        size_t index,
                                        const char **out,
                                        size_t *length);

/**
 * Element `element` of the array at `index`, an integer of any width that is not negative. The first call for an array
 * walks over it, every further one takes constant time.
 *
 * Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_TRUNCATED; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_element_u64(const struct pml_loader_t *loader,
                                             size_t index,
                                             uint64_t element,
                                             uint64_t *out);

/**
 * Element `element` of the array at `index`, an integer of any width below 2^63. Otherwise as
 * pml_loader_metadata_element_u64.
 */
PML_API
pml_status_t pml_loader_metadata_element_i64(const struct pml_loader_t *loader,
                                             size_t index,
                                             uint64_t element,
                                             int64_t *out);

/**
 * Element `element` of the array at `index`, a floating-point number of either width. Otherwise as
 * pml_loader_metadata_element_u64.
 */
PML_API
pml_status_t pml_loader_metadata_element_f64(const struct pml_loader_t *loader,
                                             size_t index,
                                             uint64_t element,
                                             double *out);

/**
 * Element `element` of the array at `index`, a boolean. Otherwise as pml_loader_metadata_element_u64.
 */
PML_API
pml_status_t pml_loader_metadata_element_bool(const struct pml_loader_t *loader,
                                              size_t index,
                                              uint64_t element,
                                              bool *out);

/**
 * Element `element` of the array at `index`, a string as pml_loader_metadata_string gives it. Otherwise as
 * pml_loader_metadata_element_u64.
 */
PML_API
pml_status_t pml_loader_metadata_element_string(const struct pml_loader_t *loader,
                                                size_t index,
                                                uint64_t element,
                                                const char **out,
                                                size_t *length);

/**
 * Describes element `element` of an array of arrays at `index`: its own `index` serves every function here.
 *
 * Errors: PML_STATUS_WRONG_TYPE where the elements are not arrays; PML_STATUS_OUT_OF_RANGE; PML_STATUS_TRUNCATED;
 * PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_loader_metadata_element_array(const struct pml_loader_t *loader,
                                               size_t index,
                                               uint64_t element,
                                               struct pml_metadata_info_t *out);

/**
 * Copies `count` elements of the array at `index`, from element `first` on, into `dst`, which has `dst_size` bytes.
 * `element_type` is the PML_VALUE_ type that the caller expects: of numbers or booleans, which are one byte each.
 *
 * Errors: PML_STATUS_WRONG_TYPE where it is another; PML_STATUS_OUT_OF_RANGE; PML_STATUS_TRUNCATED;
 * PML_STATUS_INVALID_ARGUMENT where `dst_size` is too small.
 */
PML_API
pml_status_t pml_loader_metadata_array_copy(const struct pml_loader_t *loader,
                                            size_t index,
                                            uint64_t first,
                                            uint64_t count,
                                            uint32_t element_type,
                                            void *dst,
                                            size_t dst_size);

/**
 * Writes where `count` strings of the array at `index` are, from element `first` on, and how long, into `strings` and
 * `lengths`, which have room for as many. The strings are as pml_loader_metadata_string gives them.
 *
 * Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT; PML_STATUS_TRUNCATED and
 * PML_STATUS_MALFORMED where the file was changed, after which some results may have been written.
 */
PML_API
pml_status_t pml_loader_metadata_array_strings(const struct pml_loader_t *loader,
                                               size_t index,
                                               uint64_t first,
                                               uint64_t count,
                                               const char **strings,
                                               size_t *lengths);

/* ---- A model that was found by its name, or is at a path ---- */

/**
 * Writes the initial values, as PML_MODEL_INFO_INIT has them. Does nothing where `info` is NULL.
 */
PML_API void pml_model_info_init(struct pml_model_info_t *info, size_t struct_size);

/**
 * Writes the initial values, as PML_MODEL_FILE_INIT has them. Does nothing where `file` is NULL.
 */
PML_API void pml_model_file_init(struct pml_model_file_t *file, size_t struct_size);

/**
 * The model in a file or a folder, without any store: as pml_loader_open takes paths. Reads headers. Free it with pml_model_free.
 * On failure `*out` is NULL.
 *
 * Errors: those of pml_loader_open.
 */
PML_API
pml_status_t pml_model_open_path(const char *path,
                                 struct pml_model_t **out);

/**
 * Frees a model. Loaders that were opened from it stay. NULL is fine.
 */
PML_API void pml_model_free(struct pml_model_t *model);

/**
 * Tells all that is known of a model. What stands in its headers is read the first time.
 *
 * Errors: those of pml_loader_open_model.
 */
PML_API pml_status_t pml_model_info(const struct pml_model_t *model, struct pml_model_info_t *out);

/**
 * Tells what is known of a model without looking into its files: for lists. What only headers say has its initial value.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_model_summary(const struct pml_model_t *model,
                               struct pml_model_info_t *out);

/**
 * Tells of the file at `index`, below file_count of pml_model_summary. Reads nothing.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_model_file(const struct pml_model_t *model,
                            size_t index,
                            struct pml_model_file_t *out);

/**
 * Opens a model, as pml_loader_open does a path. What a store has must still be whole, and lead nowhere out of it: that is looked
 * at before anything is opened. The model's handle may be freed after the call. Free the loader with pml_loader_free. On failure
 * `*out` is NULL.
 *
 * Errors: those of pml_loader_open; PML_STATUS_NOT_FOUND and PML_STATUS_TRUNCATED where files are missing or were cut since the
 * model was found; PML_STATUS_MALFORMED where a link leads out of its store.
 */
PML_API
pml_status_t pml_loader_open_model(const struct pml_model_t *model,
                                   const struct pml_options_t *options,
                                   struct pml_loader_t **out);

/* ---- The stores of models that people have: listing, finding, and the keeping of our own ---- */

/**
 * Writes the initial values, as PML_ZOO_OPTIONS_INIT has them. Does nothing where `options` is NULL.
 */
PML_API
void pml_zoo_options_init(struct pml_zoo_options_t *options,
                          size_t struct_size);

/**
 * Opens the stores. Looks at nothing yet; places that are not there hold nothing. `options` may be NULL for the initial values.
 * Free it with pml_zoo_free. On failure `*out` is NULL.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT; PML_STATUS_UNSUPPORTED for options of a later version.
 */
PML_API
pml_status_t pml_zoo_open(const struct pml_zoo_options_t *options,
                          struct pml_zoo_t **out);

/**
 * Frees it. Lists and models that came from it stay. NULL is fine.
 */
PML_API void pml_zoo_free(struct pml_zoo_t *zoo);

/**
 * Lists every model that the stores have, by folders and manifests alone: no header is read. What is not whole is left out, with
 * a remark. Free the list with pml_models_free. On failure `*out` is NULL.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_zoo_list(const struct pml_zoo_t *zoo,
                          struct pml_models_t **out);

/**
 * How many models a list has; 0 where `models` is NULL.
 */
PML_API size_t pml_models_count(const struct pml_models_t *models);

/**
 * A handle for the model at `index`, which stays when the list is freed. Free it with pml_model_free. On failure `*out` is NULL.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_models_at(const struct pml_models_t *models,
                           size_t index,
                           struct pml_model_t **out);

/**
 * How many remarks a list has, of what is not whole and of what could not be looked at; 0 where `models` is NULL.
 */
PML_API
size_t pml_models_remark_count(const struct pml_models_t *models);

/**
 * The remark at `index`: one line of `*length` bytes in UTF-8, which does not end in NUL and lives as long as the list. On failure
 * `*text` is NULL and `*length` 0.
 *
 * Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
 */
PML_API
pml_status_t pml_models_remark(const struct pml_models_t *models,
                               size_t index,
                               const char **text,
                               size_t *length);

/**
 * Frees a list. Models that came from it stay. NULL is fine.
 */
PML_API void pml_models_free(struct pml_models_t *models);

/**
 * Finds a model by its name, as "llama3:8b", "org/name", "org/name@revision:Q4_K_M" or "ollama://llama3:8b". `version` (may be NULL)
 * is a tag, a revision or a quantisation, or a revision and a quantisation with ':' between them; beside what can only be a path it
 * is PML_STATUS_INVALID_ARGUMENT. What exists as a path is a path
 * first, unless a version is given; what begins with "/", "./", "../" or "~/" is nothing else. Reads no header, except of a path.
 * Free the model with pml_model_free. On failure `*out` is NULL.
 *
 * Errors: PML_STATUS_NOT_FOUND, whose message says where was looked and what is near; PML_STATUS_INVALID_ARGUMENT for a name that
 * several models have, whose message names them with their sizes, and for what is no name; where the model is not whole what is
 * wrong with it: PML_STATUS_NOT_FOUND, PML_STATUS_TRUNCATED, PML_STATUS_MALFORMED, PML_STATUS_UNSUPPORTED, PML_STATUS_ACCESS_DENIED,
 * PML_STATUS_IO; of a path those of pml_loader_open.
 */
PML_API
pml_status_t pml_zoo_find(const struct pml_zoo_t *zoo,
                          const char *name,
                          const char *version,
                          struct pml_model_t **out);

/**
 * Adds the model at `path`, as pml_loader_open takes it, to our own store, in the place of one of the same name and version. `name`
 * may be NULL for that of the file without its ending, or of the folder; `version` for "latest". `flags` is a sum of PML_ZOO_ values.
 * All bytes of the model are read, for their digests. `out` may be NULL; else free the model with pml_model_free. On failure `*out`
 * is NULL.
 *
 * Errors: PML_STATUS_INVALID_ARGUMENT for an unknown flag, and for a name or version that has other than letters, digits, '.', '_',
 * '-', '+' and of a name '/', or too many; PML_STATUS_UNSUPPORTED where it has more bytes than the limit leaves beside what is pinned;
 * PML_STATUS_MALFORMED for a manifest that cannot be read, where it is for its sake that nothing can make way;
 * PML_STATUS_TIMED_OUT where another process has the store locked for half a minute; those of pml_loader_open; PML_STATUS_IO and
 * PML_STATUS_ACCESS_DENIED for what befell the writing.
 */
PML_API
pml_status_t pml_zoo_add(struct pml_zoo_t *zoo,
                         const char *path,
                         const char *name,
                         const char *version,
                         uint32_t flags,
                         struct pml_model_t **out);

/**
 * Removes a model from our own store: its manifest, and what was copied in where no other model has it. Files that were added where
 * they are stay, and what a loader reads stays until it is freed. `version` may be NULL, as in pml_zoo_find.
 *
 * Errors: PML_STATUS_NOT_FOUND; PML_STATUS_UNSUPPORTED for another program's model, which is never changed; PML_STATUS_MALFORMED where
 * another model's manifest cannot be read, and so nobody knows whether it names the same copied files;
 * PML_STATUS_INVALID_ARGUMENT; PML_STATUS_TIMED_OUT, PML_STATUS_IO and PML_STATUS_ACCESS_DENIED as pml_zoo_add.
 */
PML_API
pml_status_t pml_zoo_remove(struct pml_zoo_t *zoo,
                            const char *name,
                            const char *version);

/**
 * Has our own store keep a model whatever its limit (`is_pinned` 1), or lets it go again (0). `version` may be NULL, as in
 * pml_zoo_find.
 *
 * Errors: as pml_zoo_remove.
 */
PML_API
pml_status_t pml_zoo_pin(struct pml_zoo_t *zoo,
                         const char *name,
                         const char *version,
                         uint32_t is_pinned);

/**
 * Reads every file of a model whose digest its store knows, and compares: of our own store, of the Hub's cache where files are
 * large, of Ollama. Writes nothing. `version` may be NULL, as in pml_zoo_find.
 *
 * Errors: PML_STATUS_MALFORMED for other bytes than those that the digest stands for; PML_STATUS_UNSUPPORTED where the store knows no
 * digest; those of pml_zoo_find and of reading.
 */
PML_API
pml_status_t pml_zoo_verify(const struct pml_zoo_t *zoo,
                            const char *name,
                            const char *version);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PML_H */
