"""Option codes that the protocol itself works with (RFC 2132 section 9 and the RFCs named).

A module, not a class or an enumeration: its names are the fastest to look up, and each packet looks up twenty.
"""

SUBNET_MASK = 1
ROUTER = 3
HOST_NAME = 12
REQUESTED_ADDRESS = 50
LEASE_TIME = 51
OVERLOAD = 52
MESSAGE_TYPE = 53
SERVER_ID = 54
PARAMETER_LIST = 55
MESSAGE = 56
MAX_MESSAGE_SIZE = 57
RENEWAL_TIME = 58
REBINDING_TIME = 59
CLIENT_ID = 61
SERVER_NAME = 66
BOOT_FILE = 67
FQDN = 81  # RFC 4702
RELAY_AGENT = 82  # RFC 3046
IPV6_ONLY = 108  # RFC 8925
