"""From trajectories to conductivity, without torch.

`trajectory` reads a run, `conductivity.analyse` makes D, σ and the Haven ratio of the runs of one temperature
(and what `observables/` adds), `study.conductivity` is the whole command: `mlplugins.conductivity`.
"""
