#!/bin/sh
# usage: vpn-up.sh LINK ADDRESS/BITS GATEWAY TUNNEL ADDRESS/BITS MARK
#
# Gives LINK an address that does not change, and sets WireGuard up over it as /etc/wireguard/TUNNEL.conf says, in
# which FwMark is MARK. Ends well once the peer has answered, and IPv4 goes through the tunnel; with 1 if it does
# not answer in 20 seconds. May be run again. IPv6 is left alone.
set -eu
link=$1 address=$2 gateway=$3 tunnel=$4 inside=$5 mark=$6

ip link set "$link" up
ip address replace "$address" dev "$link"
ip route replace default via "$gateway" dev "$link"
ip link show "$tunnel" >/dev/null 2>&1 || ip link add "$tunnel" type wireguard
wg setconf "$tunnel" "/etc/wireguard/$tunnel.conf"
ip address replace "$inside" dev "$tunnel"
ip link set "$tunnel" up

left=80
while [ "$(wg show "$tunnel" latest-handshakes | cut -f 2)" -eq 0 ]; do
    left=$((left - 1))
    if [ "$left" -eq 0 ]; then
        echo "$tunnel: the peer does not answer" >&2
        exit 1
    fi
    sleep 0.25
done

# Everything but the tunnel's own packets takes the tunnel, and neighbours stay neighbours.
ip route replace default dev "$tunnel" table "$mark"
for rule in "table main suppress_prefixlength 0" "not fwmark $mark table $mark"; do
    # shellcheck disable=SC2086
    ip rule delete $rule 2>/dev/null || :
done
ip rule add not fwmark "$mark" table "$mark"
ip rule add table main suppress_prefixlength 0
