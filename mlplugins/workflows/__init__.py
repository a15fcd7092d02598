"""Functions that join rooms, one file each; `mlplugins VERB` parses arguments, calls one and prints."""
