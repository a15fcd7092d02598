// SPDX-License-Identifier: GPL-2.0-only

#include "compute_heat_flux.h"

#include "pair_mlplugins.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;

ComputeMLPluginsHeatFlux::ComputeMLPluginsHeatFlux(LAMMPS *lmp, int narg, char **arg) : Compute(lmp, narg, arg)
{
  if (igroup != 0)
    error->all(FLERR, "compute mlplugins/heat/flux: expected the group all, got '{}': the energy that flows between two "
               "groups belongs to neither", arg[1]);
  if (narg != 3 && !(narg == 5 && strcmp(arg[3], "baseline") == 0))
    error->all(FLERR, "compute mlplugins/heat/flux: expected 'compute ID all mlplugins/heat/flux [baseline yes|no]'");
  if (narg == 5) baseline_ = utils::logical(FLERR, arg[4], false, lmp) != 0;
  vector_flag = 1;
  size_vector = 6;
  extvector = 1;
  timeflag = 1;
  comm_forward = 3;
  vector = new double[size_vector];
}

ComputeMLPluginsHeatFlux::~ComputeMLPluginsHeatFlux()
{
  delete[] vector;
}

void ComputeMLPluginsHeatFlux::init()
{
  pair_ = dynamic_cast<PairMLPlugins *>(force->pair);
  if (!pair_)
    error->all(FLERR, "compute mlplugins/heat/flux: expected pair_style mlplugins alone, got '{}': the flux of other "
               "styles would be missing", force->pair_style ? force->pair_style : "none");
  if (force->bond || force->angle || force->dihedral || force->improper || force->kspace)
    error->all(FLERR, "compute mlplugins/heat/flux: the flux of bonds, angles and kspace would be missing: take them out");
  pair_->require_heat_flux();
}

void ComputeMLPluginsHeatFlux::compute_vector()
{
  invoked_vector = update->ntimestep;
  const int nlocal = atom->nlocal;
  velocities_.assign(3 * static_cast<std::size_t>(nlocal + atom->nghost), 0.0);
  for (int i = 0; i < nlocal; i++) std::copy_n(atom->v[i], 3, &velocities_[3 * static_cast<std::size_t>(i)]);
  comm->forward_comm(this);

  double mine[6] = {};
  std::vector<double> energies;
  pair_->heat_flux(velocities_, baseline_, mine, energies);
  for (int i = 0; i < nlocal; i++) {
    const double *v = atom->v[i];
    const double mass = atom->rmass ? atom->rmass[i] : atom->mass[atom->type[i]];
    const double kinetic = 0.5 * force->mvv2e * mass * (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    for (int d = 0; d < 3; d++) mine[3 + d] += (kinetic + energies[i]) * v[d];
  }
  for (int d = 0; d < 3; d++) mine[d] += mine[3 + d];
  MPI_Allreduce(mine, vector, 6, MPI_DOUBLE, MPI_SUM, world);
}

int ComputeMLPluginsHeatFlux::pack_forward_comm(int n, int *list, double *buf, int, int *)
{
  for (int k = 0; k < n; k++) std::copy_n(&velocities_[3 * static_cast<std::size_t>(list[k])], 3, buf + 3 * k);
  return 3 * n;
}

void ComputeMLPluginsHeatFlux::unpack_forward_comm(int n, int first, double *buf)
{
  std::copy_n(buf, 3 * n, &velocities_[3 * static_cast<std::size_t>(first)]);
}
