"""A model that answers requests within a deadline.

server      serve, Server: what a request may be, what comes back, what is counted
batcher     requests of many threads, merged into batches that the threads themselves run
forecast    when a request would be answered: what may be accepted
latency     percentiles, from a histogram of bounded memory
programs    the programs that answer, one for each of a ladder of batch sizes
"""

from .server import Server, serve

__all__ = ["Server", "serve"]
