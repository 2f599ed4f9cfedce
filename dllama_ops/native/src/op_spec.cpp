#include "op_spec.hpp"

namespace dllama {

const OpSpec *find_op(const KernelSet &kernels, OpCode code) {
    for (const OpTable *table : kernels.tables)
        for (const OpSpec &spec : *table)
            if (spec.code == code)
                return &spec;
    return nullptr;
}

const KernelEntry *find_kernel(const OpSpec &spec, QuantType quant) {
    for (const KernelEntry &entry : spec.kernels)
        if (entry.quant == quant)
            return &entry;
    return nullptr;
}

} // namespace dllama
