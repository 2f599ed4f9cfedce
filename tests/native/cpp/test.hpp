// A small test runner, and memory for ops that the sanitizers watch to the byte.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu.hpp"
#include "plan.hpp"

struct TestCase {
    const char *name;
    void (*run)();
};

std::vector<TestCase> &all_tests();
void fail(const char *file, int line, const std::string &what);

#define TEST(name)                                                                    \
    static void name();                                                               \
    static const bool name##_is_known = (all_tests().push_back({#name, name}), true); \
    static void name()

#define CHECK(condition)                          \
    do {                                          \
        if (!(condition))                         \
            fail(__FILE__, __LINE__, #condition); \
    } while (0)

#define CHECK_SAYING(condition, what)                                        \
    do {                                                                     \
        if (!(condition))                                                    \
            fail(__FILE__, __LINE__, std::string(#condition ": ") + (what)); \
    } while (0)

namespace testing {

using namespace dllama;

// Exactly the bytes of a tensor, `shift` bytes off what allocation aligns to, so that a step outside is caught.
class Buffer {
public:
    Buffer(FloatType type, uint32_t z, uint32_t y, uint32_t x, std::size_t shift = 0)
        : shift_(shift), bytes_(new unsigned char[shift + n_bytes(type, std::size_t(z) * y * x)]()) {
        const std::ptrdiff_t row = std::ptrdiff_t(n_bytes(type, x));
        tensor_ = {type, z, y, x, bytes_.get() + shift, row * y, row};
    }

    const Tensor &tensor() const { return tensor_; }
    operator const Tensor &() const { return tensor_; }
    float *f32(uint32_t z = 0, uint32_t y = 0) const { return f32_row(tensor_, z, y); }
    BlockQ80 *q80(uint32_t z = 0, uint32_t y = 0) const { return q80_row(tensor_, z, y); }
    std::size_t size() const { return n_bytes(tensor_.float_type, std::size_t(tensor_.z) * tensor_.y * tensor_.x); }
    std::vector<unsigned char> copy() const { return {tensor_.data, tensor_.data + size()}; }
    void restore(const std::vector<unsigned char> &bytes) const { std::memcpy(tensor_.data, bytes.data(), size()); }

private:
    std::size_t shift_;
    std::unique_ptr<unsigned char[]> bytes_;
    Tensor tensor_;
};

using Random = std::mt19937;

inline float normal(Random &random) {
    return std::normal_distribution<float>()(random);
}

inline uint32_t between(Random &random, uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random);
}

// Random values in all rows; Q80 rows get random blocks.
void fill(const Buffer &buffer, Random &random, float scale = 1.0f);

// The halves by definition, without any processor's help.
float half_to_float(uint16_t half);
uint16_t float_to_half(float value);

// Value i of a Q80 or F32 row.
double value(const Tensor &t, uint32_t z, uint32_t y, uint32_t x);

// One op on its own, on so many threads.
Plan::Result run(const OpContext &op, const KernelSet &kernels, uint32_t batch_size, uint32_t n_threads = 1);

inline OpContext make_op(OpCode code, QuantType quant, uint32_t n_batches, const Tensor &input, const Tensor &output) {
    OpContext op{};
    op.code = code;
    op.quant = quant;
    op.n_batches = n_batches;
    op.input = input;
    op.output = output;
    op.weight.float_type = FloatType::unk;
    return op;
}

} // namespace testing
