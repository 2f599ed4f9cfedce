#include "bandwidth.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "cpu.hpp"
#include "memory.hpp"

namespace dllama {

double read_bandwidth(std::size_t n_bytes, unsigned n_passes) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const Memory memory(n_bytes);
    std::memset(memory.data(), 1, n_bytes);
    double best = 0.0;
    volatile int32_t kept = 0; // or the compiler would leave out the reading
    for (unsigned pass = 0; pass < n_passes; pass++) {
        const auto start = std::chrono::steady_clock::now();
        kept = kernels.sum_bytes(memory.data(), n_bytes);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::max(best, double(n_bytes) / took.count());
    }
    static_cast<void>(kept);
    return best;
}

} // namespace dllama
