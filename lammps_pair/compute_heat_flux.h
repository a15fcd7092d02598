// SPDX-License-Identifier: GPL-2.0-only
#ifndef LMP_COMPUTE_MLPLUGINS_HEAT_FLUX_H
#define LMP_COMPUTE_MLPLUGINS_HEAT_FLUX_H

#include "compute.h"

#include <vector>

namespace LAMMPS_NS {

class PairMLPlugins;

/// compute ID all mlplugins/heat/flux [baseline yes|no]: J, not divided by the volume, and its convective part, each
/// x, y, z; exact for message passing. The model is evaluated on the steps that ask, and only there.
class ComputeMLPluginsHeatFlux : public Compute {
 public:
  ComputeMLPluginsHeatFlux(LAMMPS *lmp, int narg, char **arg);
  ~ComputeMLPluginsHeatFlux() override;

  void init() override;
  void compute_vector() override;
  int pack_forward_comm(int n, int *list, double *buf, int pbc_flag, int *pbc) override;
  void unpack_forward_comm(int n, int first, double *buf) override;

 private:
  bool baseline_ = false;              ///< energies include composition energies
  PairMLPlugins *pair_ = nullptr;
  std::vector<double> velocities_;     ///< (nlocal + nghost, 3)
};

}    // namespace LAMMPS_NS

#endif
