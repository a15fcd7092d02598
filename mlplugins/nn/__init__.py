"""Building blocks of equivariant networks in plain torch, with e3nn's irreps and Clebsch–Gordan coefficients.

Feature rows are flat tensors (N, irreps.dim) in *ir_mul* order: block after block of `irreps`, each block
component-major, (2l+1, multiplicity), so that the channel is the contiguous axis. (e3nn stores mul_ir.)
"""
