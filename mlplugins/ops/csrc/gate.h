// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_GATE_H
#define MLPLUGINS_GATE_H

// The arguments of a gate.

#include <ATen/ATen.h>

#include <vector>

namespace mlplugins {

struct GatePlan {
  /// Refuses what could not be computed.
  GatePlan(const at::Tensor &x, at::IntArrayRef sizes, at::ArrayRef<double> factors);

  int64_t n_even, n_odd, n_gates = 0, n_gated = 0;
  std::vector<int64_t> blocks;    // components and channels of each
  bool sigmoid;                   // of the gates, in place of silu
  double silu, tanh, gate;        // factors of the functions
};

/// In ATen's own operations.
at::Tensor gated(const at::Tensor &x, const GatePlan &plan);

}    // namespace mlplugins

#endif
