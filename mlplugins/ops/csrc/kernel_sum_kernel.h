// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_KERNEL_SUM_KERNEL_H
#define MLPLUGINS_KERNEL_SUM_KERNEL_H

// The loops of the kernel regression sum, free of torch: compiled once per instruction set.

#include <cstdint>

namespace mlplugins {

constexpr int POINTS = 8;    ///< training points that are packed together

/// Training points x_i with weights a_i, b_i: f(q) = Σ_i [a_i (k_i − 1) + 2 k'_i b_i · (x_i − q)].
struct KernelSum {
  const double *packed;    ///< (n_blocks, width, 1 or 2, POINTS): x_i and, if there are any, b_i
  const double *values;    ///< (n_blocks, POINTS) a_i; or null
  int64_t n_blocks, width;
  bool slopes, gaussian;   ///< is there b; which kernel: Gaussian or Matérn-5/2
  double sigma;
};

/// f (n_rows,) and its gradient (n_rows, width) at the rows q.
using KernelSumPass = void (*)(const KernelSum &, const double *q, int64_t n_rows, double *energy, double *gradient);

}    // namespace mlplugins

#endif
