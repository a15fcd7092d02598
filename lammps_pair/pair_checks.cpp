// SPDX-License-Identifier: GPL-2.0-only
// What the pair style refuses, warns of and tells at the start of a run.

#include "pair_mlplugins.h"

#include "committee.h"
#include "elements.h"
#include "graph.h"
#include "settings.h"

#include "atom.h"
#include "citeme.h"
#include "comm.h"
#include "compute.h"
#include "error.h"
#include "fix.h"
#include "force.h"
#include "modify.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;
using mlplugins::Choice;
using mlplugins::Mode;

namespace {

constexpr double BOLTZMANN = 8.617333262e-5;    // eV/K
constexpr double TOO_CLOSE = 0.72;              // as in mlplugins/structures/nearest.py
constexpr double LARGEST_EXPONENT = 700.0;      // exp(709.8) is the largest number in double precision

const char *name_of(Mode mode)
{
  switch (mode) {
    case Mode::fold:
      return "fold";
    case Mode::exchange:
      return "exchange";
    case Mode::ghost:
      return "ghost";
    default:
      return "auto";
  }
}

}    // namespace

void PairMLPlugins::announce()
{
  const auto &model = evaluator_->info();
  if (comm->me == 0)
    utils::logmesg(lmp, "mlplugins: {} ({}, {}), cutoff {:.4g} A, range {:.4g} A, device {}, mode {}\n",
                   model.name.empty() ? settings_->path : model.name, model.family, model.dtype, model.cutoff,
                   model.interaction_range, model.device, name_of(mode_));
  if (comm->me == 0 && !model.energy_output.empty())
    utils::logmesg(lmp, "mlplugins: the model has several energies; '{}' is evaluated (keyword variant/energy)\n",
                   model.energy_output);
  if (comm->me == 0 && !model.unused.empty())
    utils::logmesg(lmp, "mlplugins: outputs of the model that LAMMPS does not get:{}\n", model.unused);
  announce_committee();
  if (comm->me == 0 && settings_->baseline == Choice::off)
    utils::logmesg(lmp, "mlplugins: energies are counted from the composition energies (baseline off)\n");
  std::string inputs;
  for (const auto &[keyword, value] : model.inputs) inputs += fmt::format("{}{} {:g}", inputs.empty() ? "" : ", ", keyword, value);
  if (comm->me == 0 && !inputs.empty())
    utils::logmesg(lmp, "mlplugins: {} of the whole system (keywords of the same names)\n", inputs);
  announce_more();
  if (lmp->citeme)
    for (const auto &reference : model.references) lmp->citeme->add(reference + "\n\n");
}

void PairMLPlugins::announce_committee()
{
  if (comm->me != 0 || !deviation_) return;
  if (settings_->paths.size() > 1)
    for (const auto &line : evaluator_->describe()) utils::logmesg(lmp, "mlplugins: model {}\n", line);
  const auto &to = settings_->deviation;
  utils::logmesg(lmp, "mlplugins: committee of {} models, {} drives; model deviation {}\n", evaluator_->size(),
                 settings_->drive_first ? "the first" : "their mean",
                 to.every == 0 ? "in no file (out_freq 0)" : fmt::format("every {} steps in '{}'", to.every, to.file));
}

/// What `compute pair` finds, and what direct forces are.
void PairMLPlugins::announce_more()
{
  if (comm->me != 0) return;
  const auto &model = evaluator_->info();
  int first = 1;
  for (const auto &each : model.system_outputs) {
    utils::logmesg(lmp, "mlplugins: compute ID all pair STYLE: c_ID[{}-{}] {} in {}\n", first, first + each.size - 1,
                   each.name, each.is_energy ? std::string("the energy unit of the run") : each.unit);
    first += each.size;
  }
  if (settings_->direct_forces)
    utils::logmesg(lmp, "mlplugins: direct forces, which are no gradient of the energy: it drifts ({})\n",
                   model.edge_model ? "they act in pairs, so that their sum is zero" : "their mean is taken off");
}

