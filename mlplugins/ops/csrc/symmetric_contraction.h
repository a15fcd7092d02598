// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_SYMMETRIC_CONTRACTION_H
#define MLPLUGINS_SYMMETRIC_CONTRACTION_H

// The arguments of the symmetric contraction.

#include <ATen/ATen.h>

#include <optional>

namespace mlplugins {

/// What the op receives besides x and the coefficients c.
struct Tables {
  at::Tensor species;      // (N,) int64
  at::Tensor monomials;    // (M, 4) int64: output component, up to three inputs, -1 behind them
  int64_t n_out;
};

/// Refuse what could not be computed: of the op, of the gradient g of its result, of the directions of derivatives.
void check(const Tables &tables, const at::Tensor &x, const at::Tensor &c);
void check_gradient(const Tables &tables, const at::Tensor &g, const at::Tensor &x, const at::Tensor &c);
void check_directions(const std::optional<at::Tensor> &dx, const std::optional<at::Tensor> &dc, const at::Tensor &x,
                      const at::Tensor &c);

}    // namespace mlplugins

#endif
