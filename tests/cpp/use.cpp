// What an engine in C++ does with a model: use MODEL MODEL_WITH_ALL_METADATA FOLDER
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "../c/dlpack_abi.h"

using namespace std::chrono_literals;

// Move-only, and nothing that would outlive what it uses compiles.
template <class T>
constexpr bool moves_only = std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> &&
                            !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
static_assert(moves_only<pml::loader> && moves_only<pml::tensor> && moves_only<pml::budget> && moves_only<pml::rules>);
static_assert(moves_only<pml::lease> && moves_only<pml::layer_lease>);

// What asks a T, as an expression of that kind, for something compiles or not.
#define PML_TEST_ASKS(name, expression)                                \
    template <class T, class = void>                                    \
    constexpr bool name = false;                                        \
    template <class T>                                                  \
    constexpr bool name<T, std::void_t<decltype(expression)>> = true

PML_TEST_ASKS(lends_layers, std::declval<T>().layers());
PML_TEST_ASKS(lends_tensors, std::declval<T>().tensors());
PML_TEST_ASKS(lends_metadata, std::declval<T>().metadata());
static_assert(lends_layers<pml::loader &> && lends_tensors<pml::loader &> && lends_metadata<pml::loader &>);
static_assert(!lends_layers<pml::loader> && !lends_tensors<pml::loader> && !lends_metadata<pml::loader>);

PML_TEST_ASKS(takes_budget, pml::options().budget(std::declval<T>()));
PML_TEST_ASKS(takes_rules, pml::options().rules(std::declval<T>()));
static_assert(takes_budget<pml::budget &> && takes_rules<pml::rules &>);
static_assert(!takes_budget<pml::budget> && !takes_rules<pml::rules>);

PML_TEST_ASKS(tells_info, std::declval<T>().info());
PML_TEST_ASKS(tells_name, std::declval<T>().name());
PML_TEST_ASKS(tells_summary, std::declval<T>().summary());
PML_TEST_ASKS(tells_remarks, std::declval<T>().remarks());
static_assert(tells_info<pml::tensor &> && tells_name<pml::tensor &> && tells_info<pml::model &>);
static_assert(!tells_info<pml::tensor> && !tells_name<pml::tensor> && !tells_info<pml::model>);
static_assert(tells_summary<pml::model &> && tells_remarks<pml::model_list &>);
static_assert(!tells_summary<pml::model> && !tells_remarks<pml::model_list>);

PML_TEST_ASKS(gives_data, std::declval<T>().data());
PML_TEST_ASKS(gives_shape, std::declval<T>().shape());
PML_TEST_ASKS(gives_bytes, std::declval<T>().bytes());
PML_TEST_ASKS(gives_numbers, std::declval<T>().template as<float>());
static_assert(gives_data<pml::lease &> && gives_shape<pml::lease &> && gives_bytes<pml::lease &> && gives_numbers<const pml::lease &>);
static_assert(!gives_data<pml::lease> && !gives_shape<pml::lease> && !gives_bytes<pml::lease> && !gives_numbers<pml::lease>);
static_assert(gives_numbers<pml::view>);
static_assert(std::is_constructible_v<pml::view, pml::lease &> && !std::is_constructible_v<pml::view, pml::lease>);
static_assert(std::is_assignable_v<pml::view &, pml::lease &> && !std::is_assignable_v<pml::view &, pml::lease>);
PML_TEST_ASKS(gives_view, std::declval<T>().view());
static_assert(gives_view<pml::tensor &> && !gives_view<pml::tensor>);

#if __cplusplus >= 202002L
#include <ranges>
static_assert(std::ranges::input_range<pml::layer_range> && std::ranges::input_range<pml::tensor_range>);
static_assert(std::ranges::sized_range<pml::metadata_range> && std::ranges::input_range<pml::metadata_range>);
static_assert(std::ranges::input_range<pml::model_list> && std::ranges::input_range<pml::file_range>);
#endif

static pml::options on_host()
{
    return pml::options{}.device("cpu");
}

