/*
 * libpml for C++17 and later: pml.h with handles that free themselves.
 *
 * Errors. What can fail returns a pml::result<T>: a value, or a pml::error with the status and one line about it.
 * `.value()` gives the value or throws a pml::exception; its classes say what a caller may do about it. Where exceptions
 * are off (-fno-exceptions, or PML_NO_EXCEPTIONS defined) `.value()` prints the line and aborts, so test the result
 * first. There the types are others, in an inline namespace of their own: a program may have translation units of both
 * kinds, but none hands these types to one of the other kind.
 *
 * Handles. Loaders, tensors, budgets and rules are move-only and freed at their end, in any order. `raw()` is the C handle,
 * for what this header lacks; a moved-from object has none, and may only be assigned to or destroyed.
 *
 * Leases. A lease holds what it was acquired for in memory and releases it at its end. It keeps the handle that it was acquired
 * from, so that it may outlive the object: a tensor's lease the tensor and the loader, a layer's lease the loader, which stays
 * open until then.
 *
 * Callbacks are kept until the loader and its last tensor are gone. An exception that leaves one never reaches the library: it
 * ends the loading, as loader::cancel does, before anybody is told of it, and the loader's or a tensor's next wait, acquire, read
 * or load_into has it, once, as the `cause` of an error with status cancelled; `.value()` throws that very exception, as
 * std::future does.
 *
 * What callbacks, an allocator or the owner of a model in memory own is destroyed on any thread, maybe the library's, where the
 * library must not be called. They may refer to loaders, tensors, leases and layers, but must not own any, nor what frees a handle
 * of pml.h: one of their own loader would keep itself alive for ever.
 *
 * Threads. Member functions may be called from any threads at once, but those of one lease, and whatever moves, assigns or
 * ends an object, which must be the only call with it. Options, rules in the making and results belong to one thread at a
 * time.
 *
 * Text. std::string_view that goes in is copied and must hold no NUL; what comes out lives as long as its place says.
 * Sizes are bytes, indices and shapes are those of pml.h, which says more about each call.
 */
#ifndef PML_HPP
#define PML_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "pml.h"

#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 201703L
#error "pml.hpp needs C++17"
#endif
#if __cplusplus >= 202002L
#include <span>
#endif
#if !defined(PML_NO_EXCEPTIONS) && !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#define PML_NO_EXCEPTIONS 1
#endif

