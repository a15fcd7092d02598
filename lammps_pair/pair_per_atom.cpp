// SPDX-License-Identifier: GPL-2.0-only
// What `fix pair` reads of every atom: uncertainties, the model deviation; and what fix adapt changes.

#include "pair_mlplugins.h"

#include "committee.h"
#include "deviation.h"
#include "force_uncertainty.h"
#include "settings.h"
#include "system_adaptor.h"

#include "atom.h"
#include "error.h"
#include "fix.h"
#include "modify.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;
using mlplugins::Mode;

/// `fix pair` asks and reads once in a step: not after moves of Monte Carlo or of a line search, nor in a run that begins
/// at the step at which it read last. Called as at another step it does so again.
void PairMLPlugins::ask_again_for_fix_pair()
{
  const bool asked = uncertainty_flag_ || force_uncertainty_flag_ || deviation_flag_;
  const auto step = update->ntimestep;
  if (per_atom_asked_ && !asked && step == step_asked_)
    for (Fix *fix : modify->get_fix_by_style("^pair$")) {
      if (step % fix->nevery) continue;
      update->ntimestep = step - fix->nevery;
      fix->post_force(0);
      update->ntimestep = step;
      fix->pre_force(0);
    }
  if (asked) step_asked_ = step;
}

std::string PairMLPlugins::without_uncertainty() const
{
  const auto &model = evaluator_->info();
  if (!model.first_uncertain) return "";
  return fmt::format("Pair style mlplugins: '{}' has an uncertainty of its first energy only, and '{}' is evaluated: "
                     "leave the variant or fix pair out", settings_->path, model.energy_output);
}

/// `fix ID all pair N mlplugins uncertainty 1` reads them after the step.
void PairMLPlugins::keep_uncertainties(const mlplugins::Result &result)
{
  if (!uncertainty_flag_) return;
  uncertainty_.assign(std::max(atom->nlocal, 1), 0.0);
  for (int n = 0; result.uncertainties && n < adaptor_->n_centers(); n++)
    uncertainty_[adaptor_->atom_of(n)] = std::fabs(energy_unit_) * result.uncertainties[n];
}

/// `fix ID all pair N mlplugins force_uncertainty 1` likewise.
void PairMLPlugins::keep_force_uncertainties(const mlplugins::Result &result)
{
  if (!force_uncertainty_flag_ || !force_uncertainty_) return;
  force_uncertainty_->evaluate(*adaptor_, result.probe_gradients, evaluator_->info().force_floor,
                               std::fabs(energy_unit_), mode_ != Mode::fold);
}

void *PairMLPlugins::extract(const char *name, int &dim)
{
  dim = 2;
  if (strcmp(name, "scale") == 0) return scale_;
  dim = 0;
  if (strcmp(name, "deviation_flag") == 0) {
    if (!deviation_)
      error->all(FLERR, "Pair style mlplugins: the deviation is one of several models, and '{}' is one (`mlplugins "
                 "committee` joins several)", settings_->path);
    per_atom_asked_ = true;
    return &deviation_flag_;
  }
  if (strcmp(name, "force_uncertainty_flag") == 0) {
    if (const auto why = without_uncertainty(); !why.empty()) error->all(FLERR, why);
    if (!force_uncertainty_)
      error->all(FLERR, "Pair style mlplugins: '{}' has no uncertainty of forces: {}", settings_->path,
                 deviation_ ? "several models have their deviation (`fix pair ... deviation 1`)"
                            : "`mlplugins uncertainty` adds one to a network, from frames with forces");
    per_atom_asked_ = true;
    return &force_uncertainty_flag_;
  }
  if (strcmp(name, "uncertainty_flag") != 0) return nullptr;
  if (const auto why = without_uncertainty(); !why.empty()) error->all(FLERR, why);
  if (!evaluator_->info().atom_uncertainties)
    error->all(FLERR, "Pair style mlplugins: '{}' has no uncertainty of atomic energies (output energy_uncertainty)",
               settings_->path);
  per_atom_asked_ = true;
  return &uncertainty_flag_;
}

void *PairMLPlugins::extract_peratom(const char *name, int &ncol)
{
  ncol = 0;
  std::vector<double> *values = nullptr;
  if (strcmp(name, "deviation") == 0 && deviation_) values = &deviation_->of_atoms();
  if (strcmp(name, "force_uncertainty") == 0 && force_uncertainty_) values = &force_uncertainty_->of_atoms();
  if (strcmp(name, "uncertainty") == 0) values = &uncertainty_;
  if (!values) return nullptr;
  // without the trigger the values would be of another step, or of none
  if (values->size() < static_cast<std::size_t>(atom->nlocal)) values->assign(std::max(atom->nlocal, 1), 0.0);
  return values->data();
}
