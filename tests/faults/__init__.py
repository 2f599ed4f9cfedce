"""Faults with real processes: killed, stopped, unplugged, slow; and what the others do then."""
