#include "engine.hpp"

namespace dllama {

void Engine::reserve_scratch(std::size_t size) {
    std::lock_guard<std::mutex> lock(running);
    for (Memory &memory : scratch_)
        if (memory.size() < size)
            memory = Memory(size);
}

std::shared_ptr<Memory> Engine::prepared_rows(const Tensor &input, const PrepareParams &params, std::size_t n_bytes) {
    std::lock_guard<std::mutex> lock(running);
    std::weak_ptr<Memory> &slot =
        prepared_[Key(input.data, input.z_stride, input.y_stride, input.z, input.y, input.x, params.group_rows)];
    std::shared_ptr<Memory> memory = slot.lock();
    if (!memory) {
        // Looking through all entries pays once they have doubled in number, so that each costs the same.
        if (prepared_.size() > 2 * n_prepared_after_sweep_) {
            for (auto it = prepared_.begin(); it != prepared_.end();)
                it = it->second.expired() && &it->second != &slot ? prepared_.erase(it) : std::next(it);
            n_prepared_after_sweep_ = prepared_.size();
        }
        memory = std::make_shared<Memory>(n_bytes);
        slot = memory;
    }
    return memory;
}

} // namespace dllama
