// SPDX-License-Identifier: GPL-2.0-only

#include "force_uncertainty.h"

#include "atom.h"
#include "comm.h"
#include "pair.h"

#include <algorithm>
#include <cmath>

namespace mlplugins {

void ForceUncertainty::evaluate(const SystemAdaptor &adaptor, const std::vector<const double *> &probes, double floor,
                                double unit, bool ghosts)
{
  const auto n_all = static_cast<std::size_t>(std::max(atom->nlocal + atom->nghost, 1));
  of_atoms_.assign(std::max(atom->nlocal, 1), 0.0);
  rows_.resize(n_all);
  for (const double *gradients : probes) {
    forces_.assign(3 * n_all, 0.0);
    for (std::size_t i = 0; i < n_all; i++) rows_[i] = &forces_[3 * i];
    Accumulators out;
    out.forces = rows_.data();
    out.scale = unit;
    adaptor.scatter_edges(gradients, out);
    communicating_ = true;
    if (ghosts) comm->reverse_comm(pair_, 3);
    communicating_ = false;
    for (int n = 0; n < adaptor.n_centers(); n++) {
      const int i = adaptor.atom_of(n);
      const double *f = rows_[i];
      of_atoms_[i] += f[0] * f[0] + f[1] * f[1] + f[2] * f[2];
    }
  }
  for (int n = 0; n < adaptor.n_centers(); n++) {
    double &value = of_atoms_[adaptor.atom_of(n)];
    value = std::sqrt(value + 3.0 * unit * unit * floor * floor);
  }
}

}    // namespace mlplugins
