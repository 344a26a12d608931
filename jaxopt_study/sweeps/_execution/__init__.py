"""Execution of many trials as one program: lanes, devices, keys, the journal."""
