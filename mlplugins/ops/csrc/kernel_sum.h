// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_KERNEL_SUM_H
#define MLPLUGINS_KERNEL_SUM_H

// The arguments of the kernel sums.

#include <ATen/ATen.h>

#include <string>

namespace mlplugins {

/// Refuse what could not be computed.
void check_kernel_sum(const at::Tensor &q, const at::Tensor &packed, const at::Tensor &values,
                      const std::string &kernel, double sigma);
void check_molecules(const at::Tensor &positions, at::TensorList tables);

}    // namespace mlplugins

#endif
