// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_DEVIATION_H
#define MLPLUGINS_DEVIATION_H

#include "evaluator.h"
#include "system_adaptor.h"

#include "pointers.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace LAMMPS_NS {
class Pair;
}

namespace mlplugins {

/// Rows of three per atom, packed for LAMMPS' reverse communication.
inline int pack_rows(const std::vector<double> &values, int n, int first, double *buffer)
{
  std::copy_n(&values[3 * static_cast<std::size_t>(first)], 3 * static_cast<std::size_t>(n), buffer);
  return 3 * n;
}

/// Added to the rows of their owners.
inline void unpack_rows(std::vector<double> &values, int n, const int *atoms, const double *buffer)
{
  for (int k = 0; k < n; k++)
    for (int d = 0; d < 3; d++) values[3 * static_cast<std::size_t>(atoms[k]) + d] += buffer[3 * k + d];
}

/// Model deviation: how far the forces and virials of M models are apart, as DeePMD-kit and DP-GEN define it
/// (standard deviations divided by M), and its file. In the units of the run.
class Deviation : protected LAMMPS_NS::Pointers {
 public:
  static constexpr int N_COLUMNS = 6;

  Deviation(LAMMPS_NS::LAMMPS *lmp, LAMMPS_NS::Pair *pair, const DeviationSettings &settings, int n_models);
  ~Deviation();

  /// Open the file; at the start of every run, on all ranks.
  void init();
  /// Whether the file gets a row at this step.
  bool due() const;

  /// Where the forces and the virial of model `m` are added (virial: 6 components).
  Accumulators of_model(int m, double scale);
  /// When all models were added: deviations of all atoms that the models see, a row of the file where it is due.
  /// @param ghosts  forces on ghosts belong to atoms of other ranks
  void evaluate(const SystemAdaptor &adaptor, bool ghosts);

  /// max, min, mean of the virial's, then of the forces' deviations: the columns of the file.
  const double *columns() const { return columns_; }
  /// Which models gave the same forces, to rounding ("1 = 3"), where forces were seen for the first time; else empty.
  std::string copies();
  /// Which models' energies count from another zero than those of the first ("2 by -3 eV"), at the first evaluation; else
  /// empty. Before `copies`.
  /// @param unit  of the energies of the run, per eV
  std::string zeros(const std::vector<Result> &results, double unit);
  double largest_force() const { return columns_[3]; }
  /// ID of the atom that has it.
  LAMMPS_NS::tagint worst() const { return worst_; }
  /// Of every owned atom; 0 of those that the models do not see.
  std::vector<double> &of_atoms() { return of_atoms_; }

  bool communicating() const { return current_ >= 0; }
  int pack_reverse(int n, int first, double *buffer) const { return pack_rows(forces_[current_], n, first, buffer); }
  void unpack_reverse(int n, const int *atoms, const double *buffer)
  {
    unpack_rows(forces_[current_], n, atoms, buffer);
  }

 private:
  LAMMPS_NS::Pair *pair_;
  const DeviationSettings settings_;
  const int n_models_;
  const bool again_;                           ///< declared after a run
  int current_ = -1;                           ///< model whose forces are communicated
  std::vector<std::vector<double>> forces_;    ///< of each model: (atoms and ghosts, 3)
  std::vector<double *> rows_;
  std::vector<double> virials_;                ///< (models, 6)
  std::vector<double> of_atoms_;
  double columns_[N_COLUMNS] = {};
  LAMMPS_NS::tagint worst_ = 0;
  std::FILE *file_ = nullptr;
  bool opened_ = false, compared_ = false, zeros_known_ = false;
  std::vector<double> squares_;                ///< of the differences of the forces from those of the first model
  std::vector<double> differences_;            ///< (models, models + 1) largest of a force, and the largest force
  int n_own_ = 0;                              ///< atoms of this rank that the models see
  LAMMPS_NS::bigint n_columns_ = 0;                       ///< atoms that the file has columns for
  std::string last_row_;

  void add_virials(double n_atoms);
  double of_atom(int i) const;
  void compare(int i);
  void require_columns() const;
  void write();
};

}    // namespace mlplugins

#endif
