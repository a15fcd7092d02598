// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_MATRIX_H
#define MLPLUGINS_MATRIX_H

// Products with a packed matrix; compiled once per instruction set.

#include "convolution_kernel.h"
#include "vectors.h"

namespace mlplugins {
namespace {

/// Register tile of the matrix product: `ROWS` rows by one panel of two vectors.
constexpr int ROWS = MLPLUGINS_VECTOR_BYTES == 64 ? 12 : 6;
template <typename T> constexpr int PANEL = 2 * Lanes<T>::count;

template <typename T> inline int64_t padded(int64_t columns) { return (columns + PANEL<T> - 1) / PANEL<T> * PANEL<T>; }
inline int64_t padded_rows(int64_t rows) { return (rows + ROWS - 1) / ROWS * ROWS; }

/// The matrix as panels [columns / PANEL][rows][PANEL], filled up with zeros.
template <typename T> void pack(const Matrix<T> &b, T *to)
{
  for (int64_t panel = 0; panel < b.columns; panel += PANEL<T>)
    for (int64_t row = 0; row < b.rows; row++)
      for (int64_t column = panel; column < panel + PANEL<T>; column++)
        *to++ = column < b.columns ? b.data[row * b.row_stride + column * b.column_stride] : T(0);
}

/// The first n columns of R rows of c = a b, or c += a b, for one panel of k rows.
template <typename T, int R>
inline void tile(const T *a, int64_t a_stride, const T *b, int64_t k, T *c, int64_t c_stride, int n, bool add)
{
  constexpr int V = Lanes<T>::count;
  Vector<T> sum[R][2];
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = Vector<T>{};
  for (int64_t q = 0; q < k; q++) {
    const Vector<T> b0 = load(b + q * PANEL<T>), b1 = load(b + q * PANEL<T> + V);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      const T value = a[r * a_stride + q];
      sum[r][0] += value * b0;
      sum[r][1] += value * b1;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) {
    T *to = c + r * c_stride;
    if (add) sum[r][0] += load(to, n);
    store(to, sum[r][0], n);
    if (n <= V) continue;
    if (add) sum[r][1] += load(to + V, n - V);
    store(to + V, sum[r][1], n - V);
  }
}

/// c = a b for packed b; `rows` is a multiple of ROWS, c has padded columns.
template <typename T>
void multiply(const T *a, int64_t a_stride, const T *b, T *c, int64_t c_stride, int64_t rows, int64_t k, int64_t n)
{
  for (int64_t panel = 0; panel < n; panel += PANEL<T>, b += k * PANEL<T>)
    for (int64_t row = 0; row < rows; row += ROWS)
      tile<T, ROWS>(a + row * a_stride, a_stride, b, k, c + row * c_stride + panel, c_stride, PANEL<T>, false);
}

/// Rows [first, last) of an equivariant linear map.
template <typename T>
void linear(const LinearMap<T> &map, int64_t first, int64_t last, const T *x, T *out)
{
  for (int64_t t = 0; t < map.n_terms; t++) {
    const LinearTerm<T> &term = map.terms[t];
    for (int64_t panel = 0; panel < term.columns; panel += PANEL<T>) {
      const T *b = term.matrix + panel * term.rows;
      const int n = term.columns - panel < PANEL<T> ? (int) (term.columns - panel) : PANEL<T>;
      for (int64_t m = 0; m < term.components; m++) {
        const T *a = x + term.input + m * term.rows;
        T *c = out + term.output + m * term.columns + panel;
        int64_t row = first;
        for (; row + ROWS <= last; row += ROWS)
          tile<T, ROWS>(a + row * map.in_width, map.in_width, b, term.rows, c + row * map.out_width, map.out_width, n, term.add);
        for (; row < last; row++)
          tile<T, 1>(a + row * map.in_width, map.in_width, b, term.rows, c + row * map.out_width, map.out_width, n, term.add);
      }
    }
  }
}

}    // namespace
}    // namespace mlplugins

#endif
