#include "check.hpp"

#include "extents.hpp"
#include "op_spec.hpp"

namespace dllama {

namespace {

FloatType input_type(QuantType quant) {
    switch (quant) {
    case QuantType::q80_q80_q80:
    case QuantType::q80_q80_f32:
    case QuantType::q80_q40_f32:
    case QuantType::q80_f32_f32: return FloatType::q80;
    default: return FloatType::f32;
    }
}

FloatType output_type(QuantType quant) {
    switch (quant) {
    case QuantType::q80_q80_q80:
    case QuantType::f32_f32_q80:
    case QuantType::f32_q40_q80: return FloatType::q80;
    default: return FloatType::f32;
    }
}

} // namespace

ShapeCheck::ShapeCheck(const OpContext &op) : op_(op), wrong_(nullptr) {}

void ShapeCheck::require(bool holds, const char *what) {
    if (!holds && wrong_ == nullptr)
        wrong_ = what;
}

void ShapeCheck::require_rows(const Tensor &tensor, FloatType type, uint64_t z, uint64_t x, const char *what) {
    require_aligned(tensor);
    require_extents(tensor);
    const bool is_large_enough = tensor.z >= z && tensor.y >= op_.n_batches && tensor.x >= x;
    require(tensor.float_type == type && is_large_enough && tensor.data != nullptr, what);
}

void ShapeCheck::require_cache(const Tensor &tensor, uint64_t y, uint64_t x, const char *what) {
    require_aligned(tensor);
    require_extents(tensor);
    require(tensor.float_type == FloatType::f32 && tensor.z > 0 && tensor.y >= y && tensor.x >= x &&
                tensor.data != nullptr,
            what);
}

void ShapeCheck::require_extents(const Tensor &tensor) {
    require(tensor.x <= kMaxExtent && uint64_t(tensor.z) * tensor.y <= kMaxExtent,
            "at most 2147483647 rows of 2147483647 values are possible");
}

void ShapeCheck::require_aligned(const Tensor &tensor) {
    const uintptr_t all = reinterpret_cast<uintptr_t>(tensor.data) | uintptr_t(tensor.y > 1 ? tensor.y_stride : 0) |
                          uintptr_t(tensor.z > 1 ? tensor.z_stride : 0);
    require(all % (tensor.float_type == FloatType::f32 ? 4 : 2) == 0,
            "memory must be aligned to its numbers, 4 bytes for F32 and 2 for blocks");
}

void ShapeCheck::require_weight(FloatType type, uint32_t z, uint32_t y, uint32_t x) {
    const WeightView &weight = op_.weight;
    require(z <= kMaxExtent && y <= kMaxExtent && x <= kMaxExtent, "at most 2147483647 rows of weights are possible");
    const bool has_shape = weight.z == z && weight.y == y && weight.x == x;
    require(weight.float_type == type && has_shape && weight.data != nullptr,
            "the weight's type and shape must fit the input and output");
}

void ShapeCheck::require_same_shape() {
    require(op_.input.z == op_.output.z && op_.input.x == op_.output.x, "input and output must have one shape");
}

const char *ShapeCheck::wrong() const {
    return wrong_;
}

void check_same_shape(const OpContext &, ShapeCheck &check) {
    check.require_same_shape();
}

std::string check(const OpSpec &spec, const OpContext &op) {
    ShapeCheck c(op);
    const bool uses_input = !(spec.traits & kIgnoresInput), has_output_rows = !(spec.traits & kWritesRawOutput);
    c.require(!uses_input || op.input.float_type == input_type(op.quant), "the input's type must fit the key");
    c.require(op.output.float_type == output_type(op.quant), "the output's type must fit the key");
    for (const Tensor *t : {&op.input, &op.output})
        c.require(t->data != nullptr && t->x > 0 && t->z > 0, "input and output must not be empty");
    c.require(op.n_batches > 0, "the batch must have a row");
    c.require(!uses_input || op.input.y >= op.n_batches, "the input must have a row for each of the batch");
    c.require(!has_output_rows || op.output.y >= op.n_batches, "the output must have a row for each of the batch");
    for (const Tensor *t : {&op.input, &op.output}) {
        c.require_aligned(*t);
        c.require_extents(*t);
        c.require(t->float_type != FloatType::q80 || t->x % kBlockSize == 0, "Q80 rows must be whole blocks");
    }
    if (c.wrong() == nullptr)
        spec.check(op, c);
    return c.wrong() == nullptr ? std::string() : std::string(c.wrong());
}

} // namespace dllama
