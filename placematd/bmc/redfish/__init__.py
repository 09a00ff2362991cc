"""Redfish (DMTF DSP0266): the HTTPS service on TCP 443."""
