// What the test programs share.
#ifndef PML_TEST_CHECK_HPP
#define PML_TEST_CHECK_HPP

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "pml.hpp"

#define CHECK(condition)                                                                                       \
    do {                                                                                                       \
        if (!(condition)) {                                                                                    \
            std::fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition, pml_last_error()); \
            std::exit(1);                                                                                      \
        }                                                                                                      \
    } while (0)

/// Waits for what another thread does, at most ten seconds.
template <class Condition>
bool in_time(Condition holds)
{
    for (int round = 0; round < 10000; round++) {
        if (holds()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return holds();
}

#endif
