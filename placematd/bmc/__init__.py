"""The BMC of a node: IPMI 2.0 and Redfish over one `Machine`, in a process of its own without any privilege."""
