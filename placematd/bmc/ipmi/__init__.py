"""IPMI 2.0: RMCP+ sessions on UDP 623, the system interface in the guest, and the commands behind both."""
