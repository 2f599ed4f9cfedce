#include "test.hpp"

static int n_failures = 0;

std::vector<TestCase> &all_tests() {
    static std::vector<TestCase> tests;
    return tests;
}

void fail(const char *file, int line, const std::string &what) {
    if (n_failures++ < 20)
        std::printf("  %s:%d: %s\n", file, line, what.c_str());
}

namespace testing {

void fill(const Buffer &buffer, Random &random, float scale) {
    const Tensor &t = buffer.tensor();
    for (uint32_t z = 0; z < t.z; z++)
        for (uint32_t y = 0; y < t.y; y++)
            if (t.float_type == FloatType::f32)
                for (uint32_t x = 0; x < t.x; x++)
                    buffer.f32(z, y)[x] = normal(random) * scale;
            else
                for (uint32_t b = 0; b < t.x / kBlockSize; b++) {
                    BlockQ80 block;
                    block.d = float_to_half(scale * float(between(random, 1, 100)) / 2000.0f);
                    for (int8_t &q : block.qs)
                        q = int8_t(between(random, 0, 255)); // -128 too
                    std::memcpy(&buffer.q80(z, y)[b], &block, sizeof block);
                }
}

float half_to_float(uint16_t half) {
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const float magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                            : exponent     ? std::ldexp(float(1024 + mantissa), exponent - 25)
                                           : std::ldexp(float(mantissa), -24);
    return half & 0x8000 ? -magnitude : magnitude;
}

uint16_t float_to_half(float value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const double magnitude = std::fabs(double(value));
    if (std::isnan(value))
        return sign | 0x7e00;
    int exponent;
    std::frexp(magnitude, &exponent);
    const int unit = std::max(exponent - 11, -24); // of the last place
    const double units = std::nearbyint(std::ldexp(magnitude, -unit));
    if (std::ldexp(units, unit) >= 65536.0)
        return sign | 0x7c00;
    if (units < 1024)
        return sign | uint16_t(units); // subnormal
    const bool carried = units == 2048;
    return sign | uint16_t(((unit + 25 + carried) << 10) + (carried ? 0 : int(units) - 1024));
}

double value(const Tensor &t, uint32_t z, uint32_t y, uint32_t x) {
    if (t.float_type == FloatType::f32)
        return f32_row(t, z, y)[x];
    BlockQ80 block;
    std::memcpy(&block, q80_row(t, z, y) + x / kBlockSize, sizeof block);
    return double(half_to_float(block.d)) * block.qs[x % kBlockSize];
}

Plan::Result run(const OpContext &op, const KernelSet &kernels, uint32_t batch_size, uint32_t n_threads) {
    Plan plan({{op, &kernels}}, std::make_shared<Engine>(n_threads));
    return plan.run(batch_size);
}

} // namespace testing

int main(int argc, char **argv) {
    int n_passed = 0, n_failed = 0;
    for (const TestCase &test : all_tests()) {
        if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr)
            continue;
        n_failures = 0;
        test.run();
        std::printf("%s %s\n", n_failures ? "FAILED" : "ok", test.name);
        std::fflush(stdout);
        (n_failures ? n_failed : n_passed)++;
    }
    std::string names;
    for (const dllama::KernelSet *set : dllama::available_kernel_sets())
        names += std::string(" ") + set->name;
    std::printf("kernel sets:%s\n%d passed, %d failed\n", names.c_str(), n_passed, n_failed);
    return n_failed || n_passed == 0;
}
