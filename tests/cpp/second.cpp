// The second of two translation units.
#include "check.hpp"

pml::result<pml::lease> acquire_in_second(pml::tensor &tensor, const pml::options &how);
pml::span<const float> numbers_in_second(const pml::lease &held);

pml::result<pml::lease> acquire_in_second(pml::tensor &tensor, const pml::options &how)
{
    CHECK(how.raw().strategy == PML_STRATEGY_PREFETCH);
    return tensor.acquire();
}

pml::span<const float> numbers_in_second(const pml::lease &held)
{
    return held.as<float>().value();
}
