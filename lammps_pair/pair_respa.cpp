// SPDX-License-Identifier: GPL-2.0-only
// Multiple time steps: a model of the inner steps, and results that several copies of the style need.

#include "pair_mlplugins.h"

#include "committee.h"
#include "ghost_exchange.h"
#include "settings.h"
#include "system_adaptor.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <optional>

using namespace LAMMPS_NS;
using mlplugins::Mode;

std::string PairMLPlugins::title() const
{
  const std::string style = "Pair style mlplugins";
  if (!settings_ || !settings_->is_inner) return style;
  return style + ", inner " + (settings_->direct_forces ? mlplugins::DIRECT : "'" + settings_->path + "'");
}

/// The model of the keyword `inner`: a pair style inside this one, with a neighbour list of its own.
void PairMLPlugins::prepare_inner()
{
  inner_.reset();
  respa_enable = settings_->inner.empty() ? 0 : 1;
  if (settings_->inner.empty()) return;
  if (comm->me == 0)
    utils::logmesg(lmp, "mlplugins: the inner level of run_style respa has the forces of {}, the outer one the rest; "
                   "other run styles use the model above alone\n",
                   settings_->inner == mlplugins::DIRECT ? "its direct head" : settings_->inner);
  inner_ = std::make_unique<PairMLPlugins>(lmp, -1.0);
  inner_->settings_ = std::make_unique<mlplugins::Settings>(mlplugins::inner_settings(*settings_));
  inner_->prepare();
  comm_forward = std::max(comm_forward, inner_->comm_forward);
  comm_reverse = std::max(comm_reverse, inner_->comm_reverse);
  ghostneigh = std::max(ghostneigh, inner_->ghostneigh);
}

/// What a run needs of the inner model; what there is to check, the whole model has checked.
void PairMLPlugins::init_inner()
{
  if (!inner_) return;
  inner_->respa_ = respa_;
  inner_->read_composition();
  inner_->request_list(cutoff_of_all());
}

double PairMLPlugins::cutoff_of_all() const
{
  const double own = evaluator_->info().cutoff;
  return inner_ ? std::max(own, inner_->evaluator_->info().cutoff) : own;
}

void PairMLPlugins::compute(int eflag, int vflag)
{
  if (inner_ && respa_ && update->whichflag == 1 && !levels_told_ && comm->me == 0)
    error->warning(FLERR, "the inner model is not used: expected run_style respa with the levels inner and outer");
  levels_told_ = true;
  evaluate_and_add(eflag, vflag);
}

void PairMLPlugins::compute_inner()
{
  inner_->add_scaled(scale_of_types());
}

/// Energy and virial are those of the whole model; the inner level has moved the atoms by part of its forces.
void PairMLPlugins::compute_outer(int eflag, int vflag)
{
  evaluate_and_add(eflag, vflag);
  inner_->add_scaled(-scale_of_types());
}

void PairMLPlugins::add_scaled(double scale)
{
  for (int i = 0; i <= atom->ntypes; i++) std::fill_n(scale_[i], atom->ntypes + 1, scale);
  evaluate_and_add(0, 0);
}

/// Whether the last results may be asked for again.
bool PairMLPlugins::shares_results() const
{
  return evaluator_ && (settings_->is_inner || evaluator_.use_count() > 1);
}

/// In mode exchange all ranks evaluate or none: they wait for each other.
const std::vector<mlplugins::Result> &PairMLPlugins::results_of(const mlplugins::Graph &graph,
                                                                const mlplugins::Request &request)
{
  const int count = models_wanted();
  if (shares_results()) {
    int there = evaluator_->remembers(graph, request, count) ? 1 : 0, everywhere = there;
    if (mode_ == Mode::exchange) MPI_Allreduce(&there, &everywhere, 1, MPI_INT, MPI_MIN, world);
    if (everywhere) return evaluator_->remembered();
  }
  std::optional<mlplugins::LammpsExchange::Installed> installed;
  if (exchange_) installed.emplace(*exchange_);
  const auto &results = evaluator_->evaluate(graph, request, count);
  if (shares_results() || request.heat_flux) evaluator_->remember(graph, request);
  return results;
}

/// The last copy of the style says what was evaluated.
void PairMLPlugins::report() const
{
  if (!respa_ || !evaluator_ || evaluator_.use_count() > 1 || comm->me != 0) return;
  utils::logmesg(lmp, "mlplugins: {}{}: {} evaluations, {} results used again\n", settings_->path,
                 settings_->direct_forces ? " (direct forces)" : "", evaluator_->evaluations(), evaluator_->reused());
}
