// ROPE: rotates pairs of a row by its position, with cosines and sines from the cache.
#include "op_table.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

// Pairs are neighbours: x (2i, 2i+1), cache (cos, sin).
void rotate_neighbours(float *out, const float *in, const float *__restrict cache, uint32_t x0, uint32_t x1) {
    for (uint32_t i = x0; i < x1; i += 2) {
        const float c = cache[i], s = cache[i + 1], a = in[i], b = in[i + 1];
        out[i] = a * c - b * s;
        out[i + 1] = a * s + b * c;
    }
}

// Pairs are half a head apart; the cache row has all cosines, then all sines.
void rotate_halves(float *out, const float *in, const float *cache, uint32_t half) {
    uint32_t j = 0;
    for (; j + kWidth <= half; j += kWidth) {
        const F c = load(cache + j), s = load(cache + half + j), a = load(in + j), b = load(in + half + j);
        store(out + j, a * c - b * s);
        store(out + half + j, a * s + b * c);
    }
    for (; j < half; j++) {
        const float c = cache[j], s = cache[half + j], a = in[j], b = in[half + j];
        out[j] = a * c - b * s;
        out[half + j] = a * s + b * c;
    }
}

// out (n_batches, dim0) = in rotated by positions (n_batches, 1)
Fault rope_f32(const OpContext &op, const Region &region, Scratch) {
    const RopeParams &params = op.params.rope;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float position = f32_row(params.positions, 0, y)[0];
        if (!is_index(position, params.seq_len))
            return Fault{FaultKind::position, y, position, params.seq_len};
        const float *in = f32_row(op.input, 0, y), *cache = f32_row(params.cache, 0, (uint32_t)position);
        float *out = f32_row(op.output, 0, y);
        if (params.type == RopeType::falcon)
            for (uint32_t x = region.x0; x < region.x1; x += params.head_dim)
                rotate_halves(out + x, in + x, cache, params.head_dim / 2);
        else
            rotate_neighbours(out, in, cache + (params.is_q ? params.q_shift : 0), region.x0, region.x1);
    }
    return kNoFault;
}

void check_rope(const OpContext &op, ShapeCheck &check) {
    const RopeParams &p = op.params.rope;
    const uint32_t dim0 = p.is_q ? p.q_dim0 : p.kv_dim0;
    const uint32_t width = p.type == RopeType::falcon ? p.head_dim : p.slice_dim;
    check.require(op.input.x >= dim0 && op.output.x >= dim0, "rows must hold the dimensions to rotate");
    check.require_rows(p.positions, FloatType::f32, 1, 1, "positions must be F32 [n_batches][1]");
    check.require_cache(p.cache, p.seq_len, width, "the rope cache must hold seq_len rows");
    check.require(p.head_dim > 0 && p.head_dim % 2 == 0 && dim0 % 2 == 0, "dimensions must come in pairs");
    if (check.wrong() != nullptr)
        return;
    if (p.type == RopeType::falcon)
        check.require(dim0 % p.head_dim == 0, "rows must be whole heads");
    else
        check.require((uint64_t)dim0 + (p.is_q ? p.q_shift : 0) <= width, "the rope cache must be as wide as the rows");
}

Work rope_work(const OpContext &op, uint32_t) {
    const RopeParams &p = op.params.rope;
    return {p.is_q ? p.q_dim0 : p.kv_dim0, p.type == RopeType::falcon ? p.head_dim : kLine, false, false, false};
}

void touch_rope(const OpContext &op, Accesses &touched) {
    touch_same_columns(op, touched);
    touched.reads(op.params.rope.positions, Access::same_row);
    touched.reads(op.params.rope.cache, Access::anything);
}

IndexUse rope_positions(const OpContext &op) {
    return {op.params.rope.positions, 1, op.params.rope.seq_len, FaultKind::position};
}

constexpr KernelEntry kKernels[] = {{QuantType::f32_f32_f32, rope_f32}};
constexpr ParamField kParams[] = {
    DLLAMA_PARAM(RopeParams, type),     DLLAMA_PARAM(RopeParams, is_q),      DLLAMA_PARAM(RopeParams, positions),
    DLLAMA_PARAM(RopeParams, cache),    DLLAMA_PARAM(RopeParams, q_dim0),    DLLAMA_PARAM(RopeParams, kv_dim0),
    DLLAMA_PARAM(RopeParams, q_shift),  DLLAMA_PARAM(RopeParams, slice_dim), DLLAMA_PARAM(RopeParams, seq_len),
    DLLAMA_PARAM(RopeParams, head_dim),
};

constexpr OpSpec kOps[] = {
    {OpCode::rope, "rope", kKernels, kParams, check_rope, rope_work, touch_rope, rope_positions},
};

} // namespace

const OpTable rope_ops = kOps;

} // namespace DLLAMA_ISA
} // namespace dllama
