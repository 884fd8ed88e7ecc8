//! The members of an etcd cluster, of whom one is asked as long as it answers.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::time::timeout;

use super::super::{Tls, User};

/// How long one member may take for an answer.
const ANSWER: Duration = Duration::from_secs(1);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_millis(500);

/// A cluster. The client's own way of using all members at once tells a dead one's error for each third request.
#[derive(Clone)]
pub(super) struct Members {
    endpoints: Vec<String>,
    options: ConnectOptions,
    /// They are to be asked over TLS.
    tls: bool,
    current: usize,
    client: Option<Client>,
}

impl Members {
    pub(super) fn new(endpoints: &[String], tls: Option<&Tls>, user: Option<&User>) -> Self {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_timeout(ANSWER)
            .with_keep_alive(ANSWER, ANSWER)
            // A member that knows of no leader is to say so at once.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(User { name, password }) = user {
            options = options.with_user(name.as_str(), password.as_str());
        }
        if let Some(tls) = tls {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.authority));
            if let Some((certificate, key)) = &tls.identity {
                with = with.identity(Identity::from_pem(certificate, key.as_slice()));
            }
            if let Some(name) = &tls.name {
                with = with.domain_name(name);
            }
            options = options.with_tls(with);
        }
        Self {
            endpoints: endpoints.to_vec(),
            options,
            tls: tls.is_some(),
            current: 0,
            client: None,
        }
    }

    /// Asks one member after the other, beginning with the one that answered last, and each once. A question may
    /// be heard by more than one of them, and at any time later.
    pub(super) async fn ask<T>(
        &mut self,
        question: impl AsyncFn(&mut Client) -> Result<T, Error>,
    ) -> Result<T, String> {
        let mut why = String::new();
        for _ in 0..self.endpoints.len() {
            let Some(endpoint) = self.endpoints.get(self.current) else {
                break;
            };
            let client = &mut self.client;
            let first = client.is_none();
            let options = &self.options;
            let answer = timeout(ANSWER, async {
                let mut with = match client.take() {
                    Some(client) => client,
                    None => Client::connect([endpoint], Some(options.clone())).await?,
                };
                let answer = question(&mut with).await?;
                *client = Some(with);
                Ok::<_, Error>(answer)
            });
            let problem = match answer.await {
                Ok(Ok(answer)) => return Ok(answer),
                // In TLS 1.3 a member looks at our certificate when we take the connection to be made already. What it
                // says about it is lost if our question comes after it has closed.
                Ok(Err(error)) if self.tls && first && is_closed(&error) => {
                    format!("{}; does it accept our certificate?", words(&error))
                }
                Ok(Err(error)) => words(&error),
                Err(_) => "no answer".to_owned(),
            };
            let comma = if why.is_empty() { "" } else { ", " };
            let _ = write!(why, "{comma}{endpoint}: {problem}");
            self.current = (self.current + 1) % self.endpoints.len();
        }
        match why.is_empty() {
            true => Err("no endpoints are given".to_owned()),
            false => Err(why),
        }
    }
}

/// The member has closed the connection, without a word.
fn is_closed(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else {
        return false;
    };
    let mut behind = status.source();
    while let Some(error) = behind {
        behind = error.source();
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // Whatever TLS has to say comes as `InvalidData`.
            return matches!(
                error.kind(),
                ErrorKind::BrokenPipe
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::ConnectionReset
                    | ErrorKind::UnexpectedEof
            );
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_canceled() || error.is_closed())
        {
            return true;
        }
    }
    false
}

/// What went wrong, and what was behind that.
fn words(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else {
        return error.to_string();
    };
    let mut words = status.message().to_owned();
    let mut behind = status.source();
    while let Some(error) = behind {
        behind = error.source();
        let text = error.to_string();
        if behind.is_none() && !words.contains(&text) {
            words = format!("{words}: {text}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::generate_simple_self_signed;
    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A member that closes each connection when the handshake is over, and its certificate.
    async fn closing() -> (String, Vec<u8>) {
        let own = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(acceptor.accept(stream).await);
            }
        });
        (format!("localhost:{port}"), own.cert.pem().into_bytes())
    }

    #[tokio::test]
    async fn who_closes_after_the_handshake_may_not_like_our_certificate() {
        let (closing, authority) = closing().await;
        // Nobody is there: that has nothing to do with certificates.
        let nobody = "localhost:9".to_owned();
        let tls = Tls {
            authority,
            identity: None,
            name: None,
        };
        for (endpoint, certificate) in [(closing, true), (nobody, false)] {
            let mut members = Members::new(std::slice::from_ref(&endpoint), Some(&tls), None);
            for _ in 0..50 {
                let asked = members.ask(async |client: &mut Client| client.get("a", None).await);
                let why = asked.await.expect_err("nobody answers");
                assert!(why.starts_with(&endpoint), "{why}");
                assert_eq!(why.contains("certificate"), certificate, "{why}");
            }
        }
    }
}
