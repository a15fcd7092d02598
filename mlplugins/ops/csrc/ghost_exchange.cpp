// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::ghost_exchange(Tensor h) -> Tensor: identity, or communication of ghost rows with its adjoint.

#include "exchange_api.h"
#include "ops.h"

#include <torch/csrc/autograd/custom_function.h>

#include <atomic>

namespace mlplugins {
namespace {

std::atomic<const mlplugins_exchange *> installed{nullptr};

using Direction = void (*)(void *, void *, int64_t, int64_t, int);

/// A communicated copy of `h`; features on another device travel through main memory.
at::Tensor communicated(const at::Tensor &h, const mlplugins_exchange &exchange, Direction direction)
{
  TORCH_CHECK(h.dim() == 2, "ghost_exchange: expected (n_nodes, n_features), got ", h.dim(), " dimensions");
  const auto dtype = h.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble, "ghost_exchange: expected float32 or float64");
  at::Tensor rows = h.detach().to(at::kCPU).contiguous();
  if (rows.is_alias_of(h)) rows = rows.clone();
  direction(exchange.context, rows.data_ptr(), rows.size(0), rows.size(1), static_cast<int>(h.element_size()));
  return rows.to(h.device());
}

class Exchange : public torch::autograd::Function<Exchange> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext *, const at::Tensor &h)
  {
    const mlplugins_exchange *exchange = installed.load();
    return communicated(h, *exchange, exchange->forward);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *,
                                                 torch::autograd::variable_list gradients)
  {
    const mlplugins_exchange *exchange = installed.load();
    TORCH_CHECK(exchange, "ghost_exchange: the engine is gone before the backward pass");
    TORCH_CHECK(!at::GradMode::is_enabled(), "ghost_exchange: no second derivatives across domains");
    return {communicated(gradients[0], *exchange, exchange->backward)};
  }
};

}    // namespace

Tensor reference::ghost_exchange(const Tensor &h)
{
  const mlplugins_exchange *exchange = installed.load();
  return exchange ? communicated(h, *exchange, exchange->forward) : h.clone();
}

Tensor autograd::ghost_exchange(const Tensor &h)
{
  return installed.load() ? Exchange::apply(h) : h.clone();
}

}    // namespace mlplugins

extern "C" const mlplugins_exchange *mlplugins_set_exchange(const mlplugins_exchange *exchange)
{
  return mlplugins::installed.exchange(exchange);
}
