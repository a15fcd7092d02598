// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_NODE_KERNEL_H
#define MLPLUGINS_NODE_KERNEL_H

// The loops between the convolutions, sums of linear maps and gates, free of torch: compiled once per instruction set.

#include <cstdint>

namespace mlplugins {

constexpr int64_t STRIP = 32;    // columns of a packed matrix that stand together; the last ones are filled with zeros

/// Rows of channels of one input that a packed matrix [⌈columns / STRIP⌉][channels][STRIP] maps; with a stride each
/// species has its own matrix.
template <typename T> struct MapSource {
  const T *x;
  int64_t width, offset, channels;
  const T *matrix;
  int64_t species_stride;
};

/// One block of a result, (components, columns) per node: the sum of the maps of its sources, or zero.
template <typename T> struct MapTarget {
  T *out;
  int64_t width, offset, components, columns;
  const MapSource<T> *sources;
  int64_t n_sources, depth;    ///< depth: channels of all sources
};

/// Rows (even scalars, odd scalars, gates, gated blocks) → (even, odd, gated).
struct GateShape {
  int64_t n_even, n_odd, n_gates, n_blocks;
  const int64_t *blocks;    ///< (n_blocks, 2): components, channels
  bool sigmoid;             ///< of the gates, in place of silu
  double silu, tanh, gate;  ///< factors of the functions
};

template <typename T> struct NodeKernels {
  /// The targets of nodes[0 … n), all of one species.
  void (*sums)(const MapTarget<T> *targets, int64_t n_targets, const int64_t *nodes, int64_t n, int64_t species);
  void (*gate)(const GateShape &, int64_t first, int64_t last, const T *x, T *out);
  /// The gradient of ⟨g, gate(x)⟩.
  void (*gate_backward)(const GateShape &, int64_t first, int64_t last, const T *g, const T *x, T *gx);
};

/// The kernels for the processor at hand (AVX-512, AVX2 or neither).
template <typename T> const NodeKernels<T> &node_kernels();

}    // namespace mlplugins

#endif
