// Softmax of one row, for SOFTMAX and attention.
#pragma once

#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

// out[0..n) = e^(in - max) / sum; out may be in. n >= 1. In the C++ program's exponential (see exp_alike).
static inline void softmax(float *out, const float *in, uint32_t n) {
    F largest = set(in[0]);
    uint32_t i = 0;
    for (; i + kWidth <= n; i += kWidth)
        largest = max(largest, load(in + i));
    float most = max_of(largest);
    for (; i < n; i++)
        most = in[i] > most ? in[i] : most;

    const uint32_t middle = n_alike(n);
    for (i = 0; i + kWidth <= middle; i += kWidth)
        store(out + i, exp_alike(load(in + i) - most));
    if (i < middle)
        store_n(out + i, exp_alike(load_n(in + i, (int)(middle - i)) - most), (int)(middle - i));
    for (i = middle; i < n; i += kWidth) {
        const int count = n - i < (uint32_t)kWidth ? (int)(n - i) : kWidth;
        store_n(out + i, exp(load_n(in + i, count) - most), count);
    }
    Eight sums = eight_zeros();
    for (i = 0; i < middle; i += 8)
        add_values_of(sums, out + i);
    float whole = total(sums);
    for (; i < n; i++)
        whole += out[i];

    const float scale = 1.0f / (whole == 0.0f ? 1e-6f : whole);
    for (i = 0; i + kWidth <= n; i += kWidth)
        store(out + i, load(out + i) * scale);
    for (; i < n; i++)
        out[i] *= scale;
}

} // namespace DLLAMA_ISA
} // namespace dllama
