#include "work.hpp"

namespace dllama {

uint32_t blocks_or_line(const OpContext &op) {
    return op.input.float_type == FloatType::q80 || op.output.float_type == FloatType::q80 ? kBlockSize : kLine;
}

Work work_by_columns(const OpContext &op, uint32_t) {
    return {op.output.x, blocks_or_line(op), false, false, false};
}

Work work_by_rows(const OpContext &op, uint32_t) {
    return {op.input.x, op.input.x, true, false, false};
}

Accesses::Accesses(std::vector<Access> &list) : list_(list) {}

void Accesses::reads(const Tensor &tensor, Access::Reach reach) {
    list_.push_back({tensor, reach, false});
}

void Accesses::writes(const Tensor &tensor, Access::Reach reach) {
    list_.push_back({tensor, reach, true});
}

void touch_same_columns(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, Access::same_columns);
    touched.writes(op.output, Access::same_columns);
}

} // namespace dllama
