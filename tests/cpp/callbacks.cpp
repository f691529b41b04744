// Callbacks, and what becomes of their exceptions: callbacks MODEL FOLDER
#include <atomic>
#include <filesystem>
#include <limits>
#include <mutex>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"

using namespace std::chrono_literals;

struct broken : std::runtime_error {
    using std::runtime_error::runtime_error;
};

static pml::options on_host()
{
    return pml::options{}.device("cpu");
}

/// Whether the error is that of a callback, and `.value()` throws what it threw.
static bool is_thrown(const pml::result<void> &outcome, const std::string &by)
{
    if (outcome || outcome.error().status != pml::status::cancelled || !outcome.error().cause) return false;
    if (outcome.error().message != by + " threw: so it is") return false;
    try {
        outcome.value();
    } catch (const broken &thrown) {
        return thrown.what() == std::string("so it is");
    } catch (...) {
    }
    return false;
}

template <class T>
static pml::result<void> of(const pml::result<T> &any)
{
    if (any) return {};
    return any.error();
}

static void all_are_told(const std::string &model)
{
    auto alive = std::make_shared<int>(0);
    std::atomic<int> layers{0}, progress{0}, full{0}, lines{0};
    {
        const pml::options how = on_host()
                                     .on_layer_loaded([&, alive](const pml::event &event) {
                                         CHECK(event.kind == pml::event_kind::layer_loaded && event.layer.value() < 6);
                                         layers++;
                                     })
                                     .on_progress([&, alive](const pml::event &event) {
                                         CHECK(event.bytes_done <= event.bytes_total);
                                         progress++;
                                         return pml::verdict::go_on;
                                     })
                                     .on_fully_loaded([&](const pml::event &event) {
                                         CHECK(event.stage == pml::stage::done);
                                         full++;
                                     })
                                     .log([&](pml::log_level level, std::string_view line) {
                                         CHECK(level <= pml::log_level::debug && !line.empty());
                                         lines++;
                                     })
                                     .log_level(pml::log_level::debug);
        pml::loader loader = pml::loader::open(model, how).value();
        loader.start().value();
        loader.wait().value();
        CHECK(in_time([&] { return layers == 6 && full == 1 && progress > 0; }));
        CHECK(loader.next_event(0s).error().status == pml::status::invalid_state);
        loader.callback_failure().value();
        loader.cancel().value();
        CHECK(in_time([&] { return lines > 0; }));
    }
    // Kept until the loader is gone, and no longer.
    CHECK(in_time([&] { return alive.use_count() == 1; }));
}

static void a_loader_that_fails_to_open_lets_go()
{
    auto alive = std::make_shared<int>(0);
    CHECK(!pml::loader::open("no/such/model", on_host().on_fully_loaded([alive](const pml::event &) {})));
    CHECK(in_time([&] { return alive.use_count() == 1; }));
}

static void what_can_wait_is_refused_inside(const std::string &model)
{
    std::atomic<pml::loader *> seen{nullptr};
    std::atomic<int> refused{0};
    pml::loader loader = pml::loader::open(model, on_host().on_layer_loaded([&](const pml::event &) {
                                                      while (seen == nullptr) std::this_thread::yield();
                                                      const auto acquired = seen.load()->acquire_layer(0);
                                                      if (!acquired && acquired.error().status == pml::status::would_deadlock)
                                                          refused++;
                                                  })).value();
    seen = &loader;
    loader.prefetch_layer(1).value();
    CHECK(in_time([&] { return refused == 1; }));
}

static void progress_cancels(const std::string &model)
{
    pml::loader loader =
        pml::loader::open(model, on_host().on_progress([](const pml::event &) { return pml::verdict::cancel; })).value();
    loader.start().value();
    // All may have been delivered before the callback is heard: then nothing is left to cancel.
    const pml::result<void> ended = loader.wait();
    CHECK(ended || (ended.error().status == pml::status::cancelled && !ended.error().cause));
}