void PairMLPlugins::check_run()
{
  if (strcmp(update->unit_style, "metal") != 0 && strcmp(update->unit_style, "real") != 0)
    error->all(FLERR, "Pair style mlplugins: expected 'units metal' or 'units real', got 'units {}'",
               update->unit_style);
  if (!force->newton_pair) error->all(FLERR, "Pair style mlplugins: expected 'newton on'");
  if (!atom->tag_enable) error->all(FLERR, "Pair style mlplugins: atoms need IDs (atom_modify id yes)");
  respa_ = strncmp(update->integrate_style, "respa", 5) == 0;
  if (per_atom_asked_ && respa_ && !modify->get_fix_by_style("^pair$").empty())
    error->all(FLERR, "Pair style mlplugins: fix pair reads its values at the first step only under run_style respa, and "
               "would show them for ever; take the fix out, or use another run_style");
  if (tail_flag && force->pair == this && comm->me == 0)    // a style of hybrid gets it for its neighbours' sake
    error->warning(FLERR, "pair_modify tail yes adds nothing: the energy of a model ends at its cutoff");
  if (atom->molecular == Atom::TEMPLATE && atom->nbonds > 0 && !settings_->allow_exclusions)
    for (int k = 1; k <= 3; k++)
      if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
        error->all(FLERR, "Pair style mlplugins: bonded pairs are missing from the neighbor list; "
                   "use 'special_bonds lj/coul 1 1 1'");
}

void PairMLPlugins::check_masses()
{
  if (atom->rmass_flag || !atom->mass) return;
  for (int type = 1; type <= atom->ntypes; type++) {
    if (!atom->mass_setflag[type] || numbers_[type] == 0) continue;
    bool wrong = false;
    const auto text = mlplugins::check_mass(numbers_[type], atom->mass[type], wrong);
    if (wrong)
      error->all(FLERR, "Pair style mlplugins: atom type {}: {}. Give the elements in the order of the atom types",
                 type, text);
    if (!text.empty() && comm->me == 0) error->warning(FLERR, "atom type {}: {}", type, text);
  }
}

void PairMLPlugins::read_composition()
{
  const auto &known = evaluator_->info().composition;
  composition_.assign(atom->ntypes + 1, 0.0);
  for (int type = 1; type <= atom->ntypes; type++) {
    const auto found = known.find(numbers_[type]);
    if (found != known.end()) composition_[type] = found->second;
  }
}

/// Fixes that insert and delete atoms compare exp(energy/kT) with exp(mu/kT): both need the same zero of energy.
void PairMLPlugins::check_monte_carlo()
{
  std::string style;
  for (const char *name : {"gcmc", "widom", "charge/regulation"})
    if (!modify->get_fix_by_style(fmt::format("^{}$", name)).empty()) style = name;
  double largest = 0.0;
  for (const double energy : composition_)
    if (std::fabs(energy) > std::fabs(largest)) largest = energy;
  if (style.empty() || largest == 0.0 || settings_->baseline != Choice::automatic) return;
  if (monte_carlo_told_ || comm->me != 0) return;
  monte_carlo_told_ = true;
  const auto reading = fmt::format("fix {}: energies include composition energies ({:.6g} eV per atom at most), so that "
                                   "chemical potentials of atoms and intra_energy of molecules must, too", style, largest);
  const double coldest = std::fabs(largest) / (LARGEST_EXPONENT * BOLTZMANN);
  if (coldest < 100.0)
    utils::logmesg(lmp, "mlplugins: {} (`baseline off` leaves them out)\n", reading);
  else
    error->warning(FLERR, "{}. For atoms exp(energy/kT) is no number below {:.0f} K, and no move is ever accepted: "
                   "`baseline off` on the pair_style line leaves composition energies out (`pressure` needs that at "
                   "any temperature); `baseline on` keeps them without this warning", reading, std::ceil(coldest));
}

/// Composition energies move with their atoms but carry no heat; the centroid form is the right virial.
void PairMLPlugins::check_heat_flux()
{
  heat_flux_ = !modify->get_compute_by_style("^heat/flux$").empty();
  if (!heat_flux_ || flux_told_ || comm->me != 0) return;
  flux_told_ = true;
  const auto &model = evaluator_->info();
  if (settings_->direct_forces)
    error->warning(FLERR, "compute heat/flux: direct forces are no gradient of the energy, so that this flux is that of "
                   "no model, unless another copy of the pair style takes them off");
  if (settings_->atom_baseline == Choice::automatic && settings_->baseline != Choice::off &&
      std::any_of(composition_.begin(), composition_.end(), [](double energy) { return energy != 0.0; }))
    utils::logmesg(lmp, "mlplugins: compute heat/flux: per-atom energies leave out the composition energies "
                   "(`atom_baseline on` keeps them)\n");
  if (model.family == mlplugins::PAIRWISE) return;
  if (modify->get_compute_by_style("^centroid/stress/atom$").empty())
    error->warning(FLERR, "compute heat/flux is wrong for many-body models with compute stress/atom: use compute "
                   "centroid/stress/atom");
  if (model.interaction_range > model.cutoff)
    error->warning(FLERR, "compute heat/flux leaves out the energy that the messages of this model carry between "
                   "atoms: it is exact for models of one layer only; use compute mlplugins/heat/flux");
}

