//! What is combined with what.

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// evergate.
    Us,
    /// strongSwan.
    Them,
}

/// How both sides prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Psk,
    /// Certificates of ECDSA keys on P-256, both sides.
    Ecdsa,
    /// Certificates of RSA keys of 2048 bits, both sides.
    Rsa,
    /// A name and a password; the gateway by an ECDSA certificate.
    EapMschapv2,
    /// The client by its ECDSA certificate in TLS 1.2, the gateway by its own in IKE and in TLS.
    EapTls,
}

/// What goes through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inner {
    V4,
    V6,
}

/// Cipher of ESP and IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes256Gcm,
    Aes128Gcm,
    ChaCha20,
}

/// Which keys are renewed, and who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rekey {
    Child(Side),
    Ike(Side),
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) begins: Side,
    pub(super) proof: Proof,
    pub(super) rekey: Rekey,
    /// A NAT before the client. Without one, ESP goes in UDP all the same: charon's userspace ESP
    /// makes both sides believe in one.
    pub(super) nat: bool,
    pub(super) inner: Inner,
    pub(super) cipher: Cipher,
    pub(super) deletes: Side,
}

impl Side {
    pub(super) const ALL: [Side; 2] = [Side::Us, Side::Them];

    pub(super) fn name(self) -> &'static str {
        match self {
            Side::Us => "evergate",
            Side::Them => "strongswan",
        }
    }
}

impl Proof {
    pub(super) const ALL: [Proof; 5] = [
        Proof::Psk,
        Proof::Ecdsa,
        Proof::Rsa,
        Proof::EapMschapv2,
        Proof::EapTls,
    ];

    /// evergate speaks EAP only as the side that checks.
    pub(super) fn begun_by(self, side: Side) -> bool {
        !(self.is_eap() && side == Side::Us)
    }

    /// The client is a user.
    pub(super) fn is_eap(self) -> bool {
        matches!(self, Proof::EapMschapv2 | Proof::EapTls)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Proof::Psk => "psk",
            Proof::Ecdsa => "ecdsa",
            Proof::Rsa => "rsa",
            Proof::EapMschapv2 => "eap_mschapv2",
            Proof::EapTls => "eap_tls",
        }
    }

    /// In what charon logs of how evergate has proven itself.
    pub(super) fn logged(self) -> &'static str {
        match self {
            Proof::Psk => "pre-shared key successful",
            Proof::Ecdsa | Proof::EapMschapv2 | Proof::EapTls => "ECDSA_WITH_SHA256_DER successful",
            Proof::Rsa => "RSA_EMSA_PSS_SHA2_256_SALT_32 successful",
        }
    }
}

impl Inner {
    pub(super) const ALL: [Inner; 2] = [Inner::V4, Inner::V6];
}

impl Cipher {
    pub(super) const ALL: [Cipher; 3] = [Cipher::Aes256Gcm, Cipher::Aes128Gcm, Cipher::ChaCha20];

    /// For ESP, in evergate's configuration.
    pub(super) fn ours(self) -> String {
        format!("{}-esn-noesn", self.theirs())
    }

    /// For IKE, in strongSwan's.
    pub(super) fn theirs_ike(self) -> String {
        format!("{}-prfsha256-x25519", self.theirs())
    }

    /// For ESP, in strongSwan's; the group is for later rekeys.
    pub(super) fn theirs_esp(self) -> String {
        format!("{}-x25519", self.theirs())
    }

    fn theirs(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes256gcm16",
            Cipher::Aes128Gcm => "aes128gcm16",
            Cipher::ChaCha20 => "chacha20poly1305",
        }
    }

    /// In what `swanctl --list-sas` says of a child SA.
    pub(super) fn listed(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "ESP:AES_GCM_16-256",
            Cipher::Aes128Gcm => "ESP:AES_GCM_16-128",
            Cipher::ChaCha20 => "ESP:CHACHA20_POLY1305",
        }
    }
}

impl Rekey {
    pub(super) const ALL: [Rekey; 4] = [
        Rekey::Child(Side::Us),
        Rekey::Child(Side::Them),
        Rekey::Ike(Side::Us),
        Rekey::Ike(Side::Them),
    ];

    /// In evergate's configuration: small lifetimes, if it is to begin.
    pub(super) fn lifetimes(self) -> &'static str {
        match self {
            Rekey::Child(Side::Us) => "\n[ike]\nrekey_child = \"2s\"\nrekey_jitter = 0\n",
            Rekey::Ike(Side::Us) => "\n[ike]\nrekey_ike = \"2s\"\nrekey_jitter = 0\n",
            Rekey::Child(Side::Them) | Rekey::Ike(Side::Them) => "",
        }
    }
}

impl Row {
    /// For who is not about combinations: what is usual, beside these two.
    pub(super) fn of(begins: Side, proof: Proof) -> Row {
        Row {
            begins,
            proof,
            rekey: Rekey::Child(Side::Them),
            nat: false,
            inner: Inner::V4,
            cipher: Cipher::Aes256Gcm,
            deletes: Side::Them,
        }
    }

    pub(super) fn name(&self) -> String {
        let mut words = vec![super::NAME, self.proof.name(), self.begins.name(), "begins"];
        words.push(match self.inner {
            Inner::V4 => "ipv4",
            Inner::V6 => "ipv6",
        });
        words.push(match self.cipher {
            Cipher::Aes256Gcm => "aes256gcm",
            Cipher::Aes128Gcm => "aes128gcm",
            Cipher::ChaCha20 => "chacha20",
        });
        words.extend(self.nat.then_some("nat"));
        match self.rekey {
            Rekey::Child(side) => words.extend([side.name(), "rekeys_child"]),
            Rekey::Ike(side) => words.extend([side.name(), "rekeys_ike"]),
        }
        words.extend([self.deletes.name(), "deletes"]);
        words.join("_")
    }
}
