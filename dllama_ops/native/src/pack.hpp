// Weights as their kernels want them, filled from pieces of the wire's form.
//
// Raw: as on the wire, [z][x][y]. Tiled (Q40): the rows of an expert in tiles of tile_rows, the last one filled up
// with zeros. Inside a tile blocks go in pairs; a pair is the scales of its first block for all rows, those of its
// second, then the nibbles of the first in four vectors of tile_rows times four bytes (vector j has bytes 4j .. 4j+3
// of every row), then those of the second. A last block without a partner stands alone. So packing only moves
// bytes: any piece, cut anywhere, can be put in its place at once, and nothing is kept twice.
#pragma once

#include <cstddef>
#include <cstdint>

#include "memory.hpp"
#include "op.hpp"

namespace dllama {

// Bytes of memory that such a weight takes, filled up to whole tiles and pages; the largest number where no memory
// could hold it. tile_rows as for Weight.
uint64_t weight_memory_bytes(FloatType float_type, uint32_t z, uint32_t y, uint32_t x, uint32_t tile_rows);

class Weight {
public:
    // tile_rows 0 keeps the weight raw; only Q40 can be tiled. Of a weight whose rows are looked up little is read at a
    // time. Throws std::bad_alloc, std::length_error where no memory could hold it.
    Weight(FloatType float_type, uint32_t z, uint32_t y, uint32_t x, uint32_t tile_rows, bool is_looked_up = false);

    // Bytes of the weight on the wire.
    std::size_t n_wire_bytes() const { return n_wire_bytes_; }

    // Takes n bytes of the wire's form from byte offset on. Throws std::out_of_range. Different pieces may be
    // loaded from several threads at once.
    void load(std::size_t offset, const unsigned char *data, std::size_t n);

    // Where those bytes lie, to be filled in place, or null where the weight is not kept raw.
    unsigned char *raw(std::size_t offset, std::size_t n) const;

    // Has the memory made ready before anything is loaded, see Memory::populate. From any thread.
    void touch() const { memory_.populate(); }

    WeightView view() const;

private:
    void check_range(std::size_t offset, std::size_t n) const;
    void load_row_part(std::size_t row, std::size_t start, const unsigned char *data, std::size_t n);
    void load_tile(unsigned char *tile, const unsigned char *data);
    unsigned char *tile_of(std::size_t row) const;

    FloatType float_type_;
    uint32_t z_, y_, x_, tile_rows_;
    std::size_t n_wire_bytes_, row_bytes_, z_stride_;
    Memory memory_;
};

} // namespace dllama
