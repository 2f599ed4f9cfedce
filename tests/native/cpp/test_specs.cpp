// The table of ops: complete, without doubles, alike in every kernel set; and what specs refuse.
#include <set>

#include "op_spec.hpp"
#include "test.hpp"

using namespace testing;

namespace {

std::vector<const OpSpec *> specs_of(const KernelSet &kernels) {
    std::vector<const OpSpec *> specs;
    for (const OpTable *table : kernels.tables)
        for (const OpSpec &spec : *table)
            specs.push_back(&spec);
    return specs;
}

bool is_refused(const OpContext &op) {
    const OpSpec &spec = *find_op(*available_kernel_sets().back(), op.code);
    return !check(spec, op).empty();
}

} // namespace

TEST(every_kernel_set_has_one_spec_for_each_op) {
    for (const KernelSet *kernels : available_kernel_sets()) {
        std::set<OpCode> codes;
        std::set<std::string> names;
        for (const OpSpec *spec : specs_of(*kernels)) {
            CHECK_SAYING(codes.insert(spec->code).second && names.insert(spec->name).second, spec->name);
            CHECK_SAYING(find_op(*kernels, spec->code) == spec, spec->name);
        }
        for (int32_t code = 0; code <= int32_t(OpCode::moe_gate); code++)
            CHECK_SAYING(codes.count(OpCode(code)) == 1, std::to_string(code));
        CHECK(find_op(*kernels, OpCode(999)) == nullptr);
    }
}

TEST(every_spec_is_whole) {
    for (const KernelSet *kernels : available_kernel_sets())
        for (const OpSpec *spec : specs_of(*kernels)) {
            CHECK_SAYING(spec->check && spec->work && spec->touch && spec->kernels.n > 0, spec->name);
            std::set<QuantType> quants;
            for (const KernelEntry &entry : spec->kernels) {
                CHECK_SAYING(entry.kernel && quants.insert(entry.quant).second, spec->name);
                CHECK_SAYING(find_kernel(*spec, entry.quant) == &entry, spec->name);
            }
            for (const ParamField &field : spec->params)
                CHECK_SAYING(field.offset < sizeof(Params), field.name);
        }
}

TEST(kernel_sets_have_the_same_keys_and_parameters) {
    const KernelSet &first = *available_kernel_sets().front();
    for (const KernelSet *kernels : available_kernel_sets())
        for (const OpSpec *spec : specs_of(first)) {
            const OpSpec &other = *find_op(*kernels, spec->code);
            CHECK_SAYING(other.kernels.n == spec->kernels.n && other.params.n == spec->params.n, spec->name);
            for (const KernelEntry &entry : spec->kernels)
                CHECK_SAYING(find_kernel(other, entry.quant) != nullptr, spec->name);
        }
}

TEST(an_op_that_only_plans_add_is_refused_from_outside) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const Buffer rows(FloatType::q80, 1, 2, 64);
    bool is_refused = false;
    try {
        run(make_op(OpCode::prepare_rows, QuantType::q80_q80_q80, 2, rows, rows), kernels, 1);
    } catch (const std::invalid_argument &) {
        is_refused = true;
    }
    CHECK(is_refused);
}

TEST(a_rope_of_heads_without_width_is_refused) {
    const Buffer rows(FloatType::f32, 1, 2, 8), positions(FloatType::f32, 1, 2, 1), cache(FloatType::f32, 1, 4, 8);
    for (const RopeType type : {RopeType::llama, RopeType::falcon, RopeType::llama3_1}) {
        OpContext op = make_op(OpCode::rope, QuantType::f32_f32_f32, 2, rows, rows);
        op.params.rope = {type, true, positions, cache, 8, 8, 0, 8, 4, 4};
        CHECK(!is_refused(op));
        op.params.rope.head_dim = 0;
        CHECK(is_refused(op));
    }
}

TEST(memory_that_a_parameter_lacks_is_refused) {
    const Buffer rows(FloatType::f32, 1, 2, 8);
    OpContext op = make_op(OpCode::mul, QuantType::f32_f32_f32, 2, rows, rows);
    op.params.mul = {Tensor{}};
    CHECK(is_refused(op));
    op.params.mul = {rows};
    CHECK(!is_refused(op));
}

TEST(scratch_is_what_the_kernel_states) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const OpSpec &attention = *find_op(kernels, OpCode::multihead_att);
    OpContext op{};
    op.params.multihead_att.head_dim = 128;
    const std::size_t bytes = find_kernel(attention, QuantType::f32_f32_f32)->scratch_bytes(op);
    CHECK(bytes % (128 * sizeof(float)) == 0 && bytes > 0);
    op.params.multihead_att.head_dim = 64;
    CHECK(find_kernel(attention, QuantType::f32_f32_f32)->scratch_bytes(op) * 2 == bytes);
    CHECK(find_kernel(*find_op(kernels, OpCode::silu), QuantType::f32_f32_f32)->scratch_bytes == nullptr);
}
