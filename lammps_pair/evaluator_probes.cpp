// SPDX-License-Identifier: GPL-2.0-only
// Uncertainty of forces: energies of probes, whose gradients squared add up to the variances of force components.

#include "evaluator_state.h"
#include "format.h"

#include <torch/csrc/autograd/autograd.h>

namespace mlplugins {

namespace {

const char *const FORCE_FLOOR = "force_floor";    // method of the family, absent in older files

}    // namespace

/// Of a model of ours that is differentiated, if somebody calibrated it.
void Evaluator::State::find_force_uncertainty()
{
  const auto potential = inner.attr("potential").toModule();
  if (!info.edge_model || info.direct_edges || !info.atom_uncertainties || info.n_members > 1) return;
  if (const auto method = potential.find_method(FORCE_FLOOR)) info.force_floor = (*method)({}).toDouble();
}

/// Gradients of all probes, one backward pass each; the energy's own comes after them.
void Evaluator::State::read_probes(const torch::Tensor &vectors)
{
  result.probe_gradients.clear();
  probe_gradients.clear();
  if (!request.force_uncertainty) return;
  const auto sums = block(format::FORCE_PROBES)->values().sum(0);    // of the owned atoms
  for (int64_t q = 0; q < sums.size(0); q++) {
    torch::Tensor found;
    if (sums.requires_grad())
      found = torch::autograd::grad({sums[q]}, {vectors}, {}, /*retain_graph=*/true, /*create_graph=*/false,
                                    /*allow_unused=*/true)[0];
    if (!found.defined()) found = torch::zeros(vectors.sizes(), torch::kDouble);
    probe_gradients.push_back(found.to(torch::kCPU, torch::kDouble).contiguous());
    result.probe_gradients.push_back(probe_gradients.back().data_ptr<double>());
  }
}

}    // namespace mlplugins
