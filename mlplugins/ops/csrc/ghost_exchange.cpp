// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::ghost_exchange(Tensor h) -> Tensor: identity, or communication of ghost rows with its adjoint.
// Op mlplugins::message_copies: from then on, until it is called with None, the exchange gives every edge a row of its
// own. It returns these rows, whose gradients are what flows back along each edge; the heat flux is made of them.

#include "exchange_api.h"
#include "message_moments.h"
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
  int64_t n_nodes;
  std::vector<Tensor> made;    ///< (E, D) by each exchange
};

thread_local std::optional<Copies> copies;

/// The rows of the centres, and those of the edges.
template <typename Exchanged>
Tensor with_copies(const Tensor &h, Copies &wanted, Exchanged &&exchanged)
{
  const int64_t n_centers = h.size(0) - wanted.sources.size(0), n_ghosts = wanted.n_nodes - n_centers;
  TORCH_CHECK(h.dim() == 2 && n_centers >= 0 && n_ghosts >= 0, "message_copies: ", wanted.n_nodes, " nodes and ",
              wanted.sources.size(0), " edges, but ghost_exchange got features of ", h.sizes());
  const Tensor owned = h.narrow(0, 0, n_centers);
  const Tensor all = n_ghosts ? at::cat({owned, at::zeros({n_ghosts, h.size(1)}, h.options())}) : owned;
  const Tensor rows = installed.load() ? exchanged(all) : all;
  wanted.made.push_back(rows.index_select(0, wanted.sources));
  return at::cat({rows.narrow(0, 0, n_centers), wanted.made.back()});
}

}    // namespace

Tensor reference::ghost_exchange(const Tensor &h)
{
  const auto exchanged = [](const Tensor &rows) {
    const mlplugins_exchange *exchange = installed.load();
    return communicated(rows, *exchange, exchange->forward);
  };
  if (copies) return with_copies(h, *copies, exchanged);
  return installed.load() ? exchanged(h) : h.clone();
}

Tensor autograd::ghost_exchange(const Tensor &h)
{
  const auto exchanged = [](const Tensor &rows) { return Exchange::apply(rows); };
  if (copies) return with_copies(h, *copies, exchanged);
  return noted(installed.load() ? exchanged(h) : h.clone());
}

std::vector<Tensor> reference::message_copies(const std::optional<Tensor> &sources, int64_t n_nodes)
{
  std::vector<Tensor> made;
  if (copies) made.swap(copies->made);
  copies.reset();
  if (!sources) return made;
  TORCH_CHECK(sources->dim() == 1 && sources->scalar_type() == at::kLong,
              "message_copies: expected int64 sources (E,), got ", sources->scalar_type(), " ", sources->sizes());
  copies.emplace(Copies{*sources, n_nodes, {}});
  return made;
}

std::vector<Tensor> autograd::message_copies(const std::optional<Tensor> &sources, int64_t n_nodes)
{
  return reference::message_copies(sources, n_nodes);    // the copies keep what they depend on
}

}    // namespace mlplugins

extern "C" const mlplugins_exchange *mlplugins_set_exchange(const mlplugins_exchange *exchange)
{
  return mlplugins::installed.exchange(exchange);
}
