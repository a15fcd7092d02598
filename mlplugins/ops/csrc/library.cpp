// SPDX-License-Identifier: BSD-3-Clause
// All ops: their schemas, and which function serves which dispatch key (see ops.h).

#include "exchange_api.h"
#include "ops.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <type_traits>

namespace mlplugins {
namespace {

/// Define an op unless this process has it already: a second definition would end the process.
template <typename Cpu, typename Reference, typename Autograd>
bool define(const std::string &name, const std::string &signature, Cpu cpu, Reference reference, Autograd autograd)
{
  static torch::Library library(torch::Library::FRAGMENT, "mlplugins", std::nullopt, __FILE__, __LINE__);
  if (c10::Dispatcher::singleton().findSchema({"mlplugins::" + name, ""})) return false;
  library.def((name + signature).c_str());
  if constexpr (!std::is_null_pointer_v<Cpu>)
    library.impl(name.c_str(), torch::dispatch(c10::DispatchKey::CPU, cpu));
  library.impl(name.c_str(), torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd, reference));
  library.impl(name.c_str(), torch::dispatch(c10::DispatchKey::Autograd, autograd));
  return true;
}

#define MLPLUGINS_OP(name, signature) \
  define(#name, signature, TORCH_FN(cpu::name), TORCH_FN(reference::name), TORCH_FN(autograd::name))
#define MLPLUGINS_GRAPH "Tensor[] edges, int n_centers, Tensor[] tables"
#define MLPLUGINS_PAIR_SUM \
  "Tensor vectors, Tensor[] factors, Tensor kind, Tensor[] edges, Tensor pairs, str form, float[] constants"
#define MLPLUGINS_CONTRACTION "Tensor x, Tensor coefficients, Tensor species, Tensor monomials, int n_out"

const bool exchange_is_ours = define("ghost_exchange", "(Tensor h) -> Tensor", nullptr,
                                     TORCH_FN(reference::ghost_exchange), TORCH_FN(autograd::ghost_exchange));

[[maybe_unused]] const bool ops[] = {
    define("message_copies", "(Tensor? sources, int n_nodes) -> Tensor[]", nullptr,
           TORCH_FN(reference::message_copies), TORCH_FN(autograd::message_copies)),
    define("message_moments", "(Tensor[] edges) -> Tensor[]", nullptr, TORCH_FN(reference::message_moments),
           TORCH_FN(autograd::message_moments)),
    MLPLUGINS_OP(convolution, "(Tensor h, Tensor y, Tensor w, " MLPLUGINS_GRAPH ") -> Tensor"),
    MLPLUGINS_OP(convolution_backward, "(Tensor g, Tensor h, Tensor y, Tensor w, " MLPLUGINS_GRAPH
                                       ", bool[3] wanted) -> (Tensor, Tensor, Tensor)"),
    MLPLUGINS_OP(radial_convolution,
                 "(Tensor h, Tensor y, Tensor[] radial, Tensor[] weights, " MLPLUGINS_GRAPH ") -> Tensor"),
    MLPLUGINS_OP(radial_convolution_backward,
                 "(Tensor g, Tensor h, Tensor y, Tensor[] radial, Tensor[] weights, " MLPLUGINS_GRAPH
                 ", bool[3] wanted) -> (Tensor, Tensor, Tensor)"),
    MLPLUGINS_OP(table_convolution, "(Tensor h, Tensor y, Tensor x, Tensor knots, " MLPLUGINS_GRAPH ") -> Tensor"),
    MLPLUGINS_OP(table_convolution_backward, "(Tensor g, Tensor h, Tensor y, Tensor x, Tensor knots, " MLPLUGINS_GRAPH
                                             ", bool[3] wanted) -> (Tensor, Tensor, Tensor)"),
    MLPLUGINS_OP(edge_rows, "(Tensor centers, Tensor neighbors, Tensor vectors) -> (Tensor first, Tensor row)"),
    MLPLUGINS_OP(linear, "(Tensor x, Tensor[] weights, int[] terms, int n_out) -> Tensor"),
    MLPLUGINS_OP(linear_sums, "(Tensor[] x, Tensor species, Tensor[] weights, int[] plan, int[] back) -> Tensor[]"),
    MLPLUGINS_OP(gate, "(Tensor x, int[] sizes, float[] factors) -> Tensor"),
    MLPLUGINS_OP(gate_backward, "(Tensor g, Tensor x, int[] sizes, float[] factors) -> Tensor"),
    MLPLUGINS_OP(harmonics, "(Tensor vectors, int l_max, bool solid) -> (Tensor r, Tensor y)"),
    MLPLUGINS_OP(harmonics_backward, "(Tensor gr, Tensor gy, Tensor vectors, int l_max, bool solid) -> Tensor"),
    MLPLUGINS_OP(symmetric_contraction, "(" MLPLUGINS_CONTRACTION ") -> Tensor"),
    MLPLUGINS_OP(symmetric_contraction_backward,
                 "(Tensor g, " MLPLUGINS_CONTRACTION ", bool wanted) -> (Tensor, Tensor)"),
    MLPLUGINS_OP(symmetric_contraction_double_backward, "(Tensor? dx, Tensor? dc, Tensor g, " MLPLUGINS_CONTRACTION
                                                        ", bool wanted) -> (Tensor, Tensor, Tensor)"),
    MLPLUGINS_OP(kernel_sum, "(Tensor q, Tensor packed, Tensor values, str kernel, float sigma) "
                             "-> (Tensor energy, Tensor gradient)"),
    MLPLUGINS_OP(molecular_kernel, "(Tensor positions, Tensor[] tables, str kernel, float sigma) "
                                   "-> (Tensor energy, Tensor gradient, Tensor farthest)"),
    MLPLUGINS_OP(pair_sum, "(" MLPLUGINS_PAIR_SUM ") -> Tensor"),
    MLPLUGINS_OP(pair_sum_backward, "(Tensor g, " MLPLUGINS_PAIR_SUM ") -> (Tensor, Tensor, Tensor)"),
    MLPLUGINS_OP(near_pairs,
                 "(Tensor positions, Tensor expected, Tensor cell, Tensor samples, float cutoff) "
                 "-> (Tensor rows, Tensor centers, Tensor neighbors, Tensor vectors, Tensor farthest)"),
    MLPLUGINS_OP(forces_and_virials, "(Tensor gradient, Tensor vectors, Tensor centers, Tensor neighbors, Tensor system, "
                                     "int n_systems, bool per_atom) -> (Tensor forces, Tensor virial, Tensor virials)"),
};

class WithoutDerivatives : public torch::autograd::Function<WithoutDerivatives> {
 public:
  static std::vector<Tensor> forward(torch::autograd::AutogradContext *context, at::TensorList, const std::string &what,
                                     const std::function<std::vector<Tensor>()> &results)
  {
    context->saved_data["what"] = what;
    at::AutoDispatchBelowADInplaceOrView guard;
    return results();
  }

  static std::vector<Tensor> backward(torch::autograd::AutogradContext *context, const std::vector<Tensor> &)
  {
    TORCH_CHECK_NOT_IMPLEMENTED(false, context->saved_data["what"].toStringRef(), " are not implemented");
  }
};

}    // namespace

bool differentiable(at::TensorList inputs)
{
  const bool backward = at::GradMode::is_enabled();
  return std::any_of(inputs.begin(), inputs.end(), [backward](const Tensor &t) {
    return (backward && t.requires_grad()) || t._fw_grad(0).defined();    // forward mode: refused by the node
  });
}

std::vector<Tensor> without_derivatives(at::TensorList inputs, const char *what,
                                        const std::function<std::vector<Tensor>()> &results)
{
  if (!differentiable(inputs)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return results();
  }
  return WithoutDerivatives::apply(inputs, std::string(what), results);
}

}    // namespace mlplugins

extern "C" int mlplugins_exchange_active(void)
{
  return mlplugins::exchange_is_ours ? 1 : 0;
}
