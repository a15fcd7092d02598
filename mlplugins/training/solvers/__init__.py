"""Families solved in closed form: one file per solver, found through the `SOLVER` of a family (see
`training.solve`)."""
