"""Structures: reading and validating data sets, neighbour lists, batches of plain tensors."""
