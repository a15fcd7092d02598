// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::message_moments: from then on, until it is called without edges, exchanges note the features they return,
// and convolutions of them, in backward passes, Σ_e −x_e a_e for every node, where a_e flows back to it along edge e with
// vector x_e: what the heat flux is made of. It holds where a convolution is all that reads the features. Op
// mlplugins::edge_rows then gives every edge a row of its own.

#include "message_moments.h"

#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <optional>

namespace mlplugins {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Record {
  int64_t number;
  Tensor centers, neighbors, vectors;    ///< of the edges
  std::vector<Sent> sent;
};

// backward passes on the CPU run on the thread that asks for them
thread_local std::optional<Record> record;
std::atomic<int64_t> last_number{0};

/// The identity, which notes its gradient.
class Noting : public torch::autograd::Function<Noting> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &h, int64_t number, int64_t place)
  {
    context->saved_data["number"] = number;
    context->saved_data["place"] = place;
    return h.clone();
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    if (Sent *sent = open_note({context->saved_data["number"].toInt(), context->saved_data["place"].toInt()}))
      sent->gradient = g[0].detach();
    return {g[0], Tensor(), Tensor()};
  }
};

bool same(const Tensor &a, const Tensor &b)
{
  return a.is_same(b) || (a.device() == b.device() && a.sizes() == b.sizes() && a.equal(b));
}

}    // namespace

bool moments_wanted()
{
  return record.has_value();
}

Tensor noted(const Tensor &h)
{
  if (!record || !h.requires_grad()) return h;
  record->sent.emplace_back();
  const Tensor out = Noting::apply(h, record->number, (int64_t) record->sent.size() - 1);
  record->sent.back().features = out;
  return out;
}

Noted read_by_convolution(const Tensor &h, const Graph &graph)
{
  if (!record || !h.is_cpu()) return {};
  for (size_t k = 0; k < record->sent.size(); k++) {
    Sent &sent = record->sent[k];
    if (!sent.features.is_same(h)) continue;
    sent.convolutions++;
    const bool all_edges = same(graph.neighbors, record->neighbors) && same(graph.centers, record->centers);
    return all_edges ? Noted{record->number, (int64_t) k} : Noted{};
  }
  return {};
}

Sent *open_note(const Noted &which)
{
  return record && which.record == record->number ? &record->sent[which.place] : nullptr;
}

std::vector<Tensor> noting(Sent &sent, const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                           const RadialInput &radial, Wanted wanted)
{
  auto d = backward_with_moments(graph, g, h, y, radial, wanted, record->vectors.to(h.scalar_type()));
  sent.summed = d[0];
  sent.moments = d[3];
  d.pop_back();
  return d;
}

std::vector<Tensor> reference::message_moments(at::TensorList edges)
{
  std::vector<Tensor> found;
  if (record)
    for (const Sent &sent : record->sent) {
      if (!sent.gradient.defined() && !sent.moments.defined()) continue;    // nothing depends on them
      const bool whole = sent.convolutions == 1 && sent.gradient.defined() && sent.moments.defined() &&
          same(sent.gradient, sent.summed);
      found.insert(found.end(), {sent.features, whole ? sent.moments : at::empty({0}, sent.features.options())});
    }
  record.reset();
  if (edges.empty()) return found;
  TORCH_CHECK(edges.size() == 3 && edges[2].dim() == 2 && edges[2].size(1) == 3 &&
                  edges[0].numel() == edges[2].size(0) && edges[1].numel() == edges[2].size(0) &&
                  edges[0].device() == edges[2].device() && edges[1].device() == edges[2].device(),
              "message_moments: expected centers (E,), neighbors (E,) and vectors (E, 3) on one device");
  record.emplace(Record{++last_number, edges[0], edges[1], edges[2].detach().contiguous(), {}});
  return found;
}

std::vector<Tensor> autograd::message_moments(at::TensorList edges)
{
  return reference::message_moments(edges);
}

}    // namespace mlplugins
