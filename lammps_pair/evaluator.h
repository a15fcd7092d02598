// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_EVALUATOR_H
#define MLPLUGINS_EVALUATOR_H

#include "graph.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mlplugins {

/// Text of the exception being handled, without C++ backtraces. Call it inside `catch (...)` only.
std::string describe_current_exception();

/// Version of the torch library that this process runs.
std::string torch_release();

/// A switch whose default depends on the run.
enum class Choice { automatic, off, on };

/// Keywords of the model deviation of a committee (docs/lammps.md), in the units of the run.
struct DeviationSettings {
  std::string file = "model_devi.out";
  int every = 100;                    ///< steps between rows of the file; 0: none
  double relative = -1.0;             ///< added to the norm of a force by which deviations are divided; negative: not
  double relative_virial = -1.0;
  double stop_above = -1.0;           ///< largest deviation of a force at which the run stops; negative: none
  bool atomic = false;                ///< also those of all atoms in the file
  std::string given;                  ///< first of these keywords that was given
};

/// Keywords of the pair style (docs/lammps.md).
struct Settings {
  std::vector<std::string> paths;     ///< model files
  std::string path;                   ///< one of them, or all of them in messages
  std::string device;                 ///< empty: the best one the model supports
  std::string extensions;             ///< directory of TorchScript extensions, may be empty
  std::string variant_energy, variant_uncertainty, variant_forces, variant_stress;
  Mode mode = Mode::automatic;
  bool check_consistency = false;
  bool direct_forces = false;         ///< non-conservative forces instead of gradients
  bool direct_stress = false;
  double scale = 1.0;
  std::string inner;                  ///< model of the inner steps of respa: a file, `direct`, or empty: none
  bool is_inner = false;              ///< these are the settings of such a model
  Choice baseline = Choice::automatic;         ///< composition energies in all energies
  Choice atom_baseline = Choice::automatic;    ///< composition energies in per-atom energies
  bool allow_exclusions = false;      ///< pairs may be missing between atoms that count
  double uncertainty_threshold = -1.0;    ///< eV per atom; negative: never asked for
  std::optional<double> charge, spin;     ///< of the whole system, e, and 2S + 1; for models that take them
  int probes = 8;                     ///< of the uncertainty of forces, a backward pass each; 0: exactly
  bool drive_first = false;           ///< the first member of a committee drives, not the mean
  DeviationSettings deviation;
};

/// A quantity of the whole system beside the energy, such as a dipole.
struct SystemOutput {
  std::string name, unit;             ///< of metatomic's output
  int size = 0;                       ///< number of components
  bool is_energy = false;             ///< one of several energies, eV
};

/// What the engine needs to know about a model. Lengths in Å.
struct ModelInfo {
  std::string name, family, dtype, device;
  std::string energy_output;          ///< the one that is evaluated, where the model has several; else empty
  std::string unused;                 ///< outputs that are never asked for, a blank before each
  double cutoff = 0.0;                ///< largest neighbour list
  double interaction_range = 0.0;     ///< may be infinite
  int exchange_width = 0;             ///< widest row given to ghost_exchange, 0: never
  bool edge_model = false;            ///< one of ours: the energy depends on the neighbour vectors only
  int n_members = 1;                  ///< of a committee
  bool direct_edges = false;          ///< its direct forces act along the neighbour vectors, in place of gradients
  bool by_tag = false;                ///< of a whole molecule: atoms in the order of their IDs
  bool together = false;              ///< energies of atoms are shares of one of all atoms
  bool atom_energies = false;         ///< per-atom energies exist
  bool atom_uncertainties = false;    ///< so do their uncertainties
  bool first_uncertain = false;       ///< those of the first of several energies do, and another is evaluated
  double force_floor = -1.0;          ///< floor of the uncertainty of a force component, eV/Å; negative: there is none
  std::vector<SystemOutput> system_outputs;    ///< in the order of their values
  std::vector<int> numbers;           ///< atomic numbers it knows
  /// How close elements come in the training frames, Å, by atomic numbers, the lower first; empty: the file does not say
  std::map<std::pair<int, int>, double> closest;
  std::map<int, double> composition;  ///< composition energy of each element, eV; empty: the file does not say
  std::vector<std::string> references;
  std::vector<std::pair<std::string, double>> inputs;    ///< keywords of what it is given of the whole system
};

/// What the caller wants besides the energy and forces.
struct Request {
  bool virial = false;
  bool exchange = false;              ///< fill ghost features through ghost_exchange (exchange mode)
  bool uncertainty = false;           ///< uncertainty of every atomic energy
  bool force_uncertainty = false;     ///< gradients of the probes of that of the forces
  bool system_outputs = false;        ///< the owned atoms' share of them
  bool own_gradients = false;         ///< the gradient of an edge is not that of its reverse too (centroid virials)
  bool heat_flux = false;             ///< keep what a heat flux of the same graph needs
  bool all_centers = false;           ///< ghosts have edges too; only the owned atoms' energies count (ghost mode)
};

/// Results of one evaluation, in eV and Å; pointers stay valid until the next one.
struct Result {
  double energy = 0.0;                     ///< of the owned atoms
  const double *energies = nullptr;        ///< (n_centers), or null
  const double *baselines = nullptr;       ///< (n_centers) composition energies within `energies`; or null: unknown
  const double *uncertainties = nullptr;   ///< (n_centers), or null
  std::vector<double> system_outputs;      ///< all components, if asked for
  std::vector<double> system_baselines;    ///< composition energy in each energy among them, in their order
  const double *edge_gradients = nullptr;  ///< (n_edges, 3): edge models
  std::vector<const double *> probe_gradients;    ///< the same of each probe: their squares add up to a variance
  const double *forces = nullptr;          ///< (n_force_rows, 3): other models
  int n_force_rows = 0;
  double strain_gradient[9] = {};          ///< dE/dε of other models, if the virial was asked for
  double largest_uncertainty = -1.0;       ///< eV per atom, -1 if not computed
  bool finite = true;                      ///< energy and all gradients are finite numbers
};

/// Potential part of the heat flux of the owned atoms, eV Å over the unit of time of the velocities: that is
/// Σ_i Σ_j (r_i - r_j) (dU_i/dr_j . v_j), i owned.
struct Flux {
  double potential[3] = {};
  const double *energies = nullptr;        ///< (n_centers) U_i without composition energies, eV; until the next call
};

/// A text that differs when a file of the settings, or the way in which it is evaluated, does: results of equal ones are
/// the same but for `scale` and the energies that count.
std::string identity(const Settings &settings);

/// A metatomic model and what is reused from step to step. The only file that knows torch.
class Evaluator {
 public:
  /// Load the model.
  /// @param local_rank  picks one of several GPUs
  /// @throws std::runtime_error (and torch's own errors) with a text that names the file
  Evaluator(const Settings &settings, int local_rank);
  ~Evaluator();

  const ModelInfo &info() const;
  const Result &evaluate(const Graph &graph, const Request &request);
  /// Whether the last evaluation, which was asked for a heat flux, has kept all that it needs. Where it has not, edges
  /// need copies of what is sent along them. To be the same on all ranks, which communicate within a flux.
  bool keeps_heat_flux() const;
  /// Heat flux of a model of ours (`edge_model`), exact for any number of layers: of the last evaluation, once, or, with
  /// copies of the messages, of one of its own.
  /// @param velocities  (n_nodes, 3)
  Flux heat_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities, bool copies);
  /// Results of the first `count` members of a committee in one file, by one backward pass for all of them.
  const std::vector<Result> &members(const Graph &graph, const Request &request, int count);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}    // namespace mlplugins

#endif
