// Built without exceptions: no_exceptions MODEL opens it, no_exceptions alone aborts at a value that is not there.
#include "check.hpp"

#ifndef PML_NO_EXCEPTIONS
#error "the header has to find out by itself"
#endif

int main(int argc, char **argv)
{
    pml::result<pml::loader> opened = pml::loader::open(argc == 2 ? argv[1] : "no/such/model", pml::options{}.device("cpu"));
    if (argc != 2) {
        opened.value().cancel().value();
        return 0;
    }
    CHECK(opened);
    pml::loader &loader = *opened;
    std::atomic<int> layers{0};
    pml::result<pml::loader> told = pml::loader::open(
        argv[1], pml::options{}.device("cpu").on_layer_loaded([&](const pml::event &) { layers++; }));
    CHECK(told && told->start() && told->wait());
    CHECK(in_time([&] { return layers == 6; }));
    for (const pml::layer &layer : loader.layers()) {
        const pml::result<pml::layer_lease> held = loader.acquire_layer(layer.index());
        CHECK(held && held->is_held());
        for (const pml::tensor &tensor : layer.tensors()) CHECK(tensor.view());
    }
    const pml::result<std::string> name = loader.metadata().get<std::string>("general.architecture");
    CHECK(name && *name == "llama");
    return 0;
}