static std::vector<std::byte> all_bytes(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> chars((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<std::byte> bytes(chars.size());
    std::transform(chars.begin(), chars.end(), bytes.begin(), [](char one) { return static_cast<std::byte>(one); });
    return bytes;
}

static void spans()
{
    std::vector<int> numbers{1, 2, 3};
    const pml::span<const int> seen = numbers;
    CHECK(seen.size() == 3 && seen[2] == 3 && !seen.empty() && seen.data() == numbers.data());
    CHECK(std::accumulate(seen.begin(), seen.end(), 0) == 6);
    const std::array<int, 2> pair{4, 5};
    CHECK(pml::span<const int>(pair)[1] == 5);
    int plain[] = {7};
    const pml::span<int> writable = plain;
    writable[0] = 8;
    CHECK(plain[0] == 8 && pml::span<const int>(writable)[0] == 8);
    CHECK(pml::span<int>().empty());
    static_assert(!std::is_constructible_v<pml::span<int>, const std::vector<int> &>);
    static_assert(!std::is_constructible_v<pml::span<const int>, std::vector<long> &>);
    // A temporary's elements only for reading, as an argument of a call.
    static_assert(std::is_constructible_v<pml::span<int>, std::vector<int> &>);
    static_assert(!std::is_constructible_v<pml::span<int>, std::vector<int>>);
    static_assert(std::is_constructible_v<pml::span<const int>, std::vector<int>>);
    static_assert(std::is_constructible_v<pml::span<const int>, pml::span<int>>);
#if __cplusplus >= 202002L
    const std::span<const int> standard = seen;
    CHECK(standard.size() == 3 && pml::span<const int>(standard).data() == numbers.data());
    CHECK(pml::span<int>(std::span<int>(numbers)).data() == numbers.data());
#endif
}

static void results(const std::string &model)
{
    const pml::result<pml::loader> absent = pml::loader::open("no/such/model.gguf", on_host());
    CHECK(!absent && !absent.has_value() && absent.error().status == pml::status::not_found);
    CHECK(absent.error().message.find("no/such/model.gguf") != std::string::npos && !absent.error().cause);
    try {
        static_cast<void>(absent.value());
        CHECK(false);
    } catch (const pml::model_error &thrown) {
        CHECK(thrown.status() == pml::status::not_found && thrown.what() == absent.error().message);
    }
    const pml::result<pml::loader> broken_name = pml::loader::open(std::string_view("a\0b", 3));
    CHECK(broken_name.error().status == pml::status::invalid_argument);
    CHECK(broken_name.error().message.find("NUL") != std::string::npos);
    CHECK(pml::loader::open(model, pml::options{}.device(std::string_view("c\0", 2))).error().status ==
          pml::status::invalid_argument);

    const pml::loader loader = pml::loader::open(model, on_host()).value();
    CHECK(loader.metadata().get<std::uint32_t>("llama.block_count").value_or(9U) == 4);
    CHECK(loader.metadata().get<std::uint32_t>("llama.no_count").value_or(9U) == 9);
    CHECK(pml::result<int>(3).value() == 3 && *pml::result<int>(3) == 3);
    CHECK(pml::result<void>() && pml::result<void>().has_value());
}

template <class Class>
static bool throws_as(pml::status status)
{
    const pml::result<void> failed = pml::error{status, "so"};
    try {
        failed.value();
    } catch (const Class &thrown) {
        return typeid(thrown) == typeid(Class) && thrown.status() == status && std::string(thrown.what()) == "so";
    } catch (...) {
    }
    return false;
}

static void exception_classes()
{
    using pml::status;
    for (const status one : {status::invalid_argument, status::invalid_state, status::wrong_type, status::out_of_range, status::busy,
                             status::closed, status::would_deadlock, status::stream_capturing})
        CHECK(throws_as<pml::usage_error>(one));
    for (const status one : {status::not_found, status::access_denied, status::io, status::truncated, status::malformed,
                             status::unsupported, status::incomplete})
        CHECK(throws_as<pml::model_error>(one));
    CHECK(throws_as<pml::memory_error>(status::out_of_memory) && throws_as<pml::memory_error>(status::budget));
    CHECK(throws_as<pml::device_error>(status::device) && throws_as<pml::cancelled>(status::cancelled));
    CHECK(throws_as<pml::timed_out>(status::timed_out) && throws_as<pml::exception>(status::panic));
    CHECK(throws_as<pml::exception>(static_cast<status>(-999)));
}

static void small_things()
{
    CHECK(pml::status_name(pml::status::budget) == "PML_STATUS_BUDGET" && pml::dtype_name(pml::dtype::q4_k) == "Q4_K");
    CHECK(pml::is_retryable(pml::status::io) && !pml::is_retryable(pml::status::malformed));
    CHECK(pml::version_number() == pml::header_version && pml::header_version == PML_VERSION_NUMBER && pml::version().find("0.1") == 0);
    const std::vector<pml::device_info> devices = pml::devices().value();
    CHECK(!devices.empty() && devices[0].name == "cpu" && devices[0].device == pml::device{} && devices[0].model.empty());
    CHECK((pml::device{pml::device_kind::cuda, 1} != pml::device{pml::device_kind::cuda, 0}));
    CHECK(devices[0].total_bytes.value_or(0) > 0);

    CHECK(pml::timeout(2s).raw() == 2000 && pml::timeout(1us).raw() == 1 && pml::timeout(-5s).raw() == 0);
    CHECK(pml::timeout::never().raw() == -1 && pml::timeout(std::chrono::hours::max()).raw() == -1);
    CHECK(pml::timeout(std::chrono::duration<double>(std::nan(""))).raw() == -1);
    CHECK(pml::timeout(std::chrono::duration<double>(0.0015)).raw() == 2 && pml::timeout(0ms).raw() == 0);
    CHECK(pml::stream::host().raw() == PML_STREAM_HOST && pml::stream::legacy().raw() == PML_STREAM_LEGACY);
    CHECK(pml::stream::per_thread().raw() == PML_STREAM_PER_THREAD && pml::stream(nullptr).raw() == nullptr);
    pml::trim();
}

static void metadata(const std::string &model, const std::string &all_types)
{
    const pml::loader loader = pml::loader::open(model, on_host()).value();
    const pml::metadata_range metadata = loader.metadata();
    std::set<std::string_view> keys;
    for (const pml::metadata_entry &entry : metadata) keys.insert(entry.key());
    CHECK(keys.size() == metadata.size() && !metadata.empty() && keys.count("tokenizer.ggml.tokens") == 1);
    CHECK(metadata[0].key() == "general.architecture" && metadata[0].type() == pml::value_type::string);
    CHECK(metadata.get<std::string_view>("general.architecture").value() == "llama");
    CHECK(metadata.get<std::string>("general.architecture").value() == "llama");
    CHECK(metadata.find("no.such.key").error().status == pml::status::not_found);
    CHECK(metadata.get<double>("general.architecture").error().status == pml::status::wrong_type);

    const pml::metadata_entry tokens = metadata.find("tokenizer.ggml.tokens").value();
    CHECK(tokens.type() == pml::value_type::array && tokens.element_type() == pml::value_type::string);
    const auto views = tokens.get<std::vector<std::string_view>>().value();
    CHECK(views.size() == 128 && tokens.count() == 128 && views[99] == "token 99");
    CHECK(tokens.get<std::vector<std::string>>().value()[127] == "token 127");
    CHECK(tokens.element<std::string_view>(5).value().data() == views[5].data());
    CHECK(tokens.element<std::string>(128).error().status == pml::status::out_of_range);
    CHECK(tokens.get<std::vector<float>>().error().status == pml::status::wrong_type);
    CHECK(tokens.get<std::string>().error().status == pml::status::wrong_type);
    CHECK(tokens.element_array(0).error().status == pml::status::wrong_type);
    const auto scores = metadata.get<std::vector<float>>("tokenizer.ggml.scores").value();
    const auto wide = metadata.get<std::vector<double>>("tokenizer.ggml.scores").value();
    CHECK(scores.size() == 128 && scores[7] == -7.0F && std::equal(scores.begin(), scores.end(), wide.begin(), wide.end()));
    CHECK(metadata.get<std::vector<int>>("general.architecture").error().status == pml::status::wrong_type);

    const pml::loader every = pml::loader::open(all_types, on_host()).value();
    const pml::metadata_range values = every.metadata();
    CHECK(values.get<std::uint8_t>("u8").value() == 200 && values.get<int>("u8").value() == 200);
    const pml::result<std::int8_t> narrow = values.get<std::int8_t>("u8");
    CHECK(narrow.error().status == pml::status::wrong_type);
    CHECK(narrow.error().message == "metadata key 'u8': found 200, expected a number that fits 8 bits");
    CHECK(values.get<std::int64_t>("i8").value() == -100);
    CHECK(values.get<unsigned>("i8").error().status == pml::status::wrong_type);
    CHECK(values.get<std::uint64_t>("u64").value() == UINT64_MAX && !values.get<std::int64_t>("u64"));
    CHECK(values.get<std::int16_t>("i64").value() == -300 && values.get<bool>("bool").value());
    CHECK(values.get<bool>("u8").error().status == pml::status::wrong_type);
    CHECK(values.get<double>("f64").value() == 0.1 && values.get<float>("f64").value() == 0.1F);
    CHECK(values.get<float>("f32").value() == 1.5F);
    CHECK(values.get<std::vector<bool>>("bools").value() == std::vector<bool>({true, false, true}));
    CHECK(values.get<std::vector<std::uint16_t>>("u16s").value() == std::vector<std::uint16_t>({1, 65535}));
    CHECK(values.get<std::vector<std::uint64_t>>("u16s").value() == std::vector<std::uint64_t>({1, 65535}));
    CHECK(values.get<std::vector<std::uint8_t>>("u16s").error().status == pml::status::wrong_type);
    CHECK(values.get<std::vector<std::int64_t>>("empty").value().empty());
    const pml::metadata_entry nested = values.find("nested").value();
    CHECK(nested.element_type() == pml::value_type::array && nested.count() == 2);
    const pml::metadata_entry inner = nested.element_array(1).value();
    CHECK(inner.key().empty() && inner.get<std::vector<std::int32_t>>().value() == std::vector<std::int32_t>({3, 4, 5}));
    CHECK(nested.element_array(2).error().status == pml::status::out_of_range);
}

static void tensors(const std::string &model)
{
    pml::loader loader = pml::loader::open(model, on_host()).value();
    std::map<std::string, std::uint64_t> sizes;
    for (const pml::tensor &tensor : loader.tensors()) sizes[std::string(tensor.name())] = tensor.info().bytes;
    CHECK(sizes.size() == loader.tensors().size() && sizes.at("blk.0.attn_norm.weight") == 256 * 4);

    pml::tensor norm = loader.tensor("blk.0.attn_norm.weight").value();
    const pml::tensor_info info = norm.info();
    CHECK(info.name == "blk.0.attn_norm.weight" && info.dtype == pml::dtype::f32 && info.stored_dtype == info.dtype);
    CHECK(info.shape.size() == 1 && info.shape[0] == 256 && info.bytes == info.stored_bytes && info.shard == 0);
    const pml::tensor same = loader.tensors()[info.index];
    CHECK(same.name() == info.name && loader.layers()[info.layer].name() == "blk.0");
    CHECK(info.offset % 32 == 0 && !norm.is_loaded() && norm.view().error().status == pml::status::invalid_state);
    CHECK(loader.tensor("no.such").error().status == pml::status::not_found);

    std::vector<float> copied(256);
    norm.read(0, copied.data(), info.bytes).value();
    CHECK(norm.read(info.bytes, copied.data(), 1).error().status == pml::status::invalid_argument);
    {
        pml::lease held = norm.acquire().value();
        CHECK(held.is_held() && held.stream().raw() == PML_STREAM_HOST && held.device().kind == pml::device_kind::host);
        CHECK(held.dtype() == pml::dtype::f32 && held.size() == info.bytes && held.shape()[0] == 256);
        const pml::span<const float> numbers = held.as<float>().value();
        CHECK(std::equal(numbers.begin(), numbers.end(), copied.begin(), copied.end()) && numbers.data() == held.data());
        CHECK(held.bytes().value().size() == held.size());
        const pml::result<pml::span<const double>> wrong = held.as<double>();
        CHECK(wrong.error().status == pml::status::wrong_type);
        CHECK(wrong.error().message == "view: found F32 of the host, expected F64 of the host");
        CHECK(norm.is_loaded() && norm.view().value().data() == held.data());
        CHECK(loader.unload_layer(info.layer).error().status == pml::status::busy);
    }
    CHECK(norm.view().error().status == pml::status::invalid_state);
    loader.unload_layer(info.layer).value();

    // A lease keeps the handle of a temporary tensor.
    pml::lease kept = loader.tensor("blk.1.attn_q.weight").value().acquire(pml::stream::host(), 5s).value();
    CHECK(kept.as<pml::f16>().value().size() == 256 * 256 && kept.shape().size() == 2);
    pml::lease moved = std::move(kept);
    CHECK(!kept.is_held() && moved.is_held());
    const std::size_t blk1 = loader.layer("blk.1").value().index();
    CHECK(loader.layer("blk.1").value().acquire_count() == 1);
    moved = norm.acquire().value();
    CHECK(loader.layer("blk.1").value().acquire_count() == 0);
    loader.unload_layer(blk1).value();
    moved.release().value();
    CHECK(!moved.is_held() && moved.release().error().status == pml::status::invalid_state);

    // Ends in any order: what is acquired outlives the loader.
    pml::lease last = norm.acquire().value();
    pml::tensor other = loader.tensor("output.weight").value();
    other.prefetch().value();
    { const pml::loader gone = std::move(loader); }
    CHECK(last.as<float>().value()[3] == copied[3]);
    CHECK(other.acquire().error().status == pml::status::closed);
    pml::tensor adopted = std::move(norm);
    last.release().value();
}

static void leases_outlive(const std::string &model)
{
    std::vector<pml::lease> held;
    std::optional<pml::layer_lease> layer;
    std::optional<pml::layer_lease> of_temporary;
    pml::result<pml::tensor> seen = pml::error{};
    {
        pml::loader loader = pml::loader::open(model, on_host()).value();
        // Of tensors that end with each round.
        for (pml::tensor tensor : loader.tensors()) held.push_back(tensor.acquire().value());
        CHECK(held.size() == loader.tensors().size());
        const pml::layer first = loader.layer("blk.1").value();
        layer = loader.acquire_layer(first.index()).value();
        seen = loader.tensor("blk.1.attn_norm.weight");
    }
    of_temporary = pml::loader::open(model, on_host()).value().acquire_layer(1).value();
    CHECK(layer->is_held() && of_temporary->is_held() && of_temporary->index() == 1);
    CHECK(seen->view().value().as<float>().value().size() == 256);
    // The loader stays open as long as the layer's lease.
    seen->acquire().value().release().value();
    layer->release().value();
    layer.reset();
    CHECK(seen->acquire().error().status == pml::status::closed);
    for (const pml::lease &one : held) CHECK(one.is_held() && one.bytes().value().size() == one.size() && one.shape()[0] > 0);
    held.clear();
}

static void arrays_for_others(const std::string &model)
{
    DLManagedTensorVersioned *array = nullptr;
    {
        pml::loader loader = pml::loader::open(model, on_host()).value();
        pml::tensor norm = loader.tensor("blk.0.attn_norm.weight").value();
        array = norm.to_dlpack().value();
        CHECK(norm.is_loaded() && loader.unload_layer(norm.info().layer).error().status == pml::status::busy);
    }
    // The array outlives both.
    CHECK(array->version.major == 1 && array->flags == DLPACK_FLAG_BITMASK_READ_ONLY);
    CHECK(array->dl_tensor.ndim == 1 && array->dl_tensor.shape[0] == 256 && array->dl_tensor.dtype.bits == 32);
    CHECK(std::isfinite(static_cast<const float *>(array->dl_tensor.data)[255]));
    array->deleter(array);

    pml::loader loader = pml::loader::open(model, on_host().dtype(pml::dtype::q8_0)).value();
    pml::tensor blocks = loader.tensor("blk.0.attn_q.weight").value();
    CHECK(blocks.to_dlpack().error().status == pml::status::unsupported && !blocks.is_loaded());
}

static void layers(const std::string &model)
{
    pml::loader loader = pml::loader::open(model, on_host().max_loaded_layers(2)).value();
    std::vector<std::string> names;
    std::size_t tensors = 0;
    for (const pml::layer &layer : loader.layers()) {
        CHECK(layer.index() == names.size() && layer.state() == pml::layer_state::absent);
        names.emplace_back(layer.name());
        std::uint64_t bytes = 0;
        for (const pml::tensor &tensor : layer.tensors()) {
            CHECK(tensor.info().layer == layer.index());
            bytes += tensor.info().bytes;
            tensors++;
        }
        CHECK(bytes == layer.bytes());
    }
    CHECK(names.size() == 6 && tensors == loader.tensors().size());
    CHECK(loader.layer("blk.9").error().status == pml::status::not_found);

    const std::vector<std::size_t> odd_first{2, 4};
    loader.set_layer_order(odd_first).value();
    const std::vector<pml::layer> ordered = loader.layer_order();
    CHECK(ordered.size() == 6 && ordered[0].index() == 2 && ordered[1].index() == 4 && ordered[2].position() == 2);
    CHECK(loader.set_layer_order(std::vector<std::size_t>{1, 1}).error().status == pml::status::invalid_argument);
    // A 0 in braces is an index, no address.
    loader.set_layer_order({0, 1}).value();
    CHECK(loader.layer_order()[0].index() == 0 && loader.layer_order()[1].index() == 1);
    loader.set_layer_order({2, 4}).value();

    {
        pml::layer_lease first = loader.acquire_layer(ordered[0].index()).value();
        CHECK(first.is_held() && first.index() == 2 && first.stream().raw() == PML_STREAM_HOST);
        CHECK(loader.layers()[2].state() == pml::layer_state::resident && loader.layers()[2].acquire_count() == 1);
        const pml::tensor tensor = ordered[0].tensors()[0];
        CHECK(tensor.view().value().bytes().value().size() == tensor.info().bytes);
        pml::layer_lease second = loader.acquire_layer(4).value();
        // NEVER unloads: a third finds no room, at once.
        const pml::result<pml::layer_lease> none = loader.acquire_layer(0, pml::stream::host(), 0s);
        CHECK(none.error().status == pml::status::budget && !none.error().message.empty());
        first = std::move(second);
        CHECK(loader.layers()[2].acquire_count() == 0 && loader.layers()[4].acquire_count() == 1);
        first.release().value();
        CHECK(first.release().error().status == pml::status::invalid_state);
    }
    loader.unload_layer(2).value();
    loader.unload_layer(4).value();
    CHECK(loader.acquire_layer(99).error().status == pml::status::out_of_range);

    loader.prefetch_layer("blk.3").value();
    CHECK(in_time([&] { return loader.layer("blk.3").value().state() == pml::layer_state::resident; }));
    loader.unload_layer(loader.layer("blk.3").value().index()).value();
    loader.prefetch({0, 1}).value();
    CHECK(in_time([&] { return loader.layers()[0].state() == loader.layers()[1].state() &&
                               loader.layers()[1].state() == pml::layer_state::resident; }));
    CHECK(loader.prefetch_layers(std::vector<std::string>{"blk.0", "blk.7"}).error().status == pml::status::not_found);
    loader.prefetch_layers(std::vector<std::string>{"blk.0"}).value();
    CHECK(loader.prefetch_layer("blk.7").error().status == pml::status::not_found);
    loader.prefetch_layer(0).value();
    loader.prefetch(std::vector<std::size_t>{1}).value();
}

static void an_order_has_each_layer_once(const std::string &model)
{
    pml::loader loader = pml::loader::open(model, on_host()).value();
    std::atomic<bool> is_over{false};
    std::thread other([&] {
        while (!is_over) {
            loader.set_layer_order({5, 4, 3, 2, 1, 0}).value();
            loader.set_layer_order({0, 1, 2, 3, 4, 5}).value();
        }
    });
    for (int round = 0; round < 2000; round++) {
        std::set<std::size_t> indices;
        for (const pml::layer &layer : loader.layer_order()) {
            CHECK(!layer.name().empty());
            indices.insert(layer.index());
        }
        CHECK(indices.size() == 6);
    }
    is_over = true;
    other.join();
}

static void loading(const std::string &model)
{
    pml::loader loader = pml::loader::open(model, on_host().strategy(pml::strategy::parallel)).value();
    CHECK(loader.wait(0s).error().status == pml::status::invalid_state && loader.stage() == pml::stage::opening);
    loader.start().value();
    loader.wait(30s).value();
    CHECK(loader.progress() == 1.0 && loader.is_fully_loaded() && loader.stage() == pml::stage::done);
    const pml::stats stats = loader.stats().value();
    CHECK(stats.resident_bytes == stats.total_bytes && stats.device() == pml::device{} && !stats.reason().empty());
    CHECK(stats.cached() == pml::cache_state::none && stats.read_time() >= 0s && stats.copy_time() == 0s);
    CHECK(stats.transform_time() == 0s && stats.workers > 0);

    // Events by pull.
    std::size_t told = 0;
    bool is_full = false;
    while (const pml::result<pml::event> event = loader.next_event(is_full ? 0ms : 10000ms)) {
        if (event->kind == pml::event_kind::layer_loaded) {
            CHECK(event->layer.value() < 6 && !event->tensor && event->status == pml::status::ok);
            told++;
        }
        if (event->kind == pml::event_kind::fully_loaded) {
            CHECK(event->bytes_done == stats.total_bytes && event->bytes_total == stats.total_bytes);
            CHECK(event->layers_done == 6 && event->layers_total == 6 && event->stage == pml::stage::done);
            is_full = true;
        }
    }
    CHECK(told == 6 && is_full && loader.next_event(0s).error().status == pml::status::timed_out);
    loader.cancel().value();

    // Into memory of the caller's own.
    const std::vector<std::byte> file = all_bytes(model);
    const pml::tensor query = loader.tensor("blk.2.attn_q.weight").value();
    const pml::tensor norm = loader.tensor("output_norm.weight").value();
    std::vector<std::byte> into_query(query.info().bytes);
    std::vector<std::byte> into_norm(norm.info().bytes);
    loader.load_into(std::vector<pml::destination>{{query, into_query.data(), into_query.size()},
                                                   {norm, into_norm.data(), into_norm.size()}})
        .value();
    const auto at = file.begin() + static_cast<std::ptrdiff_t>(query.info().offset);
    CHECK(std::equal(into_query.begin(), into_query.end(), at));
    const pml::destination too_small[] = {{norm, into_norm.data(), 3}};
    CHECK(loader.load_into(too_small).error().status == pml::status::invalid_argument);
    // Of tensors that end before.
    std::map<std::size_t, std::vector<std::byte>> memory;
    std::vector<pml::destination> all;
    for (const pml::tensor &tensor : loader.tensors()) {
        std::vector<std::byte> &own = memory[tensor.info().offset];
        own.resize(tensor.info().bytes);
        all.push_back({tensor, own.data(), own.size()});
    }
    loader.load_into(all).value();
    for (const auto &[offset, own] : memory)
        CHECK(std::equal(own.begin(), own.end(), file.begin() + static_cast<std::ptrdiff_t>(offset)));

    // From memory that the library keeps.
    auto owner = std::make_shared<const std::vector<std::byte>>(file);
    const std::weak_ptr<const std::vector<std::byte>> watched = owner;
    const pml::span<const std::byte> bytes = *owner;
    {
        const pml::loader inside = pml::loader::open_memory(bytes, std::move(owner), on_host()).value();
        CHECK(!watched.expired());
        const pml::lease held = inside.tensor("output_norm.weight").value().acquire().value();
        CHECK(std::equal(into_norm.begin(), into_norm.end(), held.bytes().value().begin()));
        CHECK(held.data() >= static_cast<const void *>(bytes.begin()) && held.data() < static_cast<const void *>(bytes.end()));
    }
    CHECK(in_time([&] { return watched.expired(); }));
    owner = std::make_shared<const std::vector<std::byte>>(3);
    const std::weak_ptr<const std::vector<std::byte>> refused = owner;
    const pml::span<const std::byte> three = *owner;
    CHECK(!pml::loader::open_memory(three, std::move(owner)) && in_time([&] { return refused.expired(); }));

    loader.verify().value();
    loader.verify(pml::verify_for::structure | pml::verify_for::values).value();
}

struct counted_memory : pml::allocator {
    std::atomic<int> given{0};
    std::atomic<int> taken{0};
    void *allocate(std::size_t size, std::size_t alignment, pml::device on) noexcept override
    {
        if (on.kind != pml::device_kind::host) return nullptr;
        given++;
        return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    }
    void deallocate(void *memory, std::size_t, std::size_t, pml::device) noexcept override
    {
        taken++;
        std::free(memory);
    }
};

static void options(const std::string &model, const std::string &folder)
{
    pml::rules rules = pml::rules::create().value();
    rules.layer("*.attn_norm.weight", "norms").value();
    rules.skip("output*").value();
    rules.dtype("blk.0.*", pml::dtype::f32).value();
    CHECK(rules.layer("", "x").error().status == pml::status::invalid_argument);
    CHECK(rules.layer("x", std::string_view("\0", 1)).error().status == pml::status::invalid_argument);
    CHECK(rules.dtype("x", pml::dtype::q4_k).error().status == pml::status::invalid_argument);
    CHECK(pml::budget::create(0).error().status == pml::status::invalid_argument);
    pml::budget budget = pml::budget::create(64U << 20).value();
    auto memory = std::make_shared<counted_memory>();

    pml::options how = pml::options{}
                           .device("cpu")
                           .strategy(pml::strategy::sequential)
                           .max_concurrent_loads(2)
                           .prefetch_count(3)
                           .unload(pml::unload::lru)
                           .max_loaded_layers(5)
                           .memory_budget(32U << 20)
                           .budget(budget)
                           .io(pml::io::read)
                           .workers(2)
                           .alignment(64)
                           .tail_padding(16)
                           .layer_order(pml::layer_order::file)
                           .recovery(pml::recovery::retry)
                           .retry_count(5)
                           .retry_backoff(1500us)
                           .rules(rules)
                           .allocator(memory)
                           .pressure_threshold(1)
                           .format(pml::format::gguf)
                           .dtype(pml::dtype::bf16)
                           .keep_original(true)
                           .cache_path(folder + "/cache")
                           .cache_digest(true)
                           .cache_limit(1U << 30)
                           .log_level(pml::log_level::debug);
    const pml_options_t &raw = how.raw();
    CHECK(raw.strategy == PML_STRATEGY_SEQUENTIAL && raw.max_concurrent_loads == 2 && raw.prefetch_count == 3);
    CHECK(raw.unload == PML_UNLOAD_LRU && raw.max_loaded_layers == 5 && raw.memory_budget == 32U << 20);
    CHECK(raw.budget == budget.raw() && raw.io == PML_IO_READ && raw.workers == 2 && raw.alignment == 64);
    CHECK(raw.tail_padding == 16 && raw.layer_order == PML_LAYER_ORDER_FILE && raw.recovery == PML_RECOVERY_RETRY);
    CHECK(raw.retry_count == 5 && raw.retry_backoff_ms == 2 && raw.rules == rules.raw() && raw.pressure_threshold == 1);
    CHECK(raw.format == PML_FORMAT_GGUF && raw.dtype == PML_DTYPE_BF16 && raw.keep_original == 1 && raw.cache_digest == 1);
    CHECK(raw.cache_limit == 1U << 30 && raw.log_level == PML_LOG_DEBUG);
    CHECK(pml::options{}.retry_backoff(pml::timeout::never()).raw().retry_backoff_ms == UINT32_MAX);
    const pml_options_t initial = PML_OPTIONS_INIT;
    CHECK(std::memcmp(&initial, &pml::options{}.raw(), sizeof initial) == 0);

    {
        const pml::loader loader = pml::loader::open(model, how).value();
        const pml::layer norms = loader.layer("norms").value();
        const auto dtype_of = [&](const char *name) {
            const pml::tensor tensor = loader.tensor(name).value();
            return tensor.info().dtype;
        };
        const pml::tensor norm = loader.tensor("blk.2.attn_norm.weight").value();
        CHECK(norm.info().layer == norms.index() && !loader.layer("output"));
        CHECK(dtype_of("blk.0.attn_q.weight") == pml::dtype::f32 && dtype_of("blk.1.attn_q.weight") == pml::dtype::bf16);
        CHECK(dtype_of("blk.1.attn_q.weight.original") == pml::dtype::f16);
        const pml::lease held = loader.tensor("blk.1.attn_q.weight").value().acquire().value();
        CHECK(held.as<pml::bf16>() && reinterpret_cast<std::uintptr_t>(held.data()) % 64 == 0);
        CHECK(memory->given > 0 && loader.stats().value().cached() == pml::cache_state::writing);
    }
    how = pml::options();
    CHECK(in_time([&] { return memory.use_count() == 1; }) && memory->given == memory->taken);
    CHECK(std::filesystem::exists(folder + "/cache"));

    // Refused: the callbacks and the allocator are let go of all the same.
    CHECK(pml::loader::open(model, on_host().allocator(memory).alignment(3)).error().status == pml::status::invalid_argument);
    CHECK(in_time([&] { return memory.use_count() == 1; }));

    pml::options suited = pml::options::recommend(model, "cpu", 64U << 20).value();
    CHECK(suited.raw().strategy == PML_STRATEGY_PARALLEL && pml::loader::open(model, suited));
    CHECK(pml::options::recommend(model, "cpu", 1024).error().status == pml::status::budget);
}

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    spans();
    results(argv[1]);
    exception_classes();
    small_things();
    metadata(argv[1], argv[2]);
    tensors(argv[1]);
    leases_outlive(argv[1]);
    arrays_for_others(argv[1]);
    layers(argv[1]);
    an_order_has_each_layer_once(argv[1]);
    loading(argv[1]);
    options(argv[1], argv[3]);
    return 0;
}
