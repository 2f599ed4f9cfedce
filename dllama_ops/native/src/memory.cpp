#include "memory.hpp"

#include <atomic>
#include <cstdint>
#include <new>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "extents.hpp"

namespace dllama {

#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23 // since Linux 5.14; not in every C library's headers
#endif

namespace {

constexpr std::size_t kHugePage = 2 << 20;

std::atomic<uint64_t> bytes_held{0};

unsigned char *map_pages(std::size_t size) {
    void *pages = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        throw std::bad_alloc();
    return static_cast<unsigned char *>(pages);
}

// Memory that starts on a huge page, where it fills one: reading weights in pages of 4 KiB costs up to a third of the
// memory bandwidth. Only whole huge pages inside the size are made such, so none of it is wasted.
unsigned char *map_huge_pages(std::size_t size) {
    if (size > SIZE_MAX - kHugePage)
        throw std::bad_alloc();
    unsigned char *pages = map_pages(size + kHugePage);
    const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(pages) % kHugePage) % kHugePage;
    const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE)), end = (before + size + page - 1) / page * page;
    if (before > 0)
        munmap(pages, before);
    munmap(pages + end, size + kHugePage - end);
#if defined(MADV_HUGEPAGE)
    madvise(pages + before, size / kHugePage * kHugePage, MADV_HUGEPAGE); // advice: it works without
#endif
    return pages + before;
}

} // namespace

// Fresh pages are zeroed when they are first touched, by the thread that fills them.
Memory::Memory(std::size_t size, Pages pages) : size_(size) {
    if (size > 0) {
        data_ = pages == Pages::small || size < kHugePage ? map_pages(size) : map_huge_pages(size);
        bytes_held += reserved(size);
    }
}

uint64_t Memory::reserved(uint64_t size) {
    const uint64_t page = uint64_t(sysconf(_SC_PAGESIZE));
    return saturating_product(size / page + (size % page != 0), page);
}

uint64_t Memory::held() {
    return bytes_held;
}

void Memory::populate() const {
#if defined(MADV_POPULATE_WRITE)
    if (size_ > 0)
        madvise(data_, size_, MADV_POPULATE_WRITE); // advice: older kernels refuse it
#endif
}

Memory::Memory(Memory &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Memory &Memory::operator=(Memory &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

Memory::~Memory() {
    if (data_) {
        munmap(data_, size_);
        bytes_held -= reserved(size_);
    }
}

} // namespace dllama
