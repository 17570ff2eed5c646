/*
 * mem/pressure.h - what the threads of a container may take before they hear that there is no more.
 */
#ifndef MOAT_MEM_PRESSURE_H
#define MOAT_MEM_PRESSURE_H

#include <stdatomic.h>
#include <stdint.h>

/*
 * How much a fault maps, or a system call pins, at a time, at most: each of a container's threads may be about to take as much. A power of two: MEM_PIECE_MAX, a 128th
 * of a smaller limit (mem_set_limit()'s total) but a chunk, a chunk while mem_tight.
 */
#define MEM_PIECE_MAX (4ull << 20)
extern _Atomic uint64_t mem_piece;

#endif
