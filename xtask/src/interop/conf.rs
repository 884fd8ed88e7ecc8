//! What strongSwan is told: its `swanctl.conf` as client and as gateway.

use super::charon::CHILD;
use super::matrix::{Inner, Proof, Row};
use crate::lab::topology::{CLIENT_INNER, CLIENT_INNER_V6, CLIENT_OUTSIDE, gateway_outside};
use crate::lab::{Lab, Place, USER};
use anyhow::Result;
use std::fmt::Write as _;

/// `swanctl.conf` of a gateway for evergate's client.
pub(super) fn as_responder(lab: &Lab, row: Row) -> Result<String> {
    let (pools, local_ts) = match row.inner {
        Inner::V4 => ("v4", "10.0.0.0/24"),
        Inner::V6 => ("v4, v6", "10.0.0.0/24, 2001:db8:3::/64"),
    };
    let connection = format!(
        "    local_addrs = {}\n    remote_addrs = %any\n    pools = {pools}\n",
        gateway_outside(1)
    );
    let child = format!("        local_ts = {local_ts}\n");
    let mut text = swanctl_conf(
        lab,
        row,
        Place::Gateway(1),
        ["gw1.example", "client.example"],
        &connection,
        &child,
    )?;
    let _ = write!(
        text,
        "pools {{\n  v4 {{\n    addrs = {CLIENT_INNER}/32\n  }}\n  v6 {{\n    addrs = \
         {CLIENT_INNER_V6}/128\n  }}\n}}\n"
    );
    Ok(text)
}

/// `swanctl.conf` of a client of evergate's gateway.
pub(super) fn as_initiator(lab: &Lab, row: Row) -> Result<String> {
    as_initiator_named(lab, row, "client.example")
}

/// The same of one with another name.
pub(super) fn as_initiator_named(lab: &Lab, row: Row, name: &str) -> Result<String> {
    let (vips, remote_ts) = match row.inner {
        Inner::V4 => ("0.0.0.0", "10.0.0.0/24"),
        Inner::V6 => ("0.0.0.0, ::", "10.0.0.0/24, 2001:db8:3::/64"),
    };
    let connection = format!(
        "    local_addrs = {CLIENT_OUTSIDE}\n    remote_addrs = {}\n    vips = {vips}\n",
        gateway_outside(1)
    );
    let child = format!("        remote_ts = {remote_ts}\n");
    swanctl_conf(
        lab,
        row,
        Place::Client,
        [name, "gw1.example"],
        &connection,
        &child,
    )
}

fn swanctl_conf(
    lab: &Lab,
    row: Row,
    place: Place,
    [local, remote]: [&str; 2],
    connection: &str,
    child: &str,
) -> Result<String> {
    let (ours, theirs) = match row.proof {
        Proof::Psk => ("auth = psk".to_owned(), "auth = psk"),
        Proof::Ecdsa | Proof::Rsa => {
            let cert = lab.dir().join(format!("{place}.pem"));
            let proof = format!("auth = pubkey\n      certs = {}", cert.display());
            (proof, "auth = pubkey")
        }
        Proof::EapTls => {
            let cert = lab.dir().join(format!("{place}.pem"));
            let proof = format!("auth = eap-tls\n      certs = {}", cert.display());
            (proof, "auth = pubkey")
        }
        Proof::EapMschapv2 => {
            let proof = format!("auth = eap-mschapv2\n      eap_id = {USER}");
            (proof, "auth = pubkey")
        }
    };
    let read = |name: &str| std::fs::read_to_string(lab.dir().join(name));
    let secret = match row.proof {
        Proof::Psk => format!(
            "  ike-1 {{\n    secret = \"{}\"\n  }}\n",
            read("gw1.psk")?.trim()
        ),
        Proof::EapMschapv2 => format!(
            "  eap-1 {{\n    id = {USER}\n    secret = \"{}\"\n  }}\n",
            read("user.password")?.trim()
        ),
        Proof::Ecdsa | Proof::Rsa | Proof::EapTls => String::new(),
    };
    Ok(format!(
        "connections {{
  {CHILD} {{
    version = 2
    proposals = {ike}
    rekey_time = 0
{connection}    local {{
      {ours}
      id = {local}
    }}
    remote {{
      {theirs}
      id = {remote}
    }}
    children {{
      {CHILD} {{
        esp_proposals = {esp}
        rekey_time = 0
{child}      }}
    }}
  }}
}}
secrets {{
{secret}}}
",
        ike = row.cipher.theirs_ike(),
        esp = row.cipher.theirs_esp(),
    ))
}

/// `swanctl.conf` of either role, for whoever needs no more than that it is there.
pub(super) fn with_psk(
    psk: &str,
    [local, remote]: [&str; 2],
    connection: &str,
    child: &str,
) -> String {
    format!(
        "connections {{
  {name} {{
    version = 2
    proposals = aes256gcm16-prfsha256-x25519
    rekey_time = 0
{connection}    local {{
      auth = psk
      id = {local}.example
    }}
    remote {{
      auth = psk
      id = {remote}.example
    }}
    children {{
      {name} {{
        esp_proposals = aes256gcm16-x25519
        rekey_time = 0
{child}      }}
    }}
  }}
}}
pools {{
  v4 {{
    addrs = {CLIENT_INNER}/32
  }}
}}
secrets {{
  ike-1 {{
    secret = \"{psk}\"
  }}
}}
",
        name = CHILD,
    )
}
