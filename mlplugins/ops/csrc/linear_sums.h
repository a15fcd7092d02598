// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_LINEAR_SUMS_H
#define MLPLUGINS_LINEAR_SUMS_H

// The arguments of a sum of equivariant linear maps.

#include <ATen/ATen.h>

#include <vector>

namespace mlplugins {

/// `channels` channels of block `offset` of input `tensor`, and their packed matrix (node_kernel.h) from `matrix` on;
/// the matrix of the next species is `species_stride` numbers further, 0: it is the same.
struct SumSource {
  int64_t tensor, offset, channels, matrix, species_stride;
};

struct SumTarget {
  int64_t tensor, offset, components, columns;
  std::vector<SumSource> sources;
};

/// Widths of the results, and their blocks, which cover them.
struct SumPlan {
  std::vector<int64_t> widths;
  std::vector<SumTarget> targets;
  bool by_species = false;
};

SumPlan read_plan(at::IntArrayRef numbers);

/// Refuse what could not be computed.
void check(const SumPlan &plan, at::TensorList x, const at::Tensor &species, at::TensorList weights);

}    // namespace mlplugins

#endif
