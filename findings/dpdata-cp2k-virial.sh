#!/usr/bin/env bash
# dpdata 1.1.0, fmt="cp2k/output", and an output of CP2K 2023.1 (Debian) with STRESS_TENSOR ANALYTICAL. Two lithium atoms.
# Expected: energies, forces and virials, as dpdata reads them of other codes. Seen: no virials and no warning; the
# built-in reader looks for the heading "STRESS TENSOR [GPa", which CP2K has not written since version 8 (2020). Where the package
# cp2kdata (0.7.3) happens to be installed, the same call has virials of the right sign and size, since cp2kdata takes
# the format's name over. Two environments make two data sets of one output, and only one trains on stress.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 dpdata==1.1.0 2>/dev/null
mkdir root debs && cd debs
needed=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
  cp2k openmpi-bin | grep -E '^(cp2k-data|openmpi|lib)' | grep -v -E '^(libc6|libgcc-s1|libc-bin|libperl|libpam|libdebconf)' | sort -u)
# shellcheck disable=SC2086
apt-get download -q cp2k=2023.1-2 $needed > /dev/null 2>&1
for package in *.deb; do dpkg -x "$package" ../root; done
cd ..
libraries=$place/root/usr/lib/x86_64-linux-gnu
export OPAL_PREFIX=$place/root/usr OPAL_LIBDIR=$libraries/openmpi/lib CP2K_DATA_DIR=$place/root/usr/share/cp2k OMP_NUM_THREADS=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
cat > lithium.inp <<'INP'
&GLOBAL
 RUN_TYPE ENERGY_FORCE
 PRINT_LEVEL MEDIUM
&END
&FORCE_EVAL
 METHOD Quickstep
 STRESS_TENSOR ANALYTICAL
 &DFT
  BASIS_SET_FILE_NAME BASIS_MOLOPT
  POTENTIAL_FILE_NAME GTH_POTENTIALS
  &MGRID
   CUTOFF 300
   REL_CUTOFF 30
  &END
  &SCF
   EPS_SCF 1e-7
   ADDED_MOS 8
   &SMEAR ON
    METHOD FERMI_DIRAC
    ELECTRONIC_TEMPERATURE [K] 3000
   &END
   &DIAGONALIZATION
   &END
   &MIXING
    METHOD BROYDEN_MIXING
   &END
  &END
  &XC
   &XC_FUNCTIONAL PADE
   &END
  &END
 &END
 &PRINT
  &FORCES ON
  &END
  &STRESS_TENSOR ON
  &END
 &END
 &SUBSYS
  &CELL
   ABC 5 5 5
  &END
  &COORD
   Li 0 0 0
   Li 2.5 2.5 2.0
  &END
  &KIND Li
   BASIS_SET DZVP-MOLOPT-SR-GTH
   POTENTIAL GTH-PADE-q3
  &END
 &END
&END
INP
env LD_LIBRARY_PATH="$libraries:$place/root/lib/x86_64-linux-gnu:$libraries/blas:$libraries/lapack:$OPAL_LIBDIR:$libraries/pmix2/lib" \
  PATH="$place/root/usr/bin:$PATH" "$place/root/usr/bin/cp2k.psmp" -i lithium.inp > lithium.out 2> /dev/null
grep -A4 'STRESS| Analytical stress tensor' lithium.out
cat > read.py <<'PY'
import sys

import dpdata
import numpy as np

system = dpdata.LabeledSystem("lithium.out", fmt="cp2k/output")
print(sys.argv[1], sorted(system.data))
if sys.argv[2] == "lost":
    raise SystemExit(0 if "virials" not in system.data and "forces" in system.data else "changed")
with open("lithium.out") as lines:
    trace = 3 * next(float(line.split()[-1]) for line in lines if "STRESS| 1/3 Trace" in line)
expected = trace * np.linalg.det(system["cells"][0]) / 160.21766208
print(f"trace of the virial {np.trace(system['virials'][0]):.3f} eV, of the output's stress {expected:.3f} eV")
raise SystemExit(0 if np.isclose(np.trace(system["virials"][0]), expected, rtol=1e-3) else "changed")
PY
v/bin/python -W ignore read.py "dpdata 1.1.0 alone:" lost
v/bin/pip install --quiet --disable-pip-version-check cp2kdata==0.7.3 2>/dev/null
v/bin/python -W ignore read.py "with cp2kdata 0.7.3:" there
