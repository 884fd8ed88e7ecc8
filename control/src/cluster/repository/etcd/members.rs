//! The members of an etcd cluster, of whom one is asked as long as it answers.

use std::error::Error as _;
use std::fmt::Write as _;
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
