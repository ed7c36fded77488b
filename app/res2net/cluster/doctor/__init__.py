"""What this machine, and the ranks that were started together, offer to training: tried out rather
than looked up.
"""

from res2net.cluster.doctor.check import Check
from res2net.cluster.doctor.examination import examine

__all__ = ["Check", "examine"]
