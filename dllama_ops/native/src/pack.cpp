#include "pack.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "extents.hpp"

namespace dllama {

namespace {

// Where a tile keeps block b.
struct PackedBlock {
    unsigned char *scales;  // tile_rows halves
    unsigned char *nibbles; // four vectors of tile_rows * 4 bytes
};

PackedBlock packed_block(unsigned char *tile, std::size_t b, std::size_t n_blocks, std::size_t tile_rows) {
    const std::size_t in_pair = b & 1, pair_blocks = (b | 1) < n_blocks ? 2 : 1;
    unsigned char *pair = tile + (b - in_pair) * tile_rows * sizeof(BlockQ40);
    return {pair + in_pair * tile_rows * 2, pair + pair_blocks * tile_rows * 2 + in_pair * tile_rows * 16};
}

void put_block(const PackedBlock &to, std::size_t r, std::size_t tile_rows, const unsigned char *block) {
    std::memcpy(to.scales + r * 2, block, 2);
    for (std::size_t j = 0; j < 4; j++)
        std::memcpy(to.nibbles + (j * tile_rows + r) * 4, block + 2 + j * 4, 4);
}

void put_byte(const PackedBlock &to, std::size_t r, std::size_t tile_rows, std::size_t i, unsigned char byte) {
    if (i < 2)
        to.scales[r * 2 + i] = byte;
    else
        to.nibbles[((i - 2) / 4 * tile_rows + r) * 4 + (i - 2) % 4] = byte;
}

// Of one expert, its last tile filled up.
uint64_t expert_bytes(FloatType float_type, uint32_t y, uint32_t x, uint32_t tile_rows) {
    const uint64_t rows = tile_rows == 0 ? x : (uint64_t(x) + tile_rows - 1) / tile_rows * tile_rows;
    return saturating_product(rows, n_bytes(float_type, y));
}

} // namespace

uint64_t weight_memory_bytes(FloatType float_type, uint32_t z, uint32_t y, uint32_t x, uint32_t tile_rows) {
    return Memory::reserved(saturating_product(expert_bytes(float_type, y, x, tile_rows), z));
}

Weight::Weight(FloatType float_type, uint32_t z, uint32_t y, uint32_t x, uint32_t tile_rows, bool is_looked_up)
    : float_type_(float_type), z_(z), y_(y), x_(x), tile_rows_(tile_rows) {
    row_bytes_ = n_bytes(float_type, y);
    const uint64_t z_stride = expert_bytes(float_type, y, x, tile_rows), size = saturating_product(z_stride, z);
    if (size > uint64_t(PTRDIFF_MAX))
        throw std::length_error("no memory holds " + std::to_string(z) + " times " + std::to_string(x) + " rows of " +
                                std::to_string(row_bytes_) + " bytes");
    z_stride_ = z_stride;
    n_wire_bytes_ = row_bytes_ * x * z; // at most size
    memory_ = Memory(size, is_looked_up ? Pages::small : Pages::huge);
}

void Weight::check_range(std::size_t offset, std::size_t n) const {
    if (offset > n_wire_bytes_ || n > n_wire_bytes_ - offset)
        throw std::out_of_range("piece of " + std::to_string(n) + " bytes at " + std::to_string(offset) +
                                " does not fit a weight of " + std::to_string(n_wire_bytes_) + " bytes");
}

unsigned char *Weight::raw(std::size_t offset, std::size_t n) const {
    check_range(offset, n);
    return tile_rows_ == 0 ? memory_.data() + offset : nullptr;
}

WeightView Weight::view() const {
    return {float_type_, z_, y_, x_, memory_.data(), z_stride_};
}

// Row counts through all experts.
unsigned char *Weight::tile_of(std::size_t row) const {
    const std::size_t z = row / x_, in_z = row % x_;
    return memory_.data() + z * z_stride_ + in_z / tile_rows_ * tile_rows_ * row_bytes_;
}

// Bytes start .. start + n of one row.
void Weight::load_row_part(std::size_t row, std::size_t start, const unsigned char *data, std::size_t n) {
    unsigned char *tile = tile_of(row);
    const std::size_t n_blocks = y_ / kBlockSize, r = row % x_ % tile_rows_, end = start + n;
    while (start < end) {
        const std::size_t b = start / sizeof(BlockQ40), i = start % sizeof(BlockQ40);
        const PackedBlock to = packed_block(tile, b, n_blocks, tile_rows_);
        if (i == 0 && end - start >= sizeof(BlockQ40)) {
            put_block(to, r, tile_rows_, data);
            data += sizeof(BlockQ40);
            start += sizeof(BlockQ40);
        } else {
            put_byte(to, r, tile_rows_, i, *data++);
            start++;
        }
    }
}

// All rows of a tile at once: block by block, so that what is written stays in the first cache.
void Weight::load_tile(unsigned char *tile, const unsigned char *data) {
    const std::size_t n_blocks = y_ / kBlockSize;
    for (std::size_t b = 0; b < n_blocks; b++) {
        const PackedBlock to = packed_block(tile, b, n_blocks, tile_rows_);
        for (std::size_t r = 0; r < tile_rows_; r++)
            put_block(to, r, tile_rows_, data + r * row_bytes_ + b * sizeof(BlockQ40));
    }
}

void Weight::load(std::size_t offset, const unsigned char *data, std::size_t n) {
    check_range(offset, n);
    if (n == 0)
        return;
    if (tile_rows_ == 0) {
        std::memcpy(memory_.data() + offset, data, n);
        return;
    }
    std::size_t row = offset / row_bytes_, start = offset % row_bytes_;
    while (n > 0) {
        const std::size_t in_z = row % x_, tile_bytes = tile_rows_ * row_bytes_;
        if (start == 0 && in_z % tile_rows_ == 0 && in_z + tile_rows_ <= x_ && n >= tile_bytes) {
            load_tile(tile_of(row), data);
            data += tile_bytes;
            n -= tile_bytes;
            row += tile_rows_;
            continue;
        }
        const std::size_t part = std::min(n, row_bytes_ - start);
        load_row_part(row, start, data, part);
        data += part;
        n -= part;
        start = 0;
        row++;
    }
}

} // namespace dllama
