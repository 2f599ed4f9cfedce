// Whether an op's shapes and parameters fit each other: kernels count on them to stay inside their memory.
#pragma once

#include <string>

#include "op.hpp"

namespace dllama {

// Takes down the first thing that is wrong with an op.
class ShapeCheck {
public:
    explicit ShapeCheck(const OpContext &op);

    void require(bool holds, const char *what);

    // Memory for at least z times n_batches rows of x values, aligned to them.
    void require_rows(const Tensor &tensor, FloatType type, uint64_t z, uint64_t x, const char *what);

    // Memory for at least y rows of x values, whatever the batch is: a cache.
    void require_cache(const Tensor &tensor, uint64_t y, uint64_t x, const char *what);

    void require_aligned(const Tensor &tensor);

    // No more rows and columns than extents.hpp allows.
    void require_extents(const Tensor &tensor);

    // The op's weight has this type and exactly this shape.
    void require_weight(FloatType type, uint32_t z, uint32_t y, uint32_t x);

    // Input and output have one z and one width.
    void require_same_shape();

    // Null as long as nothing is wrong.
    const char *wrong() const;

private:
    const OpContext &op_;
    const char *wrong_;
};

// For ops that need no more: input and output of one shape.
void check_same_shape(const OpContext &op, ShapeCheck &check);

struct OpSpec;

// Empty, or what is wrong with the op: first what holds for all, then what its own spec asks for.
std::string check(const OpSpec &spec, const OpContext &op);

} // namespace dllama
