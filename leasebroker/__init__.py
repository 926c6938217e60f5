"""Containers as DHCP clients: who a container is on a VLAN."""
