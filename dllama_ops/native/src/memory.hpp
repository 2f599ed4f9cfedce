// Memory for weights and scratch: zeroed, aligned to pages.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dllama {

// Huge pages make reading from one end to the other faster. Finding them can take a system longer.
enum class Pages { small, huge };

class Memory {
public:
    Memory() = default;
    // Throws std::bad_alloc.
    explicit Memory(std::size_t size, Pages pages = Pages::huge);
    Memory(Memory &&other) noexcept;
    Memory &operator=(Memory &&other) noexcept;
    ~Memory();

    // Has the system find all pages now, where it can, rather than one by one when they are first used. What is in
    // them stays, and others may use them meanwhile.
    void populate() const;

    // Bytes that memory of a size takes: whole pages. The largest number where that does not fit.
    static uint64_t reserved(uint64_t size);
    // Bytes that all memory of this process takes now.
    static uint64_t held();

    unsigned char *data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    unsigned char *data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace dllama
