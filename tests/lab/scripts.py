"""Shell scripts of the real clients; `@NAME@` stands for a path."""

# Called by udhcpc with the event as first argument and by dhclient and dhcpcd with it in $reason. dhcpcd sets the
# address and the route itself.
APPLY_LEASE = """#!/bin/sh
event=${1:-$reason}
address=${new_ip_address:-$ip}
netmask=${new_subnet_mask:-$subnet}
routers=${new_routers:-$router}
seconds=${new_dhcp_lease_time:-$lease}
case $event in
deconfig|PREINIT) [ "$dhcpcd" ] || { ip link set $interface up; ip -4 addr flush dev $interface; } ;;
EXPIRE|FAIL|RELEASE|STOP) [ "$dhcpcd" ] || ip -4 addr flush dev $interface ;;
bound|renew|BOUND|RENEW|REBIND|REBOOT)
    if [ -z "$dhcpcd" ]; then
        [ "$old_ip_address" = "$address" ] || ip -4 addr flush dev $interface
        ip addr replace $address/$netmask dev $interface
        [ -z "$routers" ] || ip route replace default via ${routers%% *} dev $interface
    fi ;;
esac
printf '%s|%s|%s|%s|%s|%s|%s\\n' "$event" "$address" "$netmask" "$routers" \\
    "${new_domain_name_servers:-$dns}" "${new_domain_name:-$domain}" "$seconds" >>@EVENTS@
"""

PRIVATE_DHCPCD = """set -e
mkdir -p @HOME@/db @HOME@/run
chmod 755 @HOME@ @HOME@/db @HOME@/run
mount --bind @HOME@/db /var/lib/dhcpcd
mount --bind @HOME@/run /run
exec "$@"
"""

# networkd does not wait for udev when /sys is read-only, as in a container.
PRIVATE_NETWORKD = """set -e
mkdir -p @HOME@/run/systemd/netif/links @HOME@/run/systemd/netif/leases @HOME@/run/systemd/netif/lldp
mkdir -p @HOME@/run/systemd/network
mount --bind @HOME@/run /run
chown -R systemd-network: /run/systemd/netif
printf '%s' "$NETWORK_FILE" >/run/systemd/network/10-eth0.network
mount -t sysfs -o ro sysfs /sys
exec /lib/systemd/systemd-networkd
"""
