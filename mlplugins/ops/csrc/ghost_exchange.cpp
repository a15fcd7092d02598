// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::ghost_exchange(Tensor h) -> Tensor: identity, or communication of ghost rows with its adjoint.
// Op mlplugins::message_copies: from then on, until it is called with None, the exchange gives every edge a row of its
// own, and scales what flows back along it. The heat flux is a derivative with respect to these scales.

#include "exchange_api.h"
#include "ops.h"

#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <optional>

namespace mlplugins {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

/// The rows of ghosts take their owners' values.
class Exchange : public torch::autograd::Function<Exchange> {
 public:
  static Tensor forward(AutogradContext *, const Tensor &h)
  {
    const mlplugins_exchange *exchange = installed.load();
    TORCH_CHECK(exchange, "ghost_exchange: the engine is gone before the second derivatives");
    return communicated(h, *exchange, exchange->forward);
  }

  static variable_list backward(AutogradContext *, variable_list gradients);
};

/// Its adjoint, whose own adjoint is the exchange again.
class Returned : public torch::autograd::Function<Returned> {
 public:
  static Tensor forward(AutogradContext *, const Tensor &g)
  {
    const mlplugins_exchange *exchange = installed.load();
    TORCH_CHECK(exchange, "ghost_exchange: the engine is gone before the backward pass");
    return communicated(g, *exchange, exchange->backward);
  }

  static variable_list backward(AutogradContext *, variable_list directions)
  {
    return {Exchange::apply(directions[0])};
  }
};

variable_list Exchange::backward(AutogradContext *, variable_list gradients)
{
  return {Returned::apply(gradients[0])};
}

/// A row of its own for every edge.
struct Copies {
  Tensor sources;    ///< (E,) node of which it is a copy
  Tensor factors;    ///< (E,) of what flows back
  int64_t n_nodes;
};

thread_local std::optional<Copies> copies;

/// Rows (N, D) → (E, D). The value does not depend on the factors, so they are no input of this node: second
/// derivatives then follow the paths of gradients only.
class Copied : public torch::autograd::Function<Copied> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &rows, const Copies &wanted)
  {
    context->saved_data["sources"] = wanted.sources;
    context->saved_data["factors"] = wanted.factors;
    context->saved_data["rows"] = rows.size(0);
    return rows.index_select(0, wanted.sources);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const Tensor sources = context->saved_data["sources"].toTensor();
    // of the engine, which may have more digits than the model
    const Tensor factors = context->saved_data["factors"].toTensor().to(g[0].scalar_type());
    const Tensor zero = at::zeros({context->saved_data["rows"].toInt(), g[0].size(1)}, g[0].options());
    return {zero.index_add(0, sources, g[0] * factors.unsqueeze(1)), Tensor()};
  }
};

/// The rows of the centres, and those of the edges.
template <typename Exchanged, typename Copy>
Tensor with_copies(const Tensor &h, const Copies &wanted, Exchanged &&exchanged, Copy &&copy)
{
  const int64_t n_centers = h.size(0) - wanted.sources.size(0), n_ghosts = wanted.n_nodes - n_centers;
  TORCH_CHECK(h.dim() == 2 && n_centers >= 0 && n_ghosts >= 0, "message_copies: ", wanted.n_nodes, " nodes and ",
              wanted.sources.size(0), " edges, but ghost_exchange got features of ", h.sizes());
  const Tensor owned = h.narrow(0, 0, n_centers);
  const Tensor all = n_ghosts ? at::cat({owned, at::zeros({n_ghosts, h.size(1)}, h.options())}) : owned;
  const Tensor rows = installed.load() ? exchanged(all) : all;
  return at::cat({rows.narrow(0, 0, n_centers), copy(rows, wanted)});
}

}    // namespace

Tensor reference::ghost_exchange(const Tensor &h)
{
  const auto exchanged = [](const Tensor &rows) {
    const mlplugins_exchange *exchange = installed.load();
    return communicated(rows, *exchange, exchange->forward);
  };
  const auto copy = [](const Tensor &rows, const Copies &wanted) { return rows.index_select(0, wanted.sources); };
  if (copies) return with_copies(h, *copies, exchanged, copy);
  return installed.load() ? exchanged(h) : h.clone();
}

Tensor autograd::ghost_exchange(const Tensor &h)
{
  const auto exchanged = [](const Tensor &rows) { return Exchange::apply(rows); };
  const auto copy = [](const Tensor &rows, const Copies &wanted) { return Copied::apply(rows, wanted); };
  if (copies) return with_copies(h, *copies, exchanged, copy);
  return installed.load() ? exchanged(h) : h.clone();
}

void reference::message_copies(const std::optional<Tensor> &sources, const std::optional<Tensor> &factors, int64_t n_nodes)
{
  TORCH_CHECK(sources.has_value() == factors.has_value(), "message_copies: expected sources and factors, or neither");
  copies.reset();
  if (!sources) return;
  TORCH_CHECK(sources->dim() == 1 && sources->scalar_type() == at::kLong && factors->sizes() == sources->sizes(),
              "message_copies: expected int64 sources (E,) and factors (E,), got ", sources->sizes(), " and ",
              factors->sizes());
  copies.emplace(Copies{*sources, *factors, n_nodes});
}

void autograd::message_copies(const std::optional<Tensor> &sources, const std::optional<Tensor> &factors, int64_t n_nodes)
{
  reference::message_copies(sources, factors, n_nodes);    // the factors keep what they depend on
}

}    // namespace mlplugins

extern "C" const mlplugins_exchange *mlplugins_set_exchange(const mlplugins_exchange *exchange)
{
  return mlplugins::installed.exchange(exchange);
}
