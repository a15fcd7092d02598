"""The mlplugins driver for stock i-PI: nothing in i-PI is patched or installed.

    i-pi-driver-py -m custom -P mlplugins_driver.py -o model=model.pt,template=init.xyz -u -a ADDRESS

or, inside i-PI's own process, `<ffdirect>` with `<pes>custom</pes>` and `<pes_path>` (see ffdirect.xml here).
`mlplugins ipi-driver --path` prints where this file lies.
Options: see `mlplugins.engines.ipi.options.Options`.
"""

from mlplugins.engines.ipi.driver import HostedDriver

__DRIVER_NAME__ = "mlplugins"
__DRIVER_CLASS__ = "MlpluginsDriver"


class MlpluginsDriver(HostedDriver):
    """Reads `model` and `template`; `model=a.pt+b.pt` makes a committee."""
