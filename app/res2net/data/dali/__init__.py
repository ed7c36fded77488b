"""Everything that imports DALI, but for `cluster/doctor.py`, which asks for its version."""
