// A translation unit with exceptions, in a program that does without them elsewhere.
#include "check.hpp"

bool opens_in_aborting(const char *path);

int main(int argc, char **argv)
{
    CHECK(argc == 2 && opens_in_aborting(argv[1]) && !opens_in_aborting("no/such/model"));
    try {
        pml::loader::open("no/such/model").value().cancel().value();
        CHECK(false);
    } catch (const pml::model_error &thrown) {
        CHECK(thrown.status() == pml::status::not_found);
    }
    return 0;
}
