// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_CONVOLUTION_KERNEL_H
#define MLPLUGINS_CONVOLUTION_KERNEL_H

// The loops of the equivariant convolution and of the linear maps around it, free of torch: compiled once per
// instruction set.

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
  bool first;         ///< no path before it uses the same matrix
};

constexpr int MAX_HARMONICS = 16;    // 2 l + 1 would do; tables may couple all harmonics up to l = 3

/// Those matrices of an edge's coupling that depend on the same harmonics:
/// M[target + k] = Σ_j values[j, k] y[harmonic + j] for j < n_harmonics, k < size; size is a multiple of the lanes.
template <typename T> struct Coupling {
  int64_t target, harmonic, n_harmonics, size;
  const T *values;
};

constexpr int MAX_LAYERS = 8;

/// Radial weights w = silu(… silu(x W_0) …) W_last, made block by block inside the convolution.
template <typename T> struct Perceptron {
  int n_layers;                     ///< matrices
  int64_t widths[MAX_LAYERS + 1];
  const T *matrices[MAX_LAYERS];    ///< W_l, packed
};

/// Radial weights by cubic Hermite interpolation in x ∈ [0, 1], zero beyond; rows (value, slope · step, rise to the
/// next value) per knot. A rise is not the difference of two rounded values, whose noise the slopes would have; tables
/// of older files lack it.
template <typename T> struct Table {
  const T *knots;    ///< (n_knots, n_rows, width)
  int64_t n_knots, n_rows;
};

/// Where the weights come from: `rows`, `perceptron` or `table`, whichever is not null. Edges of the same length
/// (i → j and j → i) share one row of weights.
template <typename T> struct Radial {
  const T *rows;            ///< (U, w_width)
  const Perceptron<T> *perceptron;
  const Table<T> *table;
  const T *x, *slopes;      ///< perceptron: basis (U, widths[0]) and its derivative; table: place (U)
  const int64_t *which;     ///< table: of several, that of a row (U); null: there is one
  const int64_t *row;       ///< (E) row of an edge
  const int64_t *first;     ///< (U) first edge of a row …
  const int64_t *next;      ///< (E) … and the one after each; -1 ends
  int64_t n_rows;           ///< U
};

/// A convolution m_i = Σ_e w_e (h_j ⊗ y_e); edges are sorted by centre, `rows` delimits them.
template <typename T> struct Convolution {
  const Path *paths;
  int64_t n_paths;
  const Coupling<T> *couplings;
  int64_t n_couplings, coupling_size;
  int64_t n_centers, h_width, y_width, w_width, out_width;
  const int64_t *rows, *centers, *neighbors;
  const T *h, *y;
  Radial<T> radial;
};

/// Gradients of ⟨g, m⟩; a null pointer is not computed. `h` accumulates, and so does `w` where the weights are given,
/// (U, w_width); where they are made it is written, for the distance or place (E), as is `y`. Beside `h`, `moments`
/// accumulates −x_e of what an edge adds to `h`, one plane of `plane` numbers for each component of its vector x_e.
template <typename T> struct Gradients {
  T *h, *y, *w;
  const T *vectors = nullptr;    ///< (E, 3)
  T *moments = nullptr;          ///< (3, n_nodes, h_width)
  int64_t plane = 0;
};

template <typename T> struct Matrix {
  const T *data;
  int64_t rows, columns, row_stride, column_stride;
};

/// y[output …] = x[input …] W, or += : each of `components` = 2 l + 1 blocks of `rows` channels becomes one of `columns`.
template <typename T> struct LinearTerm {
  int64_t input, output, components, rows, columns;
  bool add;
  const T *matrix;    ///< packed
};

template <typename T> struct LinearMap {
  const LinearTerm<T> *terms;
  int64_t n_terms, in_width, out_width;
};

/// The forward pass over centres [first, last), the backward pass over rows of weights [first, last), a linear map of
/// nodes [first, last), and the layout of the matrices of perceptrons and linear maps.
template <typename T> struct Kernels {
  void (*forward)(const Convolution<T> &, int64_t first, int64_t last, T *out);
  void (*backward)(const Convolution<T> &, int64_t first, int64_t last, const T *g, const Gradients<T> &);
  void (*linear)(const LinearMap<T> &, int64_t first, int64_t last, const T *x, T *out);
  void (*pack)(const Matrix<T> &, T *to);
  int64_t panel;    ///< columns of a packed matrix are filled up to a multiple of it: two vectors
};

/// The kernels for the processor at hand (AVX-512, AVX2 or neither).
template <typename T> const Kernels<T> &kernels();

}    // namespace mlplugins

#endif
