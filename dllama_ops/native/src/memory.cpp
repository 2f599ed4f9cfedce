#include "memory.hpp"

#include <new>
#include <utility>

#include <sys/mman.h>

namespace dllama {

Memory::Memory(std::size_t size) : size_(size) {
    if (size == 0)
        return;
    // Fresh pages are zeroed when they are first touched, by the thread that fills them.
    void *pages = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        throw std::bad_alloc();
    data_ = static_cast<unsigned char *>(pages);
}

Memory::Memory(Memory &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Memory &Memory::operator=(Memory &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

Memory::~Memory() {
    if (data_)
        munmap(data_, size_);
}

} // namespace dllama
