#!/bin/sh
# usage: vpn-up.sh LINK ADDRESS/BITS GATEWAY TUNNEL ADDRESS/BITS
#
# Gives LINK an address that does not change, and sets WireGuard up over it as /etc/wireguard/TUNNEL.conf says. Ends well
# once the peer has answered; with 1 if LINK does not come, or the peer does not answer, in 20 seconds. IPv4 then goes
# through the tunnel, for there is no other way: GATEWAY is used for the peer alone, and neighbours stay neighbours. So
# nothing goes astray when somebody takes routing rules away, or when this is run again. IPv6 is left alone.
set -eu
link=$1 address=$2 gateway=$3 tunnel=$4 inside=$5

seconds() { read -r up _ </proc/uptime && echo "${up%.*}"; }
end=$(($(seconds) + 20))
until_it() { # succeeds, in what is left of the time
    until "$@" 2>/dev/null; do
        [ "$(seconds)" -lt "$end" ] || return 1
        sleep 0.25
    done
}
answered() { [ "$(wg show "$tunnel" latest-handshakes | cut -f 2)" -ne 0 ]; }
is_neighbour() { [ -n "$(ip route show match "$1" scope link dev "$link")" ]; }

until_it ip link set "$link" up || { # its driver may take its time
    echo "$link: there is no such link" >&2
    exit 1
}
ip address replace "$address" dev "$link"
ip link show "$tunnel" >/dev/null 2>&1 || ip link add "$tunnel" type wireguard
wg setconf "$tunnel" "/etc/wireguard/$tunnel.conf"
for endpoint in $(wg show "$tunnel" endpoints | cut -f 2); do
    is_neighbour "${endpoint%:*}" || ip route replace "${endpoint%:*}" via "$gateway" dev "$link"
done
ip address replace "$inside" dev "$tunnel"
ip link set "$tunnel" up
ip route replace default dev "$tunnel"
until_it answered || {
    echo "$tunnel: the peer does not answer" >&2
    exit 1
}
