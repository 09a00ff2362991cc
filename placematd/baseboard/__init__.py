"""A node as its BMC knows it: power, boot order, event log, watchdog, media and what must outlive the BMC's process.

The BMC itself (`bmc`) is a process without privileges; it asks here for everything, over a socket of its node's own.
"""
