"""Jobs that join rooms, one file each, as Python functions; `mlplugins VERB` parses, calls one and prints."""
