// A translation unit without exceptions, in a program that has them elsewhere.
#define PML_NO_EXCEPTIONS 1
#include "check.hpp"

bool opens_in_aborting(const char *path);

bool opens_in_aborting(const char *path)
{
    pml::result<pml::loader> opened = pml::loader::open(path, pml::options{}.device("cpu"));
    if (!opened) return false;
    opened.value().cancel().value();
    return true;
}
