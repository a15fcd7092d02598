// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set; MLPLUGINS_ISA names the pass. Nothing but plain loops may live here.

#include "kernel_sum_kernel.h"
#include "vectors.h"

namespace mlplugins {
namespace {

using Real = Vector<double>;
constexpr int L = Lanes<double>::count;
constexpr int V = POINTS / L;               ///< vectors of a block
constexpr int ROWS = L > 2 ? L / 2 : 1;     ///< rows at a time, so that their sums stay in registers
constexpr int64_t CACHED = 4096;            ///< vectors of gradient that stay in the first-level cache

inline Real square_root(const Real &x)
{
  double from[L], to[L];
  store(from, x);
  for (int k = 0; k < L; k++) to[k] = __builtin_sqrt(from[k]);
  return load(to);
}

/// 2 dk/ds, 4 d²k/ds² and, if wanted, k − 1 at the squared distance s.
template <bool GAUSSIAN, bool VALUES>
inline void evaluate(const KernelSum &sum, const Real &s, Real &less_one, Real &slope, Real &curvature)
{
  const double sigma2 = sum.sigma * sum.sigma;
  if constexpr (GAUSSIAN) {
    less_one = exponential_less_one<double>(s * (-0.5 / sigma2));
    slope = (less_one + 1.0) * (-1.0 / sigma2);
    curvature = slope * (-1.0 / sigma2);
  } else {
    const Real u = square_root(s * (5.0 / sigma2)), decay_less_one = exponential_less_one<double>(-u);
    const Real decay = decay_less_one + 1.0;
    slope = (u + 1.0) * decay * (-5.0 / (3.0 * sigma2));
    curvature = decay * (25.0 / (3.0 * sigma2 * sigma2));
    if constexpr (VALUES) {
      const Real rise = u + u * u * (1.0 / 3.0);
      less_one = rise + (1.0 + rise) * decay_less_one;
    }
  }
}

/// A sum with the digits that its additions lost (Kahan): weights are large and of both signs.
struct Total {
  Real sum, lost;

  void add(const Real &x)
  {
    const Real y = x - lost, next = sum + y;
    lost = (next - sum) - y;
    sum = next;
  }
};

/// R rows against one block of points; total[r] and gradient[r * width + p] are summed over their lanes at the end.
template <int R, bool GAUSSIAN, bool SLOPES, bool VALUES>
inline void add_block(const KernelSum &sum, int64_t block, const double *q, Total *total, Real *gradient)
{
  constexpr int STRIDE = (SLOPES ? 2 : 1) * POINTS;
  const int64_t width = sum.width;
  const double *const packed = sum.packed + block * width * STRIDE;
  Real s[R][V] = {}, t[R][V] = {};
  const double *x = packed;
  for (int64_t p = 0; p < width; p++, x += STRIDE) {
    // the next block, past the second-level cache, which keeps the caller's code and data
    for (int line = 0; line < STRIDE; line += 8) __builtin_prefetch(x + width * STRIDE + line, 0, 0);
    for (int v = 0; v < V; v++) {
      const Real point = load(x + v * L);
      Real slope;
      if constexpr (SLOPES) slope = load(x + POINTS + v * L);
      for (int r = 0; r < R; r++) {
        const Real d = q[r * width + p] - point;
        s[r][v] += d * d;
        if constexpr (SLOPES) t[r][v] -= slope * d;
      }
    }
  }
  Real along[R][V], pull[R][V];
  for (int v = 0; v < V; v++) {
    Real a = {};
    if constexpr (VALUES) a = load(sum.values + block * POINTS + v * L);
    for (int r = 0; r < R; r++) {
      Real less_one = {}, curvature;
      evaluate<GAUSSIAN, VALUES>(sum, s[r][v], less_one, pull[r][v], curvature);
      along[r][v] = Real{};
      if constexpr (SLOPES) {
        total[r].add(pull[r][v] * t[r][v]);
        along[r][v] = curvature * t[r][v];
      }
      if constexpr (VALUES) {
        total[r].add(less_one * a);
        along[r][v] += pull[r][v] * a;
      }
    }
  }
  x = packed;
  for (int64_t p = 0; p < width; p++, x += STRIDE)
    for (int r = 0; r < R; r++) {
      Real g = gradient[r * width + p];
      for (int v = 0; v < V; v++) {
        g += along[r][v] * (q[r * width + p] - load(x + v * L));
        if constexpr (SLOPES) g -= pull[r][v] * load(x + POINTS + v * L);
      }
      gradient[r * width + p] = g;
    }
}

inline double sum_of_lanes(const Real &v)
{
  double sum = 0.0;
  for (int lane = 0; lane < L; lane++) sum += v[lane];
  return sum;
}

template <bool GAUSSIAN, bool SLOPES, bool VALUES>
void pass(const KernelSum &sum, const double *q, int64_t n_rows, double *energy, double *gradient)
{
  const int64_t width = sum.width, chunk = width < CACHED / ROWS ? CACHED / width : ROWS;
  Total *const total = new Total[chunk];
  Real *const slopes = new Real[chunk * width];
  for (int64_t start = 0; start < n_rows; start += chunk) {
    const int64_t count = n_rows - start < chunk ? n_rows - start : chunk;
    for (int64_t k = 0; k < count; k++) total[k] = Total{};
    for (int64_t k = 0; k < count * width; k++) slopes[k] = Real{};
    const double *const rows = q + start * width;
    for (int64_t block = 0; block < sum.n_blocks; block++) {
      int64_t r = 0;
      for (; r + ROWS <= count; r += ROWS)
        add_block<ROWS, GAUSSIAN, SLOPES, VALUES>(sum, block, rows + r * width, total + r, slopes + r * width);
      for (; r < count; r++)
        add_block<1, GAUSSIAN, SLOPES, VALUES>(sum, block, rows + r * width, total + r, slopes + r * width);
    }
    for (int64_t k = 0; k < count; k++) energy[start + k] = sum_of_lanes(total[k].sum);
    for (int64_t k = 0; k < count * width; k++) gradient[start * width + k] = sum_of_lanes(slopes[k]);
  }
  delete[] total;
  delete[] slopes;
}

template <bool GAUSSIAN>
void choose(const KernelSum &sum, const double *q, int64_t n_rows, double *energy, double *gradient)
{
  if (!sum.slopes) pass<GAUSSIAN, false, true>(sum, q, n_rows, energy, gradient);
  else if (sum.values) pass<GAUSSIAN, true, true>(sum, q, n_rows, energy, gradient);
  else pass<GAUSSIAN, true, false>(sum, q, n_rows, energy, gradient);
}

void kernel_sum(const KernelSum &sum, const double *q, int64_t n_rows, double *energy, double *gradient)
{
  if (sum.gaussian) choose<true>(sum, q, n_rows, energy, gradient);
  else choose<false>(sum, q, n_rows, energy, gradient);
}

}    // namespace

extern const KernelSumPass MLPLUGINS_CONCAT(kernel_sum_, MLPLUGINS_ISA) = kernel_sum;

}    // namespace mlplugins
