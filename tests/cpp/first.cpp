// Two translation units of one program, each of a standard of its own, that hand each other what the header makes.
#include "check.hpp"

pml::result<pml::lease> acquire_in_second(pml::tensor &tensor, const pml::options &how);
pml::span<const float> numbers_in_second(const pml::lease &held);

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const pml::options how = pml::options{}.device("cpu").strategy(pml::strategy::prefetch);
    pml::tensor norm = pml::loader::open(argv[1], how).value().tensor("output_norm.weight").value();
    CHECK(acquire_in_second(norm, how).error().status == pml::status::closed);
    const pml::loader loader = pml::loader::open(argv[1], how).value();
    norm = loader.tensor("output_norm.weight").value();
    const pml::lease held = acquire_in_second(norm, how).value();
    CHECK(numbers_in_second(held).data() == held.data() && numbers_in_second(held).size() == 256);
    return 0;
}
