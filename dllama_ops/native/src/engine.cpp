#include "engine.hpp"

namespace dllama {

void Engine::reserve_scratch(std::size_t size) {
    std::lock_guard<std::mutex> lock(running);
    for (Memory &memory : scratch_)
        if (memory.size() < size)
            memory = Memory(size);
}

std::shared_ptr<Memory> Engine::prepared_rows(const Tensor &input, uint32_t group_rows, bool by_expert) {
    std::lock_guard<std::mutex> lock(running);
    std::weak_ptr<Memory> &slot =
        prepared_[Key(input.data, input.z_stride, input.y_stride, input.z, input.y, input.x, group_rows, by_expert)];
    std::shared_ptr<Memory> memory = slot.lock();
    if (!memory) {
        for (auto it = prepared_.begin(); it != prepared_.end();)
            it = it->second.expired() && &it->second != &slot ? prepared_.erase(it) : std::next(it);
        const std::size_t n_blocks = std::size_t(input.z) * input.y * (input.x / kBlockSize);
        memory = std::make_shared<Memory>(n_blocks * kPreparedBlockBytes);
        slot = memory;
    }
    return memory;
}

} // namespace dllama
