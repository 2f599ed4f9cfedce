#include "bandwidth.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "memory.hpp"

namespace dllama {

namespace {

typedef uint64_t Words __attribute__((vector_size(64)));

// Two independent sums of 64 bytes, as many as registers hold everywhere: nothing but memory is waited for.
uint64_t read(const unsigned char *data, std::size_t n_bytes) {
    Words sums[2] = {};
    for (std::size_t i = 0; i + sizeof sums <= n_bytes; i += sizeof sums)
        for (std::size_t k = 0; k < 2; k++) {
            Words words;
            std::memcpy(&words, data + i + k * sizeof words, sizeof words);
            sums[k] += words;
        }
    uint64_t total = 0;
    for (const Words &words : sums)
        for (std::size_t i = 0; i < 8; i++)
            total += words[i];
    return total;
}

} // namespace

double read_bandwidth(std::size_t n_bytes, unsigned n_passes) {
    const Memory memory(n_bytes);
    std::memset(memory.data(), 1, n_bytes);
    double best = 0.0;
    volatile uint64_t kept; // or the compiler would leave out the reading
    for (unsigned pass = 0; pass < n_passes; pass++) {
        const auto start = std::chrono::steady_clock::now();
        kept = read(memory.data(), n_bytes);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::max(best, double(n_bytes) / took.count());
    }
    static_cast<void>(kept);
    return best;
}

} // namespace dllama
