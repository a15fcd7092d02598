// SPDX-License-Identifier: BSD-3-Clause
// All ops and their schemas.

#include "exchange_api.h"
#include "ops.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace mlplugins {
namespace {

/// Define an op unless this process has it already: a second definition would end the process.
template <typename Function> bool define(const std::string &name, const std::string &signature, Function function)
{
  static torch::Library library(torch::Library::FRAGMENT, "mlplugins", std::nullopt, __FILE__, __LINE__);
  if (c10::Dispatcher::singleton().findSchema({"mlplugins::" + name, ""})) return false;
  library.def((name + signature).c_str());
  library.impl(name.c_str(), torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, function));
  return true;
}

const bool exchange_is_ours = define("ghost_exchange", "(Tensor h) -> Tensor", TORCH_FN(ghost_exchange));

[[maybe_unused]] const bool ops[] = {
    define("convolution", "(Tensor h, Tensor y, Tensor w, Tensor[] edges, int n_centers, Tensor[] tables) -> Tensor",
           TORCH_FN(convolution_op)),
    define("radial_convolution",
           "(Tensor h, Tensor y, Tensor[] radial, Tensor[] weights, Tensor[] edges, int n_centers, Tensor[] tables) "
           "-> Tensor",
           TORCH_FN(radial_convolution)),
    define("table_convolution",
           "(Tensor h, Tensor y, Tensor x, Tensor knots, Tensor[] edges, int n_centers, Tensor[] tables) -> Tensor",
           TORCH_FN(table_convolution)),
    define("edge_rows", "(Tensor centers, Tensor neighbors, Tensor vectors) -> (Tensor first, Tensor row)",
           TORCH_FN(edge_rows)),
    define("linear", "(Tensor x, Tensor[] weights, int[] terms, int n_out) -> Tensor", TORCH_FN(linear)),
    define("symmetric_contraction",
           "(Tensor x, Tensor coefficients, Tensor species, Tensor monomials, int n_out) -> Tensor",
           TORCH_FN(symmetric_contraction)),
    define("kernel_sum",
           "(Tensor q, Tensor packed, Tensor values, str kernel, float sigma) -> (Tensor energy, Tensor gradient)",
           TORCH_FN(kernel_sum)),
    define("molecular_kernel",
           "(Tensor positions, Tensor[] tables, str kernel, float sigma) "
           "-> (Tensor energy, Tensor gradient, Tensor farthest)",
           TORCH_FN(molecular_kernel)),
};

}    // namespace
}    // namespace mlplugins

extern "C" int mlplugins_exchange_active(void)
{
  return mlplugins::exchange_is_ours ? 1 : 0;
}
