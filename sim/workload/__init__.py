"""What the service is asked for: requests with their times and lengths, from distributions or traces."""

from sim.workload.build import incoming, requests
from sim.workload.prompts import Prompts
from sim.workload.request import Request
from sim.workload.stream import RequestStream, closed_loop

__all__ = ["Prompts", "Request", "RequestStream", "closed_loop", "incoming", "requests"]
