// All ops with the kernels of one instruction set.
#include "op_table.hpp"
#include "q40_tile.hpp"
#include "simd.hpp"

#define DLLAMA_TEXT_OF(name) #name
#define DLLAMA_TEXT(name) DLLAMA_TEXT_OF(name)

namespace dllama {
namespace DLLAMA_ISA {

namespace {

const OpTable *const kTables[] = {
    &activation_ops, &arithmetic_ops, &attention_ops, &matmul_ops, &moe_ops, &movement_ops, &norm_ops, &rope_ops,
};

int32_t sum_bytes(const unsigned char *data, size_t n_bytes) {
    I sums[4] = {};
    for (size_t i = 0; i < n_bytes; i += sizeof sums)
        for (size_t k = 0; k < 4; k++)
            sums[k] += load_as<I>(data + i + k * sizeof(I));
    const I all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    int32_t total = 0;
    for (int k = 0; k < kWidth; k++)
        total = (int32_t)((uint32_t)total + (uint32_t)all[k]);
    return total;
}

constexpr KernelSet kSet = {DLLAMA_TEXT(DLLAMA_ISA), kTileRows, kTables, sum_bytes, &block_formats};

} // namespace

const KernelSet &kernel_set() {
    return kSet;
}

} // namespace DLLAMA_ISA
} // namespace dllama
