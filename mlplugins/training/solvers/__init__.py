"""Families solved in closed form: one file per solver, found through the `solver` of a family (see
`training.solve`)."""
