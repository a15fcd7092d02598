// SPDX-License-Identifier: GPL-2.0-only
#ifndef LMP_PAIR_MLPLUGINS_H
#define LMP_PAIR_MLPLUGINS_H

#include "graph.h"

#include "pair.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mlplugins {
class Committee;
class Deviation;
class ForceUncertainty;
class LammpsExchange;
class SystemAdaptor;
struct Accumulators;
struct Request;
struct Result;
struct Settings;
}    // namespace mlplugins

namespace LAMMPS_NS {

/// pair_style mlplugins and pair_style metatomic: any metatomic model as a potential.
class PairMLPlugins : public Pair {
 public:
  /// @param uncertainty_threshold  default of that keyword, eV per atom; negative: off
  PairMLPlugins(LAMMPS *lmp, double uncertainty_threshold);
  ~PairMLPlugins() override;

  void settings(int narg, char **arg) override;
  void coeff(int narg, char **arg) override;
  void init_style() override;
  double init_one(int i, int j) override;
  void *extract(const char *name, int &dim) override;
  void *extract_peratom(const char *name, int &ncol) override;
  void compute(int eflag, int vflag) override;
  void compute_inner() override;
  void compute_outer(int eflag, int vflag) override;
  void add_tally_callback(class Compute *compute) override;

  /// Stop unless the model has a heat flux; for compute mlplugins/heat/flux.
  void require_heat_flux();
  /// Potential part of the heat flux of this rank's atoms at the present positions, in the units of the run, and their
  /// energies (nlocal).
  /// @param velocities  (nlocal + nghost, 3)
  /// @param baseline    whether these energies include the composition energies
  void heat_flux(const std::vector<double> &velocities, bool baseline, double *potential, std::vector<double> &energies);

  int pack_forward_comm(int n, int *list, double *buf, int pbc_flag, int *pbc) override;
  void unpack_forward_comm(int n, int first, double *buf) override;
  int pack_reverse_comm(int n, int first, double *buf) override;
  void unpack_reverse_comm(int n, int *list, double *buf) override;

 private:
  double default_threshold_;
  std::unique_ptr<mlplugins::Settings> settings_;
  std::shared_ptr<mlplugins::Committee> evaluator_;    ///< of all copies of the style that need the same results
  std::unique_ptr<PairMLPlugins> inner_;    ///< the model of the inner steps of respa, or null
  std::unique_ptr<mlplugins::SystemAdaptor> adaptor_;
  std::unique_ptr<mlplugins::LammpsExchange> exchange_;
  mlplugins::Mode mode_ = mlplugins::Mode::fold;
  bool ghost_edges_ = false;      ///< ghost mode of a model with more than one layer
  std::unique_ptr<mlplugins::Deviation> deviation_;    ///< of several models
  std::vector<double> columns_;   ///< pvector: the model deviation, on rank 0, or this rank's share of a dipole
  bool per_atom_asked_ = false;   ///< a fix pair was defined
  int deviation_flag_ = 0;        ///< fix pair asks for the deviations of the next step
  int uncertainty_flag_ = 0;      ///< fix pair asks for the uncertainties of the next step
  int force_uncertainty_flag_ = 0;     ///< fix pair asks for those of forces
  std::int64_t step_asked_ = -1;       ///< of the last evaluation for fix pair
  std::unique_ptr<mlplugins::ForceUncertainty> force_uncertainty_;    ///< of one model that has them
  std::vector<double> uncertainty_;    ///< of every atom, in the energy unit of the run
  double **scale_ = nullptr;      ///< factor per pair of types, all equal: fix adapt and compute fep change them
  double energy_unit_ = 1.0;      ///< eV in the energy unit of the run, times that factor
  std::vector<double> composition_;    ///< composition energy of each type, eV
  bool heat_flux_ = false;        ///< a compute heat/flux is defined
  bool copied_messages_ = false;  ///< compute mlplugins/heat/flux needs copies of the messages
  std::vector<int> numbers_;      ///< atomic number of each type, 0: not seen by the model

  void allocate();
  void prepare();
  void prepare_inner();
  void init_inner();
  void request_list(double cutoff);
  double cutoff_of_all() const;
  void choose_mode();
  void announce();
  void announce_more();
  void check_run();
  void check_masses();
  void read_composition();
  void check_monte_carlo();
  void check_heat_flux();
  double scale_of_types();
  void update_scale();
  void evaluate_and_add(int eflag, int vflag);
  void add_scaled(double scale);
  bool shares_results() const;
  const std::vector<mlplugins::Result> &results_of(const mlplugins::Graph &graph, const mlplugins::Request &request);
  std::string title() const;
  void report() const;
  void warn_about_ghosts();
  void warn_of_closeness(const mlplugins::Graph *graph);
  void refuse_unsupported();
  [[noreturn]] void stop(const std::string &reason);
  bool deviation_due() const;
  bool heat_flux_due() const;
  void prepare_heat_flux(const mlplugins::Graph &graph, const mlplugins::Request &request);
  int models_wanted() const;
  void add_results(const mlplugins::Result &result, double weight);
  void ask_again_for_fix_pair();
  std::string without_uncertainty() const;
  void keep_uncertainties(const mlplugins::Result &result);
  void keep_force_uncertainties(const mlplugins::Result &result);
  void keep_deviations(const std::vector<mlplugins::Result> &results);
  void stop_if_above();
  void announce_committee();
  std::array<double, 3> net_force(const mlplugins::Result &result) const;
  void scatter(const mlplugins::Result &result, const mlplugins::Accumulators &out);
  template <class Work> std::string attempt(Work &&work);
  bool ghosts_told_ = false;
  bool respa_ = false;            ///< of the last run
  bool levels_told_ = false;
  bool flux_told_ = false, monte_carlo_told_ = false, closeness_told_ = false;
};

}    // namespace LAMMPS_NS

#endif
