"""A DHCPv4 server per VLAN: a pure RFC 2131 engine, a durable lease store and the sockets around them."""
