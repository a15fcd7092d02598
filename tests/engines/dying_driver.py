"""`mlplugins ipi-driver` that sends itself a signal in the middle of its fourth evaluation.

    python dying_driver.py NUMBER MODEL TEMPLATE [OPTIONS]

A signal from outside can come while i-PI sends a message, which 3.3.1 then waits for ever to have answered.
"""

import os
import sys

from mlplugins.cli.main import main
from mlplugins.engines.ipi.driver import MLDriver

evaluate = MLDriver._evaluate


def die_in_the_fourth(driver, cells, positions):
    replies = evaluate(driver, cells, positions)
    if driver.n_calls == 4:
        os.kill(os.getpid(), int(sys.argv[1]))
    return replies


if __name__ == "__main__":
    MLDriver._evaluate = die_in_the_fourth
    sys.exit(main(["ipi-driver", *sys.argv[2:]]))
