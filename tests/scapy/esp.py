"""Scapy's ESP as a partner for tests: one JSON request a line in, one JSON answer a line out."""

import json
import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

try:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import CRYPT_ALGOS, ESP, IPSecIntegrityError, SecurityAssociation
    from scapy.packet import Raw

    for name in ("AES-GCM", "CHACHA20-POLY1305"):
        if not CRYPT_ALGOS[name].is_aead:
            raise ImportError(name + " is not an AEAD here")
except (ImportError, KeyError) as error:
    # scapy knows neither unless the cryptography package is there.
    print(json.dumps({"missing": repr(error)}), flush=True)
    sys.exit(1)


def ip(raw):
    return (IP if raw[0] >> 4 == 4 else IPv6)(raw)


def association(request):
    local, remote = request["outer"]
    version6 = ":" in local
    header = IPv6(src=local, dst=remote) if version6 else IP(src=local, dst=remote)
    ports = request["udp"]
    return SecurityAssociation(
        ESP,
        spi=request["spi"],
        seq_num=request["low"],
        crypt_algo=request["cipher"],
        crypt_key=bytes.fromhex(request["key"]),
        tunnel_header=header,
        nat_t_header=UDP(sport=ports[0], dport=ports[1]) if ports else None,
        esn_en=request["esn"],
        esn=request["high"],
    )


def open_packet(request):
    raw = bytes.fromhex(request["packet"])
    # The outer header as scapy would have written it: lengths and checksums anew.
    outer = ip(raw)
    if UDP in outer:
        del outer[UDP].len
        if outer[UDP].chksum != 0:
            # As plain bytes, so that nothing inside is built anew.
            outer[UDP].payload = Raw(bytes(outer[UDP].payload))
            del outer[UDP].chksum
    if outer.version == 4:
        del outer.len, outer.chksum
    else:
        del outer.plen
    rebuilt = bytes(outer)
    try:
        inner = association(request).decrypt(ip(raw))
    except IPSecIntegrityError as error:
        return {"refused": repr(error)}
    return {"inner": bytes(inner).hex(), "version": inner.version, "rebuilt": rebuilt.hex()}


def seal_packet(request):
    inner = ip(bytes.fromhex(request["inner"]))
    return {"packet": bytes(association(request).encrypt(inner)).hex()}


print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    answer = {"open": open_packet, "seal": seal_packet}[request["do"]](request)
    print(json.dumps(answer), flush=True)