namespace pml {
// Translation units with and without exceptions would else define the same functions differently.
#ifdef PML_NO_EXCEPTIONS
inline namespace aborting {
#else
inline namespace throwing {
#endif

// ---- Enumerations. Their numbers are those of pml.h; a newer library may give others.

/// The outcome of a call.
enum class status : std::int32_t {
    ok = PML_STATUS_OK,
    invalid_argument = PML_STATUS_INVALID_ARGUMENT,
    invalid_state = PML_STATUS_INVALID_STATE,
    not_found = PML_STATUS_NOT_FOUND,
    access_denied = PML_STATUS_ACCESS_DENIED,
    io = PML_STATUS_IO,
    truncated = PML_STATUS_TRUNCATED,
    malformed = PML_STATUS_MALFORMED,
    unsupported = PML_STATUS_UNSUPPORTED,
    out_of_memory = PML_STATUS_OUT_OF_MEMORY,
    wrong_type = PML_STATUS_WRONG_TYPE,
    out_of_range = PML_STATUS_OUT_OF_RANGE,
    busy = PML_STATUS_BUSY,
    closed = PML_STATUS_CLOSED,
    panic = PML_STATUS_PANIC,
    cancelled = PML_STATUS_CANCELLED,
    budget = PML_STATUS_BUDGET,
    incomplete = PML_STATUS_INCOMPLETE,
    would_deadlock = PML_STATUS_WOULD_DEADLOCK,
    timed_out = PML_STATUS_TIMED_OUT,
    device = PML_STATUS_DEVICE,
    stream_capturing = PML_STATUS_STREAM_CAPTURING,
};

/// A status' name, as "PML_STATUS_OK"; lives as long as the library.
inline std::string_view status_name(status of) noexcept { return pml_status_name(static_cast<pml_status_t>(of)); }

/// Whether the same call may succeed later although the caller changes nothing.
inline bool is_retryable(status of) noexcept { return pml_status_is_retryable(static_cast<pml_status_t>(of)); }

/// The type of a tensor's elements, with ggml's numbers and further ones.
enum class dtype : std::uint32_t {
    f32 = PML_DTYPE_F32,
    f16 = PML_DTYPE_F16,
    q4_0 = PML_DTYPE_Q4_0,
    q4_1 = PML_DTYPE_Q4_1,
    q5_0 = PML_DTYPE_Q5_0,
    q5_1 = PML_DTYPE_Q5_1,
    q8_0 = PML_DTYPE_Q8_0,
    q8_1 = PML_DTYPE_Q8_1,
    q2_k = PML_DTYPE_Q2_K,
    q3_k = PML_DTYPE_Q3_K,
    q4_k = PML_DTYPE_Q4_K,
    q5_k = PML_DTYPE_Q5_K,
    q6_k = PML_DTYPE_Q6_K,
    q8_k = PML_DTYPE_Q8_K,
    iq2_xxs = PML_DTYPE_IQ2_XXS,
    iq2_xs = PML_DTYPE_IQ2_XS,
    iq3_xxs = PML_DTYPE_IQ3_XXS,
    iq1_s = PML_DTYPE_IQ1_S,
    iq4_nl = PML_DTYPE_IQ4_NL,
    iq3_s = PML_DTYPE_IQ3_S,
    iq2_s = PML_DTYPE_IQ2_S,
    iq4_xs = PML_DTYPE_IQ4_XS,
    i8 = PML_DTYPE_I8,
    i16 = PML_DTYPE_I16,
    i32 = PML_DTYPE_I32,
    i64 = PML_DTYPE_I64,
    f64 = PML_DTYPE_F64,
    iq1_m = PML_DTYPE_IQ1_M,
    bf16 = PML_DTYPE_BF16,
    tq1_0 = PML_DTYPE_TQ1_0,
    tq2_0 = PML_DTYPE_TQ2_0,
    mxfp4 = PML_DTYPE_MXFP4,
    nvfp4 = PML_DTYPE_NVFP4,
    q1_0 = PML_DTYPE_Q1_0,
    q2_0 = PML_DTYPE_Q2_0,
    boolean = PML_DTYPE_BOOL,
    u8 = PML_DTYPE_U8,
    u16 = PML_DTYPE_U16,
    u32 = PML_DTYPE_U32,
    u64 = PML_DTYPE_U64,
    f8_e4m3 = PML_DTYPE_F8_E4M3,
    f8_e5m2 = PML_DTYPE_F8_E5M2,
    f8_e8m0 = PML_DTYPE_F8_E8M0,
    c64 = PML_DTYPE_C64,
    f4 = PML_DTYPE_F4,
    f6_e2m3 = PML_DTYPE_F6_E2M3,
    f6_e3m2 = PML_DTYPE_F6_E3M2,
    nf4 = PML_DTYPE_NF4,
    f8_e4m3fnuz = PML_DTYPE_F8_E4M3FNUZ,
    f8_e5m2fnuz = PML_DTYPE_F8_E5M2FNUZ,
    /// As it is stored: these four say what to deliver, and no tensor has them.
    keep = PML_DTYPE_KEEP,
    automatic = PML_DTYPE_AUTO,
    int8 = PML_DTYPE_INT8,
    int8_32 = PML_DTYPE_INT8_32,
};

/// An element type's name, as "Q4_K"; lives as long as the library.
inline std::string_view dtype_name(dtype of) noexcept { return pml_dtype_name(static_cast<std::uint32_t>(of)); }

/// Whose memory it is.
enum class device_kind : std::uint32_t {
    host = PML_DEVICE_HOST,
    cuda = PML_DEVICE_CUDA,
    hip = PML_DEVICE_HIP,
};

/// What an event tells.
enum class event_kind : std::uint32_t {
    error = PML_EVENT_ERROR,
    layer_loaded = PML_EVENT_LAYER_LOADED,
    progress = PML_EVENT_PROGRESS,
    fully_loaded = PML_EVENT_FULLY_LOADED,
};

/// What the callback on_error answers.
enum class error_answer : std::int32_t {
    by_default = PML_ON_ERROR_DEFAULT,
    retry = PML_ON_ERROR_RETRY,
    fallback = PML_ON_ERROR_FALLBACK,
    skip = PML_ON_ERROR_SKIP,
    fail = PML_ON_ERROR_FAIL,
};

/// What the callback on_progress, and that of verify, answer.
enum class verdict : std::int32_t {
    go_on = 0,
    cancel = 1,
};

/// Where a loader is.
enum class stage : std::uint32_t {
    opening = PML_STAGE_OPENING,
    validating = PML_STAGE_VALIDATING,
    loading = PML_STAGE_LOADING,
    transforming = PML_STAGE_TRANSFORMING,
    done = PML_STAGE_DONE,
    cancelled = PML_STAGE_CANCELLED,
    failed = PML_STAGE_FAILED,
};

/// What is brought into memory, and when.
enum class strategy : std::uint32_t {
    on_demand = PML_STRATEGY_ON_DEMAND,
    sequential = PML_STRATEGY_SEQUENTIAL,
    parallel = PML_STRATEGY_PARALLEL,
    prefetch = PML_STRATEGY_PREFETCH,
};

/// When the library takes memory back of layers that nobody holds.
enum class unload : std::uint32_t {
    never = PML_UNLOAD_NEVER,
    memory_pressure = PML_UNLOAD_MEMORY_PRESSURE,
    lru = PML_UNLOAD_LRU,
};

/// How bytes are read.
enum class io : std::uint32_t {
    automatic = PML_IO_AUTO,
    mmap = PML_IO_MMAP,
    read = PML_IO_READ,
    direct = PML_IO_DIRECT,
};

/// The format of a model.
enum class format : std::uint32_t {
    automatic = PML_FORMAT_AUTO,
    gguf = PML_FORMAT_GGUF,
    safetensors = PML_FORMAT_SAFETENSORS,
};

/// The order in which layers are used.
enum class layer_order : std::uint32_t {
    automatic = PML_LAYER_ORDER_AUTO,
    transformer = PML_LAYER_ORDER_TRANSFORMER,
    encoder_decoder = PML_LAYER_ORDER_ENCODER_DECODER,
    rnn = PML_LAYER_ORDER_RNN,
    cnn = PML_LAYER_ORDER_CNN,
    file = PML_LAYER_ORDER_FILE,
};

/// What happens after a read that failed.
enum class recovery : std::uint32_t {
    fail = PML_RECOVERY_FAIL,
    retry = PML_RECOVERY_RETRY,
    fallback = PML_RECOVERY_FALLBACK,
    skip = PML_RECOVERY_SKIP,
};

/// How much the log callback is told.
enum class log_level : std::uint32_t {
    error = PML_LOG_ERROR,
    warning = PML_LOG_WARNING,
    info = PML_LOG_INFO,
    debug = PML_LOG_DEBUG,
};

/// What loader::verify looks for; `|` joins them.
enum class verify_for : std::uint64_t {
    all = 0,
    structure = PML_VERIFY_STRUCTURE,
    values = PML_VERIFY_VALUES,
};

/// Both.
constexpr verify_for operator|(verify_for left, verify_for right) noexcept
{
    return static_cast<verify_for>(static_cast<std::uint64_t>(left) | static_cast<std::uint64_t>(right));
}

/// What the cache of converted models does.
enum class cache_state : std::uint32_t {
    none = PML_CACHE_NONE,
    read = PML_CACHE_READ,
    writing = PML_CACHE_WRITING,
    written = PML_CACHE_WRITTEN,
    failed = PML_CACHE_FAILED,
};

/// A layer's state.
enum class layer_state : std::uint32_t {
    absent = PML_LAYER_ABSENT,
    loading = PML_LAYER_LOADING,
    partial = PML_LAYER_PARTIAL,
    resident = PML_LAYER_RESIDENT,
    draining = PML_LAYER_DRAINING,
};

/// The type of a metadata value.
enum class value_type : std::uint32_t {
    u8 = PML_VALUE_U8,
    i8 = PML_VALUE_I8,
    u16 = PML_VALUE_U16,
    i16 = PML_VALUE_I16,
    u32 = PML_VALUE_U32,
    i32 = PML_VALUE_I32,
    f32 = PML_VALUE_F32,
    boolean = PML_VALUE_BOOL,
    string = PML_VALUE_STRING,
    array = PML_VALUE_ARRAY,
    u64 = PML_VALUE_U64,
    i64 = PML_VALUE_I64,
    f64 = PML_VALUE_F64,
};

// ---- Values and errors.

template <class T>
class span;

namespace detail {

/// Whether a temporary of this type only refers to its elements.
template <class T>
inline constexpr bool is_span = false;
template <class T>
inline constexpr bool is_span<span<T>> = true;
#if __cplusplus >= 202002L
template <class T, std::size_t N>
inline constexpr bool is_span<std::span<T, N>> = true;
#endif

} // namespace detail

/// `size()` elements at `data()`, which belong to somebody else. Converts from containers and, in C++20, to and from std::span.
template <class T>
class span {
public:
    /// The element type, const where the elements must not be written.
    using element_type = T;
    /// The element type without const.
    using value_type = std::remove_cv_t<T>;

    /// No elements.
    constexpr span() noexcept = default;
    /// `size` elements at `data`.
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /// The elements of a C array.
    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : data_(array), size_(N)
    {
    }
    /// The elements of anything that has them in one piece: std::vector, std::array, std::span, std::string, another span. Of a
    /// temporary that owns them only where they are const, as for an argument of a call.
    template <class Container,
              class = std::enable_if_t<std::is_convertible_v<
                  std::remove_pointer_t<decltype(std::data(std::declval<Container &>()))> (*)[], T (*)[]>>,
              class = decltype(std::size(std::declval<Container &>())),
              class = std::enable_if_t<std::is_lvalue_reference_v<Container> || std::is_const_v<T> ||
                                       detail::is_span<std::remove_cv_t<Container>>>>
    constexpr span(Container &&from) noexcept : data_(std::data(from)), size_(std::size(from))
    {
    }
#if __cplusplus >= 202002L
    /// The same elements.
    constexpr operator std::span<T>() const noexcept { return {data_, size_}; }
#endif

    /// The first element's address.
    constexpr T *data() const noexcept { return data_; }
    /// How many elements.
    constexpr std::size_t size() const noexcept { return size_; }
    /// Whether there are none.
    constexpr bool empty() const noexcept { return size_ == 0; }
    /// The element at `index`, which is below `size()`.
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }
    /// The first element.
    constexpr T *begin() const noexcept { return data_; }
    /// Behind the last element.
    constexpr T *end() const noexcept { return data_ + size_; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// What went wrong.
struct error {
    /// Its kind; never ok.
    pml::status status = pml::status::ok;
    /// One line that names file, tensor, found and expected, as far as each is known.
    std::string message;
    /// The exception that a callback threw, or none.
    std::exception_ptr cause = nullptr;
};

/// What `result::value` throws, or one of its classes below.
class exception : public std::runtime_error {
public:
    /// Of an error.
    explicit exception(const error &from) : std::runtime_error(from.message), status_(from.status) {}
    /// The error's kind.
    pml::status status() const noexcept { return status_; }

private:
    pml::status status_;
};

/// A call that its argument, the handle's state, the moment or the thread does not allow.
class usage_error : public exception {
public:
    using exception::exception;
};
/// Something that is not there, cannot be read, breaks its format's rules, or is not served.
class model_error : public exception {
public:
    using exception::exception;
};
/// No room: the budget, or the system's memory.
class memory_error : public exception {
public:
    using exception::exception;
};
/// A device's driver answered with an error.
class device_error : public exception {
public:
    using exception::exception;
};
/// The work was ended by its caller.
class cancelled : public exception {
public:
    using exception::exception;
};
/// The time given for a wait is over.
class timed_out : public exception {
public:
    using exception::exception;
};

namespace detail {

/// Throws what belongs to an error, or aborts where exceptions are off.
[[noreturn]] inline void raise(const error &what)
{
#ifdef PML_NO_EXCEPTIONS
    std::fprintf(stderr, "%s: %s\n", pml_status_name(static_cast<pml_status_t>(what.status)), what.message.c_str());
    std::abort();
#else
    if (what.cause) std::rethrow_exception(what.cause);
    switch (what.status) {
    case status::invalid_argument:
    case status::invalid_state:
    case status::wrong_type:
    case status::out_of_range:
    case status::busy:
    case status::closed:
    case status::would_deadlock:
    case status::stream_capturing: throw usage_error(what);
    case status::not_found:
    case status::access_denied:
    case status::io:
    case status::truncated:
    case status::malformed:
    case status::unsupported:
    case status::incomplete: throw model_error(what);
    case status::out_of_memory:
    case status::budget: throw memory_error(what);
    case status::device: throw device_error(what);
    case status::cancelled: throw cancelled(what);
    case status::timed_out: throw timed_out(what);
    case status::ok:
    case status::panic: break;
    }
    throw exception(what);
#endif
}

} // namespace detail

/// A value, or what went wrong.
template <class T>
class [[nodiscard]] result {
public:
    /// A value.
    result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    /// An error.
    result(pml::error what) : state_(std::in_place_index<1>, std::move(what)) {}

    /// Whether there is a value.
    bool has_value() const noexcept { return state_.index() == 0; }
    /// Whether there is a value.
    explicit operator bool() const noexcept { return has_value(); }

    /// The value; throws where there is none, or aborts where exceptions are off.
    T &value() &
    {
        check();
        return **this;
    }
    /// The value; throws where there is none, or aborts where exceptions are off.
    const T &value() const &
    {
        check();
        return **this;
    }
    /// The value, moved out, so that it may be gone over in a range-for; throws where there is none, or aborts where exceptions are off.
    T value() &&
    {
        check();
        return std::move(*std::get_if<0>(&state_));
    }
    /// The value, or this in its place.
    template <class U>
    T value_or(U &&other) const &
    {
        return has_value() ? **this : static_cast<T>(std::forward<U>(other));
    }
    /// The value, or this in its place.
    template <class U>
    T value_or(U &&other) &&
    {
        return has_value() ? *std::move(*this) : static_cast<T>(std::forward<U>(other));
    }

    /// The value, where there is one.
    T &operator*() & noexcept { return *std::get_if<0>(&state_); }
    /// The value, where there is one.
    const T &operator*() const & noexcept { return *std::get_if<0>(&state_); }
    /// The value, where there is one.
    T operator*() && noexcept { return std::move(*std::get_if<0>(&state_)); }
    /// The value, where there is one.
    T *operator->() & noexcept { return std::get_if<0>(&state_); }
    /// The value, where there is one.
    const T *operator->() const & noexcept { return std::get_if<0>(&state_); }
    /// What is reached through it would end with the temporary; `(*result)` of one is the value itself.
    T *operator->() && = delete;

    /// The error, where there is no value.
    const pml::error &error() const noexcept { return *std::get_if<1>(&state_); }

private:
    void check() const
    {
        if (!has_value()) detail::raise(error());
    }

    std::variant<T, pml::error> state_;
};

/// Success, or what went wrong.
template <>
class [[nodiscard]] result<void> {
public:
    /// Success.
    result() noexcept = default;
    /// An error.
    result(pml::error what) : error_(std::move(what)) {}

    /// Whether it succeeded.
    bool has_value() const noexcept { return !error_; }
    /// Whether it succeeded.
    explicit operator bool() const noexcept { return has_value(); }
    /// Throws where it did not succeed, or aborts where exceptions are off.
    void value() const
    {
        if (error_) detail::raise(*error_);
    }
    /// The error, where it did not succeed.
    const pml::error &error() const noexcept { return *error_; }

private:
    std::optional<pml::error> error_;
};

namespace detail {

/// Frees a C handle at its end.
template <class T, void (*Free)(T *)>
struct freer {
    void operator()(T *handle) const noexcept { Free(handle); }
};
template <class T, void (*Free)(T *)>
using handle = std::unique_ptr<T, freer<T, Free>>;

/// Handles that leases keep too: freed after the last of them.
inline std::shared_ptr<pml_tensor_t> shared(pml_tensor_t *tensor) { return {tensor, pml_tensor_free}; }
inline std::shared_ptr<pml_loader_t> shared(pml_loader_t *loader) { return {loader, pml_loader_free}; }

/// This thread's last error.
inline error last_error(pml_status_t of) { return {static_cast<status>(of), pml_last_error()}; }

inline result<void> outcome(pml_status_t of)
{
    if (of != PML_STATUS_OK) return last_error(of);
    return {};
}

/// Text that ends in NUL, for C. What holds one inside would be another text there.
inline result<std::string> c_text(std::string_view text)
{
    if (text.find('\0') != std::string_view::npos)
        return error{status::invalid_argument, "text '" + std::string(text.data()) + "...' holds a NUL"};
    return std::string(text);
}

template <class Call>
result<void> with_text(std::string_view text, Call call)
{
    const result<std::string> copy = c_text(text);
    if (!copy) return copy.error();
    return outcome(call(copy->c_str()));
}

inline std::string_view text(const char *data, std::size_t size) noexcept
{
    return data == nullptr ? std::string_view() : std::string_view(data, size);
}

inline std::optional<std::size_t> index(std::size_t raw) noexcept
{
    if (raw == SIZE_MAX) return std::nullopt;
    return raw;
}

/// What a loader's callbacks threw: the first exception that no call has told yet.
class faults {
public:
    /// Whose loading an exception ends.
    void watch(const std::shared_ptr<pml_loader_t> &loader)
    {
        const std::lock_guard<std::mutex> guard(lock_);
        loader_ = loader;
    }

    /// Keeps the exception and ends the loading, both before `take` gives it.
    void keep(std::exception_ptr thrown, const char *callback) noexcept
    {
        // Where this is its last owner, the loader is freed after the lock.
        std::shared_ptr<pml_loader_t> loading;
        const std::lock_guard<std::mutex> guard(lock_);
        // An end is a line of the log itself: one that throws at each line would end for ever.
        const bool ends = !first_ || std::string_view(callback) != "log";
        if (!first_) {
            first_ = std::move(thrown);
            callback_ = callback;
        }
        any_.store(true, std::memory_order_release);
        if (ends) loading = loader_.lock();
        if (loading) pml_loader_cancel(loading.get());
    }

    /// The exception as an error, which is told by that.
    std::optional<error> take()
    {
        if (!any_.load(std::memory_order_acquire)) return std::nullopt;
        const std::lock_guard<std::mutex> guard(lock_);
        if (!first_) return std::nullopt;
        any_.store(false, std::memory_order_release);
        std::exception_ptr thrown = std::exchange(first_, nullptr);
        std::string message = std::string(callback_) + " threw" + said(thrown);
        return error{status::cancelled, std::move(message), std::move(thrown)};
    }

private:
    static std::string said(const std::exception_ptr &thrown)
    {
#ifndef PML_NO_EXCEPTIONS
        try {
            std::rethrow_exception(thrown);
        } catch (const std::exception &known) {
            return std::string(": ") + known.what();
        } catch (...) {
        }
#else
        static_cast<void>(thrown);
#endif
        return {};
    }

    std::mutex lock_;
    std::weak_ptr<pml_loader_t> loader_;
    std::exception_ptr first_;
    const char *callback_ = "";
    std::atomic<bool> any_{false};
};

/// Calls what may throw; then the exception is kept and the answer is `otherwise`.
template <class Answer, class Call>
Answer guarded([[maybe_unused]] faults &thrown, [[maybe_unused]] const char *callback, [[maybe_unused]] Answer otherwise,
               Call call) noexcept
{
#ifdef PML_NO_EXCEPTIONS
    return call();
#else
    try {
        return call();
    } catch (...) {
        thrown.keep(std::current_exception(), callback);
        return otherwise;
    }
#endif
}

/// A call that can wait: what a callback threw before or meanwhile comes in its place.
template <class Call>
result<void> unless_thrown(const std::shared_ptr<faults> &thrown, Call call)
{
    if (thrown) {
        if (std::optional<error> before = thrown->take()) return *std::move(before);
    }
    const pml_status_t status = call();
    if (status == PML_STATUS_OK) return {};
    error own = last_error(status);
    if (thrown) {
        if (std::optional<error> meanwhile = thrown->take()) return *std::move(meanwhile);
    }
    return own;
}

} // namespace detail

/// How long a call may wait, in whole milliseconds, rounded up; made from any duration. A negative one is none at all.
class timeout {
public:
    /// As long as a duration.
    template <class Number, class Period>
    constexpr timeout(std::chrono::duration<Number, Period> duration) noexcept : ms_(whole(duration))
    {
    }
    /// As long as it takes.
    static constexpr timeout never() noexcept { return timeout(for_ever); }
    /// Milliseconds, or -1.
    constexpr std::int64_t raw() const noexcept { return ms_; }

private:
    constexpr explicit timeout(std::int64_t ms) noexcept : ms_(ms) {}

    template <class Number, class Period>
    static constexpr std::int64_t whole(std::chrono::duration<Number, Period> duration) noexcept
    {
        // A hundred years and not-a-number are for ever.
        const double seconds = std::chrono::duration<double>(duration).count();
        if (!(seconds < 3.2e9)) return for_ever;
        if (seconds <= 0) return 0;
        return std::chrono::ceil<std::chrono::duration<std::int64_t, std::milli>>(duration).count();
    }

    static constexpr std::int64_t for_ever = -1;

    std::int64_t ms_;
};

/// Where the work that uses a tensor is queued: a CUstream, cudaStream_t or hipStream_t of the device's primary context, or
/// one of those named here.
class stream {
public:
    /// A stream of the caller's own. Null stands for the host, on host loaders only.
    constexpr stream(void *handle) noexcept : handle_(handle) {}
    /// The calling thread itself: the data is there when an acquire returns, and it has finished when it releases.
    static stream host() noexcept { return numbered(-1); }
    /// The GPU's stream that waits for all others of its context.
    static stream legacy() noexcept { return numbered(1); }
    /// The GPU's stream of each thread.
    static stream per_thread() noexcept { return numbered(2); }
    /// As pml.h takes it.
    constexpr void *raw() const noexcept { return handle_; }

private:
    static stream numbered(std::intptr_t number) noexcept { return reinterpret_cast<void *>(number); }

    void *handle_;
};

/// A device that holds tensors.
struct device {
    /// Its kind.
    device_kind kind = device_kind::host;
    /// Its number among those of its kind.
    std::uint32_t ordinal = 0;
};

/// Whether it is the same device.
constexpr bool operator==(device left, device right) noexcept
{
    return left.kind == right.kind && left.ordinal == right.ordinal;
}
/// Whether it is another device.
constexpr bool operator!=(device left, device right) noexcept { return !(left == right); }

/// A device of this machine. Texts live as long as the library.
struct device_info {
    /// Which it is.
    pml::device device;
    /// As options::device takes it: "cpu", "cuda:0".
    std::string_view name;
    /// What its maker calls it; empty for the host.
    std::string_view model;
    /// Whether it shares the host's memory.
    bool is_unified = false;
    /// Bytes of memory it has, where that is known.
    std::optional<std::uint64_t> total_bytes;
    /// Bytes of memory it could give now, where that is known without waking it.
    std::optional<std::uint64_t> free_bytes;
};

/// The devices of this machine, the host first. Wakes none.
/// Errors: those of pml_device_info.
inline result<std::vector<device_info>> devices()
{
    const auto known = [](std::uint64_t bytes) -> std::optional<std::uint64_t> {
        if (bytes == UINT64_MAX) return std::nullopt;
        return bytes;
    };
    std::vector<device_info> found;
    for (std::size_t index = 0; index < pml_device_count(); index++) {
        pml_device_info_t raw = PML_DEVICE_INFO_INIT;
        const pml_status_t status = pml_device_info(index, &raw);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        found.push_back({{static_cast<device_kind>(raw.kind), raw.ordinal},
                         detail::text(raw.name, raw.name_length),
                         detail::text(raw.model, raw.model_length),
                         raw.unified != 0,
                         known(raw.total_bytes),
                         known(raw.free_bytes)});
    }
    return found;
}

/// The library's version, as "0.1.0"; lives as long as the library.
inline std::string_view version() noexcept { return pml_version_string(); }

/// This header's version as one number: major << 16 | minor << 8 | patch.
inline constexpr std::uint32_t header_version =
    std::uint32_t{PML_VERSION_MAJOR} << 16 | std::uint32_t{PML_VERSION_MINOR} << 8 | std::uint32_t{PML_VERSION_PATCH};

/// The library's version as one number, to compare with header_version.
inline std::uint32_t version_number() noexcept { return pml_version_number(); }

/// Gives memory back to the system that is kept for the next load.
inline void trim() noexcept { pml_trim(); }

/// The bits of an IEEE 754 number of 16 bits.
struct f16 {
    /// Sign, 5 bits of exponent, 10 of mantissa.
    std::uint16_t bits;
};

/// The bits of the upper half of an F32.
struct bf16 {
    /// Sign, 8 bits of exponent, 7 of mantissa.
    std::uint16_t bits;
};

/// Which dtype a C++ type stands for: specialise it for a type of your own that has one element's size and alignment.
template <class T>
struct element;
template <>
struct element<float> {
    static constexpr dtype type = dtype::f32;
};
template <>
struct element<double> {
    static constexpr dtype type = dtype::f64;
};
template <>
struct element<f16> {
    static constexpr dtype type = dtype::f16;
};
template <>
struct element<bf16> {
    static constexpr dtype type = dtype::bf16;
};
template <>
struct element<std::int8_t> {
    static constexpr dtype type = dtype::i8;
};
template <>
struct element<std::int16_t> {
    static constexpr dtype type = dtype::i16;
};
template <>
struct element<std::int32_t> {
    static constexpr dtype type = dtype::i32;
};
template <>
struct element<std::int64_t> {
    static constexpr dtype type = dtype::i64;
};
template <>
struct element<std::uint8_t> {
    static constexpr dtype type = dtype::u8;
};
template <>
struct element<std::uint16_t> {
    static constexpr dtype type = dtype::u16;
};
template <>
struct element<std::uint32_t> {
    static constexpr dtype type = dtype::u32;
};
template <>
struct element<std::uint64_t> {
    static constexpr dtype type = dtype::u64;
};

// ---- Tensors.

class lease;

/// A tensor in memory, not to be written. Valid while the tensor or its layer is acquired.
class view {
public:
    view(const view &) noexcept = default;
    view &operator=(const view &) noexcept = default;
    view(const lease &&) = delete;
    view &operator=(const lease &&) = delete;

    /// The first byte's address, in the memory of `device()`. Of a tensor without bytes not to be read.
    const void *data() const noexcept { return raw_.data; }
    /// How many bytes.
    std::size_t size() const noexcept { return raw_.size; }
    /// The type of the elements.
    pml::dtype dtype() const noexcept { return static_cast<pml::dtype>(raw_.dtype); }
    /// Lengths in elements, outermost dimension first; they live as long as the tensor's handle.
    span<const std::int64_t> shape() const noexcept { return {raw_.shape, raw_.rank}; }
    /// Whose memory it is.
    pml::device device() const noexcept { return {static_cast<device_kind>(raw_.device_kind), raw_.device_ordinal}; }

    /// The bytes, on the host.
    /// Errors: wrong_type where they are a GPU's.
    result<span<const std::byte>> bytes() const
    {
        if (device().kind != device_kind::host) return not_as("bytes of the host");
        return span<const std::byte>(static_cast<const std::byte *>(raw_.data), raw_.size);
    }

    /// The elements as numbers, on the host: T is one that `pml::element` knows. Nothing is copied.
    /// Errors: wrong_type where the elements have another type, or are a GPU's.
    template <class T>
    result<span<const T>> as() const
    {
        if (device().kind != device_kind::host || dtype() != element<T>::type)
            return not_as(std::string(dtype_name(element<T>::type)) + " of the host");
        // The library has elements lie at multiples of their size.
        return span<const T>(static_cast<const T *>(raw_.data), raw_.size / sizeof(T));
    }

private:
    friend class tensor;
    friend class lease;
    explicit view(const pml_view_t &raw) noexcept : raw_(raw) {}

    error not_as(const std::string &expected) const
    {
        const char *const place = device().kind == device_kind::host ? " of the host" : " of a GPU";
        return {status::wrong_type, "view: found " + std::string(dtype_name(dtype())) + place + ", expected " + expected};
    }

    pml_view_t raw_;
};

/// What the headers say of a tensor. The name and the shape live as long as the tensor's handle.
struct tensor_info {
    /// Its name, in UTF-8.
    std::string_view name;
    /// Lengths in elements, outermost dimension first.
    span<const std::int64_t> shape;
    /// The elements in memory.
    pml::dtype dtype = pml::dtype::f32;
    /// The elements in the file.
    pml::dtype stored_dtype = pml::dtype::f32;
    /// Its index in the loader.
    std::size_t index = 0;
    /// Its layer's index in the loader.
    std::size_t layer = 0;
    /// Bytes in memory.
    std::uint64_t bytes = 0;
    /// Bytes in the file.
    std::uint64_t stored_bytes = 0;
    /// The file that holds it, counted from 0.
    std::uint32_t shard = 0;
    /// Where it starts in its file, in bytes.
    std::uint64_t offset = 0;
};

namespace detail {

/// Releases a tensor on the stream that it was acquired on, and keeps its handle until then.
struct tensor_releaser {
    void *stream = nullptr;
    std::shared_ptr<pml_tensor_t> kept;
    void operator()(pml_tensor_t *tensor) const noexcept { pml_tensor_release(tensor, stream); }
};

/// Releases a layer on the stream that it was acquired on, and keeps its loader's handle until then.
struct layer_releaser {
    std::size_t layer = 0;
    void *stream = nullptr;
    std::shared_ptr<pml_loader_t> kept;
    void operator()(pml_loader_t *loader) const noexcept { pml_loader_release_layer(loader, layer, stream); }
};

} // namespace detail

/// A tensor held in memory, and the view of it. Releases it at its end, on the stream that it was acquired on.
class lease : public view {
public:
    lease(lease &&) noexcept = default;
    /// Releases what was held, and holds what the other held.
    lease &operator=(lease &&) noexcept = default;
    lease(const lease &) = delete;
    lease &operator=(const lease &) = delete;

    // What ends with the lease is not had of a temporary.
    /// As view::data.
    const void *data() const & noexcept { return view::data(); }
    const void *data() const && = delete;
    /// As view::shape.
    span<const std::int64_t> shape() const & noexcept { return view::shape(); }
    span<const std::int64_t> shape() const && = delete;
    /// As view::bytes.
    result<span<const std::byte>> bytes() const & { return view::bytes(); }
    result<span<const std::byte>> bytes() const && = delete;
    /// As view::as.
    template <class T>
    result<span<const T>> as() const &
    {
        return view::as<T>();
    }
    template <class T>
    result<span<const T>> as() const && = delete;

    /// The stream that it was acquired on.
    pml::stream stream() const noexcept { return held_.get_deleter().stream; }
    /// Whether it holds the tensor still.
    bool is_held() const noexcept { return held_ != nullptr; }

    /// Releases the tensor now, and says what the end of the lease could not. The view is not valid any more.
    /// Errors: those of pml_tensor_release, after which it is held as before; invalid_state where it is not.
    result<void> release()
    {
        if (!held_) return error{status::invalid_state, "lease: released before"};
        result<void> done = detail::outcome(pml_tensor_release(held_.get(), held_.get_deleter().stream));
        if (done) static_cast<void>(held_.release());
        return done;
    }

private:
    friend class tensor;
    lease(const view &seen, const std::shared_ptr<pml_tensor_t> &held, pml::stream on) noexcept
        : view(seen), held_(held.get(), {on.raw(), held})
    {
    }

    std::unique_ptr<pml_tensor_t, detail::tensor_releaser> held_;
};

/// A tensor of an opened model: lazy, and independent of the loader's handle.
class tensor {
public:
    /// Takes over a handle of pml.h's.
    explicit tensor(pml_tensor_t *handle) : handle_(detail::shared(handle)) {}
    tensor(tensor &&) noexcept = default;
    tensor &operator=(tensor &&) noexcept = default;
    tensor(const tensor &) = delete;
    tensor &operator=(const tensor &) = delete;

    /// What the headers say of it; loads nothing.
    tensor_info info() const & noexcept
    {
        pml_tensor_info_t raw = PML_TENSOR_INFO_INIT;
        pml_tensor_get_info(handle_.get(), &raw);
        tensor_info info;
        info.name = detail::text(raw.name, raw.name_length);
        info.shape = {raw.shape, raw.rank};
        info.dtype = static_cast<dtype>(raw.delivered_dtype);
        info.stored_dtype = static_cast<dtype>(raw.stored_dtype);
        info.index = raw.index;
        info.layer = raw.layer;
        info.bytes = raw.bytes;
        info.stored_bytes = raw.stored_bytes;
        info.shard = raw.shard;
        info.offset = raw.offset;
        return info;
    }
    tensor_info info() const && = delete;
    /// Its name; lives as long as the handle.
    std::string_view name() const & noexcept { return info().name; }
    std::string_view name() const && = delete;
    /// Whether its bytes are in memory now. Without an acquire that may change at once.
    bool is_loaded() const noexcept { return pml_tensor_is_loaded(handle_.get()); }

    /// Queues it to be brought into memory, and waits for nothing.
    /// Errors: closed; budget where its layer can never fit.
    result<void> prefetch() { return detail::outcome(pml_tensor_prefetch(handle_.get())); }

    /// Brings it into memory and holds it there as long as the lease lives. `wait` limits the wait for room that others hold, a
    /// read takes as long as it takes.
    /// Errors: those of pml_tensor_acquire.
    result<lease> acquire(pml::stream on = pml::stream::host(), timeout wait = timeout::never())
    {
        pml_view_t raw = PML_VIEW_INIT;
        const result<void> acquired = detail::unless_thrown(
            thrown_, [&] { return pml_tensor_acquire(handle_.get(), on.raw(), wait.raw(), &raw); });
        if (!acquired) return acquired.error();
        return lease(pml::view(raw), handle_, on);
    }

    /// Where its bytes are, while it or its layer is acquired. Takes no lock and does not wait.
    /// Errors: invalid_state where neither is acquired.
    result<pml::view> view() const &
    {
        pml_view_t raw = PML_VIEW_INIT;
        const pml_status_t status = pml_tensor_view(handle_.get(), &raw);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return pml::view(raw);
    }
    result<pml::view> view() const && = delete;

    /// Copies `size` bytes, from its byte `offset` on, into the caller's memory on the host. Keeps nothing in memory.
    /// Errors: those of pml_tensor_read.
    result<void> read(std::uint64_t offset, void *to, std::size_t size)
    {
        return detail::unless_thrown(thrown_, [&] { return pml_tensor_read(handle_.get(), offset, to, size); });
    }

    /// Brings it into memory and hands it out as a DLPack tensor: without a copy, read-only, a lease of its own. Nothing here ends
    /// it: whoever gets it calls its deleter, once, on any thread, also after this object and its loader have ended; where it is
    /// handed to a consumer, that does. Include DLPack's own dlpack.h to look into it. Never waits for what others hold.
    /// Errors: those of pml_tensor_to_dlpack, as unsupported for types that DLPack cannot say.
    result<DLManagedTensorVersioned *> to_dlpack(pml::stream on = pml::stream::host())
    {
        DLManagedTensorVersioned *out = nullptr;
        const result<void> handed_out =
            detail::unless_thrown(thrown_, [&] { return pml_tensor_to_dlpack(handle_.get(), on.raw(), &out); });
        if (!handed_out) return handed_out.error();
        return out;
    }

    /// The handle of pml.h's, which stays this object's.
    pml_tensor_t *raw() const noexcept { return handle_.get(); }

private:
    friend class loader;
    friend class destination;
    friend struct tensor_at;
    tensor(pml_tensor_t *handle, std::shared_ptr<detail::faults> thrown)
        : handle_(detail::shared(handle)), thrown_(std::move(thrown))
    {
    }

    std::shared_ptr<pml_tensor_t> handle_;
    std::shared_ptr<detail::faults> thrown_;
};

// ---- How a model is opened.

/// A limit of memory that loaders share: options::budget.
class budget {
public:
    /// Takes over a handle of pml.h's.
    explicit budget(pml_budget_t *handle) noexcept : handle_(handle) {}

    /// A limit of so many bytes, at least one.
    /// Errors: invalid_argument.
    static result<budget> create(std::uint64_t bytes)
    {
        pml_budget_t *handle = nullptr;
        const pml_status_t status = pml_budget_new(bytes, &handle);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return budget(handle);
    }

    /// The handle of pml.h's, which stays this object's.
    pml_budget_t *raw() const noexcept { return handle_.get(); }

private:
    detail::handle<pml_budget_t, pml_budget_free> handle_;
};

/// Choices by tensor name: options::rules. In patterns `*` stands for any characters, dots among them, `?` for one; of the
/// rules of one kind that match a name, the last one wins.
class rules {
public:
    /// Takes over a handle of pml.h's.
    explicit rules(pml_rules_t *handle) noexcept : handle_(handle) {}

    /// None yet.
    /// Errors: those of pml_rules_new.
    static result<rules> create()
    {
        pml_rules_t *handle = nullptr;
        const pml_status_t status = pml_rules_new(&handle);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return rules(handle);
    }

    /// Tensors whose names match belong to the layer of this name.
    /// Errors: invalid_argument for an empty text.
    result<void> layer(std::string_view pattern, std::string_view layer_name)
    {
        const result<std::string> name = detail::c_text(layer_name);
        if (!name) return name.error();
        return detail::with_text(
            pattern, [&](const char *text) { return pml_rules_layer(handle_.get(), text, name->c_str()); });
    }
    /// Tensors whose names match are left out, as if the file had not got them.
    /// Errors: invalid_argument for an empty text.
    result<void> skip(std::string_view pattern)
    {
        return detail::with_text(pattern, [&](const char *text) { return pml_rules_skip(handle_.get(), text); });
    }
    /// Tensors whose names match are delivered as this type: one that pml_rules_dtype takes.
    /// Errors: invalid_argument for an empty text and for another type.
    result<void> dtype(std::string_view pattern, pml::dtype as)
    {
        return detail::with_text(pattern, [&](const char *text) {
            return pml_rules_dtype(handle_.get(), text, static_cast<std::uint32_t>(as));
        });
    }

    /// The handle of pml.h's, which stays this object's.
    pml_rules_t *raw() const noexcept { return handle_.get(); }

private:
    detail::handle<pml_rules_t, pml_rules_free> handle_;
};

/// Memory of the caller's own for layers: options::allocator. Called on any thread, several at once; must not call the library,
/// nor throw, nor own what frees a handle of the library's.
class allocator {
public:
    virtual ~allocator() = default;
    /// `size` bytes, more than none, at a multiple of `alignment`, a power of two, on this device; nullptr where there is no more.
    virtual void *allocate(std::size_t size, std::size_t alignment, device on) noexcept = 0;
    /// Takes back what `allocate` gave for the same numbers, once.
    virtual void deallocate(void *memory, std::size_t size, std::size_t alignment, device on) noexcept = 0;
};

/// What a callback is told, or loader::next_event gives.
struct event {
    /// What it tells.
    event_kind kind = event_kind::error;
    /// Where the loader is.
    pml::stage stage = pml::stage::opening;
    /// The layer concerned, if any.
    std::optional<std::size_t> layer;
    /// The tensor concerned, if any.
    std::optional<std::size_t> tensor;
    /// Distinct bytes delivered so far.
    std::uint64_t bytes_done = 0;
    /// Bytes of all tensors, less those left out because they could not be read.
    std::uint64_t bytes_total = 0;
    /// Layers of which every tensor was delivered so far.
    std::uint64_t layers_done = 0;
    /// Layers of the model.
    std::uint64_t layers_total = 0;
    /// The rate of delivery now, repeated deliveries among it.
    double bytes_per_second = 0;
    /// ok, or the error.
    pml::status status = pml::status::ok;
    /// One line, or nothing. Lives until the callback returns; of next_event until its next call or the loader's end.
    std::string_view message;
};

namespace detail {

inline event event_of(const pml_event_t &raw) noexcept
{
    event told;
    told.kind = static_cast<event_kind>(raw.kind);
    told.stage = static_cast<stage>(raw.stage);
    told.layer = index(raw.layer);
    told.tensor = index(raw.tensor);
    told.bytes_done = raw.bytes_done;
    told.bytes_total = raw.bytes_total;
    told.layers_done = raw.layers_done;
    told.layers_total = raw.layers_total;
    told.bytes_per_second = raw.bytes_per_second;
    told.status = static_cast<status>(raw.status);
    told.message = text(raw.message, raw.message_length);
    return told;
}

/// The caller's functions, copied for each opened model.
struct callbacks {
    std::function<void(const event &)> layer_loaded;
    std::function<verdict(const event &)> progress;
    std::function<void(const event &)> fully_loaded;
    std::function<error_answer(const event &)> error;
    std::function<void(log_level, std::string_view)> log;
    std::shared_ptr<pml::allocator> memory;

    bool any() const noexcept { return layer_loaded || progress || fully_loaded || error || log || memory; }
};

/// What `user_data` points to: lives until `destroy`.
struct hooks {
    pml::detail::callbacks callbacks;
    std::shared_ptr<faults> thrown = std::make_shared<faults>();

    static hooks &of(void *user_data) noexcept { return *static_cast<hooks *>(user_data); }

    static std::int32_t on_layer_loaded(void *user_data, const pml_event_t *raw)
    {
        hooks &self = of(user_data);
        return guarded(*self.thrown, "on_layer_loaded", 0, [&] {
            self.callbacks.layer_loaded(event_of(*raw));
            return 0;
        });
    }
    static std::int32_t on_progress(void *user_data, const pml_event_t *raw)
    {
        hooks &self = of(user_data);
        // An exception has ended the loading by then; a second end could hit what was started since.
        return guarded(*self.thrown, "on_progress", static_cast<std::int32_t>(verdict::go_on),
                       [&] { return static_cast<std::int32_t>(self.callbacks.progress(event_of(*raw))); });
    }
    static std::int32_t on_fully_loaded(void *user_data, const pml_event_t *raw)
    {
        hooks &self = of(user_data);
        return guarded(*self.thrown, "on_fully_loaded", 0, [&] {
            self.callbacks.fully_loaded(event_of(*raw));
            return 0;
        });
    }
    static std::int32_t on_error(void *user_data, const pml_event_t *raw)
    {
        hooks &self = of(user_data);
        return guarded(*self.thrown, "on_error", static_cast<std::int32_t>(error_answer::fail),
                       [&] { return static_cast<std::int32_t>(self.callbacks.error(event_of(*raw))); });
    }
    static void on_log(void *user_data, std::uint32_t level, const char *message, std::size_t length)
    {
        hooks &self = of(user_data);
        guarded(*self.thrown, "log", 0, [&] {
            self.callbacks.log(static_cast<log_level>(level), text(message, length));
            return 0;
        });
    }
    static void *allocate(void *user_data, std::size_t size, std::size_t alignment, std::uint32_t kind, std::uint32_t ordinal)
    {
        return of(user_data).callbacks.memory->allocate(size, alignment, {static_cast<device_kind>(kind), ordinal});
    }
    static void deallocate(void *user_data, void *memory, std::size_t size, std::size_t alignment, std::uint32_t kind,
                           std::uint32_t ordinal)
    {
        of(user_data).callbacks.memory->deallocate(memory, size, alignment, {static_cast<device_kind>(kind), ordinal});
    }
    static void destroy(void *user_data) { delete &of(user_data); }

    /// Has the options call these functions; `memory` lives until the model is opened.
    void into(pml_options_t &raw, pml_allocator_t &memory)
    {
        if (callbacks.layer_loaded) raw.on_layer_loaded = on_layer_loaded;
        if (callbacks.progress) raw.on_progress = on_progress;
        if (callbacks.fully_loaded) raw.on_fully_loaded = on_fully_loaded;
        if (callbacks.error) raw.on_error = on_error;
        if (callbacks.log) raw.log = on_log;
        if (callbacks.memory) {
            memory.allocate = allocate;
            memory.deallocate = deallocate;
            memory.user_data = this;
            raw.allocator = &memory;
        }
        raw.user_data = this;
        raw.destroy = destroy;
    }
};

/// What loader::verify tells, on the calling thread.
struct findings {
    std::function<verdict(const event &)> tell;
    faults thrown;

    static std::int32_t on_event(void *user_data, const pml_event_t *raw)
    {
        findings &self = *static_cast<findings *>(user_data);
        return guarded(self.thrown, "verify", static_cast<std::int32_t>(verdict::cancel),
                       [&] { return static_cast<std::int32_t>(self.tell(event_of(*raw))); });
    }
};

} // namespace detail

/// How a model is opened: `pml::options{}.device("cuda:0").memory_budget(4ull << 30)`. What is not said has pml.h's initial
/// values. Serves any number of models; each copies what it needs, callbacks among it.
///
/// Callbacks of one loader are called one at a time and in order, on a thread of the library's own. Inside, what can wait
/// gives would_deadlock.
class options {
public:
    /// pml_options_recommend: the device, strategy, unloading, budget, prefetch count and dtype that suit a model and so many
    /// bytes of memory; 0 for what is free now.
    /// Errors: those of pml_options_recommend.
    static result<options> recommend(std::string_view path, std::string_view device, std::uint64_t available_bytes)
    {
        const result<std::string> where = detail::c_text(device);
        if (!where) return where.error();
        options suited;
        const result<void> done = detail::with_text(path, [&](const char *text) {
            return pml_options_recommend(text, where->c_str(), available_bytes, &suited.raw_);
        });
        if (!done) return done.error();
        if (suited.raw_.device != nullptr) suited.device_ = suited.raw_.device;
        return suited;
    }

    /// Where tensors end up: "cpu", "cuda:0", "hip:1", or "auto", as where it is not said, for the first GPU that has room.
    options &device(std::string_view name) { return set(device_, std::string(name)); }
    /// What is brought into memory, and when; on_demand.
    options &strategy(pml::strategy which) { return set(raw_.strategy, static_cast<std::uint32_t>(which)); }
    /// At most how many layers are loading at once, those aside that a caller waits for; 3.
    options &max_concurrent_loads(std::uint32_t layers) { return set(raw_.max_concurrent_loads, layers); }
    /// Layers read ahead under strategy::prefetch; 1.
    options &prefetch_count(std::uint32_t layers) { return set(raw_.prefetch_count, layers); }
    /// When memory is taken back; never.
    options &unload(pml::unload when) { return set(raw_.unload, static_cast<std::uint32_t>(when)); }
    /// The most layers in memory at once, at least 1; -1, any number.
    options &max_loaded_layers(std::int64_t layers) { return set(raw_.max_loaded_layers, layers); }
    /// The most bytes of memory for layers; 0, any number.
    options &memory_budget(std::uint64_t bytes) { return set(raw_.memory_budget, bytes); }
    /// A limit shared with other loaders, besides. It has to live until the model is opened.
    options &budget(const pml::budget &shared) { return set(raw_.budget, shared.raw()); }
    options &budget(pml::budget &&) = delete;
    /// How bytes are read; automatic.
    options &io(pml::io how) { return set(raw_.io, static_cast<std::uint32_t>(how)); }
    /// At most how many reads are under way at once, up to 64; 0, as many as suit the machine.
    options &workers(std::uint32_t reads) { return set(raw_.workers, reads); }
    /// What each tensor's address must be a multiple of, in bytes: a power of two up to 4096; 0, the file's own.
    options &alignment(std::size_t bytes) { return set(raw_.alignment, bytes); }
    /// Bytes behind each tensor that may be read, and are zero, up to 1 MiB; 0.
    options &tail_padding(std::size_t bytes) { return set(raw_.tail_padding, bytes); }
    /// The order in which layers are used; automatic.
    options &layer_order(pml::layer_order which) { return set(raw_.layer_order, static_cast<std::uint32_t>(which)); }
    /// What happens after a read that failed; fail.
    options &recovery(pml::recovery how) { return set(raw_.recovery, static_cast<std::uint32_t>(how)); }
    /// How often recovery::retry tries again; 3.
    options &retry_count(std::uint32_t times) { return set(raw_.retry_count, times); }
    /// How long it waits before the first time, twice as long before each further one; 100 ms.
    options &retry_backoff(timeout first)
    {
        constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max();
        const bool is_longer = first.raw() < 0 || first.raw() > most;
        raw_.retry_backoff_ms = static_cast<std::uint32_t>(is_longer ? most : first.raw());
        return *this;
    }
    /// Choices by tensor name, copied when the model is opened, until when they have to live.
    options &rules(const pml::rules &choices) { return set(raw_.rules, choices.raw()); }
    options &rules(pml::rules &&) = delete;
    /// Memory of the caller's own for layers; lives until the loader and its last tensor are gone.
    options &allocator(std::shared_ptr<pml::allocator> memory) { return set(callbacks_.memory, std::move(memory)); }
    /// Available bytes of memory below which unload::memory_pressure acts; 0, 5 % of the total.
    options &pressure_threshold(std::uint64_t bytes) { return set(raw_.pressure_threshold, bytes); }
    /// The format that the model must have; automatic.
    options &format(pml::format which) { return set(raw_.format, static_cast<std::uint32_t>(which)); }
    /// What all tensors are delivered as that can be, unless a rule says otherwise; keep.
    options &dtype(pml::dtype as) { return set(raw_.dtype, static_cast<std::uint32_t>(as)); }
    /// Whether the stored bytes of what is delivered as something else come too, as a tensor "name.original"; no.
    options &keep_original(bool keep) { return set(raw_.keep_original, keep ? 1U : 0U); }
    /// The folder where converted models are kept, "" for the user's own; without it none is.
    options &cache_path(std::string_view folder) { return set(cache_path_, std::string(folder)); }
    /// Whether models in the cache are known by all of their bytes; no.
    options &cache_digest(bool all_bytes) { return set(raw_.cache_digest, all_bytes ? 1U : 0U); }
    /// The most bytes that the cache's entries may have; 0, any number.
    options &cache_limit(std::uint64_t bytes) { return set(raw_.cache_limit, bytes); }

    /// Told of each layer that came into memory, each time.
    options &on_layer_loaded(std::function<void(const event &)> call) { return set(callbacks_.layer_loaded, std::move(call)); }
    /// Told of bytes delivered and of another stage; may cancel.
    options &on_progress(std::function<verdict(const event &)> call) { return set(callbacks_.progress, std::move(call)); }
    /// Told once when all is delivered.
    options &on_fully_loaded(std::function<void(const event &)> call) { return set(callbacks_.fully_loaded, std::move(call)); }
    /// Told of a tensor that could not be read, and answers what to do. Where the event has no tensor there is nothing to
    /// decide.
    options &on_error(std::function<error_answer(const event &)> call) { return set(callbacks_.error, std::move(call)); }
    /// Told what happens, in words that live until it returns; warnings and errors unless log_level says otherwise.
    options &log(std::function<void(pml::log_level, std::string_view)> call) { return set(callbacks_.log, std::move(call)); }
    /// How much `log` is told; warning.
    options &log_level(pml::log_level most) { return set(raw_.log_level, static_cast<std::uint32_t>(most)); }

    /// The numbers as pml.h has them; texts and callbacks are put in when a model is opened.
    const pml_options_t &raw() const noexcept { return raw_; }

private:
    friend class loader;

    template <class Field, class Value>
    options &set(Field &field, Value &&value)
    {
        field = std::forward<Value>(value);
        return *this;
    }

    pml_options_t raw_ = PML_OPTIONS_INIT;
    std::optional<std::string> device_;
    std::optional<std::string> cache_path_;
    detail::callbacks callbacks_;
};

// ---- Models by name.

/// Items that are made when they are asked for: `Get` makes the one at an index.
template <class Get>
class range {
public:
    /// What it gives.
    using value_type = decltype(std::declval<const Get &>()(std::size_t{}));

    /// Goes over the items.
    class iterator {
    public:
        using value_type = typename range::value_type;
        using difference_type = std::ptrdiff_t;
        using reference = value_type;
        using pointer = void;
        using iterator_category = std::input_iterator_tag;

        iterator() = default;
        value_type operator*() const { return get_(at_); }
        iterator &operator++()
        {
            ++at_;
            return *this;
        }
        iterator operator++(int)
        {
            iterator before = *this;
            ++at_;
            return before;
        }
        friend bool operator==(const iterator &left, const iterator &right) noexcept { return left.at_ == right.at_; }
        friend bool operator!=(const iterator &left, const iterator &right) noexcept { return left.at_ != right.at_; }

    private:
        friend class range;
        iterator(Get get, std::size_t at) : get_(std::move(get)), at_(at) {}

        Get get_{};
        std::size_t at_ = 0;
    };

    /// `count` items.
    range(Get get, std::size_t count) : get_(std::move(get)), count_(count) {}
    /// How many items there are.
    std::size_t size() const noexcept { return count_; }
    /// Whether there are none.
    bool empty() const noexcept { return count_ == 0; }
    /// The item at `index`, which is below `size()`.
    value_type operator[](std::size_t index) const { return get_(index); }
    /// The first item.
    iterator begin() const { return {get_, 0}; }
    /// Behind the last item.
    iterator end() const { return {get_, count_}; }

protected:
    /// What makes an item.
    const Get &get() const noexcept { return get_; }

private:
    Get get_;
    std::size_t count_;
};

/// A file of a model. Texts live as long as the model.
struct model_file {
    /// Where it is, in the system's own bytes.
    std::string_view path;
    /// "sha256:" and 64 digits, where its store knows it; else empty.
    std::string_view digest;
    /// Its bytes.
    std::uint64_t bytes = 0;
};

/// What is known of a model. Texts live as long as the model; one that is not known is empty.
struct model_info {
    /// The name that people know it by, as "llama3" or "org/name"; of a path the path.
    std::string_view name;
    /// The word for its version, which zoo::find takes. Empty where its store has none.
    std::string_view version;
    /// Its store: "pml", "huggingface", "ollama", "lm-studio", or "path" for none.
    std::string_view store;
    /// What is opened: a file, or a folder.
    std::string_view path;
    /// Bytes of all its files.
    std::uint64_t bytes = 0;
    /// Whether our own store keeps it whatever its limit.
    bool is_pinned = false;
    /// The model's word for what it is, as "llama": from its headers, like all that follows.
    std::string_view architecture;
    /// The licence that it names.
    std::string_view license;
    /// The kind of its tokenizer.
    std::string_view tokenizer;
    /// Elements of all tensors; what is packed in elements of another type counts as those.
    std::uint64_t parameters = 0;
    /// How many tokens it was made for at once; 0 where it does not say.
    std::uint64_t context_length = 0;
    /// How many tensors it has.
    std::uint64_t tensor_count = 0;
    /// The type that most bytes are stored in, where it is known.
    std::optional<pml::dtype> dtype;
    /// Its format; automatic where it is not known.
    pml::format format = pml::format::automatic;
};

/// Makes the file at an index of a model.
struct file_at {
    /// The model.
    const pml_model_t *model = nullptr;

    /// The file at an index.
    model_file operator()(std::size_t index) const
    {
        pml_model_file_t raw = PML_MODEL_FILE_INIT;
        detail::outcome(pml_model_file(model, index, &raw)).value();
        return {detail::text(raw.path, raw.path_length), detail::text(raw.digest, raw.digest_length), raw.bytes};
    }
};

/// The files of a model. The model has to outlive it.
using file_range = range<file_at>;

/// A name, its version, and the files behind them: loader::open takes it. Stays what it was when its store changes.
class model {
public:
    /// Takes over a handle of pml.h's.
    explicit model(pml_model_t *handle) noexcept : handle_(handle) {}

    /// The model in a file or a folder, without any store. Reads headers.
    /// Errors: those of pml_loader_open.
    static result<model> open_path(std::string_view path)
    {
        pml_model_t *handle = nullptr;
        const result<void> done =
            detail::with_text(path, [&](const char *text) { return pml_model_open_path(text, &handle); });
        if (!done) return done.error();
        return model(handle);
    }

    /// All that is known of it. What stands in its headers is read the first time.
    /// Errors: those of pml_loader_open_model.
    result<model_info> info() const & { return told(pml_model_info); }
    result<model_info> info() const && = delete;
    /// What is known of it without looking into its files, for lists: what only headers say is not there.
    model_info summary() const & { return told(pml_model_summary).value(); }
    model_info summary() const && = delete;
    /// Its files. Reads nothing.
    file_range files() const &
    {
        pml_model_info_t raw = PML_MODEL_INFO_INIT;
        detail::outcome(pml_model_summary(handle_.get(), &raw)).value();
        return {{handle_.get()}, raw.file_count};
    }
    file_range files() const && = delete;

    /// The handle of pml.h's, which stays this object's.
    pml_model_t *raw() const noexcept { return handle_.get(); }

private:
    result<model_info> told(pml_status_t (*by)(const pml_model_t *, pml_model_info_t *)) const
    {
        pml_model_info_t raw = PML_MODEL_INFO_INIT;
        const pml_status_t status = by(handle_.get(), &raw);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        model_info info;
        info.name = detail::text(raw.name, raw.name_length);
        info.version = detail::text(raw.version, raw.version_length);
        info.store = detail::text(raw.store, raw.store_length);
        info.path = detail::text(raw.path, raw.path_length);
        info.bytes = raw.bytes;
        info.is_pinned = raw.is_pinned != 0;
        info.architecture = detail::text(raw.architecture, raw.architecture_length);
        info.license = detail::text(raw.license, raw.license_length);
        info.tokenizer = detail::text(raw.tokenizer, raw.tokenizer_length);
        info.parameters = raw.parameters;
        info.context_length = raw.context_length;
        info.tensor_count = raw.tensor_count;
        if (raw.dtype != UINT32_MAX) info.dtype = static_cast<pml::dtype>(raw.dtype);
        info.format = static_cast<pml::format>(raw.format);
        return info;
    }

    detail::handle<pml_model_t, pml_model_free> handle_;
};

/// Makes the model at an index of a list.
struct model_at {
    /// The list.
    const pml_models_t *list = nullptr;

    /// The model at an index.
    model operator()(std::size_t index) const
    {
        pml_model_t *made = nullptr;
        detail::outcome(pml_models_at(list, index, &made)).value();
        return model(made);
    }
};

/// The models that the stores had when they were asked. Models that came from it may outlive it.
class model_list {
public:
    /// Takes over a handle of pml.h's.
    explicit model_list(pml_models_t *handle) noexcept : handle_(handle) {}

    /// How many models there are.
    std::size_t size() const noexcept { return pml_models_count(handle_.get()); }
    /// Whether there are none.
    bool empty() const noexcept { return size() == 0; }
    /// The model at `index`, which is below `size()`.
    model operator[](std::size_t index) const { return all()[index]; }
    /// The first model.
    range<model_at>::iterator begin() const { return all().begin(); }
    /// Behind the last model.
    range<model_at>::iterator end() const { return all().end(); }
    /// Lines about what is not whole and what could not be looked at; they live as long as the list.
    std::vector<std::string_view> remarks() const &
    {
        std::vector<std::string_view> lines(pml_models_remark_count(handle_.get()));
        for (std::size_t index = 0; index < lines.size(); index++) {
            const char *data = nullptr;
            std::size_t size = 0;
            detail::outcome(pml_models_remark(handle_.get(), index, &data, &size)).value();
            lines[index] = detail::text(data, size);
        }
        return lines;
    }
    std::vector<std::string_view> remarks() const && = delete;

    /// The handle of pml.h's, which stays this object's.
    pml_models_t *raw() const noexcept { return handle_.get(); }

private:
    range<model_at> all() const { return {{handle_.get()}, size()}; }

    detail::handle<pml_models_t, pml_models_free> handle_;
};

/// Where the stores are: `pml::zoo_options{}.path("models")`. A place that is not said is where its program has it; another program's
/// is not looked at where it is "".
class zoo_options {
public:
    /// Our own store; where it is not said, or "", $PML_ZOO, else $XDG_DATA_HOME/pml/zoo, else ~/.local/share/pml/zoo.
    zoo_options &path(std::string_view folder) { return set(path_, std::string(folder)); }
    /// The Hugging Face Hub's cache.
    zoo_options &huggingface_path(std::string_view folder) { return set(huggingface_path_, std::string(folder)); }
    /// Ollama's store.
    zoo_options &ollama_path(std::string_view folder) { return set(ollama_path_, std::string(folder)); }
    /// LM Studio's folder of models.
    zoo_options &lm_studio_path(std::string_view folder) { return set(lm_studio_path_, std::string(folder)); }
    /// The most bytes that our own store holds of what was copied in; 0, any number.
    zoo_options &limit(std::uint64_t bytes) { return set(limit_, bytes); }

private:
    friend class zoo;

    template <class Field, class Value>
    zoo_options &set(Field &field, Value &&value)
    {
        field = std::forward<Value>(value);
        return *this;
    }

    std::optional<std::string> path_;
    std::optional<std::string> huggingface_path_;
    std::optional<std::string> ollama_path_;
    std::optional<std::string> lm_studio_path_;
    std::uint64_t limit_ = 0;
};

/// How zoo::add keeps a model; `|` joins them.
enum class zoo_keep : std::uint32_t {
    /// The manifest names the files where they are.
    in_place = 0,
    /// The files are copied into our own store.
    copy = PML_ZOO_COPY,
    /// It stays whatever the store's limit.
    pin = PML_ZOO_PIN,
};

/// Both.
constexpr zoo_keep operator|(zoo_keep left, zoo_keep right) noexcept
{
    return static_cast<zoo_keep>(static_cast<std::uint32_t>(left) | static_cast<std::uint32_t>(right));
}

/// The stores of models, as they are whenever they are asked. Where a version is "" it is not said.
class zoo {
public:
    /// Takes over a handle of pml.h's.
    explicit zoo(pml_zoo_t *handle) noexcept : handle_(handle) {}

    /// Opens the stores, and looks at nothing yet; places that are not there hold nothing.
    /// Errors: invalid_argument.
    static result<zoo> open(const zoo_options &where = zoo_options())
    {
        pml_zoo_options_t raw = PML_ZOO_OPTIONS_INIT;
        raw.limit = where.limit_;
        for (const auto &[set, path] : {std::pair{&raw.path, &where.path_},
                                        {&raw.huggingface_path, &where.huggingface_path_},
                                        {&raw.ollama_path, &where.ollama_path_},
                                        {&raw.lm_studio_path, &where.lm_studio_path_}}) {
            if (!*path) continue;
            if (const result<std::string> checked = detail::c_text(**path); !checked) return checked.error();
            *set = (*path)->c_str();
        }
        pml_zoo_t *handle = nullptr;
        const pml_status_t status = pml_zoo_open(&raw, &handle);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return zoo(handle);
    }

    /// Lists every model that the stores have, without reading a header.
    result<model_list> list() const
    {
        pml_models_t *handle = nullptr;
        const pml_status_t status = pml_zoo_list(handle_.get(), &handle);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return model_list(handle);
    }
    /// Finds a model by its name, as "llama3:8b", "org/name@revision:Q4_K_M", "ollama://llama3:8b" or a path; `version` is a tag,
    /// a revision or a quantisation.
    /// Errors: those of pml_zoo_find.
    result<model> find(std::string_view name, std::string_view version = {}) const
    {
        pml_model_t *handle = nullptr;
        const result<void> done = with_names(name, version, [&](const char *first, const char *second) {
            return pml_zoo_find(handle_.get(), first, second, &handle);
        });
        if (!done) return done.error();
        return model(handle);
    }
    /// Adds the model at `path` to our own store, in the place of one of the same name and version. Without a name it has that of the
    /// file or folder, without a version "latest". All its bytes are read.
    /// Errors: those of pml_zoo_add.
    result<model> add(std::string_view path, std::string_view name = {}, std::string_view version = {},
                      zoo_keep how = zoo_keep::in_place)
    {
        const result<std::string> file = detail::c_text(path);
        if (!file) return file.error();
        pml_model_t *handle = nullptr;
        const result<void> done = with_names(name, version, [&](const char *first, const char *second) {
            return pml_zoo_add(handle_.get(), file->c_str(), name.empty() ? nullptr : first, second,
                               static_cast<std::uint32_t>(how), &handle);
        });
        if (!done) return done.error();
        return model(handle);
    }
    /// Removes a model from our own store, and what was copied in for it alone.
    /// Errors: those of pml_zoo_remove.
    result<void> remove(std::string_view name, std::string_view version = {})
    {
        return with_names(name, version, [&](const char *first, const char *second) {
            return pml_zoo_remove(handle_.get(), first, second);
        });
    }
    /// Has our own store keep a model whatever its limit, or lets it go again.
    /// Errors: those of pml_zoo_pin.
    result<void> pin(std::string_view name, std::string_view version = {}, bool is_pinned = true)
    {
        return with_names(name, version, [&](const char *first, const char *second) {
            return pml_zoo_pin(handle_.get(), first, second, is_pinned ? 1U : 0U);
        });
    }
    /// Reads every file of a model whose digest its store knows, and compares.
    /// Errors: malformed for other bytes; unsupported where no digest is known; those of pml_zoo_verify.
    result<void> verify(std::string_view name, std::string_view version = {}) const
    {
        return with_names(name, version, [&](const char *first, const char *second) {
            return pml_zoo_verify(handle_.get(), first, second);
        });
    }

    /// The handle of pml.h's, which stays this object's.
    pml_zoo_t *raw() const noexcept { return handle_.get(); }

private:
    template <class Call>
    static result<void> with_names(std::string_view name, std::string_view version, Call call)
    {
        const result<std::string> second = detail::c_text(version);
        if (!second) return second.error();
        return detail::with_text(
            name, [&](const char *first) { return call(first, second->empty() ? nullptr : second->c_str()); });
    }

    detail::handle<pml_zoo_t, pml_zoo_free> handle_;
};

// ---- An opened model.

/// Makes the tensor at an index of a loader, or of one of its layers. A handle that cannot be made is as `result::value`
/// without one.
struct tensor_at {
    /// The loader.
    pml_loader_t *loader = nullptr;
    /// The layer whose tensors are counted; without it, all are.
    std::optional<std::size_t> layer;
    /// What its callbacks threw.
    std::shared_ptr<detail::faults> thrown;

    /// The tensor at an index.
    tensor operator()(std::size_t index) const
    {
        if (layer) detail::outcome(pml_loader_layer_tensor(loader, *layer, index, &index)).value();
        pml_tensor_t *made = nullptr;
        detail::outcome(pml_loader_tensor_at(loader, index, &made)).value();
        return {made, thrown};
    }
};

/// Tensors as they lie in the file. The loader has to outlive it; its tensors need not.
using tensor_range = range<tensor_at>;

/// A layer, as it stood when it was asked for. The name lives as long as the loader.
class layer {
public:
    /// Its index, which never changes.
    std::size_t index() const noexcept { return index_; }
    /// Its name, in UTF-8.
    std::string_view name() const noexcept { return detail::text(raw_.name, raw_.name_length); }
    /// Bytes of its tensors in memory.
    std::uint64_t bytes() const noexcept { return raw_.bytes; }
    /// Its place in the order of use, from 0.
    std::size_t position() const noexcept { return raw_.position; }
    /// Its state.
    layer_state state() const noexcept { return static_cast<layer_state>(raw_.state); }
    /// How often it and its tensors are acquired.
    std::uint64_t acquire_count() const noexcept { return raw_.acquire_count; }
    /// Its tensors, as they lie in the file; handles that load nothing.
    tensor_range tensors() const { return {{loader_, index_, thrown_}, raw_.tensor_count}; }

private:
    friend class loader;
    friend struct layer_at;

    pml_loader_t *loader_ = nullptr;
    std::shared_ptr<detail::faults> thrown_;
    std::size_t index_ = 0;
    pml_layer_info_t raw_ = PML_LAYER_INFO_INIT;
};

/// Makes the layer at an index of a loader.
struct layer_at {
    /// The loader.
    pml_loader_t *loader = nullptr;
    /// What its callbacks threw.
    std::shared_ptr<detail::faults> thrown;

    /// The layer at an index.
    layer operator()(std::size_t index) const
    {
        layer found;
        found.loader_ = loader;
        found.thrown_ = thrown;
        found.index_ = index;
        detail::outcome(pml_loader_layer_info(loader, index, &found.raw_)).value();
        return found;
    }
};

/// Layers by their indices. The loader has to outlive it.
using layer_range = range<layer_at>;

/// A layer held in memory. Releases it at its end, on the stream that it was acquired on; `tensor::view` tells where its tensors
/// are. The loader stays open until then.
class layer_lease {
public:
    /// The layer's index.
    std::size_t index() const noexcept { return held_.get_deleter().layer; }
    /// The stream that it was acquired on.
    pml::stream stream() const noexcept { return held_.get_deleter().stream; }
    /// Whether it holds the layer still.
    bool is_held() const noexcept { return held_ != nullptr; }

    /// Releases the layer now, and says what the end of the lease could not.
    /// Errors: those of pml_loader_release_layer, after which it is held as before; invalid_state where it is not.
    result<void> release()
    {
        if (!held_) return error{status::invalid_state, "lease: released before"};
        result<void> done = detail::outcome(pml_loader_release_layer(held_.get(), index(), held_.get_deleter().stream));
        if (done) static_cast<void>(held_.release());
        return done;
    }

private:
    friend class loader;
    layer_lease(const std::shared_ptr<pml_loader_t> &loader, std::size_t layer, pml::stream on) noexcept
        : held_(loader.get(), {layer, on.raw(), loader})
    {
    }

    std::unique_ptr<pml_loader_t, detail::layer_releaser> held_;
};

namespace detail {

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
template <class T>
inline constexpr bool is_text = std::is_same_v<T, std::string_view> || std::is_same_v<T, std::string>;
template <class T>
inline constexpr bool is_known = std::is_arithmetic_v<T> || is_text<T>;

/// The type of values whose bytes are a T's, for arrays that are copied in bulk.
template <class T>
constexpr bool lies_as(value_type type) noexcept
{
    switch (type) {
    case value_type::u8: return std::is_same_v<T, std::uint8_t>;
    case value_type::i8: return std::is_same_v<T, std::int8_t>;
    case value_type::u16: return std::is_same_v<T, std::uint16_t>;
    case value_type::i16: return std::is_same_v<T, std::int16_t>;
    case value_type::u32: return std::is_same_v<T, std::uint32_t>;
    case value_type::i32: return std::is_same_v<T, std::int32_t>;
    case value_type::f32: return std::is_same_v<T, float>;
    case value_type::u64: return std::is_same_v<T, std::uint64_t>;
    case value_type::i64: return std::is_same_v<T, std::int64_t>;
    case value_type::f64: return std::is_same_v<T, double>;
    case value_type::boolean:
    case value_type::string:
    case value_type::array: return false;
    }
    return false;
}

/// Asks pml.h for a scalar and gives it as a T: `ask` is told which getter serves it.
template <class T, class Unsigned, class Signed, class Real, class Boolean, class Text>
result<T> scalar(std::string_view key, Unsigned as_u64, Signed as_i64, Real as_f64, Boolean as_bool, Text as_string)
{
    static_assert(is_known<T>, "metadata is read as bool, numbers, std::string or std::string_view, and std::vector of these");
    pml_status_t status;
    if constexpr (std::is_same_v<T, bool>) {
        bool value = false;
        status = as_bool(&value);
        if (status == PML_STATUS_OK) return value;
    } else if constexpr (std::is_floating_point_v<T>) {
        double value = 0;
        status = as_f64(&value);
        if (status == PML_STATUS_OK) return static_cast<T>(value);
    } else if constexpr (is_text<T>) {
        const char *data = nullptr;
        std::size_t size = 0;
        status = as_string(&data, &size);
        if (status == PML_STATUS_OK) return T(text(data, size));
    } else {
        std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t> value = 0;
        if constexpr (std::is_signed_v<T>)
            status = as_i64(&value);
        else
            status = as_u64(&value);
        if (status == PML_STATUS_OK) {
            if (value >= std::numeric_limits<T>::min() && value <= std::numeric_limits<T>::max())
                return static_cast<T>(value);
            return error{status::wrong_type, "metadata key '" + std::string(key) + "': found " + std::to_string(value) +
                                                 ", expected a number that fits " + std::to_string(8 * sizeof(T)) + " bits"};
        }
    }
    return last_error(status);
}

} // namespace detail

/// A metadata value, which is read when it is asked for. The key lives as long as the loader.
class metadata_entry {
public:
    /// The key, in UTF-8; empty for an array inside an array.
    std::string_view key() const noexcept { return detail::text(raw_.key, raw_.key_length); }
    /// Its type.
    value_type type() const noexcept { return static_cast<value_type>(raw_.value_type); }
    /// The type of an array's elements; else its own.
    value_type element_type() const noexcept { return static_cast<value_type>(raw_.element_type); }
    /// Elements of an array, bytes of a string, else 1.
    std::uint64_t count() const noexcept { return raw_.count; }
    /// Its index, as pml.h's getters take it.
    std::size_t index() const noexcept { return raw_.index; }

    /// The value as a T: bool, an integer of any width that the value fits, float or double (an F64 is rounded to float), std::string
    /// or std::string_view (into the file: it lives as long as the loader), or a std::vector of these for an array.
    /// Errors: wrong_type; truncated where the file was cut.
    template <class T>
    result<T> get() const
    {
        if constexpr (detail::is_vector<T>::value) {
            return array<typename T::value_type>();
        } else {
            return detail::scalar<T>(
                key(), [&](std::uint64_t *out) { return pml_loader_metadata_u64(loader_, index(), out); },
                [&](std::int64_t *out) { return pml_loader_metadata_i64(loader_, index(), out); },
                [&](double *out) { return pml_loader_metadata_f64(loader_, index(), out); },
                [&](bool *out) { return pml_loader_metadata_bool(loader_, index(), out); },
                [&](const char **out, std::size_t *size) {
                    return pml_loader_metadata_string(loader_, index(), out, size);
                });
        }
    }

    /// One element of an array as a T, as `get` gives values. The first call for an array walks over it, every further one takes
    /// constant time.
    /// Errors: wrong_type; out_of_range; truncated where the file was cut.
    template <class T>
    result<T> element(std::uint64_t at) const
    {
        return detail::scalar<T>(
            key(), [&](std::uint64_t *out) { return pml_loader_metadata_element_u64(loader_, index(), at, out); },
            [&](std::int64_t *out) { return pml_loader_metadata_element_i64(loader_, index(), at, out); },
            [&](double *out) { return pml_loader_metadata_element_f64(loader_, index(), at, out); },
            [&](bool *out) { return pml_loader_metadata_element_bool(loader_, index(), at, out); },
            [&](const char **out, std::size_t *size) {
                return pml_loader_metadata_element_string(loader_, index(), at, out, size);
            });
    }

    /// One element of an array of arrays.
    /// Errors: wrong_type; out_of_range; truncated where the file was cut.
    result<metadata_entry> element_array(std::uint64_t at) const
    {
        metadata_entry inner(loader_);
        const pml_status_t status = pml_loader_metadata_element_array(loader_, index(), at, &inner.raw_);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return inner;
    }

private:
    friend struct metadata_at;
    friend class metadata_range;
    explicit metadata_entry(const pml_loader_t *loader) noexcept : loader_(loader) {}

    template <class T>
    result<std::vector<T>> array() const
    {
        if (type() != value_type::array)
            return error{status::wrong_type, "metadata key '" + std::string(key()) + "': found no array, expected one"};
        const std::size_t size = count();
        if constexpr (std::is_same_v<T, std::string_view>) {
            std::vector<const char *> texts(size);
            std::vector<std::size_t> lengths(size);
            const pml_status_t status =
                pml_loader_metadata_array_strings(loader_, index(), 0, size, texts.data(), lengths.data());
            if (status != PML_STATUS_OK) return detail::last_error(status);
            std::vector<T> all;
            all.reserve(size);
            for (std::size_t at = 0; at < size; at++) all.emplace_back(texts[at], lengths[at]);
            return all;
        } else {
            if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
                if (detail::lies_as<T>(element_type())) {
                    std::vector<T> all(size);
                    const pml_status_t status = pml_loader_metadata_array_copy(
                        loader_, index(), 0, size, raw_.element_type, all.data(), size * sizeof(T));
                    if (status != PML_STATUS_OK) return detail::last_error(status);
                    return all;
                }
            }
            std::vector<T> all;
            all.reserve(size);
            for (std::size_t at = 0; at < size; at++) {
                result<T> one = element<T>(at);
                if (!one) return one.error();
                all.push_back(*std::move(one));
            }
            return all;
        }
    }

    const pml_loader_t *loader_;
    pml_metadata_info_t raw_ = PML_METADATA_INFO_INIT;
};

/// Makes the metadata entry at an index of a loader.
struct metadata_at {
    /// The loader.
    const pml_loader_t *loader = nullptr;

    /// The entry at an index.
    metadata_entry operator()(std::size_t index) const
    {
        metadata_entry found(loader);
        detail::outcome(pml_loader_metadata_at(loader, index, &found.raw_)).value();
        return found;
    }
};

/// The metadata of a model; of one in several files, of the first. The loader has to outlive it.
class metadata_range : public range<metadata_at> {
public:
    using range<metadata_at>::range;

    /// The entry of this key.
    /// Errors: not_found.
    result<metadata_entry> find(std::string_view key) const
    {
        metadata_entry found(get_loader());
        const result<void> done = detail::with_text(
            key, [&](const char *text) { return pml_loader_metadata_find(get_loader(), text, &found.raw_); });
        if (!done) return done.error();
        return found;
    }

    /// The value of this key, as metadata_entry::get gives it.
    /// Errors: not_found; those of metadata_entry::get.
    template <class T>
    result<T> get(std::string_view key) const
    {
        const result<metadata_entry> found = find(key);
        if (!found) return found.error();
        return found->template get<T>();
    }

private:
    const pml_loader_t *get_loader() const noexcept { return range<metadata_at>::get().loader; }
};

/// Sums since the loader was opened: the fields of pml_stats_t, and these.
struct stats : pml_stats_t {
    stats() noexcept : pml_stats_t(PML_STATS_INIT) {}

    /// Where the layers are; nothing until one is wanted.
    std::optional<pml::device> device() const noexcept
    {
        if (device_kind == UINT32_MAX) return std::nullopt;
        return pml::device{static_cast<pml::device_kind>(device_kind), device_ordinal};
    }
    /// Why they are there, in words that live as long as the loader; empty until one is wanted.
    std::string_view reason() const noexcept { return detail::text(device_reason, device_reason_length); }
    /// What the cache of converted models does.
    cache_state cached() const noexcept { return static_cast<cache_state>(cache); }
    /// Time spent in reads, all threads together.
    std::chrono::duration<double> read_time() const noexcept { return std::chrono::duration<double>(read_seconds); }
    /// Time spent converting, likewise.
    std::chrono::duration<double> transform_time() const noexcept { return std::chrono::duration<double>(transform_seconds); }
    /// Time spent queueing copies to a device and waiting for them, likewise, of all loaders of the process.
    std::chrono::duration<double> copy_time() const noexcept { return std::chrono::duration<double>(copy_seconds); }
};

/// Where loader::load_into puts a tensor.
class destination {
public:
    /// A tensor of that loader, whose handle this keeps; memory of the device that the layers are on; its bytes, at least the
    /// tensor's.
    destination(const tensor &what, void *memory, std::size_t size) : tensor_(what.handle_), memory_(memory), size_(size) {}

private:
    friend class loader;

    std::shared_ptr<pml_tensor_t> tensor_;
    void *memory_;
    std::size_t size_;
};

/// An opened model.
class loader {
public:
    /// Takes over a handle of pml.h's.
    explicit loader(pml_loader_t *handle) : handle_(detail::shared(handle)) {}
    loader(loader &&) noexcept = default;
    loader &operator=(loader &&) noexcept = default;
    loader(const loader &) = delete;
    loader &operator=(const loader &) = delete;

    /// Opens a model file, any of a set, or a folder. Reads headers only, and brings no tensor.
    /// Errors: those of pml_loader_open.
    static result<loader> open(std::string_view path, const options &how = options())
    {
        const result<std::string> text = detail::c_text(path);
        if (!text) return text.error();
        return open_with(how, [&](const pml_options_t *raw, pml_loader_t **out) {
            return pml_loader_open(text->c_str(), raw, out);
        });
    }

    /// Opens a model that a zoo has, or model::open_path. What a store has must still be whole.
    /// Errors: those of pml_loader_open_model.
    static result<loader> open(const model &which, const options &how = options())
    {
        return open_with(how, [&](const pml_options_t *raw, pml_loader_t **out) {
            return pml_loader_open_model(which.raw(), raw, out);
        });
    }

    /// Opens a model that is in memory. Its bytes stay readable and unchanged as long as `owner` is kept: until the loader and its last
    /// tensor are gone, maybe a moment longer. Without an owner the caller sees to that.
    /// Errors: those of pml_loader_open.
    static result<loader> open_memory(span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                      const options &how = options())
    {
        using kept = std::shared_ptr<const void>;
        auto keep = std::make_unique<kept>(std::move(owner));
        return open_with(how, [&](const pml_options_t *raw, pml_loader_t **out) {
            return pml_loader_open_memory(
                bytes.data(), bytes.size(), [](void *user_data) { delete static_cast<kept *>(user_data); }, keep.release(),
                raw, out);
        });
    }

    /// Starts loading every layer in order, and waits for nothing.
    /// Errors: those of pml_loader_start.
    result<void> start() { return detail::outcome(pml_loader_start(raw())); }
    /// Waits until every tensor was delivered at least once.
    /// Errors: those of pml_loader_wait.
    result<void> wait(timeout limit = timeout::never())
    {
        return detail::unless_thrown(thrown_, [&] { return pml_loader_wait(raw(), limit.raw()); });
    }
    /// Ends all loading, and waits for nothing. What is in memory stays, and later calls work as before.
    result<void> cancel() { return detail::outcome(pml_loader_cancel(raw())); }
    /// The part of all bytes that was delivered at least once, from 0 to 1; never falls.
    double progress() const noexcept { return pml_loader_progress(raw()); }
    /// Whether every layer is in memory now.
    bool is_fully_loaded() const noexcept { return pml_loader_is_fully_loaded(raw()); }
    /// Where the loader is.
    pml::stage stage() const noexcept { return static_cast<pml::stage>(pml_loader_stage(raw())); }
    /// Takes the next event, where the options have no callback for events: none but the log. Call it from one thread at a time.
    /// Errors: timed_out; invalid_state where the options have one.
    result<event> next_event(timeout limit = timeout::never())
    {
        pml_event_t told = PML_EVENT_INIT;
        const pml_status_t status = pml_loader_next_event(raw(), limit.raw(), &told);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return detail::event_of(told);
    }
    /// What a callback threw and no call has told yet; success where nothing was thrown. It is told by that.
    result<void> callback_failure()
    {
        if (thrown_) {
            if (std::optional<error> thrown = thrown_->take()) return *std::move(thrown);
        }
        return {};
    }

    /// What happened so far.
    result<pml::stats> stats() const
    {
        pml::stats sums;
        const pml_status_t status = pml_loader_stats(raw(), &sums);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return sums;
    }

    /// Reads the model through and tells of what is wrong: `on_finding` is called on this thread for each; an exception of its ends the work
    /// and is the error's cause.
    /// Errors: malformed where anything was found; cancelled where `on_finding` said so; those of pml_loader_verify.
    result<void> verify(verify_for what = verify_for::all, std::function<verdict(const event &)> on_finding = nullptr)
    {
        detail::findings findings;
        findings.tell = std::move(on_finding);
        const result<void> done = detail::outcome(
            pml_loader_verify(raw(), static_cast<std::uint64_t>(what),
                              findings.tell ? detail::findings::on_event : nullptr, &findings));
        if (std::optional<error> thrown = findings.thrown.take()) return *std::move(thrown);
        return done;
    }

    /// The layers by their indices.
    layer_range layers() const & { return {{raw(), thrown_}, pml_loader_layer_count(raw())}; }
    layer_range layers() const && = delete;
    /// The layers in the order of use. Where another thread sets the order meanwhile, some may stand as they stood before.
    std::vector<pml::layer> layer_order() const &
    {
        std::vector<pml::layer> ordered;
        for (pml::layer one : layers()) ordered.push_back(std::move(one));
        std::stable_sort(ordered.begin(), ordered.end(), [](const pml::layer &left, const pml::layer &right) {
            return left.position() < right.position();
        });
        return ordered;
    }
    std::vector<pml::layer> layer_order() const && = delete;
    /// The layer of this name.
    /// Errors: not_found.
    result<pml::layer> layer(std::string_view name) const &
    {
        std::size_t index = 0;
        const result<void> found =
            detail::with_text(name, [&](const char *text) { return pml_loader_find_layer(raw(), text, &index); });
        if (!found) return found.error();
        return layers()[index];
    }
    result<pml::layer> layer(std::string_view name) const && = delete;
    /// Puts these layers first in the order of use; the others follow in the order they had.
    /// Errors: out_of_range; invalid_argument for a layer given twice.
    result<void> set_layer_order(span<const std::size_t> indices)
    {
        return detail::outcome(pml_loader_set_layer_order(raw(), indices.data(), indices.size()));
    }
    /// The same, of indices in braces.
    result<void> set_layer_order(std::initializer_list<std::size_t> indices)
    {
        return set_layer_order(span<const std::size_t>(indices));
    }
    /// Queues layers to be brought into memory, in this order, and waits for nothing.
    /// Errors: out_of_range and budget, before any is queued.
    result<void> prefetch(span<const std::size_t> indices)
    {
        return detail::outcome(pml_loader_prefetch(raw(), indices.data(), indices.size()));
    }
    /// The same, of indices in braces.
    result<void> prefetch(std::initializer_list<std::size_t> indices) { return prefetch(span<const std::size_t>(indices)); }
    /// Queues one layer.
    /// Errors: out_of_range; budget.
    result<void> prefetch_layer(std::size_t index) { return detail::outcome(pml_loader_prefetch(raw(), &index, 1)); }
    /// Queues the layer of this name.
    /// Errors: not_found; budget.
    result<void> prefetch_layer(std::string_view name)
    {
        return detail::with_text(name, [&](const char *text) { return pml_loader_prefetch_layer(raw(), text); });
    }
    /// Queues the layers of these names, which hold no NUL.
    /// Errors: not_found and budget, before any is queued.
    result<void> prefetch_layers(span<const std::string> names)
    {
        std::vector<const char *> texts;
        texts.reserve(names.size());
        for (const std::string &name : names) {
            if (const result<std::string> checked = detail::c_text(name); !checked) return checked.error();
            texts.push_back(name.c_str());
        }
        return detail::outcome(pml_loader_prefetch_layers(raw(), texts.data(), texts.size()));
    }
    /// Brings a layer into memory and holds it there as long as the lease lives. `wait` limits the wait for room that others hold; a
    /// read takes as long as it takes. Of a layer that is in memory this takes no lock.
    /// Errors: those of pml_loader_acquire_layer.
    result<layer_lease> acquire_layer(std::size_t index, pml::stream on = pml::stream::host(),
                                      timeout wait = timeout::never())
    {
        const result<void> acquired = detail::unless_thrown(
            thrown_, [&] { return pml_loader_acquire_layer(raw(), index, on.raw(), wait.raw()); });
        if (!acquired) return acquired.error();
        return layer_lease(handle_, index, on);
    }
    /// Gives a layer's memory back to the system.
    /// Errors: busy while it or one of its tensors is acquired; out_of_range; would_deadlock.
    result<void> unload_layer(std::size_t index) { return detail::outcome(pml_loader_unload_layer(raw(), index)); }
    /// Copies whole tensors into memory of the caller's own, in the files' order. On the host, and with stream::host(), the data is there
    /// on return; with a GPU's stream the copies are under way, and the stream waits for them.
    /// Errors: those of pml_loader_load_into.
    result<void> load_into(span<const destination> all, pml::stream on = pml::stream::host())
    {
        std::vector<pml_tensor_t *> tensors;
        std::vector<void *> memory;
        std::vector<std::size_t> sizes;
        for (const destination &one : all) {
            tensors.push_back(one.tensor_.get());
            memory.push_back(one.memory_);
            sizes.push_back(one.size_);
        }
        return detail::unless_thrown(thrown_, [&] {
            return pml_loader_load_into(raw(), tensors.data(), memory.data(), sizes.data(), sizes.size(), on.raw());
        });
    }

    /// All tensors, as they lie in the file: handles that load nothing.
    tensor_range tensors() const & { return {{raw(), std::nullopt, thrown_}, pml_loader_tensor_count(raw())}; }
    tensor_range tensors() const && = delete;
    /// The tensor of this name; loads nothing.
    /// Errors: not_found.
    result<pml::tensor> tensor(std::string_view name) const
    {
        pml_tensor_t *made = nullptr;
        const result<void> found =
            detail::with_text(name, [&](const char *text) { return pml_loader_tensor(raw(), text, &made); });
        if (!found) return found.error();
        return pml::tensor(made, thrown_);
    }

    /// The metadata, in the file's order.
    metadata_range metadata() const & { return {{raw()}, pml_loader_metadata_count(raw())}; }
    metadata_range metadata() const && = delete;

    /// The handle of pml.h's, which stays this object's.
    pml_loader_t *raw() const noexcept { return handle_.get(); }

private:
    loader(pml_loader_t *handle, std::shared_ptr<detail::faults> thrown)
        : handle_(detail::shared(handle)), thrown_(std::move(thrown))
    {
        if (thrown_) thrown_->watch(handle_);
    }

    /// Opens a model with options as pml.h takes them; `open` is called in any case once the callbacks are the library's.
    template <class Open>
    static result<loader> open_with(const options &how, Open open)
    {
        pml_options_t raw = how.raw_;
        const result<std::string> device = detail::c_text(how.device_.value_or(""));
        if (!device) return device.error();
        const result<std::string> cache = detail::c_text(how.cache_path_.value_or(""));
        if (!cache) return cache.error();
        raw.device = how.device_ ? device->c_str() : nullptr;
        raw.cache_path = how.cache_path_ ? cache->c_str() : nullptr;

        pml_allocator_t memory = PML_ALLOCATOR_INIT;
        std::shared_ptr<detail::faults> thrown;
        if (how.callbacks_.any()) {
            auto hooks = std::make_unique<detail::hooks>();
            hooks->callbacks = how.callbacks_;
            thrown = hooks->thrown;
            // From here on they are the library's, which destroys them.
            hooks.release()->into(raw, memory);
        }
        pml_loader_t *handle = nullptr;
        const pml_status_t status = open(&raw, &handle);
        if (status != PML_STATUS_OK) return detail::last_error(status);
        return loader(handle, std::move(thrown));
    }

    std::shared_ptr<pml_loader_t> handle_;
    std::shared_ptr<detail::faults> thrown_;
};

} // inline namespace
} // namespace pml

#endif // PML_HPP