static void an_exception_surfaces_once(const std::string &model)
{
    // In on_progress: the loading ends, and the next call that waits has it.
    {
        std::atomic<bool> has_thrown{false};
        pml::loader loader = pml::loader::open(model, on_host().on_progress([&](const pml::event &) -> pml::verdict {
                                                          if (!has_thrown.exchange(true)) throw broken("so it is");
                                                          return pml::verdict::go_on;
                                                      })).value();
        loader.start().value();
        CHECK(in_time([&] { return has_thrown.load(); }));
        pml::result<void> first = loader.wait(10s);
        // All may have been delivered by then.
        CHECK(!first || in_time([&] { return !(first = loader.callback_failure()); }));
        CHECK(is_thrown(first, "on_progress"));
        loader.callback_failure().value();
        // Nothing is broken: the rest comes.
        CHECK(in_time([&] { return loader.start() && loader.wait(10s); }) && loader.is_fully_loaded());
    }
    // In on_layer_loaded: from an acquire of a layer, which holds nothing then; and from each kind of call, once.
    const auto thrower = [](const pml::event &) { throw broken("so it is"); };
    const auto loaded_and_thrown = [&](std::atomic<int> &told) {
        return pml::loader::open(model, on_host().on_layer_loaded([&told, thrower](const pml::event &event) {
                                            struct count {
                                                std::atomic<int> &to;
                                                ~count() { to++; }
                                            } const after{told};
                                            thrower(event);
                                        })).value();
    };
    std::atomic<int> told{0};
    std::vector<float> numbers(256);
    for (int call = 0; call < 5; call++) {
        told = 0;
        pml::loader loader = loaded_and_thrown(told);
        pml::tensor norm = loader.tensor("output_norm.weight").value();
        loader.prefetch_layer(1).value();
        CHECK(in_time([&] { return told == 1; }));
        const auto surfaces = [&]() -> pml::result<void> {
            const pml::destination into[] = {{norm, numbers.data(), numbers.size() * sizeof(float)}};
            switch (call) {
            case 0: return of(loader.acquire_layer(1));
            case 1: return of(norm.acquire());
            case 2: return norm.read(0, numbers.data(), 8);
            case 3: return loader.load_into(into);
            default: return loader.callback_failure();
            }
        };
        // The count goes up a moment before the exception is kept.
        pml::result<void> outcome;
        CHECK(in_time([&] { return !(outcome = surfaces()); }));
        CHECK(is_thrown(outcome, "on_layer_loaded"));
        CHECK(loader.layers()[1].acquire_count() == 0 && loader.layers()[norm.info().layer].acquire_count() == 0);
        CHECK(loader.acquire_layer(1) && loader.callback_failure());
    }
    // In on_fully_loaded and in the log, where nothing is left to be ended.
    for (const std::string by : {"on_fully_loaded", "log"}) {
        pml::options how = on_host();
        if (by == "log")
            how.log([](pml::log_level, std::string_view) { throw broken("so it is"); }).log_level(pml::log_level::debug);
        else
            how.on_fully_loaded(thrower);
        pml::loader loader = pml::loader::open(model, how).value();
        loader.start().value();
        pml::result<void> outcome = loader.wait();
        if (outcome && by == "log") loader.cancel().value();
        CHECK(!outcome || in_time([&] { return !(outcome = loader.callback_failure()); }));
        CHECK(is_thrown(outcome, by));
    }
    // What is no std::exception goes the same way.
    pml::loader loader = pml::loader::open(model, on_host().on_fully_loaded([](const pml::event &) { throw 7; })).value();
    loader.start().value();
    pml::result<void> outcome = loader.wait();
    CHECK(!outcome || in_time([&] { return !(outcome = loader.callback_failure()); }));
    CHECK(outcome.error().message == "on_fully_loaded threw");
    try {
        outcome.value();
        CHECK(false);
    } catch (int thrown) {
        CHECK(thrown == 7);
    }
}

static void errors_are_decided(const std::string &model, const std::string &folder)
{
    const std::string cut = folder + "/cut.gguf";
    const auto open_and_cut = [&](pml::options how) {
        std::filesystem::copy_file(model, cut, std::filesystem::copy_options::overwrite_existing);
        pml::loader loader = pml::loader::open(cut, how.io(pml::io::read)).value();
        const std::uint64_t offset = loader.tensor("output.weight").value().info().offset;
        std::filesystem::resize_file(cut, offset + 1);
        return loader;
    };
    std::atomic<int> asked{0};
    pml::loader skips = open_and_cut(on_host().on_error([&](const pml::event &event) {
        CHECK(event.kind == pml::event_kind::error && event.status == pml::status::truncated);
        CHECK(event.message.find("output.weight") != std::string_view::npos && event.tensor);
        asked++;
        return pml::error_answer::skip;
    }));
    const std::size_t output = skips.layer("output").value().index();
    CHECK(skips.acquire_layer(output).error().status == pml::status::incomplete && asked == 1);

    pml::loader throws = open_and_cut(on_host().recovery(pml::recovery::skip).on_error(
        [](const pml::event &) -> pml::error_answer { throw broken("so it is"); }));
    // The exception answers fail, whatever the options say, and is what the acquire gives.
    CHECK(is_thrown(of(throws.acquire_layer(output)), "on_error"));
    throws.callback_failure().value();
}

static void verify_tells(const std::string &model, const std::string &folder)
{
    const std::string rotten = folder + "/rotten.gguf";
    std::filesystem::copy_file(model, rotten);
    const std::uint64_t offset = pml::loader::open(rotten).value().tensor("output_norm.weight").value().info().offset;
    {
        std::fstream file(rotten, std::ios::binary | std::ios::in | std::ios::out);
        file.seekp(static_cast<std::streamoff>(offset));
        const float nan = std::numeric_limits<float>::quiet_NaN();
        file.write(reinterpret_cast<const char *>(&nan), sizeof nan);
    }
    pml::loader loader = pml::loader::open(rotten).value();
    int findings = 0;
    const pml::result<void> found = loader.verify(pml::verify_for::values, [&](const pml::event &event) {
        CHECK(event.stage == pml::stage::validating && event.message.find("output_norm") != std::string_view::npos);
        findings++;
        return pml::verdict::go_on;
    });
    CHECK(found.error().status == pml::status::malformed && findings == 1);
    CHECK(loader.verify(pml::verify_for::structure));
    const pml::result<void> ended =
        loader.verify(pml::verify_for::all, [](const pml::event &) { return pml::verdict::cancel; });
    CHECK(ended.error().status == pml::status::cancelled && !ended.error().cause);
    const pml::result<void> thrown = loader.verify(
        pml::verify_for::all, [](const pml::event &) -> pml::verdict { throw broken("so it is"); });
    CHECK(is_thrown(thrown, "verify"));
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    all_are_told(argv[1]);
    a_loader_that_fails_to_open_lets_go();
    what_can_wait_is_refused_inside(argv[1]);
    progress_cancels(argv[1]);
    an_exception_surfaces_once(argv[1]);
    errors_are_decided(argv[1], argv[2]);
    verify_tells(argv[1], argv[2]);
    return 0;
}
