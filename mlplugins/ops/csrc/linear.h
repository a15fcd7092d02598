// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_LINEAR_H
#define MLPLUGINS_LINEAR_H

// The arguments of an equivariant linear map.

#include <ATen/ATen.h>

#include <vector>

namespace mlplugins {

/// `components` blocks of channels of x, from `input` on, times rows `row` … row + `channels` of a matrix, are added
/// to the result from `output` on.
struct Term {
  int64_t input, output, components, channels, matrix, row;
};

struct Blocks {
  std::vector<Term> terms;
  int64_t width;    // of the result
};

Blocks read(at::IntArrayRef terms, int64_t n_out);

/// Refuse what could not be computed.
void check(const at::Tensor &x, at::TensorList weights, const Blocks &blocks);

}    // namespace mlplugins

#endif
