// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_CONVOLUTION_KERNEL_H
#define MLPLUGINS_CONVOLUTION_KERNEL_H

// The loops of the equivariant convolution, free of torch: compiled once per instruction set.

#include <cstdint>

namespace mlplugins {

/// One path (l1, l2) → l3 of the tensor product; all offsets count numbers, blocks are (2l+1, channels).
struct Path {
  int64_t input;      ///< offset of the input block in a row of h
  int64_t output;     ///< offset of the output block in a row of the result
  int64_t weight;     ///< offset of the path's weights in a row of w
  int64_t coupling;   ///< offset of its (2 l3 + 1, 2 l1 + 1) matrix in an edge's coupling
  int32_t channels;
  int32_t d1, d3;     ///< 2 l1 + 1, 2 l3 + 1
};

/// coupling[target] += value · y[harmonic]
template <typename T> struct CouplingEntry {
  int32_t target, harmonic;
  T value;
};

/// A convolution m_i = Σ_e w_e (h_j ⊗ y_e); edges are sorted by centre, `rows` delimits them.
template <typename T> struct Convolution {
  const Path *paths;
  int64_t n_paths;
  const CouplingEntry<T> *entries;
  int64_t n_entries, coupling_size;
  int64_t h_width, y_width, w_width, out_width;
  const int64_t *rows, *neighbors;
  const T *h, *y, *w;
};

/// Gradients of ⟨g, m⟩; a null pointer is not computed. `h` accumulates, `y` and `w` are written.
template <typename T> struct Gradients {
  T *h, *y, *w;
};

/// The two passes over centres [first, last).
template <typename T> struct Kernels {
  void (*forward)(const Convolution<T> &, int64_t first, int64_t last, T *out);
  void (*backward)(const Convolution<T> &, int64_t first, int64_t last, const T *g, const Gradients<T> &);
};

/// The kernels for the processor at hand (AVX-512, AVX2 or neither).
template <typename T> const Kernels<T> &kernels();

}    // namespace mlplugins

#endif
