"""From trajectories to conductivity, with numpy only.

`trajectory` reads a run, `conductivity.analyse` makes D, σ and the Haven ratio of the runs of one temperature
(and what `observables/` adds), `study.conductivity` is the whole command: `mlplugins.conductivity`.
"""