void PairMLPlugins::require_heat_flux()
{
  const auto &model = evaluator_->info();
  const bool layers = model.interaction_range > model.cutoff;
  std::string why;
  if (!evaluator_->has_heat_flux())
    why = "it is what several files say, or the first member of a committee: use one file, and `drive mean`";
  else if (!model.edge_model || model.direct_edges)
    why = "it is not one of mlplugins' (or not conservative), so that its energy cannot be split";
  else if (!std::isfinite(model.interaction_range) || model.together)
    why = "its energy is one of the whole molecule, without energies of atoms";
  else if (layers && model.exchange_width == 0)
    why = "this portable file hides its messages: export it again without --portable";
  if (!why.empty()) error->all(FLERR, "compute mlplugins/heat/flux of '{}': {}", settings_->path, why);
}

void PairMLPlugins::add_tally_callback(Compute *compute)
{
  error->all(FLERR, "Pair style mlplugins: compute {} adds up pairs, and an energy of many bodies is no sum over pairs",
             compute->style);
}

void PairMLPlugins::refuse_unsupported()
{
  const auto &model = evaluator_->info();
  if (eflag_atom && !model.atom_energies)
    error->all(FLERR, "Pair style mlplugins: '{}' has no per-atom energies", settings_->path);
  if ((vflag_atom || cvflag_atom) && !model.edge_model)
    error->all(FLERR, "Pair style mlplugins: per-atom stress exists for models exported by mlplugins only (and not "
               "with non_conservative), '{}' is another one", settings_->path);
}

void PairMLPlugins::warn_about_ghosts()
{
  if (ghosts_told_ || !ghost_edges_ || comm->nprocs == 1) return;
  ghosts_told_ = true;
  if (comm->me == 0 && atom->nlocal > 0)
    error->warning(FLERR, "mode ghost: rank 0 computes {} nodes for {} local atoms (nodes/local {:.1f}); mode "
                   "exchange, fewer ranks or a larger system are faster", atom->nlocal + atom->nghost,
                   atom->nlocal, static_cast<double>(atom->nlocal + atom->nghost) / atom->nlocal);
}

/// Elements that are closer than in any training frame at the first step: exchanged in pair_coeff, perhaps.
void PairMLPlugins::warn_of_closeness(const mlplugins::Graph *graph)
{
  const auto &limits = evaluator_->info().closest;
  if (closeness_told_ || limits.empty() || settings_->is_inner) return;
  closeness_told_ = true;
  struct {
    double share;
    int rank;
  } own = {1.0, comm->me}, worst = own;
  double found[4] = {0.0, 0.0, 0.0, 0.0};    // atomic numbers, distance, limit
  for (std::size_t e = 0; graph && e < graph->n_edges; e++) {
    const int one = graph->types[graph->samples[5 * e]], other = graph->types[graph->samples[5 * e + 1]];
    const auto limit = limits.find({std::min(one, other), std::max(one, other)});
    if (limit == limits.end()) continue;
    const double *v = &graph->vectors[3 * e];
    const double distance = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    if (distance >= own.share * limit->second) continue;
    own.share = distance / limit->second;
    found[0] = limit->first.first;
    found[1] = limit->first.second;
    found[2] = distance;
    found[3] = limit->second;
  }
  MPI_Allreduce(&own, &worst, 1, MPI_DOUBLE_INT, MPI_MINLOC, world);
  if (worst.share >= TOO_CLOSE) return;
  MPI_Bcast(found, 4, MPI_DOUBLE, worst.rank, world);
  const auto symbol = [](double number) { return mlplugins::ELEMENTS[static_cast<int>(number) - 1].symbol; };
  if (comm->me == 0)
    error->warning(FLERR, "{} and {} are {:.2f} A apart, in no training frame closer than {:.2f} A: elements exchanged in "
                   "pair_coeff, lengths in another unit, or a structure unlike all that the model has learned from",
                   symbol(found[0]), symbol(found[1]), found[2], found[3]);
}
