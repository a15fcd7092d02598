"""Names and version of what mlplugins writes into a model.pt: the only place, for Python and C++.

CMake turns each line `NAME = value` into a C++ constant, so a value is one number or one plain string.
"""

# Newest version of the entries below. Engines refuse a newer one.
# 1; 2: with ATOM_ORDER (models of whole molecules); 3: computes in float32, declares float64;
# 4: with WEIGHTS, and the module under its present name; 5: of all files now, sums of linear maps, gates
# and harmonics are ops
NEWEST = 5
FIRST_WITH_WEIGHTS = 4

# Keys of metatomic's metadata
FORMAT = "mlplugins::format"
FAMILY = "mlplugins::family"
CUTOFF = "mlplugins::cutoff"
EXCHANGE_WIDTH = "mlplugins::exchange_width"
DTYPE = "mlplugins::dtype"
ATOM_ORDER = "mlplugins::atom_order"
BY_TAG = "tag"
# "atoms" if the energies of atoms are shares of one energy of all, so that no process may hold only some
TOGETHER = "mlplugins::together"
ALL_ATOMS = "atoms"
RECORD = "mlplugins::metadata"
# "none" if no energies were learned, so that energy and gradients are zero
ENERGY = "mlplugins::energy"
# Outputs of whole systems that heads predict, `NAME:COMPONENTS` with blanks between them
SYSTEM_OUTPUTS = "mlplugins::system_outputs"

# Shortest distances of elements in the training frames, Å: `15-16:1.88`, blanks between them
CLOSEST = "mlplugins::closest"

# What a model takes of a structure as a whole: its lowest and highest value ("-2 2", "-inf inf"), or
# "= -1" if the model was made for one
CHARGE = "mlplugins::charge"
SPIN = "mlplugins::spin_multiplicity"

# System data by which LAMMPS says how many of the nodes are not ghosts
N_CENTERS = "mlplugins::n_centers"

# Output of the module alone (undeclared): direct forces along the edges in the place of energy gradients
EDGE_GRADIENTS = "mlplugins::edge_gradients"

# Likewise: energies whose gradients give the uncertainty of forces; and the system data that say how many
FORCE_PROBES = "mlplugins::force_probes"
N_PROBES = "mlplugins::n_probes"

# Class of the module inside metatomic's wrapper if mlplugins wrote it; the second: up to format 3
MODULE = "__torch__.mlplugins.model_file.module.MetatomicModel"
MODULE_BEFORE_4 = "__torch__.mlplugins.export.metatomic.MetatomicModel"

# Entries of the archive: a line `CRC-32 size name` of every other entry; the weights that can be trained
MANIFEST = "extra/mlplugins-checksums"
WEIGHTS = "weights/mlplugins.pth"
