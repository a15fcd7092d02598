// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_SYMMETRIC_CONTRACTION_KERNEL_H
#define MLPLUGINS_SYMMETRIC_CONTRACTION_KERNEL_H

// The loops of the symmetric contraction, free of torch: compiled once per instruction set.

#include <cstdint>

namespace mlplugins {

/// A product of two inputs.
struct Pair {
  int32_t first, second;
};

/// Terms [end of the segment before, end) of the sum that is multiplied by input `left` and added to `output`.
struct Segment {
  int32_t output, left, end;
};

/// B_k = Σ_i x_i Σ_t c_t v_right(t): segments are pairs (k, i), and the values v are the inputs, the number 1 and
/// the pairs, in this order.
struct Polynomial {
  int64_t channels;
  int32_t n_in, n_out, n_pairs, n_segments, n_terms;
  const Pair *pairs;
  const Segment *segments;
  const int32_t *right;    ///< value of each term
  const int32_t *row;      ///< row of its coefficients
};

/// Nodes of one species, and the first of up to `lanes` channels.
struct Share {
  const int64_t *nodes;
  int64_t n_nodes, channel;
};

/// Rows of the nodes (g, x), (M, channels) coefficients of the species (c), and the direction (dx, dc) of the
/// derivative; a null direction is zero.
template <typename T> struct ContractionInput {
  const T *g, *x, *c, *dx, *dc;
};

/// What is written; null is not wanted.
template <typename T> struct ContractionOutput {
  T *out, *x, *c;
};

template <typename T>
using ContractionPass = void (*)(const Polynomial &, const Share &, const ContractionInput<T> &,
                                 const ContractionOutput<T> &);

/// The passes over a share. forward: B. backward: the gradients of Φ = ⟨g, B(x, c)⟩ with respect to x and, if
/// wanted, c. double_backward: the derivatives of ∂Φ/∂(g, x, c) along (0, dx, dc).
template <typename T> struct ContractionKernels {
  int lanes;
  ContractionPass<T> forward, backward, double_backward;
};

/// The kernels for the processor at hand (AVX-512, AVX2 or neither).
template <typename T> const ContractionKernels<T> &contraction_kernels();

}    // namespace mlplugins

#endif
