// Which instruction sets were built in, and which of them this processor has.
#pragma once

#include <string>
#include <vector>

#include "op_spec.hpp"

namespace dllama {

// Kernel sets this processor can run, slowest first; never empty.
const std::vector<const KernelSet *> &available_kernel_sets();

// One of them by name, or null.
const KernelSet *kernel_set_named(const std::string &name);

} // namespace dllama
