// SPDX-License-Identifier: GPL-2.0-only
// What compute mlplugins/heat/flux asks of the pair style.

#include "committee.h"
#include "ghost_exchange.h"
#include "pair_attempt.h"
#include "settings.h"
#include "system_adaptor.h"

#include "atom.h"
#include "comm.h"
#include "compute.h"
#include "error.h"
#include "modify.h"
#include "update.h"

#include <algorithm>
#include <optional>

using namespace LAMMPS_NS;
using mlplugins::Mode;

/// Whether the forces to come are those of a step whose flux is asked for: its velocities are not known yet.
bool PairMLPlugins::heat_flux_due() const
{
  if (copied_messages_ || evaluator_->size() > 1) return false;
  for (auto *compute : modify->get_compute_by_style("^mlplugins/heat/flux$"))
    if (compute->matchstep(update->ntimestep)) return true;
  return false;
}

/// Evaluate, unless the forces of this step have left what is needed. All ranks do the same.
void PairMLPlugins::prepare_heat_flux(const mlplugins::Graph &graph, const mlplugins::Request &request)
{
  const auto everywhere = [&](bool here) {
    int ours = here ? 1 : 0, all = ours;
    if (mode_ == Mode::exchange) MPI_Allreduce(&ours, &all, 1, MPI_INT, MPI_MIN, world);
    return all != 0;
  };
  if (copied_messages_ || everywhere(evaluator_->remembers(graph, request, 1) && evaluator_->keeps_heat_flux())) return;
  auto asked = request;
  asked.heat_flux = true;
  evaluator_->prepare_heat_flux(graph, asked);
  copied_messages_ = !everywhere(evaluator_->keeps_heat_flux());
}

void PairMLPlugins::heat_flux(const std::vector<double> &velocities, bool baseline, double *potential,
                              std::vector<double> &energies)
{
  if (!list) error->all(FLERR, "compute mlplugins/heat/flux: there are no forces yet: use it in a run");
  mlplugins::Request request;
  request.exchange = mode_ == Mode::exchange;
  request.all_centers = ghost_edges_;
  update_scale();
  mlplugins::Flux flux;
  const auto problem = attempt([&] {
    const auto &graph = adaptor_->update(*list, numbers_, evaluator_->info().cutoff, mode_, ghost_edges_);
    std::vector<double> of_nodes(3 * static_cast<std::size_t>(graph.n_nodes));
    for (int n = 0; n < graph.n_nodes; n++)
      std::copy_n(&velocities[3 * static_cast<std::size_t>(adaptor_->atom_of(n))], 3,
                  &of_nodes[3 * static_cast<std::size_t>(n)]);
    std::optional<mlplugins::LammpsExchange::Installed> installed;
    if (exchange_) installed.emplace(*exchange_);
    prepare_heat_flux(graph, request);
    flux = evaluator_->heat_flux(graph, request, of_nodes, copied_messages_);
  });
  if (!problem.empty()) stop(fmt::format("the heat flux failed at step {}: {}", update->ntimestep, problem));
  for (int d = 0; d < 3; d++) potential[d] = energy_unit_ * flux.potential[d];
  energies.assign(atom->nlocal, 0.0);
  for (int n = 0; n < adaptor_->n_centers(); n++) {
    const int i = adaptor_->atom_of(n);
    energies[i] = energy_unit_ * (flux.energies[n] + (baseline ? composition_[atom->type[i]] : 0.0));
  }
}
