// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_PAIR_SUM_KERNEL_H
#define MLPLUGINS_PAIR_SUM_KERNEL_H

// The loops of the sums over pairs, free of torch: compiled once per instruction set.

#include <cstdint>

namespace mlplugins {

/// f(r) of a pair, in the units of its parameters; all are switched off smoothly.
enum class PairForm {
  becke_johnson,    ///< s6 / (r⁶ + p0) + p2 / (r⁸ + p1);                                             constants s6
  zero,             ///< (s6 / (1 + 6 (rs6 p0 / r)^α) + p1 / (1 + 6 (rs8 p0 / r)^(α + 2)) / r²) / r⁶;  s6, rs6, rs8, α
  count             ///< 1 / (1 + exp(−k (p0 / r − 1)));                                              k
};

/// E_i = Σ_{e: centre i} c_e f(r_e), where c_e = Σ_m left_im right_jm of the neighbour j as the kind of i sees it; 1 if
/// there are no columns m.
template <typename T> struct PairSum {
  const T *vectors;           ///< (E, 3)
  const int64_t *neighbors;   ///< (E,)
  const int64_t *kind;        ///< (N,) of P
  const T *left;              ///< (n_centers, M)
  const T *right;             ///< (N, P, M)
  const T *pairs;             ///< (P, P, K) parameters
  int64_t kinds, columns, parameters;
  PairForm form;
  T unit, cutoff, onset;      ///< lengths are divided by unit; fraction of the cutoff where the switch begins
  const T *constants;
};

/// Where the gradients of Σ_i g_i E_i are added; the first is written.
template <typename T> struct PairSlopes {
  T *vectors, *left, *right;
};

template <typename T> struct PairSumKernels {
  /// E_i of the edges [begin, end) of centre i.
  T (*energy)(const PairSum<T> &, int64_t i, int64_t begin, int64_t end);
  void (*slopes)(const PairSum<T> &, T g, int64_t i, int64_t begin, int64_t end, const PairSlopes<T> &);
};

}    // namespace mlplugins

#endif
