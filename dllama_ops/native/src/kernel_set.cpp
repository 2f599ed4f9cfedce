// All kernels of one instruction set, by key.
#include "isa_kernels.hpp"
#include "q40_tile.hpp"
#include "simd.hpp"

#define DLLAMA_TEXT_OF(name) #name
#define DLLAMA_TEXT(name) DLLAMA_TEXT_OF(name)

namespace dllama {
namespace DLLAMA_ISA {

namespace {

struct Entry {
    OpCode code;
    QuantType quant;
    Kernel kernel;
};

const Entry kEntries[] = {
    {OpCode::merge_add, QuantType::f32_f32_f32, merge_add_f32},
    {OpCode::merge_add, QuantType::q80_q80_f32, merge_add_q80},
    {OpCode::merge_sum, QuantType::f32_f32_f32, merge_sum_f32},
    {OpCode::embedding, QuantType::f32_f32_f32, embedding_f32},
    {OpCode::embedding, QuantType::f32_f32_q80, embedding_f32_q80},
    {OpCode::inv_rms, QuantType::f32_f32_f32, inv_rms_f32},
    {OpCode::rms_norm, QuantType::f32_f32_f32, rms_norm_f32},
    {OpCode::rms_norm, QuantType::q80_f32_f32, rms_norm_q80},
    {OpCode::matmul, QuantType::f32_f32_f32, matmul_f32},
    {OpCode::matmul, QuantType::f32_q40_f32, matmul_f32_q40},
    {OpCode::matmul, QuantType::q80_q40_f32, matmul_q80_q40},
    {OpCode::matmul, QuantType::q80_f32_f32, matmul_q80_f32},
    {OpCode::rope, QuantType::f32_f32_f32, rope_f32},
    {OpCode::multihead_att, QuantType::f32_f32_f32, multihead_att_f32},
    {OpCode::gelu, QuantType::f32_f32_f32, gelu_f32},
    {OpCode::silu, QuantType::f32_f32_f32, silu_f32},
    {OpCode::mul, QuantType::f32_f32_f32, mul_f32},
    {OpCode::scale, QuantType::f32_f32_f32, scale_f32},
    {OpCode::cast, QuantType::f32_f32_f32, cast_f32},
    {OpCode::cast, QuantType::f32_f32_q80, cast_f32_q80},
    {OpCode::cast, QuantType::q80_q80_q80, cast_q80},
    {OpCode::cast, QuantType::q80_q80_f32, cast_q80_f32},
    {OpCode::repeat_z, QuantType::f32_f32_f32, repeat_z_f32},
    {OpCode::repeat_z, QuantType::f32_f32_q80, repeat_z_f32_q80},
    {OpCode::shift, QuantType::f32_f32_f32, shift_f32},
    {OpCode::softmax, QuantType::f32_f32_f32, softmax_f32},
    {OpCode::moe_gate, QuantType::f32_f32_f32, moe_gate_f32},
};

Kernel find(OpCode code, QuantType quant) {
    for (const Entry &entry : kEntries)
        if (entry.code == code && entry.quant == quant)
            return entry.kernel;
    return nullptr;
}

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

const KernelSet kSet = {DLLAMA_TEXT(DLLAMA_ISA), kTileRows, kGroupRows, kF32GroupRows, prepare_rows, sum_bytes, find};

} // namespace

const KernelSet &kernel_set() {
    return kSet;
}

} // namespace DLLAMA_ISA
} // namespace dllama
