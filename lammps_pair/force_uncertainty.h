// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_FORCE_UNCERTAINTY_H
#define MLPLUGINS_FORCE_UNCERTAINTY_H

#include "deviation.h"
#include "system_adaptor.h"

#include "pointers.h"

#include <vector>

namespace LAMMPS_NS {
class Pair;
}

namespace mlplugins {

/// Standard deviation of the force on every atom, the norm of those of its components: √Σ_α (Σ_q g_qα² + floor²) with
/// the forces g_q of probes. In the units of the run.
class ForceUncertainty : protected LAMMPS_NS::Pointers {
 public:
  ForceUncertainty(LAMMPS_NS::LAMMPS *lmp, LAMMPS_NS::Pair *pair) : Pointers(lmp), pair_(pair) {}

  /// @param probes  gradients along the edges of each probe
  /// @param floor  of a component, eV/Å
  /// @param unit  eV in the energy unit of the run
  /// @param ghosts  forces on ghosts belong to atoms of other ranks
  void evaluate(const SystemAdaptor &adaptor, const std::vector<const double *> &probes, double floor, double unit,
                bool ghosts);

  /// Of every owned atom; 0 of those that the model does not see.
  std::vector<double> &of_atoms() { return of_atoms_; }

  bool communicating() const { return communicating_; }
  int pack_reverse(int n, int first, double *buffer) const { return pack_rows(forces_, n, first, buffer); }
  void unpack_reverse(int n, const int *atoms, const double *buffer) { unpack_rows(forces_, n, atoms, buffer); }

 private:
  LAMMPS_NS::Pair *pair_;
  bool communicating_ = false;
  std::vector<double> forces_;    ///< of one probe: (atoms and ghosts, 3)
  std::vector<double *> rows_;
  std::vector<double> of_atoms_;
};

}    // namespace mlplugins

#endif
