"""Names that scripts of 0.1.0 import: `Description` is now `model_file.card.ModelCard`."""

from mlplugins.model_file.card import ModelCard as Description
from mlplugins.model_file.write import save

__all__ = ["Description", "save"]
