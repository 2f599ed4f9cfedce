// How fast one core reads memory: what a kernel that is bound by it can be held against.
#pragma once

#include <cstddef>

namespace dllama {

// Bytes per second of the fastest of n_passes over n_bytes (a multiple of 256) of fresh memory. Throws std::bad_alloc.
double read_bandwidth(std::size_t n_bytes, unsigned n_passes);

} // namespace dllama
