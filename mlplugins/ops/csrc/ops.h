// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_OPS_H
#define MLPLUGINS_OPS_H

// The ops, as TorchScript calls them; library.cpp has their schemas, the file of the same name says what each does.

#include <ATen/core/Tensor.h>

#include <string>
#include <tuple>

namespace mlplugins {

using at::Tensor;

Tensor convolution_op(const Tensor &h, const Tensor &y, const Tensor &w, at::TensorList edges, int64_t n_centers,
                      at::TensorList tables);
Tensor radial_convolution(const Tensor &h, const Tensor &y, at::TensorList radial, at::TensorList weights,
                          at::TensorList edges, int64_t n_centers, at::TensorList tables);
Tensor table_convolution(const Tensor &h, const Tensor &y, const Tensor &x, const Tensor &knots, at::TensorList edges,
                         int64_t n_centers, at::TensorList tables);
std::tuple<Tensor, Tensor> edge_rows(const Tensor &centers, const Tensor &neighbors, const Tensor &vectors);
Tensor linear(const Tensor &x, at::TensorList weights, at::IntArrayRef terms, int64_t n_out);
Tensor symmetric_contraction(const Tensor &x, const Tensor &coefficients, const Tensor &species,
                             const Tensor &monomials, int64_t n_out);
std::tuple<Tensor, Tensor> kernel_sum(const Tensor &q, const Tensor &packed, const Tensor &values, std::string kernel,
                                      double sigma);
std::tuple<Tensor, Tensor, Tensor> molecular_kernel(const Tensor &positions, at::TensorList tables, std::string kernel,
                                                    double sigma);
Tensor ghost_exchange(const Tensor &h);

}    // namespace mlplugins

#endif
