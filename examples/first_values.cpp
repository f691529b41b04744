// Prints the first values of a tensor of F32: first_values MODEL TENSOR
#include <algorithm>
#include <exception>
#include <iostream>
#include <pml.hpp>

int main(int argc, char **argv)
{
    if (argc != 3) return std::cerr << "usage: first_values MODEL TENSOR\n", 2;
    try {
        const pml::loader model = pml::loader::open(argv[1], pml::options{}.device("cpu")).value();
        const pml::lease held = model.tensor(argv[2]).value().acquire().value();
        const pml::span<const float> values = held.as<float>().value();
        for (std::size_t i = 0; i < std::min<std::size_t>(values.size(), 8); i++) std::cout << values[i] << ' ';
        std::cout << '\n';
    } catch (const pml::exception &error) {
        return std::cerr << error.what() << '\n', 1; // one line: file, tensor, found, expected
    }
}
