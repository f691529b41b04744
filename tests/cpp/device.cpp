// Tensors and layers on a GPU, with its streams: device MODEL
#include <vector>

#include "check.hpp"

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const char *const where = std::getenv("PML_TEST_DEVICE");
    CHECK(where != nullptr);
    const pml::device_kind kind = where[0] == 'c' ? pml::device_kind::cuda : pml::device_kind::hip;
    pml::loader loader = pml::loader::open(argv[1], pml::options{}.device(where)).value();
    CHECK(!loader.stats().value().device());
    pml::tensor norm = loader.tensor("output_norm.weight").value();
    CHECK(norm.acquire(nullptr).error().status == pml::status::invalid_argument);

    pml::lease held = norm.acquire(pml::stream::per_thread()).value();
    CHECK((held.device() == pml::device{kind, 0}) && held.stream().raw() == PML_STREAM_PER_THREAD);
    CHECK(held.size() == 1024 && held.dtype() == pml::dtype::f32);
    const auto numbers = held.as<float>();
    CHECK(numbers.error().status == pml::status::wrong_type);
    CHECK(numbers.error().message == "view: found F32 of a GPU, expected F32 of the host");
    CHECK(held.bytes().error().status == pml::status::wrong_type);
    held.release().value();

    const std::size_t layer = loader.layer("blk.1").value().index();
    {
        const pml::layer_lease used = loader.acquire_layer(layer, pml::stream::legacy()).value();
        CHECK(used.stream().raw() == PML_STREAM_LEGACY && loader.layers()[layer].acquire_count() == 1);
        const pml::layer_lease again = loader.acquire_layer(layer).value();
        CHECK(again.stream().raw() == PML_STREAM_HOST && loader.layers()[layer].acquire_count() == 2);
    }
    CHECK(loader.layers()[layer].acquire_count() == 0);
    CHECK((loader.stats().value().device() == pml::device{kind, 0}) && loader.stats().value().copied_bytes > 0);

    std::vector<float> read(256);
    norm.read(0, read.data(), 1024).value();
    return 0;
}
